//! A log in memory: the whole contract, for tests and previews. Durable means held by this value; closing it, or
//! dropping it, loses all.
//!
//! A commit is carried out within the call, so every [`Pending`] is ready at once. Memory is bounded by the topics'
//! retention and by [`crate::Log::trim`] only: it is not meant for what does not end.

mod partition;
mod reader;
mod store;

use std::sync::Arc;

use futures::future::BoxFuture;
use millstream_event::{Name, Offset, TopicPartition};
use parking_lot::Mutex;

use self::reader::MemoryReader;
use self::store::Store;
use crate::clock::{Clock, SystemClock};
use crate::{
    AbortReason, Commit, Epoch, Error, Groups, Join, Lead, Log, Membership, Outcome, Pending, Position, Reader, Task,
    TaskId, TopicInfo, TopicKind, TopicSpec,
};

/// A log in memory. Cheap to clone: clones share.
#[derive(Debug, Clone)]
pub struct MemoryLog {
    store: Arc<Mutex<Store>>,
    groups: Groups,
    clock: Arc<dyn Clock>,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// An empty log whose retention follows `clock`.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { store: Arc::default(), groups: Groups::new(Epoch(0)), clock }
    }

    /// Stops accepting commits, as after a failed write: for tests of what happens then.
    pub fn stop(&self, why: &str) {
        self.store.lock().stopped.get_or_insert_with(|| why.to_owned());
    }

    fn commit_now(&self, commit: Commit) -> Outcome {
        let mut store = self.store.lock();
        if let Some(why) = &store.stopped {
            return Outcome::Aborted(AbortReason::Stopped(why.clone()));
        }
        if !self.groups.is_current(&commit.task, commit.epoch) {
            return Outcome::Fenced;
        }
        if store.failed.get(&commit.task) == Some(&commit.epoch) {
            return Outcome::Aborted(AbortReason::Predecessor);
        }
        let (task, epoch) = (commit.task.clone(), commit.epoch);
        match store.commit(commit, self.clock.now_us()) {
            Ok(committed) => Outcome::Committed(committed),
            Err(reason) => {
                store.failed.insert(task, epoch);
                Outcome::Aborted(reason)
            }
        }
    }
}

impl Log for MemoryLog {
    fn create_topic(&self, spec: TopicSpec) -> BoxFuture<'_, Result<TopicInfo, Error>> {
        Box::pin(async move { self.store.lock().create_topic(spec) })
    }

    fn topics(&self) -> Vec<TopicInfo> {
        self.store.lock().topics.values().map(|topic| topic.info.clone()).collect()
    }

    fn topic(&self, name: &Name) -> Option<TopicInfo> {
        self.store.lock().topics.get(name).map(|topic| topic.info.clone())
    }

    fn read(&self, at: &TopicPartition, from: Offset) -> Result<Box<dyn Reader>, Error> {
        let mut store = self.store.lock();
        let table = store.topic(&at.topic)?.info.spec.kind == TopicKind::Table;
        let partition = store.partition_mut(at)?;
        if from < partition.start {
            return Err(Error::OutOfRange { at: at.clone(), asked: from, start: partition.start });
        }
        let grown = partition.grown.subscribe();
        let progress = table.then(|| partition.readers.enter());
        Ok(Box::new(MemoryReader::new(self.store.clone(), at.clone(), from, progress, grown)))
    }

    fn join(&self, join: Join) -> Result<Box<dyn Membership>, Error> {
        let tasks = match &join.lead {
            Lead::Tasks(tasks) => *tasks,
            Lead::Topic(name) => self.topic(name).ok_or_else(|| Error::UnknownTopic(name.clone()))?.spec.partitions,
        };
        Ok(self.groups.join(join.service, join.instance, tasks))
    }

    fn commit(&self, commit: Commit) -> Pending {
        Pending::ready(self.commit_now(commit))
    }

    fn restart(&self, task: &Task) -> BoxFuture<'_, Result<Option<Task>, Error>> {
        let renewed = self.groups.restart(task);
        if renewed.is_some() {
            self.store.lock().failed.remove(&task.id);
        }
        Box::pin(async move { Ok(renewed) })
    }

    fn position(&self, task: &TaskId, input: &Name) -> BoxFuture<'_, Result<Option<Position>, Error>> {
        let position = self.store.lock().positions.get(&(task.clone(), input.clone())).cloned();
        Box::pin(async move { Ok(position) })
    }

    fn start(&self, at: &TopicPartition) -> BoxFuture<'_, Result<Offset, Error>> {
        let start = self.store.lock().partition(at).map(|partition| partition.start);
        Box::pin(async move { start })
    }

    fn end(&self, at: &TopicPartition) -> BoxFuture<'_, Result<Offset, Error>> {
        let end = self.store.lock().partition(at).map(|partition| partition.end);
        Box::pin(async move { end })
    }

    fn trim(&self, at: &TopicPartition, before: Offset) -> BoxFuture<'_, Result<(), Error>> {
        let done = self.store.lock().partition_mut(at).map(|partition| partition.trim(before));
        Box::pin(async move { done })
    }

    fn stopped(&self) -> Option<String> {
        self.store.lock().stopped.clone()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.stop("the log is closed");
        Box::pin(async { Ok(()) })
    }
}

//! The log embedded in the binary: a journal shared by all partitions that settles into files per partition.
//!
//! ```text
//! commit() ── encoded and hashed on the caller's thread ──> stage ──> committer: one write, one sync, one answer for all
//!                                                                        │
//!                              readers <── tail cache <── index <────────┤
//!                                 ▲                                      ▼
//!                                 └── settled files <── settler <── sealed segments ──> recycled
//! ```
//! Nothing is visible before it is durable; the files of one log have one writer, held by a lock file.

pub mod backup;
mod block;
mod bytes_io;
mod checkpoint;
mod committer;
mod compact;
mod compaction;
mod damaged;
mod ease;
mod frame;
#[cfg(feature = "testing")]
pub mod fuzzing;
mod group_header;
mod index;
mod inspect;
mod layout;
mod mend;
mod open;
mod options;
mod pace;
mod prepare;
mod reader;
mod rebuild;
mod recover;
mod repair;
mod retention;
mod segment;
mod settled_file;
mod settler;
mod shared;
mod space;
mod stage;
mod state;
mod sweep;
mod walk;
mod writer;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use futures::future::BoxFuture;
use millstream_event::{Name, Offset, TopicPartition};
use parking_lot::Mutex;

use self::committer::Committer;
use self::frame::{Content, Frame};
pub use self::inspect::{Lost, Problem, Report, Stat, TopicStat, stat, verify};
use self::layout::Layout;
#[cfg(any(test, feature = "sabotage"))]
pub use self::options::Sabotage;
pub use self::options::{Options, SyncMode};
use self::prepare::Preparer;
use self::reader::EmbeddedReader;
pub use self::repair::{is_free, repair};
use self::settler::Settler;
use self::shared::Shared;
use self::stage::{Admission, Closing};
use crate::evolution::{SpecChange, check_rows, spec_change};
use crate::vfs::{Lock, LockError, OpenOptions};
use crate::{
    AbortReason, Commit, Error, Join, Lead, Log, Membership, Outcome, Pending, Position, Reader, Task, TaskId,
    TopicInfo, TopicSpec,
};

/// The embedded log. Dropping it stops its threads after what waits is written; [`Log::close`] also notes that all is
/// durable, so that the next opening can tell damage from an interruption.
#[derive(Debug)]
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    lock: Mutex<Option<Box<dyn Lock>>>,
    /// One change of topics at a time.
    creating: tokio::sync::Mutex<()>,
    warning: Option<String>,
}

/// What a log that was opened for reading only says to a commit.
const READ_ONLY: &str = "it is open for reading only";

impl EmbeddedLog {
    /// Opens the log in `options.dir`, or makes one.
    ///
    /// # Errors
    /// [`Error::Locked`] where another process has it, [`Error::Corrupt`] where durable bytes do not read back,
    /// [`Error::TooNew`] where a later version wrote it, and [`Error::Io`].
    pub fn open(options: Options) -> Result<Self, Error> {
        let layout = Layout::new(&options.dir);
        let lock = open::lock(&options, &layout)?;
        let warning = open::exposed(&options, &layout);
        let mut found = open::read_or_make(&options, &layout)?;
        let writer = open::begin_segment(&options, &layout, &mut found)?;
        let opened = open::index(&layout, found, Some(&writer.segment));
        let sealed = opened.sealed.iter().map(|sealed| sealed.end).sum();
        let preparer = Preparer::new(&options, &layout, writer.segment.clone(), writer.at, sealed);
        let shared = Shared::new(options, layout, opened.epoch_last, opened.topics, preparer);
        *shared.stage.lock() = opened.stage;
        *shared.sealed.lock() = opened.sealed.into();
        shared.counters.group.store(writer.seq, Ordering::Relaxed);
        let committer = Committer::new(shared.clone(), writer);
        let settler = Settler::new(shared.clone(), opened.checkpoint);
        let prepared = shared.clone();
        let threads = vec![
            spawn("log-commit", move || committer.run())?,
            spawn("log-settle", move || settler.run())?,
            spawn("log-prepare", move || prepared.preparer.run())?,
        ];
        Ok(Self {
            shared,
            threads: Mutex::new(threads),
            lock: Mutex::new(Some(lock)),
            creating: tokio::sync::Mutex::new(()),
            warning,
        })
    }

    /// Opens the log in `options.dir` for reading only: nothing is locked and nothing is changed. Commits are refused.
    ///
    /// # Errors
    /// As [`EmbeddedLog::open`]; also [`Error::Locked`] where a process has the log open: ask that one instead.
    pub fn open_read_only(options: Options) -> Result<Self, Error> {
        let layout = Layout::new(&options.dir);
        let checkpoint = inspect::checkpoint(&options, &layout)?;
        match options.vfs.lock(&layout.lock()) {
            // Only to see whether somebody has it. Where no lock can be made, nobody can write either.
            Ok(lock) => drop(lock),
            Err(LockError::Held { pid }) => return Err(Error::Locked { dir: layout.dir, pid }),
            Err(LockError::Io(_)) => {}
        }
        let found = recover::recover(options.vfs.as_ref(), &layout, checkpoint, options.checks_chain())?;
        let opened = open::index(&layout, found, None);
        let path = layout.segment(0);
        let file =
            options.vfs.open(&layout.checkpoint(), OpenOptions::READ).map_err(walk::io_error("opening", &path))?;
        let none = Arc::new(segment::Segment { id: 0, path, file, capacity: 0 });
        let preparer = Preparer::new(&options, &layout, none, 0, 0);
        let shared = Shared::new(options, layout, opened.epoch_last, opened.topics, preparer);
        *shared.stage.lock() = opened.stage;
        shared.stop(READ_ONLY);
        let (threads, lock, creating) = (Mutex::default(), Mutex::default(), tokio::sync::Mutex::new(()));
        Ok(Self { shared, threads, lock, creating, warning: None })
    }

    /// What somebody should look at although the log opened, if there is anything.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// The settings.
    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// What was done since opening.
    pub fn counts(&self) -> Counts {
        let counters = &self.shared.counters;
        Counts {
            groups: counters.groups.load(Ordering::Relaxed),
            commits: counters.commits.load(Ordering::Relaxed),
            syncs: counters.syncs.load(Ordering::Relaxed),
            settled_bytes: counters.settled_bytes.load(Ordering::Relaxed),
            compacted_bytes: counters.compacted_bytes.load(Ordering::Relaxed),
            disk_bytes: self.shared.preparer.used(),
        }
    }

    /// What the log takes on the disk now.
    pub fn stat(&self) -> Stat {
        let mut topics: Vec<TopicStat> = self.shared.topics.read().by_id.values().map(|topic| topic.stat()).collect();
        topics.sort_by(|a, b| a.topic.cmp(&b.topic));
        let segments = self.waiting_to_settle() as u64 + 1;
        let preparer = &self.shared.preparer;
        let group = self.shared.counters.group.load(Ordering::Relaxed);
        Stat { topics, segments, segment_bytes: preparer.used_segments(), segments_free: preparer.spares(), group }
    }

    /// How many full segments wait to be settled.
    pub fn waiting_to_settle(&self) -> usize {
        self.shared.sealed.lock().len()
    }

    /// Whether nothing goes on in the background: all full segments are settled, and no table is compacted.
    pub fn is_at_rest(&self) -> bool {
        let sealed = self.shared.sealed.lock();
        sealed.is_empty() && self.shared.resting.load(Ordering::Acquire)
    }

    fn encode(&self, commit: Commit) -> Result<Frame, AbortReason> {
        let mut ids = Vec::with_capacity(commit.appends.len());
        let topics = self.shared.topics.read();
        for append in &commit.appends {
            let refuse = |why: String| AbortReason::Refused(format!("append to `{}`: {why}", append.topic));
            let at = TopicPartition { topic: append.topic.clone(), partition: append.partition };
            let (topic, _) = topics.partition(&at).map_err(|e| refuse(e.to_string()))?;
            let version = append.schema_version;
            let schema =
                topic.schema(version).ok_or_else(|| refuse(format!("there is no schema version {version}")))?;
            if append.rows.num_rows() == 0 && append.watermark.is_none() {
                return Err(refuse("it has neither events nor a watermark".to_owned()));
            }
            check_rows(&append.rows, &schema).map_err(refuse)?;
            ids.push(topic.id);
        }
        drop(topics);
        Frame::of_commit(commit, &ids, self.shared.buffer())
    }

    /// Hands a frame of the log's own over and waits until it is durable.
    async fn note(&self, content: Content) -> Result<(), Error> {
        let frame = Frame::of_content(content).map_err(Error::Refused)?;
        let admission = self.shared.stage.lock().admit(Ok(frame), true);
        self.shared.work.notify_one();
        let outcome = match admission {
            Admission::Yes(pending) => pending.await,
            Admission::No(outcome) => outcome,
        };
        match outcome {
            Outcome::Committed(_) => Ok(()),
            Outcome::Aborted(AbortReason::Stopped(reason)) | Outcome::Unknown(reason) => Err(Error::Stopped { reason }),
            Outcome::Aborted(reason) => Err(Error::Refused(reason.to_string())),
            Outcome::Fenced => Err(Error::Refused("fenced".into())),
        }
    }

    async fn make_topic(&self, spec: TopicSpec) -> Result<TopicInfo, Error> {
        if spec.partitions == 0 {
            return Err(Error::Refused(format!("topic `{}` needs at least one partition", spec.name)));
        }
        let _one = self.creating.lock().await;
        if let Some(reason) = self.stopped() {
            return Err(Error::Stopped { reason });
        }
        let name = spec.name.clone();
        let existing = self.shared.topics.read().by_name.get(&name).cloned();
        let (id, schema_version) = match existing {
            Some(topic) => {
                let info = topic.info();
                match spec_change(&info.spec, &spec)? {
                    SpecChange::None => return Ok(info),
                    SpecChange::Settings => (topic.id, info.schema_version),
                    SpecChange::Columns => (topic.id, info.schema_version + 1),
                }
            }
            None => {
                let topics = self.shared.topics.read();
                (topics.by_id.last_key_value().map_or(1, |(id, _)| id + 1), 1)
            }
        };
        self.note(Content::Topic { id, schema_version, spec: Box::new(spec) }).await?;
        self.topic(&name).ok_or(Error::UnknownTopic(name))
    }

    /// Waits until everything handed over for a task is settled.
    async fn settled(&self, task: &TaskId) {
        let wait = self.shared.stage.lock().wait_settled(task);
        if let Some(wait) = wait {
            // An error means that the log has stopped.
            drop(wait.await);
        }
    }

    fn end_threads(&self, closing: Closing) {
        self.shared.stage.lock().closing.get_or_insert(closing);
        self.shared.work.notify_all();
        self.shared.ending.store(true, Ordering::Release);
        // Under its lock, so that the settler cannot miss it.
        drop(self.shared.sealed.lock());
        self.shared.settle_now.notify_all();
        self.shared.preparer.close();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.join().is_err() {
                tracing::error!("a thread of the log has panicked");
            }
        }
        *self.lock.lock() = None;
    }
}

/// What a log has done since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Groups with commits.
    pub groups: u64,
    /// Commits.
    pub commits: u64,
    /// Syncs of the journal.
    pub syncs: u64,
    /// Bytes written to settled files.
    pub settled_bytes: u64,
    /// Bytes of them that compactions of tables have written.
    pub compacted_bytes: u64,
    /// Bytes on the disk now.
    pub disk_bytes: u64,
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    thread.map_err(|e| Error::Stopped { reason: format!("no thread can be started: {e}") })
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.end_threads(Closing::Dropped);
    }
}

impl Log for EmbeddedLog {
    fn create_topic(&self, spec: TopicSpec) -> BoxFuture<'_, Result<TopicInfo, Error>> {
        Box::pin(self.make_topic(spec))
    }

    fn topics(&self) -> Vec<TopicInfo> {
        let mut all: Vec<TopicInfo> = self.shared.topics.read().by_name.values().map(|t| t.info()).collect();
        all.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        all
    }

    fn topic(&self, name: &Name) -> Option<TopicInfo> {
        self.shared.topics.read().by_name.get(name).map(|topic| topic.info())
    }

    fn read(&self, at: &TopicPartition, from: Offset) -> Result<Box<dyn Reader>, Error> {
        let (topic, partition) = self.shared.topics.read().partition(at)?;
        let start = Offset(partition.contents.lock().start);
        if from < start {
            return Err(Error::OutOfRange { at: at.clone(), asked: from, start });
        }
        Ok(Box::new(EmbeddedReader::new(self.shared.options.vfs.clone(), topic, partition, from)))
    }

    fn join(&self, join: Join) -> Result<Box<dyn Membership>, Error> {
        let tasks = match &join.lead {
            Lead::Tasks(tasks) => *tasks,
            Lead::Topic(name) => self.topic(name).ok_or_else(|| Error::UnknownTopic(name.clone()))?.spec.partitions,
        };
        Ok(self.shared.groups.join(join.service, join.instance, tasks))
    }

    fn commit(&self, commit: Commit) -> Pending {
        let (task, epoch) = (commit.task.clone(), commit.epoch);
        let frame = self.encode(commit).map_err(|reason| (task.clone(), epoch, reason));
        let admission = {
            let mut stage = self.shared.stage.lock();
            // Under the lock, so that an epoch cannot end between the question and the queue.
            let current = self.shared.is_current(&task, epoch);
            stage.admit(frame, current)
        };
        match admission {
            Admission::Yes(pending) => {
                self.shared.work.notify_one();
                pending
            }
            Admission::No(outcome) => Pending::ready(outcome),
        }
    }

    fn restart(&self, task: &Task) -> BoxFuture<'_, Result<Option<Task>, Error>> {
        let task = task.clone();
        Box::pin(async move {
            self.shared.stage.lock().refuse_from_now(&task);
            self.settled(&task.id).await;
            if let Some(reason) = self.stopped() {
                return Err(Error::Stopped { reason });
            }
            Ok(self.shared.groups.restart(&task))
        })
    }

    fn position(&self, task: &TaskId, input: &Name) -> BoxFuture<'_, Result<Option<Position>, Error>> {
        let (task, input) = (task.clone(), input.clone());
        Box::pin(async move {
            self.settled(&task).await;
            let stage = self.shared.stage.lock();
            Ok(stage.tasks.get(&task).and_then(|state| state.durable.get(&input)).cloned())
        })
    }

    fn start(&self, at: &TopicPartition) -> BoxFuture<'_, Result<Offset, Error>> {
        let found = self.shared.topics.read().partition(at);
        Box::pin(async move { found.map(|(_, partition)| Offset(partition.contents.lock().start)) })
    }

    fn end(&self, at: &TopicPartition) -> BoxFuture<'_, Result<Offset, Error>> {
        let found = self.shared.topics.read().partition(at);
        Box::pin(async move { found.map(|(_, partition)| Offset(partition.contents.lock().end)) })
    }

    fn trim(&self, at: &TopicPartition, before: Offset) -> BoxFuture<'_, Result<(), Error>> {
        let found = self.shared.topics.read().partition(at);
        Box::pin(async move {
            let (topic, partition) = found?;
            let before = before.min(Offset(partition.contents.lock().end));
            self.note(Content::Trim { topic: topic.id, partition: partition.at.partition.0, before }).await
        })
    }

    fn stopped(&self) -> Option<String> {
        self.shared.stage.lock().stopped.clone()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let before = self.stopped();
            self.end_threads(Closing::Orderly);
            match before.filter(|why| why != shared::CLOSED && why != READ_ONLY) {
                Some(reason) => Err(Error::Stopped { reason }),
                None => Ok(()),
            }
        })
    }
}

#[cfg(test)]
mod tests;

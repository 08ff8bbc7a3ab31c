//! When tables are compacted, and how the result takes the place of what it was made of.
//!
//! 1. When as many bytes have come to a partition as were left after its last compaction (and [`super::Options`]'
//!    `compact_bytes` more), all its settled files are merged, by a thread of its own: commits, readers and the settling
//!    of other segments go on. So a table takes about twice its live rows, and each byte is written about twice.
//! 2. The files made are on the disk under names of their own; the checkpoint that names them instead of the old ones
//!    makes them count; then readers find them, and the old ones are removed. A crash before leaves the old ones.
//! 3. A tombstone is left out when every consumer and every reader at work has passed it, so that nobody who has seen
//!    a row misses that it is gone. Where one came meanwhile, the files made are thrown away.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use millstream_event::Offset;

use super::checkpoint::{Checkpoint, SettledMeta};
use super::compact::{Job, Made};
use super::index::{Contents, Partition, Topic};
use super::retention::limits;
use super::settled_file::SettledFile;
use super::settler::{Failure, Settler};
use crate::{Error, TopicKind, TopicSpec};

/// The compaction at work, if there is one.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    running: Option<Running>,
    /// Partitions, by topic, with files that do not read back: they are left alone until the log is opened again.
    given_up: BTreeSet<(u32, u32)>,
    /// After one that found no space.
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Running {
    partition: Arc<Partition>,
    inputs: Vec<Arc<SettledFile>>,
    worker: JoinHandle<Result<Made, Failure>>,
}

impl Compaction {
    /// Whether nothing may be added to a settled file: it is being merged, or was made by a merge.
    pub(super) fn holds(&self, partition: &Arc<Partition>, file: &SettledMeta) -> bool {
        let merged = |running: &Running| {
            Arc::ptr_eq(&running.partition, partition) && running.inputs.iter().any(|input| input.meta == *file)
        };
        file.generation > 0 || self.running.as_ref().is_some_and(merged)
    }

    /// Waits for the thread, which ends soon when the log does.
    pub(super) fn end(&mut self) {
        if let Some(running) = self.running.take()
            && running.worker.join().is_err()
        {
            tracing::error!("a compaction has panicked");
        }
    }
}

impl Settler {
    /// Takes over what a compaction has made, and begins the next where one is due.
    pub(super) fn compact(&mut self) -> Result<(), Failure> {
        if let Some(running) = self.compaction.running.take_if(|running| running.worker.is_finished()) {
            self.conclude(running)?;
        }
        let now = Instant::now();
        let may = self.compaction.running.is_none() && self.compaction.not_before.is_none_or(|at| now >= at);
        if may && let Some((topic, partition)) = self.due() {
            self.begin(topic, partition)?;
        }
        Ok(())
    }

    /// A partition of which more has come than was left.
    fn due(&self) -> Option<(Arc<Topic>, Arc<Partition>)> {
        let topics = self.shared.topics.read();
        let tables = topics.by_id.values().filter(|topic| topic.with_info(|info| info.spec.kind == TopicKind::Table));
        for topic in tables {
            for partition in &topic.partitions {
                let id = (partition.topic, partition.at.partition.0);
                let due = is_due(&partition.contents.lock(), self.shared.options.compact_bytes);
                if due && !self.compaction.given_up.contains(&id) {
                    return Some((topic.clone(), partition.clone()));
                }
            }
        }
        None
    }

    fn begin(&mut self, topic: Arc<Topic>, partition: Arc<Partition>) -> Result<(), Failure> {
        let limits = limits(&self.shared, &topic, partition.at.partition.0);
        let Some((version, spec)) = self.settled_version(&topic) else { return Ok(()) };
        let contents = partition.contents.lock();
        let inputs: Vec<Arc<SettledFile>> = contents.files.iter().cloned().collect();
        let job = Job {
            shared: self.shared.clone(),
            topic,
            partition: partition.clone(),
            version,
            spec,
            generation: inputs.iter().map(|file| file.meta.generation).max().unwrap_or(0) + 1,
            files: inputs.clone(),
            limits,
            start: contents.start,
            passed: contents.readers.passed(),
        };
        drop(contents);
        let work = move || {
            let made = job.run();
            job.shared.settle_now.notify_one();
            made
        };
        let worker = std::thread::Builder::new().name("log-compact".into()).spawn(work);
        let worker = worker.map_err(|e| Error::Stopped { reason: format!("no thread can be started: {e}") })?;
        self.compaction.running = Some(Running { partition, inputs, worker });
        Ok(())
    }

    /// The newest version of a topic's columns that the checkpoint knows.
    fn settled_version(&self, topic: &Topic) -> Option<(u32, TopicSpec)> {
        #[cfg(any(test, feature = "sabotage"))]
        if self.shared.options.broken(super::options::Sabotage::CompactAhead) {
            let newest = topic.with_info(|info| (info.schema_version, info.spec.clone()));
            let settled = self.checkpoint.state.topics.get(&topic.id)?;
            return (newest.0 as usize > settled.versions.len()).then_some(newest);
        }
        let settled = self.checkpoint.state.topics.get(&topic.id)?;
        Some((settled.versions.len() as u32, settled.spec.clone()))
    }

    fn conclude(&mut self, running: Running) -> Result<(), Failure> {
        let Running { partition, inputs, worker } = running;
        let made = match worker.join() {
            Ok(Ok(made)) => made,
            Ok(Err(failure)) => return self.compaction_failed(&partition, failure),
            Err(_) => return Err(Error::Stopped { reason: "a compaction has panicked".into() }.into()),
        };
        let Some(next) = self.with_made(&partition, &inputs, &made) else {
            self.discard(&partition, &made);
            return Ok(());
        };
        match self.save(next) {
            Ok(()) => {
                self.swap(&partition, inputs, &made);
                Ok(())
            }
            Err(failure) => {
                partition.contents.lock().swapping = false;
                if matches!(failure, Failure::NoSpace(_)) {
                    // Nothing names them; where the failure came later, the checkpoint may.
                    self.discard(&partition, &made);
                }
                self.compaction_failed(&partition, failure)
            }
        }
    }

    /// The checkpoint with what was made; `None` where that does not fit any more. Readers do not begin until it is
    /// there.
    fn with_made(&self, partition: &Partition, inputs: &[Arc<SettledFile>], made: &Made) -> Option<Checkpoint> {
        let mut next = self.checkpoint.clone();
        let list = next.files.get_mut(&partition.topic)?.get_mut(&partition.at.partition.0)?;
        let before = list.get(..inputs.len())?;
        if !before.iter().eq(inputs.iter().map(|input| &input.meta)) {
            return None;
        }
        list.splice(..inputs.len(), made.files.iter().cloned());
        let mut contents = partition.contents.lock();
        if made.tombstone.is_some_and(|last| contents.readers.passed() <= last) {
            return None;
        }
        contents.swapping = true;
        drop(contents);
        Some(next)
    }

    /// Lets readers find what was made, and removes what it was made of.
    fn swap(&self, partition: &Partition, inputs: Vec<Arc<SettledFile>>, made: &Made) {
        let mut contents = partition.contents.lock();
        let replaced = inputs.len().min(contents.files.len());
        contents.files.drain(..replaced);
        for meta in made.files.iter().rev() {
            let path = self.path(partition, meta);
            contents.files.push_front(Arc::new(SettledFile { path, meta: meta.clone() }));
        }
        contents.swapping = false;
        drop(contents);
        for input in inputs {
            self.remove(&input.path);
        }
    }

    fn path(&self, partition: &Partition, meta: &SettledMeta) -> std::path::PathBuf {
        let at = &partition.at;
        self.shared.layout.settled(&at.topic, at.partition.0, Offset(meta.base), meta.generation)
    }

    fn discard(&self, partition: &Partition, made: &Made) {
        made.files.iter().for_each(|meta| self.remove(&self.path(partition, meta)));
    }

    fn remove(&self, path: &std::path::Path) {
        // What stays behind is not in the checkpoint, and is removed by the next opening.
        if let Err(error) = self.shared.options.vfs.remove(path) {
            tracing::warn!(path = %path.display(), %error, "a file that a compaction has replaced stays");
        }
    }

    fn compaction_failed(&mut self, partition: &Partition, failure: Failure) -> Result<(), Failure> {
        match failure {
            Failure::NoSpace(why) => {
                tracing::warn!(%why, table = %partition.at, "no space to compact a table; it is tried again");
                self.compaction.not_before = Some(Instant::now() + self.shared.options.tidy_every);
                Ok(())
            }
            Failure::Final(error @ Error::Corrupt { .. }) => {
                tracing::error!(%error, table = %partition.at, "a table is not compacted any more: `log repair` mends it");
                self.compaction.given_up.insert((partition.topic, partition.at.partition.0));
                Ok(())
            }
            Failure::Later(why) => {
                tracing::debug!(%why, table = %partition.at, "a table is compacted later");
                self.compaction.not_before = Some(Instant::now() + self.shared.options.tidy_every);
                Ok(())
            }
            Failure::Ending => Ok(()),
            failure @ Failure::Final(_) => Err(failure),
        }
    }
}

/// Whether more has come than was left after the last compaction.
fn is_due(contents: &Contents, floor: u64) -> bool {
    let sum = |made: bool| {
        let files = contents.files.iter().filter(|file| (file.meta.generation > 0) == made);
        files.map(|file| file.meta.raw).sum::<u64>()
    };
    sum(false) > sum(true) + floor
}

//! When tables are compacted, and how the result takes the place of what it was made of.
//!
//! 1. When as many bytes have come to a partition as were left after its last compaction (and [`super::Options`]'
//!    `compact_bytes` more), all its settled files are merged, by a thread of its own: commits, readers and the settling
//!    of other segments go on. So a table takes about twice its live rows, and each byte is written about twice. While
//!    sources are refused for want of room, the partition to which most has come is merged, however little that is
//!    (`pace` decides).
//! 2. The files made are on the disk under names of their own; the checkpoint that names them instead of the old ones
//!    makes them count; then readers find them, and the old ones are removed. A crash before leaves the old ones.
//! 3. A tombstone is left out when every consumer and every reader at work has passed it, so that nobody who has seen
//!    a row misses that it is gone. Where one came meanwhile, the files made are thrown away.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millstream_event::Offset;

use super::checkpoint::{Checkpoint, SettledMeta};
use super::compact::{Job, Made};
use super::index::{Contents, Partition, Topic};
use super::pace::{self, Pauses, Weight};
use super::retention::{limits, read_by_all};
use super::settled_file::SettledFile;
use super::settler::{Failure, Settler};
use super::space::Room;
use crate::{Error, TopicKind, TopicSpec};

/// The compaction at work, if there is one.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    running: Option<Running>,
    /// Partitions, by topic, with files that do not read back: they are left alone until the log is opened again.
    given_up: BTreeSet<(u32, u32)>,
    /// Partitions that wait, because a compaction of theirs found no space or gained nothing.
    pauses: Pauses,
}

#[derive(Debug)]
struct Running {
    partition: Arc<Partition>,
    inputs: Vec<Arc<SettledFile>>,
    /// Whether it was begun for want of room.
    scarce: bool,
    worker: JoinHandle<Result<Made, Failure>>,
}

/// What is to be compacted.
struct Due {
    topic: Arc<Topic>,
    partition: Arc<Partition>,
    /// Whether for want of room.
    scarce: bool,
    /// Whether it should have begun before.
    late: bool,
}

impl Compaction {
    /// Whether nothing may be added to a settled file: it is being merged, or was made by a merge.
    pub(super) fn holds(&self, partition: &Arc<Partition>, file: &SettledMeta) -> bool {
        let merged = |running: &Running| {
            Arc::ptr_eq(&running.partition, partition) && running.inputs.iter().any(|input| input.meta == *file)
        };
        file.generation > 0 || self.running.as_ref().is_some_and(merged)
    }

    /// Whether files of a partition are being merged: none of them may go meanwhile, also where all of it was trimmed.
    pub(super) fn merges(&self, partition: &Arc<Partition>) -> bool {
        self.running.as_ref().is_some_and(|running| Arc::ptr_eq(&running.partition, partition))
    }

    /// Whether there is one at work, or one that was not concluded.
    pub(super) fn works(&self) -> bool {
        self.running.is_some()
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
        if self.compaction.running.is_none()
            && let Some(due) = self.due()
        {
            self.begin(due)?;
        }
        Ok(())
    }

    /// The partition that is to be compacted now.
    fn due(&self) -> Option<Due> {
        let topics = self.shared.topics.read();
        let is_table = |topic: &&Arc<Topic>| topic.with_info(|info| info.spec.kind == TopicKind::Table);
        let tables = topics.by_id.values().filter(is_table);
        let partitions = tables.flat_map(|topic| topic.partitions.iter().map(move |partition| (topic, partition)));
        let all: Vec<_> = partitions.collect();
        let floor = self.shared.options.compact_floor(all.len() as u64);
        let scarce = !all.is_empty() && self.shared.preparer.room() != Room::Plenty;
        let now = Instant::now();
        let held = |id| self.compaction.given_up.contains(&id) || self.compaction.pauses.holds(id, now);
        let may = all.into_iter().filter(|(_, partition)| !held(id_of(partition)));
        let weighed = may.map(|found| (weigh(&found.1.contents.lock()), found));
        let (weight, (topic, partition)) = pace::choose(weighed, floor, scarce)?;
        Some(Due { topic: topic.clone(), partition: partition.clone(), scarce, late: weight.is_late(floor) })
    }

    /// Whether there is space for a second copy of these files beside a segment of the journal; else why not.
    fn has_space(&self, inputs: &[Arc<SettledFile>]) -> Result<(), String> {
        let need = inputs.iter().map(|file| file.meta.len).sum::<u64>() + self.shared.options.segment_len();
        match self.shared.options.vfs.free_space(&self.shared.layout.dir) {
            Ok(free) if free < need => Err(format!("{need} bytes are needed meanwhile, {free} are free")),
            // Where nobody knows, the compaction finds out.
            _ => Ok(()),
        }
    }

    fn begin(&mut self, due: Due) -> Result<(), Failure> {
        let Due { topic, partition, scarce, late } = due;
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
            hurry: late,
        };
        drop(contents);
        if let Err(why) = self.has_space(&inputs) {
            return self.compaction_failed(&partition, Failure::NoSpace(why));
        }
        let work = move || {
            let made = job.run();
            job.shared.settle_now.notify_one();
            made
        };
        let worker = std::thread::Builder::new().name("log-compact".into()).spawn(work);
        let worker = worker.map_err(|e| Error::Stopped { reason: format!("no thread can be started: {e}") })?;
        self.compaction.running = Some(Running { partition, inputs, scarce, worker });
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
        let Running { partition, inputs, scarce, worker } = running;
        let made = match worker.join() {
            Ok(Ok(made)) => made,
            Ok(Err(failure)) => return self.compaction_failed(&partition, unsettling(failure)),
            Err(_) => return Err(Error::Stopped { reason: "a compaction has panicked".into() }.into()),
        };
        let Some(next) = self.with_made(&partition, &inputs, &made) else {
            self.discard(&partition, &made);
            return Ok(());
        };
        #[cfg(any(test, feature = "sabotage"))]
        if self.shared.options.broken(super::options::Sabotage::CompactHasty) {
            self.remove_all(inputs.iter().map(|input| input.path.as_path()));
        }
        match self.save(next) {
            Ok(()) => {
                let raw = |metas: &mut dyn Iterator<Item = &SettledMeta>| metas.map(|meta| meta.raw).sum::<u64>();
                let before = raw(&mut inputs.iter().map(|input| &input.meta));
                let futile = scarce && pace::is_futile(before, raw(&mut made.files.iter()));
                self.swap(&partition, inputs, &made);
                match futile {
                    true => drop(self.hold(&partition)),
                    false => self.compaction.pauses.end(id_of(&partition)),
                }
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
        // A consumer that was added meanwhile may have read the row and gone: from here on none begins.
        let topic = self.shared.topics.read().by_id.get(&partition.topic).cloned();
        let read = topic.map_or(0, |topic| read_by_all(&self.shared, &topic, partition.at.partition.0));
        if made.tombstone.is_some_and(|last| read <= last) {
            partition.contents.lock().swapping = false;
            return None;
        }
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
        self.remove_all(inputs.iter().map(|input| input.path.as_path()));
    }

    fn path(&self, partition: &Partition, meta: &SettledMeta) -> std::path::PathBuf {
        let at = &partition.at;
        self.shared.layout.settled(&at.topic, at.partition.0, Offset(meta.base), meta.generation)
    }

    fn discard(&self, partition: &Partition, made: &Made) {
        let paths: Vec<_> = made.files.iter().map(|meta| self.path(partition, meta)).collect();
        self.remove_all(paths.iter().map(|path| path.as_path()));
    }

    /// Leaves a partition alone for a while, each time for twice as long; answers how long.
    fn hold(&mut self, partition: &Partition) -> Duration {
        self.compaction.pauses.hold(id_of(partition), self.shared.options.tidy_every, Instant::now())
    }

    fn compaction_failed(&mut self, partition: &Partition, failure: Failure) -> Result<(), Failure> {
        match failure {
            Failure::NoSpace(why) => {
                let again_in = self.hold(partition);
                tracing::warn!(%why, table = %partition.at, ?again_in, "no space to compact a table; it is tried again");
                Ok(())
            }
            Failure::Final(error @ Error::Corrupt { .. }) => {
                tracing::error!(%error, table = %partition.at, "a table is not compacted any more: `log repair` mends it");
                self.compaction.given_up.insert((partition.topic, partition.at.partition.0));
                Ok(())
            }
            Failure::Later(why) => {
                let again_in = self.hold(partition);
                tracing::warn!(%why, table = %partition.at, ?again_in, "a table was not compacted; it is tried again");
                Ok(())
            }
            Failure::Ending => Ok(()),
            failure @ Failure::Final(_) => Err(failure),
        }
    }
}

/// What the thread's failure means: nothing counts of what it wrote, so a disk that does not answer stops nobody.
fn unsettling(failure: Failure) -> Failure {
    match failure {
        Failure::Final(error @ Error::Io { .. }) => Failure::Later(error.to_string()),
        other => other,
    }
}

fn id_of(partition: &Partition) -> (u32, u32) {
    (partition.topic, partition.at.partition.0)
}

/// What has come to a partition, and what was left after its last compaction.
fn weigh(contents: &Contents) -> Weight {
    let sum = |made: bool| {
        let files = contents.files.iter().filter(|file| (file.meta.generation > 0) == made);
        files.map(|file| file.meta.raw).sum::<u64>()
    };
    Weight { come: sum(false), left: sum(true) }
}

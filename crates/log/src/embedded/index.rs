//! What is in each partition and where: settled files first, then batches that are still in the journal only.
//!
//! Invariants: files and entries are in the order of their offsets and do not overlap; an entry is here only when it is
//! durable; `start <= end`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use arrow_array::RecordBatch;
use millstream_event::{Mark, Name, Schema, TopicPartition};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::inspect::TopicStat;
use super::segment::Segment;
use super::settled_file::SettledFile;
use crate::newest::Readers;
use crate::promises::Promises;
use crate::{Error, TopicInfo, TopicSpec};

/// A durable append that is not settled yet.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) base: u64,
    pub(super) rows: u32,
    pub(super) schema_version: u32,
    /// What its producer promised with it: one mark, or none.
    pub(super) marks: Arc<[Mark]>,
    /// When its group was made.
    pub(super) time: i64,
    pub(super) segment: Arc<Segment>,
    /// Where its events are in the segment.
    pub(super) at: u64,
    pub(super) len: u32,
    pub(super) crc: u32,
    /// The bytes of all events that the partition got before, since opening.
    pub(super) before: u64,
    /// The events, while they are among the newest.
    pub(super) cached: Option<RecordBatch>,
}

impl Entry {
    /// Behind its last offset; an append without rows takes one.
    pub(super) fn next(&self) -> u64 {
        self.base + u64::from(self.rows.max(1))
    }
}

/// What one partition holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) start: u64,
    pub(super) end: u64,
    /// The bytes of all events that came since opening, and those found then.
    bytes: u64,
    pub(super) files: VecDeque<Arc<SettledFile>>,
    pub(super) entries: VecDeque<Entry>,
    pub(super) promises: Promises,
    /// Of a table: who must not miss a tombstone.
    pub(super) readers: Readers,
    /// Files are being replaced: no reader begins.
    pub(super) swapping: bool,
}

/// Where an offset is found.
pub(super) enum Place {
    /// Before the first that is kept.
    Gone {
        start: u64,
    },
    Entry(Entry),
    File(Arc<SettledFile>),
    /// Not there yet.
    End,
}

impl Contents {
    /// Where the first event at or behind `from` is.
    pub(super) fn find(&self, from: u64) -> Place {
        if from < self.start {
            return Place::Gone { start: self.start };
        }
        if from >= self.end {
            return Place::End;
        }
        if self.entries.front().is_none_or(|first| from < first.base) {
            let at = self.files.partition_point(|file| file.next() <= from);
            if let Some(file) = self.files.get(at) {
                return Place::File(file.clone());
            }
        }
        let at = self.entries.partition_point(|entry| entry.next() <= from);
        self.entries.get(at).cloned().map_or(Place::End, Place::Entry)
    }

    /// Lets go of a batch that is no longer among the newest.
    pub(super) fn uncache(&mut self, base: u64) {
        let at = self.entries.partition_point(|entry| entry.base < base);
        if let Some(entry) = self.entries.get_mut(at).filter(|entry| entry.base == base) {
            entry.cached = None;
        }
    }

    /// Takes a durable append in.
    pub(super) fn push(&mut self, mut entry: Entry) {
        self.end = entry.next();
        for mark in entry.marks.iter() {
            self.promises.note(mark, self.end);
        }
        entry.before = self.bytes;
        self.bytes += u64::from(entry.len);
        self.entries.push_back(entry);
    }

    /// The bytes of events at or behind `from`.
    pub(super) fn bytes_from(&self, from: u64) -> u64 {
        let at = self.entries.partition_point(|entry| entry.next() <= from);
        let unsettled = self.entries.get(at).map_or(0, |entry| self.bytes - entry.before);
        let files = self.files.iter().rev().take_while(|file| file.next() > from);
        unsettled + files.map(|file| file.raw_from(from)).sum::<u64>()
    }

    /// Advances the start, never behind the end, and lets go of entries before it. Files stay until retention has
    /// removed them durably.
    pub(super) fn advance_start(&mut self, before: u64) {
        self.start = self.start.max(before.min(self.end));
        while self.entries.front().is_some_and(|entry| entry.next() <= self.start) {
            self.entries.pop_front();
        }
    }
}

/// One partition of one topic.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) topic: u32,
    pub(super) at: TopicPartition,
    pub(super) contents: Mutex<Contents>,
    /// Tells readers the end whenever it grows.
    pub(super) grown: watch::Sender<u64>,
}

/// A topic.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) id: u32,
    definition: RwLock<(TopicInfo, Vec<Schema>)>,
    pub(super) partitions: Vec<Arc<Partition>>,
}

impl Topic {
    pub(super) fn new(id: u32, spec: TopicSpec, versions: Vec<Schema>) -> Self {
        let partition = |number| {
            let at = TopicPartition::new(spec.name.clone(), number);
            Arc::new(Partition { topic: id, at, contents: Mutex::default(), grown: watch::Sender::new(0) })
        };
        let partitions = (0..spec.partitions).map(partition).collect();
        let info = TopicInfo { spec, schema_version: versions.len() as u32 };
        Self { id, definition: RwLock::new((info, versions)), partitions }
    }

    pub(super) fn info(&self) -> TopicInfo {
        self.definition.read().0.clone()
    }

    /// What it takes on the disk.
    pub(super) fn stat(&self) -> TopicStat {
        let mut stat = TopicStat::empty(self.with_info(|info| info.spec.name.clone()));
        for partition in &self.partitions {
            let contents = partition.contents.lock();
            contents.files.iter().for_each(|file| stat.add_file(&file.meta));
            stat.journal_events += contents.entries.iter().map(|entry| u64::from(entry.rows)).sum::<u64>();
            stat.journal_bytes += contents.entries.iter().map(|entry| u64::from(entry.len)).sum::<u64>();
        }
        stat
    }

    /// Calls `f` with the definition, without a copy.
    pub(super) fn with_info<T>(&self, f: impl FnOnce(&TopicInfo) -> T) -> T {
        f(&self.definition.read().0)
    }

    /// The columns of a version of the schema.
    pub(super) fn schema(&self, version: u32) -> Option<Schema> {
        let versions = &self.definition.read().1;
        (version as usize).checked_sub(1).and_then(|i| versions.get(i)).cloned()
    }

    /// The newest version's number and columns.
    pub(super) fn newest(&self) -> (u32, Schema) {
        let definition = self.definition.read();
        (definition.0.schema_version, definition.0.spec.schema.clone())
    }

    pub(super) fn change(&self, schema_version: u32, spec: TopicSpec) {
        let mut definition = self.definition.write();
        if schema_version as usize > definition.1.len() {
            definition.1.push(spec.schema.clone());
        }
        definition.0 = TopicInfo { schema_version: definition.1.len() as u32, spec };
    }
}

/// All topics.
#[derive(Debug, Default)]
pub(super) struct Topics {
    pub(super) by_name: HashMap<Name, Arc<Topic>>,
    pub(super) by_id: BTreeMap<u32, Arc<Topic>>,
}

impl Topics {
    pub(super) fn add(&mut self, topic: Arc<Topic>) {
        self.by_name.insert(topic.info().spec.name, topic.clone());
        self.by_id.insert(topic.id, topic);
    }

    pub(super) fn partition_by_id(&self, topic: u32, partition: u32) -> Option<&Arc<Partition>> {
        self.by_id.get(&topic)?.partitions.get(partition as usize)
    }

    pub(super) fn partition(&self, at: &TopicPartition) -> Result<(Arc<Topic>, Arc<Partition>), Error> {
        let topic = self.by_name.get(&at.topic).ok_or_else(|| Error::UnknownTopic(at.topic.clone()))?;
        let partition = topic.partitions.get(at.partition.0 as usize);
        Ok((topic.clone(), partition.ok_or_else(|| Error::UnknownPartition(at.clone()))?.clone()))
    }
}

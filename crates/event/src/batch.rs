//! A batch: events of one topic partition in Arrow columns.

use std::fmt;

use arrow_array::RecordBatch;

use crate::name::Name;

/// The system column behind the user's columns: when the event entered the pipeline, in microseconds since 1970 UTC.
/// `now()` in SQL reads it, so that a replayed event computes what it computed the first time.
pub const INGESTED_AT: &str = "__ingested_at";

/// A partition's number, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct PartitionId(pub u32);

/// An event's place in its partition. Offsets grow but need not be dense.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Offset(pub u64);

/// No event with an earlier event time is still expected; microseconds since 1970 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Watermark(pub i64);

impl Watermark {
    /// What a producer promises that has opened and knows no time yet: nothing.
    pub const OPEN: Self = Self(i64::MIN);
    /// What a producer says that has nothing for now: others do not wait for it until it promises a time again.
    pub const IDLE: Self = Self(i64::MAX - 1);
    /// What a producer promises that will never produce again.
    pub const CLOSED: Self = Self(i64::MAX);

    /// The time, where this is one.
    pub fn time(self) -> Option<i64> {
        (self != Self::OPEN && self < Self::IDLE).then_some(self.0)
    }
}

/// Who appends to a topic: a source or service, and its own input partition; never an instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Producer {
    /// The source or service.
    pub name: Name,
    /// The partition that its task reads.
    pub partition: PartitionId,
}

/// What a producer promised with an append.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Mark {
    /// The producer.
    pub producer: Producer,
    /// Its promise for this partition, from behind these events on.
    pub watermark: Watermark,
}

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Name,
    /// The partition.
    pub partition: PartitionId,
}

impl TopicPartition {
    /// Names partition `partition` of `topic`.
    pub fn new(topic: Name, partition: u32) -> Self {
        Self { topic, partition: PartitionId(partition) }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition.0)
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Events of one topic partition, as a reader hands them out. Cheap to clone: columns are shared.
///
/// Row `i` has the offset `base.0 + i`: a batch never spans a gap. The columns are those of
/// [`crate::Schema::physical`]: the topic's, then the system's.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The offset of row 0.
    pub base: Offset,
    /// The version of the topic's schema that the columns have, from 1.
    pub schema_version: u32,
    /// The columns; at least one row.
    pub rows: RecordBatch,
    /// What the producer promised with this append, if it did.
    pub watermark: Option<Watermark>,
}

impl Batch {
    /// The offset behind the last row.
    pub fn next(&self) -> Offset {
        Offset(self.base.0 + self.rows.num_rows() as u64)
    }

    /// The part from offset `from` on; `None` where nothing is left.
    pub fn from_offset(&self, from: Offset) -> Option<Self> {
        if from <= self.base {
            return Some(self.clone());
        }
        let skip = usize::try_from(from.0 - self.base.0).ok().filter(|n| *n < self.rows.num_rows())?;
        let rows = self.rows.slice(skip, self.rows.num_rows() - skip);
        Some(Self { base: from, rows, ..self.clone() })
    }
}

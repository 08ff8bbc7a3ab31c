//! A batch: events of one topic partition in Arrow columns.

use std::fmt;
use std::sync::Arc;

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
/// The columns are those of [`crate::Schema::physical`]: the topic's, then the system's. A batch without rows carries
/// marks only; its `base` is where reading goes on.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The offset of row 0.
    pub base: Offset,
    /// The version of the topic's schema that the columns have, from 1.
    pub schema_version: u32,
    /// The columns.
    pub rows: RecordBatch,
    /// The offset of each row, growing, where they are not dense; `None`: row `i` has `base + i`.
    pub offsets: Option<Arc<[u64]>>,
    /// What producers promised up to here, at most one mark for each: they hold from behind the last row on.
    pub marks: Arc<[Mark]>,
}

impl Batch {
    /// Rows that stand one behind the other from `base` on, without marks.
    pub fn dense(base: Offset, schema_version: u32, rows: RecordBatch) -> Self {
        Self { base, schema_version, rows, offsets: None, marks: Arc::default() }
    }

    /// The offset of a row; of one behind the last row, the offset behind the last row.
    pub fn offset(&self, row: usize) -> Offset {
        let Some(offsets) = &self.offsets else { return Offset(self.base.0 + row as u64) };
        let behind = || offsets.last().map_or(self.base.0, |last| last + 1);
        Offset(offsets.get(row).copied().unwrap_or_else(behind))
    }

    /// The offset behind the last row; `base` where there are no rows.
    pub fn next(&self) -> Offset {
        self.offset(self.rows.num_rows())
    }

    /// The rows from offset `from` on, with the marks; without rows, and with `from` as its base, where all are before.
    #[must_use]
    pub fn from_offset(&self, from: Offset) -> Self {
        if from <= self.base {
            return self.clone();
        }
        self.rows_from(self.rows_before(from), from)
    }

    /// The rows before offset `to`. The marks hold behind all rows only, so they stay only where all rows do.
    #[must_use]
    pub fn before_offset(&self, to: Offset) -> Self {
        let rows = self.rows_before(to);
        if rows == self.rows.num_rows() {
            return self.clone();
        }
        let offsets = self.offsets.as_ref().map(|all| all.iter().take(rows).copied().collect());
        Self { rows: self.rows.slice(0, rows), offsets, marks: Arc::default(), ..self.clone() }
    }

    /// How many rows stand before an offset.
    fn rows_before(&self, offset: Offset) -> usize {
        match &self.offsets {
            Some(offsets) => offsets.partition_point(|row| *row < offset.0),
            None => usize::try_from(offset.0.saturating_sub(self.base.0)).unwrap_or(usize::MAX),
        }
        .min(self.rows.num_rows())
    }

    fn rows_from(&self, skip: usize, from: Offset) -> Self {
        let rows = self.rows.slice(skip, self.rows.num_rows() - skip);
        let base = if rows.num_rows() == 0 { from } else { self.offset(skip) };
        let offsets = self.offsets.as_ref().map(|all| all.iter().skip(skip).copied().collect());
        Self { base, rows, offsets, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::Int32Array;
    use arrow_array::cast::AsArray as _;
    use arrow_array::types::Int32Type;

    use super::*;

    fn batch(base: u64, offsets: Option<&[u64]>, rows: i32) -> Batch {
        let column: arrow_array::ArrayRef = Arc::new(Int32Array::from_iter_values(0..rows));
        let rows = RecordBatch::try_from_iter([("n", column)]).unwrap();
        let producer = Producer { name: Name::new("s").unwrap(), partition: PartitionId(0) };
        let marks = [Mark { producer, watermark: Watermark(7) }].into();
        Batch { base: Offset(base), schema_version: 1, rows, offsets: offsets.map(Arc::from), marks }
    }

    fn told(batch: &Batch) -> (Vec<(u64, i32)>, u64, usize) {
        let numbers = batch.rows.column(0).as_primitive::<Int32Type>().values().iter();
        let rows = numbers.enumerate().map(|(row, n)| (batch.offset(row).0, *n)).collect();
        (rows, batch.next().0, batch.marks.len())
    }

    #[test]
    fn rows_keep_their_offsets_however_a_batch_is_cut() {
        for batch in [batch(5, None, 4), batch(5, Some(&[5, 6, 9, 20]), 4)] {
            let (whole, next, _) = told(&batch);
            assert_eq!(next, whole[3].0 + 1);
            for at in 0..25 {
                let (behind, before) = (told(&batch.from_offset(Offset(at))), told(&batch.before_offset(Offset(at))));
                let (want_behind, want_before): (Vec<_>, Vec<_>) = whole.iter().partition(|(offset, _)| *offset >= at);
                assert_eq!((&behind.0, behind.2), (&want_behind, 1), "marks stand behind the rows");
                assert_eq!(behind.1, if want_behind.is_empty() { at } else { next });
                assert_eq!(before.0, want_before);
                assert_eq!(before.2, usize::from(want_behind.is_empty()), "a mark never stands before its rows");
            }
        }
    }

    #[test]
    fn a_batch_of_marks_says_where_reading_goes_on() {
        let marks = batch(8, None, 0);
        assert_eq!(told(&marks), (vec![], 8, 1));
        assert_eq!(told(&marks.from_offset(Offset(3))), (vec![], 8, 1));
    }
}

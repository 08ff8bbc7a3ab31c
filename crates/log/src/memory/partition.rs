//! One partition in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::BooleanArray;
use arrow_select::filter::filter_record_batch;
use millstream_event::{Batch, Mark, Offset, Producer};
use tokio::sync::watch;

use crate::evolution::upgrade;
use crate::newest::{Newest, Readers};
use crate::promises::Promises;
use crate::{Append, Error, TaskId, TopicSpec};

/// A table's partition is compacted when so many bytes more have come than were left the last time.
const COMPACT_BYTES: u64 = 256 << 10;

/// The events of one partition, oldest first.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) start: Offset,
    pub(super) end: Offset,
    /// Tells readers the end whenever it grows.
    pub(super) grown: watch::Sender<Offset>,
    kept: VecDeque<Kept>,
    promises: Promises,
    /// Of a table: who must not miss a tombstone.
    pub(super) readers: Readers,
    /// Of a table: the bytes that the last compaction left, and those that have come since.
    left: u64,
    come: u64,
}

#[derive(Debug)]
struct Kept {
    batch: Batch,
    /// Behind the last offset that the append took. One without rows takes one, so that its watermark has a place.
    next: Offset,
    bytes: u64,
    at_us: i64,
}

impl Kept {
    /// Lets go of all rows but these.
    fn keep(&mut self, mask: &BooleanArray) -> Result<(), Error> {
        let offsets: Arc<[u64]> = mask.values().set_indices().map(|row| self.batch.offset(row).0).collect();
        let rows = filter_record_batch(&self.batch.rows, mask).map_err(|e| Error::Refused(e.to_string()))?;
        self.bytes = rows.get_array_memory_size() as u64;
        let base = offsets.first().map_or(self.next, |first| Offset(*first));
        self.batch = Batch { base, rows, offsets: Some(offsets), ..self.batch.clone() };
        Ok(())
    }
}

impl Partition {
    pub(super) fn new() -> Self {
        let grown = watch::Sender::new(Offset(0));
        Self {
            start: Offset(0),
            end: Offset(0),
            grown,
            kept: VecDeque::new(),
            promises: Promises::default(),
            readers: Readers::default(),
            left: 0,
            come: 0,
        }
    }

    /// Takes a task's events in and says where they stand. The caller has checked them.
    pub(super) fn append(&mut self, task: &TaskId, append: Append, at_us: i64) -> Offset {
        let base = self.end;
        let bytes = append.rows.get_array_memory_size() as u64;
        self.end = Offset(base.0 + append.rows.num_rows().max(1) as u64);
        let Append { schema_version, rows, watermark, .. } = append;
        let producer = || Producer { name: task.service.clone(), partition: task.partition };
        let marks: Arc<[Mark]> =
            watermark.into_iter().map(|watermark| Mark { producer: producer(), watermark }).collect();
        marks.iter().for_each(|mark| self.promises.note(mark, self.end.0));
        let first = if rows.num_rows() == 0 { self.end } else { base };
        let batch = Batch { marks, ..Batch::dense(first, schema_version, rows) };
        self.kept.push_back(Kept { batch, next: self.end, bytes, at_us });
        self.come += bytes;
        base
    }

    /// The next events, or marks, from `from` on in one append, with where to go on behind them.
    pub(super) fn next_at(&self, from: Offset) -> Option<(Batch, Offset)> {
        let first = self.kept.partition_point(|kept| kept.next <= from);
        let kept = self.kept.range(first..).map(|kept| (kept.batch.from_offset(from), kept.next));
        kept.into_iter().find(|(batch, _)| batch.rows.num_rows() > 0 || !batch.marks.is_empty())
    }

    /// What was promised before `from`.
    pub(super) fn promised_before(&self, from: Offset) -> Arc<[Mark]> {
        self.promises.before(from.0)
    }

    /// Lets go of all events before `before`.
    pub(super) fn trim(&mut self, before: Offset) {
        self.start = self.start.max(before.min(self.end));
        while self.kept.front().is_some_and(|kept| kept.next <= self.start) {
            self.kept.pop_front();
        }
    }

    /// Lets go of appends older than `older_than_us` of which nothing is at or behind `unread`.
    pub(super) fn expire(&mut self, older_than_us: i64, unread: Offset) {
        let gone = |kept: &Kept| kept.at_us < older_than_us && kept.next <= unread;
        let before = self.kept.iter().take_while(|kept| gone(kept)).last().map(|kept| kept.next);
        if let Some(before) = before {
            self.trim(before);
        }
    }

    /// Whether, as the partition of a table, it has got more than its last compaction left.
    pub(super) fn is_due(&self) -> bool {
        self.come > self.left + COMPACT_BYTES
    }

    /// Keeps the newest row of each key, and no tombstone that is older than `older_than_us` and before `unread`.
    pub(super) fn compact(&mut self, spec: &TopicSpec, older_than_us: i64, unread: Offset) -> Result<(), Error> {
        let Some(mut newest) = Newest::of(spec) else { return Ok(()) };
        let unread = unread.0.min(self.readers.passed());
        let mut masks = Vec::with_capacity(self.kept.len());
        for kept in self.kept.iter().rev() {
            let rows = upgrade(&kept.batch.rows, &spec.schema)?;
            let goes = |row| kept.at_us < older_than_us && kept.batch.offset(row).0 < unread;
            masks.push(newest.keep(&rows, goes)?);
        }
        let (mut left, mut promises) = (VecDeque::new(), Promises::default());
        let last = self.kept.back().map(|kept| kept.next);
        for (mut kept, mask) in std::mem::take(&mut self.kept).into_iter().zip(masks.into_iter().rev()) {
            kept.batch.marks.iter().for_each(|mark| promises.note(mark, kept.next.0));
            if mask.true_count() == 0 && Some(kept.next) != last {
                // Its marks go with what follows it.
                continue;
            }
            kept.keep(&mask)?;
            kept.batch.marks = std::mem::take(&mut promises).marks();
            left.push_back(kept);
        }
        self.kept = left;
        (self.left, self.come) = (self.kept.iter().map(|kept| kept.bytes).sum(), 0);
        Ok(())
    }

    /// The bytes at or behind `unread`.
    pub(super) fn bytes_from(&self, unread: Offset) -> u64 {
        self.kept.iter().rev().take_while(|kept| kept.next > unread).map(|kept| kept.bytes).sum()
    }
}

//! One partition in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use millstream_event::{Batch, Mark, Offset, Producer};
use tokio::sync::watch;

use crate::promises::Promises;
use crate::{Append, TaskId};

/// The events of one partition, oldest first.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) start: Offset,
    pub(super) end: Offset,
    /// Tells readers the end whenever it grows.
    pub(super) grown: watch::Sender<Offset>,
    kept: VecDeque<Kept>,
    promises: Promises,
}

#[derive(Debug)]
struct Kept {
    batch: Batch,
    /// Behind the last offset that the append took. One without rows takes one, so that its watermark has a place.
    next: Offset,
    bytes: u64,
    at_us: i64,
}

impl Partition {
    pub(super) fn new() -> Self {
        let grown = watch::Sender::new(Offset(0));
        Self { start: Offset(0), end: Offset(0), grown, kept: VecDeque::new(), promises: Promises::default() }
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
        base
    }

    /// The events from `from` on in one append, with where to go on behind them.
    pub(super) fn at(&self, from: Offset) -> Option<(Batch, Offset)> {
        let first = self.kept.partition_point(|kept| kept.next <= from);
        let kept = self.kept.get(first)?;
        Some((kept.batch.from_offset(from), kept.next))
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

    /// The bytes at or behind `unread`.
    pub(super) fn bytes_from(&self, unread: Offset) -> u64 {
        self.kept.iter().rev().take_while(|kept| kept.next > unread).map(|kept| kept.bytes).sum()
    }
}

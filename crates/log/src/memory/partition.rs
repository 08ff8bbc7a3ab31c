//! One partition in memory.

use std::collections::VecDeque;

use millstream_event::{Batch, Offset};
use tokio::sync::watch;

use crate::Append;

/// The events of one partition, oldest first.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) start: Offset,
    pub(super) end: Offset,
    /// Tells readers the end whenever it grows.
    pub(super) grown: watch::Sender<Offset>,
    kept: VecDeque<Kept>,
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
        Self { start: Offset(0), end: Offset(0), grown, kept: VecDeque::new() }
    }

    /// Takes events in and says where they stand. The caller has checked them.
    pub(super) fn append(&mut self, append: Append, at_us: i64) -> Offset {
        let base = self.end;
        let bytes = append.rows.get_array_memory_size() as u64;
        self.end = Offset(base.0 + append.rows.num_rows().max(1) as u64);
        let Append { schema_version, rows, watermark, .. } = append;
        let batch = Batch { base, schema_version, rows, watermark };
        self.kept.push_back(Kept { batch, next: self.end, bytes, at_us });
        base
    }

    /// The events from `from` on in one append, with where to go on behind them.
    pub(super) fn at(&self, from: Offset) -> Option<(Batch, Offset)> {
        let first = self.kept.partition_point(|kept| kept.next <= from);
        let kept = self.kept.get(first)?;
        let batch = if from <= kept.batch.base { Some(kept.batch.clone()) } else { kept.batch.from_offset(from) };
        Some((batch?, kept.next))
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

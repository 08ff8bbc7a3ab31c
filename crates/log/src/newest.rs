//! Which rows of a table topic's partition are kept: the newest of each key.
//!
//! Rows are shown newest first, so that one pass decides. Of each key that was seen there are the 16 bytes of a hash under
//! keys of chance, made anew for each pass: two keys never meet by design, and by accident once in 2^64 passes over a
//! billion keys.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arrow_array::{BooleanArray, RecordBatch};
use millstream_event::{Partitioner, Schema, Stamp};

use crate::{Error, TopicSpec};

/// A pass over the rows of a partition, newest first.
#[derive(Debug)]
pub(crate) struct Newest {
    key: Partitioner,
    chance: (RandomState, RandomState),
    seen: HashSet<u128, BuildHasherDefault<Hashed>>,
}

impl Newest {
    /// A pass over rows with the columns of `spec`; `None` where the topic has no key and all rows are kept.
    pub(crate) fn of(spec: &TopicSpec) -> Option<Self> {
        let key = Partitioner::new(&spec.schema, &spec.key, spec.partitions).ok()?;
        Some(Self { key, chance: (RandomState::new(), RandomState::new()), seen: HashSet::default() })
    }

    /// Which of these rows are kept; all of them are older than those of the calls before. `tombstone_goes` is asked for
    /// tombstones that are the newest row of their key. A row without a key is kept.
    pub(crate) fn keep(
        &mut self,
        rows: &RecordBatch,
        tombstone_goes: impl Fn(usize) -> bool,
    ) -> Result<BooleanArray, Error> {
        let mut hashes = Vec::with_capacity(rows.num_rows());
        let hash = |_, key: Option<&[u8]>| {
            let half = |state: &RandomState, key: &[u8]| u128::from(state.hash_one(key));
            hashes.push(key.map(|key| half(&self.chance.0, key) << 64 | half(&self.chance.1, key)));
        };
        self.key.each_key(rows, hash).map_err(|e| Error::Refused(format!("the key of a table's rows: {e}")))?;
        let stamps = Schema::ingested_at(rows);
        let is_deleted = |row| stamps.is_some_and(|stamps| Stamp(stamps.value(row)).is_deleted());
        let mut keep = vec![true; rows.num_rows()];
        for (row, (keep, hash)) in keep.iter_mut().zip(&hashes).enumerate().rev() {
            let Some(hash) = hash else { continue };
            *keep = self.seen.insert(*hash) && !(is_deleted(row) && tombstone_goes(row));
        }
        Ok(keep.into())
    }
}

/// Takes a hash for its own hash.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, n: u128) {
        self.0 = n as u64;
    }
}

/// The readers of a partition of a table. One that has read a row must also see the tombstone that came later, so a
/// tombstone goes only when all of them have passed it.
#[derive(Debug, Default)]
pub(crate) struct Readers(Vec<Weak<AtomicU64>>);

/// How far a reader is.
#[derive(Debug)]
pub(crate) struct Progress(Arc<AtomicU64>);

impl Readers {
    /// Takes in a reader that has not begun.
    pub(crate) fn enter(&mut self) -> Progress {
        self.0.retain(|reader| reader.strong_count() > 0);
        let progress = Arc::new(AtomicU64::new(u64::MAX));
        self.0.push(Arc::downgrade(&progress));
        Progress(progress)
    }

    /// The offset before which all readers that have begun have read.
    pub(crate) fn passed(&self) -> u64 {
        let next = |reader: &Weak<AtomicU64>| reader.upgrade().map(|reader| reader.load(Ordering::Acquire));
        self.0.iter().filter_map(next).min().unwrap_or(u64::MAX)
    }
}

impl Progress {
    /// Says where the reader goes on; under the lock of the partition, so that nothing goes meanwhile.
    pub(crate) fn at(&self, next: u64) {
        self.0.store(next, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_counts_from_its_beginning_to_its_end() {
        let mut readers = Readers::default();
        let (one, two) = (readers.enter(), readers.enter());
        assert_eq!(readers.passed(), u64::MAX);
        one.at(7);
        two.at(3);
        assert_eq!(readers.passed(), 3);
        drop(two);
        assert_eq!(readers.passed(), 7);
        drop(one);
        assert_eq!(readers.passed(), u64::MAX);
    }
}

//! Rows of bytes by key: one allocation for each, found by hash.

use std::hash::BuildHasher;

use hashbrown::hash_table::{Entry, HashTable};

/// A table of keyed byte rows.
#[derive(Debug, Default)]
pub(crate) struct RowTable {
    rows: HashTable<Row>,
    hasher: foldhash::fast::FixedState,
    bytes: usize,
}

#[derive(Debug)]
struct Row {
    /// The key, then the value.
    bytes: Box<[u8]>,
    key: u32,
}

impl Row {
    fn new(key: &[u8], value: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(key.len() + value.len());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        Self { bytes: bytes.into(), key: key.len() as u32 }
    }

    fn split(&self) -> (&[u8], &[u8]) {
        self.bytes.split_at(self.key as usize)
    }

    fn key(&self) -> &[u8] {
        self.split().0
    }
}

/// What a row takes beside its bytes: the box, its length, the control byte and the allocator's share.
const ROW_OVERHEAD_BYTES: usize = 48;

impl RowTable {
    /// The value of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let hash = self.hasher.hash_one(key);
        self.rows.find(hash, |row| row.key() == key).map(|row| row.split().1)
    }

    /// Sets the value of a key.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) {
        let hash = self.hasher.hash_one(key);
        let hasher = &self.hasher;
        match self.rows.entry(hash, |row| row.key() == key, |row| hasher.hash_one(row.key())) {
            Entry::Occupied(mut found) => {
                let row = found.get_mut();
                let place = row.key as usize;
                match row.bytes.get_mut(place..) {
                    Some(old) if old.len() == value.len() => old.copy_from_slice(value),
                    _ => {
                        self.bytes = self.bytes + value.len() - (row.bytes.len() - place);
                        *row = Row::new(key, value);
                    }
                }
            }
            Entry::Vacant(free) => {
                self.bytes += key.len() + value.len() + ROW_OVERHEAD_BYTES;
                free.insert(Row::new(key, value));
            }
        }
    }

    /// Takes back a change; `None`: the key is gone.
    pub(crate) fn restore(&mut self, key: &[u8], value: Option<&[u8]>) {
        match value {
            Some(value) => self.put(key, value),
            None => {
                self.remove(key);
            }
        }
    }

    /// Removes a key; whether it was there.
    pub(crate) fn remove(&mut self, key: &[u8]) -> bool {
        let hash = self.hasher.hash_one(key);
        match self.rows.find_entry(hash, |row| row.key() == key) {
            Ok(found) => {
                let (row, _) = found.remove();
                self.bytes -= row.bytes.len() + ROW_OVERHEAD_BYTES;
                true
            }
            Err(_) => false,
        }
    }

    /// Removes the rows for which `keep` is false.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let bytes = &mut self.bytes;
        self.rows.retain(|row| {
            let (key, value) = row.split();
            let kept = keep(key, value);
            if !kept {
                *bytes -= row.bytes.len() + ROW_OVERHEAD_BYTES;
            }
            kept
        });
    }

    /// The number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// About how many bytes the rows take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All rows, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.rows.iter().map(Row::split)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_table_is_a_map(steps in prop::collection::vec((0u8..20, prop::option::of(prop::collection::vec(any::<u8>(), 0..5))), 0..200)) {
            let mut table = RowTable::default();
            let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            for (key, value) in steps {
                let key = vec![key; usize::from(key % 4)];
                match value {
                    Some(value) => {
                        table.put(&key, &value);
                        model.insert(key, value);
                    }
                    None => prop_assert_eq!(table.remove(&key), model.remove(&key).is_some()),
                }
            }
            let mut rows: Vec<(Vec<u8>, Vec<u8>)> = table.iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
            rows.sort_unstable();
            prop_assert_eq!(rows, model.clone().into_iter().collect::<Vec<_>>());
            prop_assert_eq!(table.len(), model.len());
            prop_assert!(model.iter().all(|(k, v)| table.get(k) == Some(v.as_slice())));
            let bytes: usize = model.iter().map(|(k, v)| k.len() + v.len() + ROW_OVERHEAD_BYTES).sum();
            prop_assert_eq!(table.bytes(), bytes);
        }
    }
}

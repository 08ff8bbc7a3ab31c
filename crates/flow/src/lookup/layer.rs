//! Rows with distinct keys and their index: what a lookup's table is made of. Never changes.
//!
//! The index is an open-addressing table of row numbers beside half of the hash, so that a probe touches the key columns
//! only when the hashes agree.

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};
use arrow_schema::ArrowError;
use arrow_select::concat::concat_batches;
use arrow_select::filter::filter_record_batch;
use arrow_select::take::take_record_batch;

use super::equal::{Equal, hashes_of};

/// No row in this slot.
const EMPTY: u32 = u32::MAX;

/// Rows found by key.
#[derive(Debug)]
pub(super) struct Layer {
    rows: RecordBatch,
    /// The key columns, in the order of the lookup's key.
    keys: Vec<ArrayRef>,
    /// The rows that only say that their key is gone, if there are any.
    gone: Option<BooleanBuffer>,
    /// `hash & mask` is where a probe starts; the length is a power of two.
    slots: Vec<Slot>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    tag: u32,
    row: u32,
}

/// Two rows of one key.
#[derive(Debug)]
pub(super) struct Twice {
    pub(super) first: usize,
    pub(super) second: usize,
}

/// Finds a probe's keys in a layer.
pub(super) struct Finder<'a> {
    slots: &'a [Slot],
    equal: Equal<'a>,
}

impl Layer {
    /// A layer of rows whose keys, in the columns at `places`, must be distinct.
    pub(super) fn distinct(places: &[usize], rows: RecordBatch) -> Result<Result<Self, Twice>, ArrowError> {
        let keys = columns(&rows, places);
        let mut twice = None;
        let slots = index(&keys, rows.num_rows(), |first, second| {
            twice = Some(Twice { first: first as usize, second: second as usize });
            false
        })?;
        Ok(match twice {
            None => Ok(Self { rows, keys, gone: None, slots }),
            Some(twice) => Err(twice),
        })
    }

    /// A layer of the last row of each key. The rows are copied: what they came with is not held.
    pub(super) fn newest(places: &[usize], rows: &RecordBatch, gone: &BooleanBuffer) -> Result<Self, ArrowError> {
        let mut last = vec![true; rows.num_rows()];
        index(&columns(rows, places), rows.num_rows(), |first, _| {
            if let Some(last) = last.get_mut(first as usize) {
                *last = false;
            }
            true
        })?;
        let kept: UInt32Array = (0_u32..).zip(last).filter(|(_, last)| *last).map(|(row, _)| row).collect();
        let gone = kept.values().iter().map(|row| gone.value(*row as usize)).collect();
        Self::new(places, take_record_batch(rows, &kept)?, gone)
    }

    /// A layer of rows with distinct keys.
    fn new(places: &[usize], rows: RecordBatch, gone: BooleanBuffer) -> Result<Self, ArrowError> {
        let keys = columns(&rows, places);
        let slots = index(&keys, rows.num_rows(), |_, _| true)?;
        let gone = Some(gone).filter(|gone| gone.count_set_bits() > 0);
        Ok(Self { rows, keys, gone, slots })
    }

    /// One layer of several, the oldest first: of each key the row of the newest. `bottom`: nothing is below, so that what
    /// is gone need not be said any more.
    pub(super) fn merge(places: &[usize], layers: &[Arc<Self>], bottom: bool) -> Result<Self, ArrowError> {
        let mut keep: Vec<Vec<bool>> = layers.iter().map(|layer| layer.kept(bottom)).collect();
        for (number, newer) in layers.iter().enumerate().skip(1) {
            let hashes = hashes_of(&newer.keys, newer.len())?;
            for (older, keep) in layers.iter().zip(&mut keep).take(number) {
                let finder = older.finder(&newer.keys)?;
                let replaced = hashes.iter().enumerate().filter_map(|(row, hash)| finder.find(row, *hash));
                for row in replaced {
                    if let Some(keep) = keep.get_mut(row as usize) {
                        *keep = false;
                    }
                }
            }
        }
        let mut parts = Vec::with_capacity(layers.len());
        let mut gone = BooleanBufferBuilder::new(0);
        for (layer, keep) in layers.iter().zip(keep) {
            for row in keep.iter().enumerate().filter(|(_, keep)| **keep).map(|(row, _)| row) {
                gone.append(layer.is_gone(row as u32));
            }
            parts.push(filter_record_batch(&layer.rows, &BooleanArray::from(keep))?);
        }
        let Some(schema) = layers.first().map(|layer| layer.rows.schema()) else {
            return Err(ArrowError::ComputeError("there are no layers to merge".to_owned()));
        };
        Self::new(places, concat_batches(&schema, &parts)?, gone.finish())
    }

    fn kept(&self, bottom: bool) -> Vec<bool> {
        (0..self.len()).map(|row| !(bottom && self.is_gone(row as u32))).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// Some of its columns.
    pub(super) fn columns(&self, places: &[usize]) -> Vec<ArrayRef> {
        columns(&self.rows, places)
    }

    pub(super) fn keys(&self) -> &[ArrayRef] {
        &self.keys
    }

    /// About how many bytes of memory it takes.
    pub(super) fn bytes(&self) -> usize {
        self.rows.get_array_memory_size() + self.slots.len() * size_of::<Slot>()
    }

    /// Whether a row only says that its key is gone.
    pub(super) fn is_gone(&self, row: u32) -> bool {
        self.gone.as_ref().is_some_and(|gone| (row as usize) < gone.len() && gone.value(row as usize))
    }

    pub(super) fn finder<'a>(&'a self, probe: &'a [ArrayRef]) -> Result<Finder<'a>, ArrowError> {
        Ok(Finder { slots: &self.slots, equal: Equal::new(&self.keys, probe)? })
    }
}

impl Finder<'_> {
    /// The layer's row with the key of the probe's row, which has this hash.
    pub(super) fn find(&self, row: usize, hash: u64) -> Option<u32> {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots.get(at)?;
            if slot.row == EMPTY {
                return None;
            }
            if slot.tag == tag(hash) && self.equal.rows(slot.row as usize, row) {
                return Some(slot.row);
            }
            at = (at + 1) & mask;
        }
    }
}

/// The slots of rows with these keys. `twice` is told of a row and a later one with the same key, and says whether the
/// later one takes its place; else the index ends there.
fn index(keys: &[ArrayRef], count: usize, mut twice: impl FnMut(u32, u32) -> bool) -> Result<Vec<Slot>, ArrowError> {
    let mut slots = vec![Slot { tag: 0, row: EMPTY }; (count * 2).next_power_of_two().max(2)];
    let hashes = hashes_of(keys, count)?;
    let equal = Equal::new(keys, keys)?;
    let mask = slots.len() - 1;
    for (row, hash) in (0_u32..).zip(hashes) {
        let mut at = hash as usize & mask;
        while let Some(slot) = slots.get_mut(at) {
            let same = slot.row != EMPTY && slot.tag == tag(hash) && equal.rows(slot.row as usize, row as usize);
            if same && !twice(slot.row, row) {
                return Ok(slots);
            }
            if same || slot.row == EMPTY {
                *slot = Slot { tag: tag(hash), row };
                break;
            }
            at = (at + 1) & mask;
        }
    }
    Ok(slots)
}

fn columns(rows: &RecordBatch, places: &[usize]) -> Vec<ArrayRef> {
    places.iter().filter_map(|place| rows.columns().get(*place).map(Arc::clone)).collect()
}

/// The half of the hash that does not choose the slot.
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

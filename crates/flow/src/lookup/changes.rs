//! Changes to a lookup's table: a few rows more do not copy what is there.
//!
//! 1. Changed rows become a layer on top. Whoever looks a key up asks the layers from the top down; a tombstone on top
//!    hides what is below.
//! 2. A layer is merged with the one below as soon as that is not much larger, so that there are few of them (the logarithm
//!    of the rows), a row is copied a few times only, and what was replaced takes at most a part of the memory.
//! 3. Small layers are merged at once. A large merge is left to whoever keeps the table ([`LookupTable::merge_due`]): it
//!    is done elsewhere while further changes come, and taken over when it is done.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, UInt32Array};
use arrow_buffer::BooleanBuffer;
use arrow_select::take::take_record_batch;
use millstream_event::{Schema, Stamp};

use super::layer::Layer;
use super::{LookupError, LookupTable, ROWS_MAX, check_keys, key_places};
use crate::catalog::LookupSchema;

/// A layer is merged with the one below that has at most so many times its rows.
const RATIO: usize = 4;
/// At most so many rows are merged at once; more are left for elsewhere.
const AT_ONCE_ROWS: usize = 1 << 14;
/// The most bytes of a table that changes, with what was replaced: a column of texts holds no more.
const BYTES_MAX: usize = (1 << 31) - 1;

/// Layers that are to become one.
#[derive(Debug)]
pub struct LookupMerge {
    places: Vec<usize>,
    /// How many layers are below.
    below: usize,
    layers: Vec<Arc<Layer>>,
}

/// Layers that have become one.
#[derive(Debug)]
pub struct MergedLayers {
    of: Vec<Arc<Layer>>,
    below: usize,
    layer: Layer,
}

impl LookupMerge {
    /// How many layers of the table must stay as they are until this is done.
    pub fn holds(&self) -> usize {
        self.below + self.layers.len()
    }

    /// Merges them: some seconds for many millions of rows.
    pub fn run(self) -> Result<MergedLayers, LookupError> {
        let layer = Layer::merge(&self.places, &self.layers, self.below == 0);
        let layer = layer.map_err(|e| LookupError::Columns(e.to_string()))?;
        Ok(MergedLayers { of: self.layers, below: self.below, layer })
    }
}

impl LookupTable {
    /// The table after these rows, the oldest first, with the physical columns of `schema`: a row replaces the one with its
    /// key, a tombstone removes it. The `held` lowest layers stay as they are (see [`LookupMerge::holds`]).
    pub fn changed(&self, schema: &LookupSchema, rows: &RecordBatch, held: usize) -> Result<Self, LookupError> {
        if rows.num_rows() == 0 {
            return Ok(self.clone());
        }
        let places = key_places(schema)?;
        let user: Vec<usize> = (0..schema.schema.columns().len()).collect();
        let stamps = Schema::ingested_at(rows);
        let stamps = stamps.filter(|_| rows.num_columns() == user.len() + 1);
        let stamps = stamps.ok_or_else(|| LookupError::Columns("the rows have no system column".to_owned()))?;
        let gone: BooleanBuffer = stamps.values().iter().map(|stamp| Stamp(*stamp).is_deleted()).collect();
        let rows = rows.project(&user).map_err(|e| LookupError::Columns(e.to_string()))?;
        let rows = rows.with_schema(Arc::clone(schema.schema.arrow()));
        let rows = rows.map_err(|e| LookupError::Columns(e.to_string()))?;
        check_keys(schema, &places, &rows)?;
        let layer = Layer::newest(&places, &rows, &gone).map_err(|e| LookupError::Columns(e.to_string()))?;
        let live = self.live_with(&layer).map_err(|e| LookupError::Columns(e.to_string()))?;
        let mut layers = self.layers.clone();
        layers.push(Arc::new(layer));
        let from = merged_from(&layers, held, AT_ONCE_ROWS);
        if layers.len() - from > 1 {
            let top = layers.split_off(from);
            let merged = Layer::merge(&places, &top, from == 0);
            layers.push(Arc::new(merged.map_err(|e| LookupError::Columns(e.to_string()))?));
        }
        Self::of(layers, live)
    }

    /// The table with the first row of each key that it does not have, of these rows, the oldest first, with the physical
    /// columns of `schema`. Tombstones are left out.
    pub fn first(&self, schema: &LookupSchema, rows: &RecordBatch) -> Result<Self, LookupError> {
        let wrong = |e: arrow_schema::ArrowError| LookupError::Columns(e.to_string());
        let places = key_places(schema)?;
        let keys: Vec<ArrayRef> = places.iter().filter_map(|place| rows.columns().get(*place).cloned()).collect();
        let known = self.probe(&keys, rows.num_rows()).map_err(wrong)?;
        let stamps = Schema::ingested_at(rows);
        let is_deleted = |row: u32| stamps.is_some_and(|stamps| Stamp(stamps.value(row as usize)).is_deleted());
        let new = (0_u32..).zip(known).filter(|(row, known)| known.is_none() && !is_deleted(*row));
        // Of several rows of a key the last counts, so the first comes last.
        let rows_back: UInt32Array = new.map(|(row, _)| row).collect::<Vec<_>>().into_iter().rev().collect();
        self.changed(schema, &take_record_batch(rows, &rows_back).map_err(wrong)?, 0)
    }

    /// How many keys find a row with `layer` on top.
    fn live_with(&self, layer: &Layer) -> Result<usize, arrow_schema::ArrowError> {
        let before = self.probe(layer.keys(), layer.len())?;
        let mut live = self.live;
        for (row, before) in (0_u32..).zip(before) {
            match (before.is_some(), layer.is_gone(row)) {
                (false, false) => live += 1,
                (true, true) => live = live.saturating_sub(1),
                _ => {}
            }
        }
        Ok(live)
    }

    fn of(layers: Vec<Arc<Layer>>, live: usize) -> Result<Self, LookupError> {
        let rows: usize = layers.iter().map(|layer| layer.len()).sum();
        if rows > ROWS_MAX {
            return Err(LookupError::TooMany(rows));
        }
        let table = Self { layers, live };
        match table.bytes() {
            bytes if bytes > BYTES_MAX => Err(LookupError::TooLarge(bytes)),
            _ => Ok(table),
        }
    }

    /// The layers that should be merged now, if there are any.
    pub fn merge_due(&self, schema: &LookupSchema) -> Option<LookupMerge> {
        let below = merged_from(&self.layers, 0, ROWS_MAX);
        self.merge_of(schema, below, self.layers.len())
    }

    /// A merge of the layers from `below` to before `end`.
    pub(super) fn merge_of(&self, schema: &LookupSchema, below: usize, end: usize) -> Option<LookupMerge> {
        let layers = self.layers.get(below..end).filter(|layers| layers.len() > 1)?;
        Some(LookupMerge { places: key_places(schema).ok()?, below, layers: layers.to_vec() })
    }

    /// The same table with layers that were merged meanwhile. It must have come from the one that the merge was asked of.
    pub fn merged(&self, merged: MergedLayers) -> Self {
        let MergedLayers { of, below, layer } = merged;
        let now = self.layers.get(below..below + of.len());
        let same = now.is_some_and(|now| now.iter().zip(&of).all(|(now, was)| Arc::ptr_eq(now, was)));
        let mut layers = self.layers.clone();
        if same {
            layers.splice(below..below + of.len(), [Arc::new(layer)]);
        }
        Self { layers, live: self.live }
    }
}

/// The lowest of the topmost layers that are worth merging into one of at most `rows_max` rows.
fn merged_from(layers: &[Arc<Layer>], held: usize, rows_max: usize) -> usize {
    let mut rows = 0;
    let mut from = layers.len();
    for (number, layer) in layers.iter().enumerate().skip(held).rev() {
        let worth = rows == 0 || rows * RATIO >= layer.len();
        if !worth || rows + layer.len() > rows_max {
            break;
        }
        (rows, from) = (rows + layer.len(), number);
    }
    from.min(layers.len().saturating_sub(1))
}

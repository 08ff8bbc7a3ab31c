//! Lookups: reference rows found by key.
//!
//! A table never changes: readers share it, and who keeps it publishes another one. One from a file is built whole; one of
//! a table topic becomes the next by a few changed rows, and shares the rest with it (see [`changes`]).

mod changes;
mod equal;
mod layer;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array, new_null_array};
use arrow_schema::{ArrowError, DataType};
use arrow_select::interleave::interleave;
use millstream_event::Name;

use crate::catalog::LookupSchema;
use crate::ops::take_all;

pub use changes::{LookupMerge, MergedLayers};

use self::equal::hashes_of;
use self::layer::{Layer, Twice};

/// The most rows that a lookup may hold.
const ROWS_MAX: usize = 1 << 30;

/// Why rows are no lookup table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// A key column that the schema does not have.
    #[error("the key names `{0}`, which is no column")]
    NoColumn(String),
    /// A lookup without key columns.
    #[error("a lookup needs at least one key column")]
    NoKey,
    /// Two rows have one key. Rows count from 1.
    #[error("rows {first} and {second} have the same key {key}; a key finds at most one row")]
    Duplicate {
        /// The key, as text.
        key: String,
        /// The first row with it, from 1.
        first: usize,
        /// The second row with it, from 1.
        second: usize,
    },
    /// A key column is null. Rows count from 1.
    #[error("row {row} has no value for the key column `{column}`")]
    Null {
        /// The column.
        column: String,
        /// The row, from 1.
        row: usize,
    },
    /// More rows than fit.
    #[error("a lookup holds at most {ROWS_MAX} rows, this one has {0}")]
    TooMany(usize),
    /// More bytes than fit.
    #[error(
        "a lookup of a table topic holds at most 2 GiB, and what changes have replaced counts; this one has {0} bytes: join \
         the topic itself, in `from`"
    )]
    TooLarge(usize),
    /// The rows do not have the schema's columns, or a key's type cannot be compared.
    #[error("{0}")]
    Columns(String),
}

/// Rows found by key. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LookupTable {
    /// The lowest first: a row of a higher one replaces that of a lower one with the same key.
    layers: Vec<Arc<Layer>>,
    /// How many keys find a row.
    live: usize,
}

impl LookupTable {
    /// Indexes `rows` (columns of `schema.schema.arrow()`) by their key.
    pub fn build(schema: &LookupSchema, rows: RecordBatch) -> Result<Self, LookupError> {
        let live = rows.num_rows();
        if live > ROWS_MAX {
            return Err(LookupError::TooMany(live));
        }
        let places = key_places(schema)?;
        check_keys(schema, &places, &rows)?;
        let layer = Layer::distinct(&places, rows.clone()).map_err(|e| LookupError::Columns(e.to_string()))?;
        let layer = layer.map_err(|Twice { first, second }| {
            let key = key_text(&rows, &places, second);
            LookupError::Duplicate { key, first: first + 1, second: second + 1 }
        })?;
        Ok(Self { layers: vec![Arc::new(layer)], live })
    }

    /// A table without rows.
    pub fn empty(schema: &LookupSchema) -> Result<Self, LookupError> {
        Self::build(schema, RecordBatch::new_empty(Arc::clone(schema.schema.arrow())))
    }

    /// The number of keys that find a row.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// About how many bytes of memory it takes, with rows that were replaced and are not let go of yet.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.bytes()).sum()
    }

    /// The row of each probe key; `None` where a key is null or unknown. The probe columns have the key's types.
    pub(crate) fn probe(&self, keys: &[ArrayRef], count: usize) -> Result<Vec<Option<u32>>, ArrowError> {
        let mut found = vec![None; count];
        if self.is_empty() {
            return Ok(found);
        }
        let hashes = hashes_of(keys, count)?;
        let nulls = keys
            .iter()
            .fold(None, |all, key| arrow_buffer::NullBuffer::union(all.as_ref(), key.logical_nulls().as_ref()));
        let known = |row: &u32| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*row as usize));
        let mut open: Vec<u32> = (0..count as u32).filter(known).collect();
        let mut base: usize = self.layers.iter().map(|layer| layer.len()).sum();
        for layer in self.layers.iter().rev() {
            base -= layer.len();
            if open.is_empty() {
                break;
            }
            let finder = layer.finder(keys)?;
            open.retain(|row| {
                let place = *row as usize;
                let at = hashes.get(place).and_then(|hash| finder.find(place, *hash));
                // A key that is gone is found in no layer below.
                if let (Some(at), Some(found)) = (at.filter(|at| !layer.is_gone(*at)), found.get_mut(place)) {
                    *found = Some(base as u32 + at);
                }
                at.is_none()
            });
        }
        Ok(found)
    }

    /// Some columns, of these types, at the rows that [`LookupTable::probe`] gave; NULL where it gave none.
    pub(crate) fn gather(
        &self,
        columns: &[usize],
        types: &[DataType],
        rows: &UInt32Array,
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        if rows.null_count() == rows.len() {
            return Ok(types.iter().take(columns.len()).map(|t| new_null_array(t, rows.len())).collect());
        }
        if let [layer] = self.layers.as_slice() {
            return take_all(&layer.columns(columns), rows);
        }
        let mut ends = Vec::with_capacity(self.layers.len());
        let mut end = 0_usize;
        for layer in &self.layers {
            end += layer.len();
            ends.push(end);
        }
        // Behind the layers stands a column with one NULL.
        let place = |row: Option<u32>| {
            let Some(row) = row.map(|row| row as usize) else { return (ends.len(), 0) };
            let layer = ends.partition_point(|end| *end <= row);
            let base = layer.checked_sub(1).and_then(|below| ends.get(below)).copied().unwrap_or(0);
            (layer, row - base)
        };
        let places: Vec<(usize, usize)> = rows.iter().map(place).collect();
        let gathered = |(column, kind): (&usize, &DataType)| {
            let mut parts: Vec<ArrayRef> = self.layers.iter().flat_map(|layer| layer.columns(&[*column])).collect();
            parts.push(new_null_array(kind, 1));
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            interleave(&parts, &places)
        };
        columns.iter().zip(types).map(gathered).collect()
    }
}

/// The places of the key columns.
fn key_places(schema: &LookupSchema) -> Result<Vec<usize>, LookupError> {
    if schema.key.is_empty() {
        return Err(LookupError::NoKey);
    }
    let place = |name: &String| schema.schema.column(name).map(|(place, _)| place);
    schema.key.iter().map(|name| place(name).ok_or_else(|| LookupError::NoColumn(name.clone()))).collect()
}

/// Refuses rows of other columns, and such whose key has no value.
fn check_keys(schema: &LookupSchema, places: &[usize], rows: &RecordBatch) -> Result<(), LookupError> {
    let wanted = schema.schema.arrow().fields();
    let fits = rows.num_columns() == wanted.len()
        && rows.columns().iter().zip(wanted).all(|(column, field)| column.data_type() == field.data_type());
    if !fits {
        return Err(LookupError::Columns(format!("the rows are not ({})", schema.schema)));
    }
    for (name, place) in schema.key.iter().zip(places) {
        let nulls = rows.columns().get(*place).and_then(|column| column.nulls());
        if let Some(row) = nulls.and_then(|nulls| nulls.iter().position(|valid| !valid)) {
            return Err(LookupError::Null { column: name.clone(), row: row + 1 });
        }
    }
    Ok(())
}

/// A key as text, for messages.
fn key_text(rows: &RecordBatch, places: &[usize], row: usize) -> String {
    let text = |place: &usize| {
        let column = rows.columns().get(*place)?;
        arrow_cast::display::array_value_to_string(column, row).ok()
    };
    let parts: Vec<String> = places.iter().map(|place| text(place).unwrap_or_else(|| "?".to_owned())).collect();
    format!("({})", parts.join(", "))
}

/// The lookups as they are at one moment. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LookupSet {
    tables: Arc<BTreeMap<Name, Arc<LookupTable>>>,
}

impl LookupSet {
    /// A snapshot of these tables.
    pub fn new(tables: impl IntoIterator<Item = (Name, Arc<LookupTable>)>) -> Self {
        Self { tables: Arc::new(tables.into_iter().collect()) }
    }

    /// The table of a lookup, if it is there.
    pub fn get(&self, name: &Name) -> Option<&Arc<LookupTable>> {
        self.tables.get(name)
    }

    /// The snapshot with one table replaced.
    #[must_use]
    pub fn with(&self, name: Name, table: Arc<LookupTable>) -> Self {
        let mut tables = BTreeMap::clone(&self.tables);
        tables.insert(name, table);
        Self { tables: Arc::new(tables) }
    }
}

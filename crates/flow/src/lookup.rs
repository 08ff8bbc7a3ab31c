//! Lookups: reference rows found by key.
//!
//! A table is built once per refresh and never changes: readers share it. The index is an open-addressing table of row
//! numbers beside the full hashes, so that a probe touches the key column only when the hashes agree.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_ord::ord::make_comparator;
use arrow_schema::{ArrowError, DataType, SortOptions};
use datafusion_common::hash_utils::{RandomState, create_hashes};
use millstream_event::Name;

use crate::catalog::LookupSchema;

/// The most rows that a lookup may hold.
const ROWS_MAX: usize = 1 << 30;

/// No row in this slot.
const EMPTY: u32 = u32::MAX;

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
    /// The rows do not have the schema's columns, or a key's type cannot be compared.
    #[error("{0}")]
    Columns(String),
}

/// Rows found by key.
#[derive(Debug)]
pub struct LookupTable {
    rows: RecordBatch,
    /// The key columns, in the order of [`LookupSchema::key`].
    keys: Vec<ArrayRef>,
    /// `hash & mask` is where a probe starts; the length is a power of two.
    slots: Vec<Slot>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    tag: u32,
    row: u32,
}

impl LookupTable {
    /// Indexes `rows` (columns of `schema.schema.arrow()`) by their key.
    pub fn build(schema: &LookupSchema, rows: RecordBatch) -> Result<Self, LookupError> {
        let count = rows.num_rows();
        if count > ROWS_MAX {
            return Err(LookupError::TooMany(count));
        }
        if schema.key.is_empty() {
            return Err(LookupError::NoKey);
        }
        let wanted = schema.schema.arrow().fields();
        let fits = rows.num_columns() == wanted.len()
            && rows.columns().iter().zip(wanted).all(|(column, field)| column.data_type() == field.data_type());
        if !fits {
            return Err(LookupError::Columns(format!("the rows are not ({})", schema.schema)));
        }
        let mut keys = Vec::with_capacity(schema.key.len());
        for name in &schema.key {
            let (place, _) = schema.schema.column(name).ok_or_else(|| LookupError::NoColumn(name.clone()))?;
            let column = rows.column(place);
            if let Some(row) = column.nulls().and_then(|n| n.iter().position(|valid| !valid)) {
                return Err(LookupError::Null { column: name.clone(), row: row + 1 });
            }
            keys.push(Arc::clone(column));
        }
        let slots = vec![Slot { tag: 0, row: EMPTY }; (count * 2).next_power_of_two().max(2)];
        let mut table = Self { rows, keys, slots };
        table.index().map_err(|e| LookupError::Columns(e.to_string()))??;
        Ok(table)
    }

    /// A table without rows.
    pub fn empty(schema: &LookupSchema) -> Result<Self, LookupError> {
        Self::build(schema, RecordBatch::new_empty(Arc::clone(schema.schema.arrow())))
    }

    /// The rows.
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn index(&mut self) -> Result<Result<(), LookupError>, ArrowError> {
        let hashes = hashes_of(&self.keys, self.rows.num_rows())?;
        let equal = Equal::new(&self.keys, &self.keys)?;
        let mask = self.slots.len() - 1;
        for (row, hash) in hashes.into_iter().enumerate() {
            let mut at = hash as usize & mask;
            while let Some(slot) = self.slots.get_mut(at) {
                if slot.row == EMPTY {
                    *slot = Slot { tag: tag(hash), row: row as u32 };
                    break;
                }
                if slot.tag == tag(hash) && equal.rows(slot.row as usize, row) {
                    let (first, second) = (slot.row as usize + 1, row + 1);
                    return Ok(Err(LookupError::Duplicate { key: self.key_text(row), first, second }));
                }
                at = (at + 1) & mask;
            }
        }
        Ok(Ok(()))
    }

    /// A key as text, for messages.
    fn key_text(&self, row: usize) -> String {
        let parts = self
            .keys
            .iter()
            .map(|k| arrow_cast::display::array_value_to_string(k, row).unwrap_or_else(|_| "?".to_owned()));
        format!("({})", parts.collect::<Vec<_>>().join(", "))
    }

    /// The row of each probe key; `None` where a key is null or unknown. The probe columns have the key's types.
    pub(crate) fn probe(&self, keys: &[ArrayRef], count: usize) -> Result<Vec<Option<u32>>, ArrowError> {
        if self.is_empty() {
            return Ok(vec![None; count]);
        }
        let hashes = hashes_of(keys, count)?;
        let equal = Equal::new(&self.keys, keys)?;
        let mask = self.slots.len() - 1;
        let nulls = keys
            .iter()
            .fold(None, |all, key| arrow_buffer::NullBuffer::union(all.as_ref(), key.logical_nulls().as_ref()));
        let find = |row: usize, hash: u64| {
            if nulls.as_ref().is_some_and(|n| n.is_null(row)) {
                return None;
            }
            let mut at = hash as usize & mask;
            loop {
                let slot = self.slots.get(at)?;
                if slot.row == EMPTY {
                    return None;
                }
                if slot.tag == tag(hash) && equal.rows(slot.row as usize, row) {
                    return Some(slot.row);
                }
                at = (at + 1) & mask;
            }
        };
        Ok(hashes.into_iter().enumerate().map(|(row, hash)| find(row, hash)).collect())
    }
}

/// The half of the hash that does not choose the slot.
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

fn hashes_of(keys: &[ArrayRef], count: usize) -> Result<Vec<u64>, ArrowError> {
    let mut hashes = vec![0_u64; count];
    create_hashes(keys, &RandomState::with_seed(0), &mut hashes)
        .map_err(|e| ArrowError::ComputeError(e.strip_backtrace()))?;
    Ok(hashes)
}

/// Compares a table's key with a probe's, specialised for the usual single columns.
enum Equal<'a> {
    Text(&'a arrow_array::StringArray, &'a arrow_array::StringArray),
    Int(&'a [i32], &'a [i32]),
    BigInt(&'a [i64], &'a [i64]),
    Any(Vec<arrow_ord::ord::DynComparator>),
}

impl<'a> Equal<'a> {
    fn new(table: &'a [ArrayRef], probe: &'a [ArrayRef]) -> Result<Self, ArrowError> {
        if let ([left], [right]) = (table, probe)
            && left.data_type() == right.data_type()
        {
            match left.data_type() {
                DataType::Utf8 => return Ok(Self::Text(left.as_string(), right.as_string())),
                DataType::Int32 => {
                    let (left, right) = (left.as_primitive::<Int32Type>(), right.as_primitive::<Int32Type>());
                    return Ok(Self::Int(left.values(), right.values()));
                }
                DataType::Int64 => {
                    let (left, right) = (left.as_primitive::<Int64Type>(), right.as_primitive::<Int64Type>());
                    return Ok(Self::BigInt(left.values(), right.values()));
                }
                _ => {}
            }
        }
        let pairs = table.iter().zip(probe);
        let comparators = pairs.map(|(l, r)| make_comparator(l, r, SortOptions::default()));
        Ok(Self::Any(comparators.collect::<Result<_, _>>()?))
    }

    fn rows(&self, left: usize, right: usize) -> bool {
        match self {
            Self::Text(l, r) => left < l.len() && right < r.len() && l.value(left) == r.value(right),
            Self::Int(l, r) => l.get(left) == r.get(right),
            Self::BigInt(l, r) => l.get(left) == r.get(right),
            Self::Any(all) => all.iter().all(|compare| compare(left, right).is_eq()),
        }
    }
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

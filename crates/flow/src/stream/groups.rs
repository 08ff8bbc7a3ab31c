//! The groups of a batch: which rows have the same key.

use std::hash::BuildHasher;

use arrow_array::ArrayRef;
use arrow_row::{RowConverter, Rows, SortField};
use arrow_schema::{DataType, SortOptions};
use hashbrown::hash_table::{Entry, HashTable};

use crate::stream::operator::Broken;

/// Turns columns into byte keys and back. Equal keys have equal bytes, and bytes sort as the columns do, nulls first.
pub(crate) struct Keys {
    converter: RowConverter,
}

impl Keys {
    /// For columns of these types.
    pub(crate) fn new(types: &[DataType]) -> Result<Self, Broken> {
        let fields = types.iter().map(|kind| SortField::new(kind.clone())).collect();
        Ok(Self { converter: RowConverter::new(fields)? })
    }

    /// For columns of these types, each in its own order: bytes sort as rows do.
    pub(crate) fn ordered(columns: &[(DataType, SortOptions)]) -> Result<Self, Broken> {
        let fields = columns.iter().map(|(kind, order)| SortField::new_with_options(kind.clone(), *order)).collect();
        Ok(Self { converter: RowConverter::new(fields)? })
    }

    /// The keys of all rows. Without columns all rows have one key, the empty one: ask for `rows` of them.
    pub(crate) fn encode(&self, columns: &[ArrayRef], rows: usize) -> Result<Encoded, Broken> {
        if columns.is_empty() {
            return Ok(Encoded::Empty(rows));
        }
        Ok(Encoded::Rows(self.converter.convert_columns(columns)?))
    }

    /// The columns of some keys.
    pub(crate) fn decode<'k>(&self, keys: impl IntoIterator<Item = &'k [u8]>) -> Result<Vec<ArrayRef>, Broken> {
        let parser = self.converter.parser();
        Ok(self.converter.convert_rows(keys.into_iter().map(|key| parser.parse(key)))?)
    }
}

/// The keys of a batch's rows.
pub(crate) enum Encoded {
    /// All the empty key.
    Empty(usize),
    /// A key for each row.
    Rows(Rows),
}

impl Encoded {
    /// The number of rows.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Empty(rows) => *rows,
            Self::Rows(rows) => rows.num_rows(),
        }
    }

    /// The key of a row.
    pub(crate) fn key(&self, row: usize) -> &[u8] {
        match self {
            Self::Empty(_) => &[],
            Self::Rows(rows) => rows.row(row).data(),
        }
    }
}

/// The groups of a batch, numbered in the order in which they appear.
pub(crate) struct Groups {
    /// The group of each row.
    pub(crate) of_row: Vec<usize>,
    /// The first row of each group.
    pub(crate) first: Vec<usize>,
}

impl Groups {
    /// Rows with the same key and the same number (a window's, or all 0) are one group.
    pub(crate) fn new(keys: &Encoded, number: impl Fn(usize) -> i64) -> Self {
        let hasher = foldhash::fast::FixedState::default();
        let mut found: HashTable<usize> = HashTable::with_capacity(64);
        let mut first: Vec<usize> = Vec::new();
        let mut of_row = Vec::with_capacity(keys.len());
        let hash_of = |row: usize| hasher.hash_one((number(row), keys.key(row)));
        for row in 0..keys.len() {
            let (key, of) = (keys.key(row), number(row));
            let first_of = |group: &usize| first.get(*group).copied().unwrap_or(0);
            let same = |group: &usize| number(first_of(group)) == of && keys.key(first_of(group)) == key;
            let group = match found.entry(hash_of(row), same, |group| hash_of(first_of(group))) {
                Entry::Occupied(entry) => *entry.get(),
                Entry::Vacant(entry) => {
                    let group = first.len();
                    entry.insert(group);
                    first.push(row);
                    group
                }
            };
            of_row.push(group);
        }
        Self { of_row, first }
    }

    /// The number of groups.
    pub(crate) fn len(&self) -> usize {
        self.first.len()
    }
}

//! What an operator's state became: rows of bytes for the changelog.
//!
//! Every operator keeps its state in the form that suits it; outside, state is always keyed rows. A key begins with the
//! number of the operator's stage, so that one changelog holds the state of a whole query. A later change of a key
//! replaces the earlier one.

use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::{Array, ArrayRef, BinaryArray, BooleanArray};

/// The most stages of one query: the first byte of a key is the stage's number.
pub(crate) const STAGES_MAX: usize = 200;

/// Changes of state since the last [`Changes::take`], in order.
#[derive(Debug, Default)]
pub struct Changes {
    keys: BinaryBuilder,
    values: BinaryBuilder,
    deleted: Vec<bool>,
    stage: u8,
    scratch: Vec<u8>,
}

/// Changes as columns, a row for each change.
#[derive(Debug, Clone)]
pub struct ChangeRows {
    /// The key.
    pub key: BinaryArray,
    /// The new value; null where the key is gone.
    pub value: BinaryArray,
    /// Whether the key is gone.
    pub deleted: BooleanArray,
}

impl Changes {
    /// The changes that follow are those of this stage.
    pub(crate) fn of_stage(&mut self, stage: u8) -> &mut Self {
        self.stage = stage;
        self
    }

    /// The value of a key, given in parts, is now this.
    pub(crate) fn put(&mut self, key: &[&[u8]], value: &[u8]) {
        self.key(key);
        self.values.append_value(value);
        self.deleted.push(false);
    }

    /// A key is gone.
    pub(crate) fn delete(&mut self, key: &[&[u8]]) {
        self.key(key);
        self.values.append_null();
        self.deleted.push(true);
    }

    fn key(&mut self, parts: &[&[u8]]) {
        self.scratch.clear();
        self.scratch.push(self.stage);
        parts.iter().for_each(|part| self.scratch.extend_from_slice(part));
        self.keys.append_value(&self.scratch);
    }

    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.deleted.is_empty()
    }

    /// All changes, which are forgotten here.
    pub fn take(&mut self) -> Option<ChangeRows> {
        if self.is_empty() {
            return None;
        }
        let deleted = std::mem::take(&mut self.deleted);
        Some(ChangeRows { key: self.keys.finish(), value: self.values.finish(), deleted: deleted.into() })
    }
}

impl ChangeRows {
    /// The number of changes.
    pub fn len(&self) -> usize {
        self.key.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.key.is_empty()
    }

    /// The columns `key` and `value`.
    pub fn columns(&self) -> [ArrayRef; 2] {
        [Arc::new(self.key.clone()), Arc::new(self.value.clone())]
    }

    /// Each change: its key, and its value, if it is not gone.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        (0..self.len()).map(|i| (self.key.value(i), (!self.deleted.value(i)).then(|| self.value.value(i))))
    }
}

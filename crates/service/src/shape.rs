//! Stand-ins for the types of the flow crate, until it lands (minutes). Same names, same shapes.

#![allow(missing_docs, reason = "replaced by the flow crate's own types")]

use arrow_array::{RecordBatch, UInt32Array};
use millstream_event::Name;
use std::sync::Arc;

pub struct Query;
pub struct Rules;
pub struct Routes;
#[derive(Debug)]
pub struct LookupTable;
impl LookupTable {
    pub fn len(&self) -> usize {
        0
    }
    pub fn is_empty(&self) -> bool {
        true
    }
}
#[derive(Debug, Clone, Default)]
pub struct LookupSet;
impl LookupSet {
    pub fn new(_tables: impl IntoIterator<Item = (Name, Arc<LookupTable>)>) -> Self {
        Self
    }
}
#[derive(Debug, Clone)]
pub enum Origin {
    Identity(usize),
    Rows(UInt32Array),
}
#[derive(Debug, Clone)]
pub struct Failed {
    pub row: u32,
    pub code: &'static str,
    pub reason: String,
}
#[derive(Debug, Clone)]
pub struct Processed {
    pub rows: RecordBatch,
    pub origin: Origin,
    pub failed: Vec<Failed>,
    pub dropped: Vec<(Name, u64)>,
}

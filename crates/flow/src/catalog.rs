//! What a query may name: topics and lookups.

use std::collections::BTreeMap;

use millstream_event::{Name, Schema};

/// The columns of a lookup and those that identify a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupSchema {
    /// The columns.
    pub schema: Schema,
    /// The key columns: together unique and never null.
    pub key: Vec<String>,
}

/// The topics and lookups that a query may name.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Topics by name.
    pub topics: BTreeMap<Name, Schema>,
    /// The column with the event time, of topics that have one.
    pub event_times: BTreeMap<Name, String>,
    /// Lookups by name.
    pub lookups: BTreeMap<Name, LookupSchema>,
}

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

/// Where a topic's event time is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeColumn {
    /// The column.
    pub name: String,
    /// What is added to its value, in microseconds: the event time of a window's row is `window_end` - 1.
    pub plus_us: i64,
}

/// In which order OVER takes events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// As they arrive: each is answered at once, from what arrived before it.
    #[default]
    Arrival,
    /// By event time: each is answered when the watermark has passed it.
    EventTime,
}

/// The topics and lookups that a query may name.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Topics by name.
    pub topics: BTreeMap<Name, Schema>,
    /// The event time, of topics that have one.
    pub event_times: BTreeMap<Name, TimeColumn>,
    /// The key columns of the topics that are tables: they hold the latest row of each key.
    pub tables: BTreeMap<Name, Vec<String>>,
    /// How long a query remembers what it keeps for each key, by event time in microseconds, where nothing else bounds it.
    pub state_ttl_us: Option<i64>,
    /// Whether the query may update its results: its rows go to a table topic, which keeps the latest of each key.
    pub updating: bool,
    /// Whether late events update the results of windows that went out, and for how long, by event time in microseconds:
    /// then its rows go to a table topic.
    pub late_us: Option<i64>,
    /// In which order OVER takes events.
    pub order: Order,
    /// Lookups by name.
    pub lookups: BTreeMap<Name, LookupSchema>,
}

//! Topics and what they hold.

use serde::{Deserialize, Serialize};

/// One column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnInfo {
    /// Its name.
    pub name: String,
    /// Its type as in YAML, `!` included.
    #[serde(rename = "type")]
    pub kind: String,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionInfo {
    /// Its number.
    pub partition: u32,
    /// The first offset kept.
    pub start: u64,
    /// The offset that the next event will get.
    pub end: u64,
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// True for topics that the system keeps for itself (positions of replays, idempotency keys).
    pub internal: bool,
    /// The key columns.
    pub key: Vec<String>,
    /// The column of the event time.
    pub event_time: Option<String>,
    /// The columns, in order.
    pub columns: Vec<ColumnInfo>,
    /// The version of its columns.
    pub schema_version: u32,
    /// `until read + 24h`, `30d`, …
    pub retention: String,
    /// Events kept.
    pub events: u64,
    /// Bytes of them, where the log knows.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// Sources and services that write it.
    pub writers: Vec<String>,
    /// Services and sinks that read it.
    pub readers: Vec<String>,
    /// Its partitions.
    pub partitions: Vec<PartitionInfo>,
}

/// All topics, in the order of the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topics {
    /// The topics.
    pub topics: Vec<Topic>,
}

//! Setting a service back.

use serde::{Deserialize, Serialize};

/// An order to set a service back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewindRequest {
    /// `start`, an offset, or a time such as `2026-01-31T12:00:00Z`.
    pub to: String,
    /// `suppress`, `append`, or a topic: there is no default.
    #[serde(default)]
    pub outputs: Option<String>,
    /// Only say what would be done.
    #[serde(default)]
    pub preview: bool,
}

/// What an order does, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewindAnswer {
    /// The service.
    pub service: String,
    /// Where to.
    pub to: String,
    /// `suppress`, `append`, or the topic.
    pub outputs: String,
    /// Whether it was done.
    pub done: bool,
    /// How many tasks the service has.
    pub tasks: u32,
    /// How many of them are set back.
    pub rewound: u32,
    /// What is read again.
    pub inputs: Vec<RewoundInput>,
    /// The topics that get events a second time.
    pub twice: Vec<String>,
    /// What else there is to know, for a person.
    pub notes: Vec<String>,
}

/// What is read again of one input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewoundInput {
    /// The topic.
    pub topic: String,
    /// How many of its partitions.
    pub partitions: u32,
    /// How many events at most.
    pub events: u64,
    /// Whether earlier events, which were read once, are gone.
    pub trimmed: bool,
}

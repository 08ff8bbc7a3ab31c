//! Orders to one service.

use serde::{Deserialize, Serialize};

use super::ServiceStatus;

/// How many instances a service shall have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleRequest {
    /// At least 1, at most the partitions of its inputs.
    pub instances: u32,
}

/// What to break, for showing that nothing else notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// One task panics at its next batch.
    Panic,
}

/// An order to break something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InjectRequest {
    /// What to break.
    pub fault: Fault,
}

/// How the service stands after the order has taken effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceAnswer {
    /// False when it already was as ordered.
    pub changed: bool,
    /// The service now.
    pub service: ServiceStatus,
}

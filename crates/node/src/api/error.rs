//! How the API refuses.

use serde::{Deserialize, Serialize};

/// The codes that the command line acts on. Others may appear.
pub mod codes {
    /// No topic of that name. `help` suggests one.
    pub const TOPIC_UNKNOWN: &str = "topic-unknown";
    /// No service of that name. `help` suggests one.
    pub const SERVICE_UNKNOWN: &str = "service-unknown";
    /// The pipeline sent is wrong; `diagnostics` says where.
    pub const PIPELINE_WRONG: &str = "pipeline-wrong";
    /// A `where` that is no predicate over the topic's columns.
    pub const WHERE_WRONG: &str = "where-wrong";
    /// The change cannot be applied to what runs (a topic's columns would change incompatibly).
    pub const CHANGE_REFUSED: &str = "change-refused";
    /// The change was tried and taken back, or could not be tried; everything runs as before.
    pub const APPLY_FAILED: &str = "apply-failed";
    /// The node is about to end.
    pub const STOPPING: &str = "stopping";
    /// The pipeline says no place for backups.
    pub const BACKUP_UNSET: &str = "backup-unset";
    /// A backup, or a restore, could not be made; `message` says why.
    pub const BACKUP_FAILED: &str = "backup-failed";
    /// A request that cannot be understood.
    pub const REQUEST_WRONG: &str = "request-wrong";
    /// The log could not be read; `message` says why.
    pub const LOG_FAILED: &str = "log-failed";
    /// The log does not accept; `message` says why.
    pub const LOG_STOPPED: &str = "log-stopped";
}

/// A refusal: the body of every answer with a status from 400 on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Stable, for programs (see [`codes`]).
    pub code: String,
    /// For people: lower case, no full stop, with the values.
    pub message: String,
    /// What to do, or what may have been meant.
    #[serde(default)]
    pub help: Option<String>,
    /// What is wrong with a pipeline that was sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<super::Diagnostic>,
}

impl ApiError {
    /// A refusal without help.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), help: None, diagnostics: Vec::new() }
    }

    /// The same with a way out.
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

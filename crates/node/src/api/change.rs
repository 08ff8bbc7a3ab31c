//! The difference between a file and what runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A pipeline with all files it names, so that the node judges what the sender sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineText {
    /// The file's name as the sender wrote it, for diagnostics.
    pub file: String,
    /// The YAML.
    pub yaml: String,
    /// The text of each `sql_file`, by its name in the YAML.
    #[serde(default)]
    pub sql_files: BTreeMap<String, String>,
}

/// What kind of part changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartKind {
    /// A topic.
    Topic,
    /// A lookup.
    Lookup,
    /// A source.
    Source,
    /// A service.
    Service,
    /// A sink.
    Sink,
    /// A setting of the whole pipeline (`log`, `server`, its name).
    Setting,
}

/// How it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It goes. A topic's events stay until its retention ends.
    Removed,
    /// It is another one from now on: the part restarts at a commit boundary.
    Changed,
    /// It cannot change so while its data stays, or while the node runs; `reason` says why.
    Refused,
    /// It takes effect when the node starts the next time.
    Restart,
}

/// One part that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What kind of part.
    pub part: PartKind,
    /// Its name.
    pub name: String,
    /// How it changes.
    pub change: ChangeKind,
    /// Version (or definition) before.
    #[serde(default)]
    pub before: Option<String>,
    /// Version (or definition) after.
    #[serde(default)]
    pub after: Option<String>,
    /// What differs, one line each, as in `check.amount_is_positive: amount > 0 -> amount >= 0`.
    #[serde(default)]
    pub details: Vec<String>,
    /// Why it is refused or waits for a restart.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What `apply` would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The pipeline's name.
    pub pipeline: String,
    /// Empty when the file is what runs.
    pub changes: Vec<Change>,
    /// Services, sources and sinks that go on without noticing.
    pub unchanged: Vec<String>,
    /// Warnings about the new file.
    #[serde(default)]
    pub warnings: Vec<super::Diagnostic>,
}

impl Plan {
    /// Whether `apply` would refuse.
    pub fn refused(&self) -> bool {
        self.changes.iter().any(|c| c.change == ChangeKind::Refused)
    }
}

/// What `apply` did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// What changed.
    pub plan: Plan,
    /// How long the longest-stopped part stood still.
    pub longest_stop_ms: f64,
    /// How long all of it took.
    pub elapsed_ms: f64,
}

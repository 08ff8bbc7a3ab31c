//! Backups: how they stand, what a round did, what there is to restore.

use serde::{Deserialize, Serialize};

/// How the backups of a running pipeline stand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackupState {
    /// Where to.
    pub to: String,
    /// How often, in seconds.
    pub every_s: f64,
    /// When a round last succeeded; absent while none has.
    #[serde(default)]
    pub last_success: Option<String>,
    /// How long ago that was; since the start while none has.
    pub seconds_since_success: f64,
    /// The bytes of the newest backup.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// Rounds since the start.
    pub rounds: u64,
    /// Those of them that failed.
    pub rounds_failed: u64,
    /// Why the last round failed; absent where it succeeded.
    #[serde(default)]
    pub error: Option<String>,
}

/// What a round did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Where to.
    pub to: String,
    /// The backup's name.
    pub backup: String,
    /// Of when it is: what was committed before is in it.
    pub at: String,
    /// Objects that were written; none where nothing had changed.
    pub objects: u64,
    /// Their bytes.
    pub written_bytes: u64,
    /// The bytes of all that belongs to it.
    pub bytes: u64,
    /// Positions of tasks in it.
    pub positions: u64,
}

/// A backup that could be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupInfo {
    /// The pipeline.
    pub pipeline: String,
    /// Its name.
    pub backup: String,
    /// Of when it is.
    pub at: String,
    /// The bytes of all that belongs to it.
    pub bytes: u64,
    /// Positions of tasks in it.
    pub positions: u64,
    /// The log's own number: a log that was begun anew has another one.
    pub log: String,
    /// The version of the program that wrote it.
    pub version: String,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// Where the log is now.
    pub dir: String,
    /// What it was restored from.
    pub from: BackupInfo,
    /// Files written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Events that read back.
    pub events: u64,
}

//! The log's own figures and its examination.

use serde::{Deserialize, Serialize};

/// What one topic takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTopic {
    /// The topic.
    pub topic: String,
    /// Its partitions.
    pub partitions: u32,
    /// Events kept.
    pub events: u64,
    /// Bytes in files of its own; those still in the journal are not in it.
    pub settled_bytes: u64,
    /// Files of its own.
    pub files: u64,
    /// Bytes of its events that are in the journal only.
    #[serde(default)]
    pub journal_bytes: u64,
}

/// The log's figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStat {
    /// Where it is.
    pub dir: String,
    /// Bytes on disk, all of them.
    pub bytes: u64,
    /// Bytes of the journal's segments in use.
    pub journal_bytes: u64,
    /// Segments in use.
    pub segments: u64,
    /// Segments waiting to be used again.
    pub segments_free: u64,
    /// Bytes in files per topic partition.
    pub settled_bytes: u64,
    /// `group`, `interval 50ms`, `never`.
    pub sync: String,
    /// Commits since the log was opened; absent for a stopped node.
    #[serde(default)]
    pub commits: Option<u64>,
    /// Syncs since the log was opened.
    #[serde(default)]
    pub syncs: Option<u64>,
    /// Why it no longer accepts.
    #[serde(default)]
    pub stopped: Option<String>,
    /// By topic.
    pub topics: Vec<LogTopic>,
}

/// Something wrong in a file of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyFault {
    /// The file, relative to the log's directory.
    pub file: String,
    /// Where in it.
    pub at_byte: u64,
    /// What is wrong.
    pub message: String,
    /// True for a torn tail: a write that nobody was told had succeeded. Opening removes it.
    pub harmless: bool,
    /// The topics whose events may be lost, where that is known.
    #[serde(default)]
    pub topics: Vec<String>,
}

/// The answer of `log verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Where the log is.
    pub dir: String,
    /// Files read.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Groups of commits whose checksums were computed again.
    pub groups: u64,
    /// What is wrong; only harmless ones leave the log usable.
    pub faults: Vec<VerifyFault>,
    /// What a repair can do about it beyond taking out what does not read back, and what it cannot.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl VerifyReport {
    /// Whether the log opens as it is.
    pub fn sound(&self) -> bool {
        self.faults.iter().all(|f| f.harmless)
    }
}

/// The answer of `log repair`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairReport {
    /// Where the log is.
    pub dir: String,
    /// What was done and what is lost, one line each.
    pub actions: Vec<String>,
    /// Events that are gone, where that can be known.
    #[serde(default)]
    pub events_lost: Option<u64>,
    /// Where the damaged files were kept.
    #[serde(default)]
    pub kept: Option<String>,
}

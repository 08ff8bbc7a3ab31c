//! What can go wrong with a log, each with what to do about it.

use std::path::PathBuf;

use millstream_event::{Name, Offset, TopicPartition};

/// An error of a log. Bad events are data and never come this way.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The operating system refused a read or a write.
    #[error("{doing} {}: {reason}", path.display())]
    Io {
        /// What was being done, e.g. `writing`.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// Bytes that were durable do not read back.
    #[error("the log is damaged: {what} in {} at byte {at}; affected: {affected}; run `millstream log verify`, then `millstream log repair`", path.display())]
    Corrupt {
        /// What does not agree.
        what: String,
        /// The file.
        path: PathBuf,
        /// The place in the file.
        at: u64,
        /// The topics that may have lost events, or `unknown`.
        affected: String,
    },
    /// A restore was killed while it moved the log's files to their places.
    #[error("a restore did not end in {}; run `millstream state restore` again", dir.display())]
    Unrestored {
        /// The log's directory.
        dir: PathBuf,
    },
    /// Another process has the log open.
    #[error("the log in {} is in use by process {pid}; stop it first, or use another directory", dir.display())]
    Locked {
        /// The log's directory.
        dir: PathBuf,
        /// The process that holds the lock.
        pid: u32,
    },
    /// A write or a sync failed before; nothing more is accepted until the log is opened again.
    #[error("the log has stopped: {reason}; mend the cause and start again, nothing acknowledged is lost")]
    Stopped {
        /// The first failure.
        reason: String,
    },
    /// The topic does not exist.
    #[error("there is no topic `{0}`")]
    UnknownTopic(Name),
    /// The topic has fewer partitions.
    #[error("there is no partition {0}")]
    UnknownPartition(TopicPartition),
    /// A topic exists with a definition that the new one cannot replace.
    #[error("topic `{topic}` exists and cannot be changed like this: {why}")]
    Incompatible {
        /// The topic.
        topic: Name,
        /// Both definitions, side by side.
        why: String,
    },
    /// The events at this offset are gone.
    #[error("{at} has no offset {asked} any more; it starts at {start}")]
    OutOfRange {
        /// The partition.
        at: TopicPartition,
        /// The offset asked for.
        asked: Offset,
        /// The first offset that is kept.
        start: Offset,
    },
    /// The files were written by a newer version.
    #[error("{} needs a newer version of millstream ({what}); nothing was changed", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// The unknown version or feature.
        what: String,
    },
    /// An argument that breaks the contract (a bug of the caller).
    #[error("refused: {0}")]
    Refused(String),
}

impl Error {
    /// Whether the same call may succeed later without anybody doing anything.
    pub fn retryable(&self) -> bool {
        false
    }
}

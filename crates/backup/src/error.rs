//! What can go wrong with a backup, each with what to do about it.

use std::path::PathBuf;

/// An error of a backup or of a restore.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address means nothing to us.
    #[error("`{to}` is no place for backups: {why}")]
    Place {
        /// The address.
        to: String,
        /// What is wrong with it.
        why: String,
    },
    /// The object store refused, after retries.
    #[error("{doing} `{object}` in {place}: {reason}")]
    Store {
        /// What was being done, e.g. `writing`.
        doing: &'static str,
        /// The object.
        object: String,
        /// The store.
        place: String,
        /// The store's words.
        reason: String,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] millstream_log::Error),
    /// The log was settled faster than it could be copied.
    #[error(
        "the log was settled {0} times while it was copied, each time before the copy was whole; the next round goes on from there"
    )]
    Outrun(usize),
    /// There is nothing to restore.
    #[error(
        "there is no backup of pipeline `{pipeline}` {when}in {place}; `millstream state list --from URL` shows what is there"
    )]
    Nothing {
        /// The pipeline.
        pipeline: String,
        /// `before …`, or nothing.
        when: String,
        /// The store.
        place: String,
    },
    /// There is more than one log whose newest backup could be meant.
    #[error(
        "there are backups of {} logs of pipeline `{pipeline}` in {place}: one of them was perhaps begun anew before the other was restored; say which with `--log`, or when with `--at`:{}",
        logs.len(), logs.concat()
    )]
    SeveralLogs {
        /// The pipeline.
        pipeline: String,
        /// The store.
        place: String,
        /// Each log's newest backup, a line each.
        logs: Vec<String>,
    },
    /// Restoring would write over something.
    #[error("{} is not empty: it has {found}; move it away or remove it, then restore again", dir.display())]
    Used {
        /// The directory.
        dir: PathBuf,
        /// What is in it.
        found: String,
    },
    /// An object or a manifest is not what it was.
    #[error("`{object}` in {place} is damaged: {why}; choose an earlier backup with `--at`")]
    Damaged {
        /// The object.
        object: String,
        /// The store.
        place: String,
        /// What does not agree.
        why: String,
    },
    /// The restored log does not read back.
    #[error(
        "the restored log does not read back: {why}; nothing was put in its place, choose an earlier backup with `--at`"
    )]
    Unsound {
        /// The first thing that is wrong.
        why: String,
    },
    /// A later version wrote the manifest.
    #[error("`{object}` needs a newer version of millstream (format {format})")]
    TooNew {
        /// The manifest.
        object: String,
        /// Its format.
        format: u32,
    },
    /// The operating system refused.
    #[error("{doing} {}: {reason}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// Somebody else backs this log up now.
    #[error(
        "another process backs this log up to {place} since {}: a copy of this directory, or one restored from there; nothing was changed. Stop it, or give one of them another `to`; then `millstream state snapshot` here takes the place back, and so does a restart",
        since.format("%Y-%m-%dT%H:%M:%SZ")
    )]
    TakenOver {
        /// The store.
        place: String,
        /// Since when.
        since: chrono::DateTime<chrono::Utc>,
    },
    /// A thread of ours ended before its work.
    #[error("reading the log ended early: {0}")]
    Ended(String),
}

/// An [`Error::Io`].
pub(crate) fn io_error(doing: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error {
    move |e| Error::Io { doing, path: path.to_owned(), reason: e.to_string() }
}

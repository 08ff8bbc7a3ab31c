//! What can go wrong at the edges of a task, and whether waiting may help.

use millstream_event::Name;

/// A failure of something outside: a file, a database, a peer. Never a bad event: those are data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConnectError {
    message: String,
    retryable: bool,
}

impl ConnectError {
    /// A failure that may pass by itself (a peer that is down, a full disk): the task waits with exponential backoff and
    /// goes on from its last commit.
    pub fn temporary(message: impl Into<String>) -> Self {
        Self { message: message.into(), retryable: true }
    }

    /// A failure that somebody must mend (a missing file, refused credentials): the task stops with this reason until it
    /// is resumed or deployed again.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self { message: message.into(), retryable: false }
    }

    /// Whether the same call may succeed later without anybody doing anything.
    pub fn retryable(&self) -> bool {
        self.retryable
    }
}

/// Why a service, source or sink cannot be started or told something.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Another one of this name is running.
    #[error("`{0}` is running already; stop it before starting another one of this name")]
    Running(Name),
    /// The definition cannot run.
    #[error("`{name}` cannot run: {why}")]
    Definition {
        /// The service, source or sink.
        name: Name,
        /// What is wrong with it.
        why: String,
    },
    /// The log refused.
    #[error(transparent)]
    Log(#[from] millstream_log::Error),
    /// A request that makes no sense here.
    #[error("{0}")]
    Refused(String),
    /// An answer did not come in time.
    #[error("{0} did not answer in time; it may still do what was asked")]
    Timeout(String),
}

//! What can go wrong at the edges of a task, and whether waiting may help.

use millstream_event::Name;

/// A failure of something outside: a file, a database, a peer. Never a bad event: those are data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConnectError {
    message: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Temporary,
    Refused,
    Permanent,
}

impl ConnectError {
    /// A failure that may pass by itself (a peer that is down, a full disk): the task waits with exponential backoff and
    /// goes on from its last commit.
    pub fn temporary(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: Kind::Temporary }
    }

    /// A failure that somebody must mend, perhaps outside (a name without an address, a wrong password): the task has
    /// failed, says so, and tries again by itself.
    pub fn refused(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: Kind::Refused }
    }

    /// A failure that somebody must mend here (a missing file, a wrong setting): the task stops with this reason until it
    /// is resumed or deployed again.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: Kind::Permanent }
    }

    /// Whether the same call may succeed later without anybody doing anything.
    pub fn retryable(&self) -> bool {
        self.kind == Kind::Temporary
    }

    /// Whether it may succeed later because somebody has mended something outside.
    pub fn may_be_mended(&self) -> bool {
        self.kind == Kind::Refused
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

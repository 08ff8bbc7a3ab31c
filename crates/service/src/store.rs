//! State that is kept outside of the log: in a database that several nodes reach. The traits live here; PostgreSQL
//! implements them elsewhere.
//!
//! Two stores cannot be changed in one step, so one of them decides. A commit goes so:
//!
//! 1. The *store* keeps, in one transaction, what has changed in the state and the staged commit: all that the log is
//!    about to be told. From here on the commit has happened.
//! 2. The *log* is handed the commit. Its acknowledgement ends the step; the next one begins only after it.
//!
//! A task that opens takes the staged commit and looks where the log stands: before it (then it is handed over again),
//! behind it (then nothing is left to do), or anywhere else (then the two are of different times, and the task refuses
//! to work). It looks once before it takes the state over, so that a node which has no business there disturbs nobody.
//!
//! What a store promises:
//! - [`StoredState::store`] is atomic, and durable when it returns.
//! - It happens only for the newest owner: since another [`StoredState::own`] of the same task, by whomever, it fails
//!   with [`StoreError::Taken`] and changes nothing.
//! - After any error nobody knows whether it happened; the next `own` tells.

use std::fmt;

use bytes::Bytes;
use futures::future::BoxFuture;
use millstream_log::TaskId;

use crate::ConnectError;

/// Keeps the state of tasks.
pub trait StateStore: Send + Sync + 'static {
    /// Where it is, for people; never with a secret.
    fn place(&self) -> String;

    /// Connects. Nothing has changed after it.
    fn connect<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<Box<dyn StoredState>, StoreError>>;

    /// The state of a task as it is now, all rows of one moment, whoever owns it; nobody is disturbed and nothing is made.
    /// `None`: it has none.
    fn look<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<Option<Box<dyn StoredRows>>, StoreError>>;
}

impl fmt::Debug for dyn StateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())
    }
}

/// Who may change the state of a task: drawn anew whenever a task opens, so no two have the same.
pub type Owner = [u8; 16];

/// A row of state: key and value.
pub type StateRow = (Bytes, Bytes);

/// The rows of a task's state.
pub trait StoredRows: Send {
    /// The next rows, each key once; none: that was all. A part at a time, so that memory is bounded. The order is the
    /// same each time; keys that are not very long are in theirs.
    fn rows(&mut self) -> BoxFuture<'_, Result<Vec<StateRow>, StoreError>>;
}

/// The state of one task, for its owner: there are no [`StoredRows::rows`] before [`StoredState::own`].
pub trait StoredState: StoredRows {
    /// The staged commit of the last transaction, whoever made it; `None`: there was none.
    fn staged(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>>;

    /// Makes this owner the one of the task's state, and answers as [`StoredState::staged`]. What an earlier owner had
    /// begun has happened or never will.
    fn own(&mut self, owner: Owner) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>>;

    /// Keeps changes and a staged commit, which replaces the one before, in one transaction.
    fn store<'a>(
        &'a mut self,
        changes: &'a StateChanges<'a>,
        staged: &'a [u8],
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Lets go of all rows and keeps a staged commit, in one transaction. What is left is one row with the empty key and an
    /// empty value: a state that was emptied on purpose is told from one that has got lost.
    fn void<'a>(&'a mut self, staged: &'a [u8]) -> BoxFuture<'a, Result<(), StoreError>>;
}

/// What has changed in a state. No key is in it twice.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StateChanges<'a> {
    /// The keys that have a new value.
    pub keys: Vec<&'a [u8]>,
    /// The value of each of `keys`.
    pub values: Vec<&'a [u8]>,
    /// The keys that are gone.
    pub gone: Vec<&'a [u8]>,
}

/// Why a store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or refuses.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Somebody else has opened the task's state since.
    #[error("another node has taken over the state of this task")]
    Taken,
}

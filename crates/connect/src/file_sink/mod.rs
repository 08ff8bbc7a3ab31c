//! The `file` sink: events as NDJSON or CSV files, exactly once through crashes.
//!
//! Each task writes `<path>/<topic>/<partition>-<sequence>.<format>`, with `.part` behind the name while the file grows.
//! A file without `.part` is complete, is never touched again and may be taken away.
//!
//! 1. `write` appends to the `.part` file; what is there may be more than what is committed.
//! 2. `prepare` syncs data and directories. Its state says per topic the open file's sequence and length, and which files
//!    have been closed since the last commit.
//! 3. The state is committed together with the positions of the inputs.
//! 4. `committed` gives closed files their names.
//!
//! After a crash `open` repeats step 4 for the closed files of the committed state, cuts the open file to its committed
//! length and removes `.part` files that no commit knows. A log that knows less than the directory shows (restored from a
//! backup, say) is an error and not an overwritten file; a new log goes on behind the highest sequence it finds.
//!
//! `roll` closes a file at a size, or at the first commit after a time. Every stop in order closes all (draining, a signal,
//! a change of the sink), so what is left with `.part` is from a crash and is gone on with. CSV files are also closed when
//! the topic's columns change. A deleted row of a table says so: `"_deleted": true` in NDJSON, a column `_deleted` in CSV and
//! Arrow. A lock file per topic, partition and format keeps a second writer out: sinks may share a
//! directory as long as they do not write the same files.

mod lock;
mod state;
mod task;
mod topic;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::decode::Format;
use crate::event::{Name, PartitionId};
use crate::service::{ConnectError, Sink, SinkTask};

/// The size at which a file is closed unless told otherwise: 1 GiB.
pub const ROLL_BYTES_DEFAULT: u64 = 1 << 30;

/// Where and how to write.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The directory; made where it does not exist.
    pub path: PathBuf,
    /// The form of the events.
    pub format: Format,
    /// When a file is closed and the next one begun.
    pub roll: Roll,
    /// How long written events wait for their commit; each commit syncs the files.
    pub commit_every: Duration,
    /// The topics that are tables: in CSV and Arrow their rows have a last column `_deleted`.
    pub tables: Vec<Name>,
}

impl Settings {
    /// NDJSON into a directory.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let (path, format, roll) = (path.into(), Format::default(), Roll::default());
        Self { path, format, roll, commit_every: Duration::from_secs(1), tables: Vec::new() }
    }
}

/// When a file is closed and the next one begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roll {
    /// At this size; a batch of events is never split, so files are a little larger.
    pub bytes: u64,
    /// At the first commit after this time since the file was begun (or opened again).
    pub every: Option<Duration>,
}

impl Default for Roll {
    fn default() -> Self {
        Self { bytes: ROLL_BYTES_DEFAULT, every: None }
    }
}

/// Writes files; see the [module](self).
#[derive(Debug, Clone)]
pub struct FileSink {
    settings: Settings,
}

impl FileSink {
    /// A sink with these settings.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }
}

impl Sink for FileSink {
    fn open(&self, task: PartitionId, state: Option<Bytes>) -> BoxFuture<'_, Result<Box<dyn SinkTask>, ConnectError>> {
        let settings = self.settings.clone();
        async move {
            let opened = tokio::task::spawn_blocking(move || task::FileTask::open(settings, task, state.as_deref()));
            let opened = opened.await.map_err(|e| ConnectError::temporary(format!("opening files: {e}")))??;
            Ok(Box::new(opened) as Box<dyn SinkTask>)
        }
        .boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), ConnectError>> {
        let path = self.settings.path.clone();
        async move {
            let checked = tokio::task::spawn_blocking(move || topic::check_directory(&path));
            checked.await.map_err(|e| ConnectError::temporary(format!("looking at the directory: {e}")))?
        }
        .boxed()
    }

    fn commit_every(&self) -> Duration {
        self.settings.commit_every
    }
}

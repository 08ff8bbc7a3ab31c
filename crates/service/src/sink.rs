//! Sinks: where events leave. The traits live here; files and streams implement them elsewhere.
//!
//! A sink task's life: `open` with the state of the last commit; any number of `write`s; `prepare`, which makes what was
//! written durable and says the state to commit; the commit of state and positions together; `committed`; and so on.
//! After any failure the task is dropped and opened again with the committed state, and the events since are written
//! again, so a sink that forgets what is not in its state is exactly once.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use millstream_event::{Batch, Name, PartitionId};

use crate::ConnectError;

/// Where events leave.
pub trait Sink: Send + Sync + 'static {
    /// Opens the task of a partition with the state of its last commit; `None` where there was none.
    fn open(&self, task: PartitionId, state: Option<Bytes>) -> BoxFuture<'_, Result<Box<dyn SinkTask>, ConnectError>>;

    /// Looks whether it could work (a directory can be made …), while another sink of its name may still be writing.
    fn check(&self) -> BoxFuture<'_, Result<(), ConnectError>> {
        Box::pin(async { Ok(()) })
    }

    /// How long written events may wait for their commit. Zero: each batch is committed at once.
    fn commit_every(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// A commit is also made when this many bytes in memory were written since the last one.
    fn commit_bytes(&self) -> usize {
        64 << 20
    }
}

/// One task of a sink.
pub trait SinkTask: Send {
    /// Takes the events of a batch, in the topic's order and with the topic's current columns.
    fn write<'a>(&'a mut self, topic: &'a Name, batch: &'a Batch) -> BoxFuture<'a, Result<(), ConnectError>>;

    /// Makes everything written so far durable. Answers the state to commit with the positions, at most
    /// [`millstream_log::Position::OPAQUE_BYTES_MAX`] bytes; `None`: the sink keeps no state.
    fn prepare(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, ConnectError>>;

    /// The state of the last `prepare` or `finish` is committed.
    fn committed(&mut self) -> BoxFuture<'_, Result<(), ConnectError>>;

    /// Like `prepare`, when nothing more is expected: what is open is completed (a last file gets its name). The state is
    /// committed and `committed` called as usual; the task may still be asked to write more after it.
    fn finish(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, ConnectError>> {
        self.prepare()
    }
}

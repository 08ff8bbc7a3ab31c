//! The `stdout` sink: events as lines on the process's standard output.
//!
//! **At least once.** Lines are written before their position is committed, so a crash between the two writes them
//! again. When whoever reads the output goes away, the sink stops with that reason and commits nothing more; everything
//! else goes on.

use std::io::{ErrorKind, Write, stdout};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::decode::Format;
use crate::encode::Encode;
use crate::event::{Batch, Name, PartitionId};
use crate::service::{ConnectError, Sink, SinkTask};

/// Any stream that takes lines.
type Out = Arc<Mutex<Box<dyn Write + Send>>>;

/// Writes NDJSON to a stream that all tasks share; lines are never mixed.
pub struct StdoutSink {
    out: Out,
}

impl StdoutSink {
    /// A sink on the process's standard output.
    pub fn new() -> Self {
        Self::writing(Box::new(stdout()))
    }

    /// A sink on another stream.
    pub fn writing(out: Box<dyn Write + Send>) -> Self {
        Self { out: Arc::new(Mutex::new(out)) }
    }
}

impl Default for StdoutSink {
    fn default() -> Self {
        Self::new()
    }
}

impl Sink for StdoutSink {
    fn open(&self, _: PartitionId, _: Option<Bytes>) -> BoxFuture<'_, Result<Box<dyn SinkTask>, ConnectError>> {
        let task =
            StdoutTask { out: Arc::clone(&self.out), encode: Encode::new(Format::Ndjson, false), lines: Vec::new() };
        async move { Ok(Box::new(task) as Box<dyn SinkTask>) }.boxed()
    }

    fn commit_every(&self) -> Duration {
        Duration::from_millis(100)
    }
}

struct StdoutTask {
    out: Out,
    encode: Encode,
    lines: Vec<u8>,
}

impl StdoutTask {
    async fn flush(&mut self) -> Result<(), ConnectError> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let (out, lines) = (Arc::clone(&self.out), std::mem::take(&mut self.lines));
        let write = move || {
            let mut out = out.lock();
            out.write_all(&lines).and_then(|()| out.flush())
        };
        let written = tokio::task::spawn_blocking(write)
            .await
            .map_err(|e| ConnectError::temporary(format!("writing to standard output: {e}")))?;
        written.map_err(|e| match e.kind() {
            ErrorKind::BrokenPipe => ConnectError::permanent("whoever read standard output has gone away"),
            _ => ConnectError::temporary(format!("writing to standard output: {e}")),
        })
    }
}

/// Lines are handed to the stream in parts of this size.
const PART_BYTES: usize = 256 * 1024;

impl SinkTask for StdoutTask {
    fn write<'a>(&'a mut self, _: &'a Name, batch: &'a Batch) -> BoxFuture<'a, Result<(), ConnectError>> {
        async move {
            self.encode.ready(batch.rows.schema_ref())?;
            self.encode.rows(&batch.rows, &mut self.lines)?;
            if self.lines.len() >= PART_BYTES { self.flush().await } else { Ok(()) }
        }
        .boxed()
    }

    fn prepare(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, ConnectError>> {
        async move { self.flush().await.map(|()| None) }.boxed()
    }

    fn committed(&mut self) -> BoxFuture<'_, Result<(), ConnectError>> {
        async { Ok(()) }.boxed()
    }
}

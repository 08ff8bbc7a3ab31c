//! The `stdin` source: events from the process's standard input.
//!
//! **At most once across a crash.** A pipe cannot be read again: what was read and not yet committed when the process is
//! killed is lost, and nothing is read twice. While its task lives nothing is lost: a part that could not be committed
//! is held by the runner and tried again. For exactly once write to a file and read that.

use std::io::{Read, stdin};

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::decode::{Decode, EVENT_BYTES_MAX, Format, refused, refused_event, too_long};
use crate::event::{PartitionId, Schema, Unknown};
use crate::service::log::Position;
use crate::service::{ConnectError, Intake, Source, SourceRead, SourceTask};

/// How many bytes are decoded together at most; fewer where fewer are there.
const PART_BYTES: usize = 256 * 1024;
/// The name in the places of refused events.
const NAME: &str = "stdin";

type Handed = Result<SourceRead, ConnectError>;

/// Reads standard input; only one source of a process can.
pub struct StdinSource {
    format: Format,
    unknown: Unknown,
    schema: Schema,
    input: Mutex<Option<Box<dyn Read + Send>>>,
    handed: std::sync::Arc<tokio::sync::Mutex<Option<mpsc::Receiver<Handed>>>>,
}

impl StdinSource {
    /// A source of the process's standard input.
    pub fn new(format: Format, unknown: Unknown, schema: Schema) -> Self {
        Self::reading(Box::new(stdin()), format, unknown, schema)
    }

    /// A source of any stream that cannot be read again.
    pub fn reading(input: Box<dyn Read + Send>, format: Format, unknown: Unknown, schema: Schema) -> Self {
        Self { format, unknown, schema, input: Mutex::new(Some(input)), handed: Default::default() }
    }
}

impl Source for StdinSource {
    fn bounded(&self) -> bool {
        true
    }

    fn open(
        &self,
        _task: PartitionId,
        _position: Option<Position>,
    ) -> BoxFuture<'_, Result<Box<dyn SourceTask>, ConnectError>> {
        async move {
            // The thread outlives a task that is opened again: what it has read is not lost.
            let input = self.input.lock().take();
            if let Some(input) = input {
                let (out, handed) = mpsc::channel(1);
                let (format, unknown, schema) = (self.format, self.unknown, self.schema.clone());
                std::thread::Builder::new()
                    .name("source-stdin".to_owned())
                    .spawn(move || {
                        let end = Stream { input, buffer: Vec::new(), lines: 0, ended: false, out: &out }
                            .run(format, unknown, &schema)
                            .map(|()| SourceRead::Finished);
                        // An error here means that nobody listens any more.
                        drop(out.blocking_send(end));
                    })
                    .map_err(|e| ConnectError::permanent(format!("starting a thread to read standard input: {e}")))?;
                *self.handed.lock().await = Some(handed);
            }
            Ok(Box::new(StdinTask { handed: self.handed.clone() }) as Box<dyn SourceTask>)
        }
        .boxed()
    }
}

struct StdinTask {
    handed: std::sync::Arc<tokio::sync::Mutex<Option<mpsc::Receiver<Handed>>>>,
}

impl SourceTask for StdinTask {
    fn next(&mut self) -> BoxFuture<'_, Result<SourceRead, ConnectError>> {
        async move {
            let mut handed = self.handed.lock().await;
            let Some(receiver) = handed.as_mut() else { return Ok(SourceRead::Finished) };
            receiver.recv().await.unwrap_or(Ok(SourceRead::Finished))
        }
        .boxed()
    }
}

struct Stream<'a> {
    input: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    lines: u64,
    ended: bool,
    out: &'a mpsc::Sender<Handed>,
}

impl Stream<'_> {
    fn run(mut self, format: Format, unknown: Unknown, schema: &Schema) -> Result<(), ConnectError> {
        let Some(mut decode) = self.decoder(format, unknown, schema)? else { return Ok(()) };
        loop {
            let decoded = decode.decode(&self.buffer, self.ended)?;
            let consumed = decoded.consumed;
            if consumed > 0 {
                let refused = refused(NAME, self.lines, &self.buffer, &decoded.refused);
                self.drop_front(consumed);
                if !self.send(Intake { rows: decoded.rows, refused, position: None, extra: Vec::new(), receipt: None })
                {
                    return Ok(());
                }
            } else if self.buffer.len() >= EVENT_BYTES_MAX && !self.skip(&decode)? {
                return Ok(());
            }
            if self.ended {
                return Ok(());
            }
            self.fill()?;
        }
    }

    fn decoder(&mut self, format: Format, unknown: Unknown, schema: &Schema) -> Result<Option<Decode>, ConnectError> {
        if format == Format::Ndjson {
            return Ok(Some(Decode::ndjson(schema, unknown)));
        }
        loop {
            let fault = |e: String| ConnectError::permanent(format!("the header on standard input: {e}"));
            let opened = Decode::csv(schema, unknown, &self.buffer, self.ended).map_err(fault)?;
            if let Some((decoder, consumed)) = opened {
                self.drop_front(consumed);
                return Ok(Some(decoder));
            }
            if self.ended {
                return Ok(None);
            }
            if self.buffer.len() > PART_BYTES {
                return Err(fault(format!("it is longer than {PART_BYTES} bytes")));
            }
            self.fill()?;
        }
    }

    /// Reads what is there; waits only where nothing is.
    fn fill(&mut self) -> Result<(), ConnectError> {
        let have = self.buffer.len();
        self.buffer.resize(have + PART_BYTES, 0);
        let read = loop {
            match self.input.read(self.buffer.get_mut(have..).unwrap_or_default()) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let read = read.map_err(|e| ConnectError::permanent(format!("reading standard input: {e}")))?;
        self.buffer.truncate(have + read);
        self.ended = read == 0;
        Ok(())
    }

    fn drop_front(&mut self, bytes: usize) {
        self.lines += memchr::memchr_iter(b'\n', self.buffer.get(..bytes).unwrap_or_default()).count() as u64;
        self.buffer.drain(..bytes);
    }

    fn send(&self, intake: Intake) -> bool {
        self.out.blocking_send(Ok(SourceRead::Intake(Box::new(intake)))).is_ok()
    }

    /// Refuses an event that is too long and drops it up to its line end.
    fn skip(&mut self, decode: &Decode) -> Result<bool, ConnectError> {
        let reason = format!("the event is longer than {EVENT_BYTES_MAX} bytes");
        let refused = refused_event(&self.buffer, too_long(), reason, format!("{NAME}:{}", self.lines + 1));
        while !self.ended {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer) {
                self.drop_front(at + 1);
                break;
            }
            self.buffer.clear();
            self.fill()?;
        }
        let rows = decode.empty();
        Ok(self.send(Intake { rows, refused: vec![refused], position: None, extra: Vec::new(), receipt: None }))
    }
}

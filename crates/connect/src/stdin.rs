//! The `stdin` source: events from the process's standard input.
//!
//! **At most once across the process's end.** A pipe cannot be read again: what was read and not yet committed when the
//! process is killed is lost, and nothing is read twice. Within the process's life it is exactly once: the stream is cut
//! into numbered parts, a part is kept until its number is committed, and a task that starts again is handed every part
//! behind the committed one. For exactly once across a crash write to a file and read that.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, stdin};
use std::sync::Arc;

use arrow_array::RecordBatch;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, mpsc};

use crate::decode::{Decode, EVENT_BYTES_MAX, Format, refused, refused_event, too_long};
use crate::event::{PartitionId, Schema, Unknown};
use crate::service::log::Position;
use crate::service::{ConnectError, Intake, RefusedEvent, Source, SourceRead, SourceTask};

/// How many bytes are decoded together at most; fewer where fewer are there.
const PART_BYTES: usize = 256 * 1024;
/// The name in the places of refused events.
const NAME: &str = "stdin";

/// What the reading thread hands over; it closes the channel at the end of the stream.
type Handed = Result<Part, ConnectError>;

/// Events that are committed together.
struct Part {
    rows: RecordBatch,
    refused: Vec<RefusedEvent>,
}

/// Reads standard input; only one source of a process can.
pub struct StdinSource {
    format: Format,
    unknown: Unknown,
    schema: Schema,
    input: Mutex<Option<Box<dyn Read + Send>>>,
    /// Outlives the tasks, of which one has it at a time.
    kept: Arc<tokio::sync::Mutex<Kept>>,
}

impl StdinSource {
    /// A source of the process's standard input.
    pub fn new(format: Format, unknown: Unknown, schema: Schema) -> Self {
        Self::reading(Box::new(stdin()), format, unknown, schema)
    }

    /// A source of any stream that cannot be read again.
    pub fn reading(input: Box<dyn Read + Send>, format: Format, unknown: Unknown, schema: Schema) -> Self {
        let kept = Kept { stream: stream_id(), handed: None, parts: VecDeque::new(), first: 1 };
        Self { format, unknown, schema, input: Mutex::new(Some(input)), kept: Arc::new(tokio::sync::Mutex::new(kept)) }
    }
}

/// An id that no other stream has. `RandomState` has fresh random keys for each call.
fn stream_id() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

impl Source for StdinSource {
    fn bounded(&self) -> bool {
        true
    }

    fn open(
        &self,
        _task: PartitionId,
        position: Option<Position>,
    ) -> BoxFuture<'_, Result<Box<dyn SourceTask>, ConnectError>> {
        async move {
            let mut kept = Arc::clone(&self.kept).lock_owned().await;
            let input = self.input.lock().take();
            if let Some(input) = input {
                let (out, handed) = mpsc::channel(1);
                let (format, unknown, schema) = (self.format, self.unknown, self.schema.clone());
                std::thread::Builder::new()
                    .name("source-stdin".to_owned())
                    .spawn(move || {
                        let stream = Stream { input, buffer: Vec::new(), lines: 0, ended: false, out: &out };
                        if let Err(error) = stream.run(format, unknown, &schema) {
                            // An error here means that nobody listens any more.
                            drop(out.blocking_send(Err(error)));
                        }
                    })
                    .map_err(|e| ConnectError::permanent(format!("starting a thread to read standard input: {e}")))?;
                kept.handed = Some(handed);
            }
            if let Some(position) = &position {
                kept.commit(position);
            }
            Ok(Box::new(StdinTask { kept, next: 0 }) as Box<dyn SourceTask>)
        }
        .boxed()
    }
}

/// The stream between its reading thread and the log.
struct Kept {
    /// Tells this stream's positions from those of earlier processes.
    stream: String,
    handed: Option<mpsc::Receiver<Handed>>,
    /// What was handed out and is not known to be committed, oldest first. At most as many as commits may be on their way.
    parts: VecDeque<Part>,
    /// The number of the first of them.
    first: u64,
}

impl Kept {
    /// Forgets what is committed; answers how many parts that were.
    fn commit(&mut self, position: &Position) -> usize {
        let Position::Opaque(bytes) = position else { return 0 };
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        let number = text.split_once(':').filter(|(stream, _)| *stream == self.stream);
        let Some(number) = number.and_then(|(_, number)| number.parse::<u64>().ok()) else { return 0 };
        let done = usize::try_from((number + 1).saturating_sub(self.first)).unwrap_or(0).min(self.parts.len());
        self.parts.drain(..done);
        self.first += done as u64;
        done
    }

    /// A part to be committed, by its place among those kept.
    fn intake(&self, place: usize) -> Option<SourceRead> {
        let part = self.parts.get(place)?;
        let position = format!("{}:{}", self.stream, self.first + place as u64);
        Some(SourceRead::Intake(Box::new(Intake {
            rows: part.rows.clone(),
            refused: part.refused.clone(),
            position: Some(Position::Opaque(Bytes::from(position))),
            extra: Vec::new(),
            receipt: None,
        })))
    }
}

struct StdinTask {
    kept: OwnedMutexGuard<Kept>,
    /// The place of the part that is handed out next, among those kept.
    next: usize,
}

impl SourceTask for StdinTask {
    fn next(&mut self) -> BoxFuture<'_, Result<SourceRead, ConnectError>> {
        async move {
            if self.next >= self.kept.parts.len() {
                let Some(handed) = self.kept.handed.as_mut() else { return Ok(SourceRead::Finished) };
                let Some(part) = handed.recv().await else { return Ok(SourceRead::Finished) };
                self.kept.parts.push_back(part?);
            }
            let place = self.next;
            self.next += 1;
            Ok(self.kept.intake(place).unwrap_or(SourceRead::Finished))
        }
        .boxed()
    }

    fn committed(&mut self, position: &Position) {
        self.next = self.next.saturating_sub(self.kept.commit(position));
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
                if !self.send(Part { rows: decoded.rows, refused }) {
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
        match format {
            Format::Ndjson => return Ok(Some(Decode::ndjson(schema, unknown))),
            Format::Csv => {}
            Format::Arrow => {
                let what = "Arrow is read from files, not from standard input; write it to a file";
                return Err(ConnectError::permanent(what));
            }
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

    fn send(&self, part: Part) -> bool {
        self.out.blocking_send(Ok(part)).is_ok()
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
        Ok(self.send(Part { rows: decode.empty(), refused: vec![refused] }))
    }
}

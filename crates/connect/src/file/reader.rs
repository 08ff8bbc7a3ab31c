//! Reads files on a thread of its own and hands decoded parts over, one ahead of what is being committed.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;

use super::input::{CHUNK_BYTES, HEADER_BYTES_MAX, Input};
use super::pattern::Pattern;
use super::position::Places;
use super::{Settings, io_error};
use crate::decode::{Decode, EVENT_BYTES_MAX, Format, RAW_BYTES_MAX, refused, refused_event, too_long};
use crate::event::Schema;
use crate::service::{ConnectError, Intake, SourceRead};

/// How many decoded parts may wait to be taken.
const READ_AHEAD: usize = 1;

/// What the thread hands over.
pub(crate) type Handed = Result<SourceRead, ConnectError>;

/// Why reading stops early.
pub(crate) enum Stop {
    /// Nobody takes the events any more.
    Gone,
    /// Something outside failed.
    Failed(ConnectError),
}

impl From<ConnectError> for Stop {
    fn from(e: ConnectError) -> Self {
        Self::Failed(e)
    }
}

/// The state of the reading thread.
pub(crate) struct Reader {
    pub(crate) settings: Settings,
    pub(crate) pattern: Pattern,
    pub(crate) places: Places,
    schema: Schema,
    out: mpsc::Sender<Handed>,
}

impl Reader {
    /// Starts reading at `places`.
    pub(crate) fn start(
        settings: Settings,
        schema: Schema,
        places: Places,
    ) -> Result<mpsc::Receiver<Handed>, ConnectError> {
        let pattern = Pattern::new(&settings.path)?;
        let (out, handed) = mpsc::channel(READ_AHEAD);
        let mut reader = Self { settings, pattern, places, schema, out };
        std::thread::Builder::new()
            .name("source-file".to_owned())
            .spawn(move || {
                let done = if reader.settings.follow { reader.follow() } else { reader.once() };
                let last = match done {
                    Ok(()) => Ok(SourceRead::Finished),
                    Err(Stop::Failed(e)) => Err(e),
                    Err(Stop::Gone) => return,
                };
                // An error here means that nobody listens any more, which is how a task ends.
                drop(reader.out.blocking_send(last));
            })
            .map_err(|e| ConnectError::temporary(format!("starting a thread to read files: {e}")))?;
        Ok(handed)
    }

    /// Whether nobody takes the events any more.
    pub(crate) fn gone(&self) -> bool {
        self.out.is_closed()
    }

    /// The topic's columns.
    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Opens a file at its beginning with a decoder for it.
    pub(crate) fn open(&self, path: &Path, name: &str) -> Result<Input, ConnectError> {
        Input::open(path, name, self.settings.compression)
    }

    /// The decoder for an opened file, which has not been entered. For CSV this reads the header, and the place moves
    /// behind it. `None`: the header is not complete yet.
    pub(crate) fn decoder(&self, input: &mut Input, whole: bool) -> Result<Option<Decode>, ConnectError> {
        match self.settings.format {
            Format::Ndjson => return Ok(Some(Decode::ndjson(&self.schema, self.settings.unknown))),
            // Arrow files are read by their own walk.
            Format::Arrow => return Ok(None),
            Format::Csv => {}
        }
        let name = input.place.name.clone();
        let fault = |what: String| ConnectError::permanent(format!("the header of {name}: {what}"));
        input.fill(1)?;
        loop {
            let last = input.ended() && whole;
            let header = Decode::csv(&self.schema, self.settings.unknown, input.bytes(), last);
            match header.map_err(fault)? {
                Some((decoder, consumed)) => {
                    input.take(consumed);
                    return Ok(Some(decoder));
                }
                None if input.ended() => return Ok(None),
                None if input.bytes().len() > HEADER_BYTES_MAX => {
                    return Err(fault(format!("it is longer than {HEADER_BYTES_MAX} bytes")));
                }
                None => input.fill(input.bytes().len() + 1)?,
            }
        }
    }

    /// Hands over everything up to the end of the file as it is now. `whole`: nothing will follow, so a last event
    /// without line end is taken, and the file is noted as done when `finish`.
    pub(crate) fn drain(&mut self, input: &mut Input, decode: &mut Decode, end: End) -> Result<(), Stop> {
        loop {
            input.fill(CHUNK_BYTES)?;
            let last = input.ended() && end != End::Waits;
            let decoded = decode.decode(input.bytes(), last)?;
            if decoded.consumed == 0 {
                if input.ended() {
                    return Ok(());
                }
                if input.bytes().len() >= EVENT_BYTES_MAX {
                    self.skip_event(input, decode)?;
                } else {
                    let more = input.bytes().len() + CHUNK_BYTES;
                    input.fill(more)?;
                    self.longer_event(input, decode, end)?;
                }
                continue;
            }
            self.hand_over(input, decoded, end)?;
        }
    }

    /// An event longer than a chunk: reads on until it is whole or too long.
    fn longer_event(&mut self, input: &mut Input, decode: &mut Decode, end: End) -> Result<(), Stop> {
        loop {
            let decoded = decode.decode(input.bytes(), input.ended() && end != End::Waits)?;
            if decoded.consumed > 0 {
                return self.hand_over(input, decoded, end);
            }
            if input.ended() || input.bytes().len() >= EVENT_BYTES_MAX {
                return Ok(());
            }
            // Twice as much each time, so that a long event is not scanned once per chunk.
            input.fill((input.bytes().len() * 2).min(EVENT_BYTES_MAX))?;
        }
    }

    fn hand_over(&mut self, input: &mut Input, decoded: crate::event::Decoded, end: End) -> Result<(), Stop> {
        let name = input.place.name.clone();
        let bytes = input.bytes().get(..decoded.consumed).unwrap_or_default();
        let refused = refused(&name, input.place.lines, bytes, &decoded.refused);
        input.take(decoded.consumed);
        input.note_head()?;
        self.note(input, end == End::Finishes && input.ended() && input.bytes().is_empty());
        let position = Some(self.places.encode()?);
        self.send(Intake { rows: decoded.rows, refused, position, extra: Vec::new(), receipt: None })
    }

    /// Notes how far a file is read.
    fn note(&mut self, input: &Input, finished: bool) {
        if finished {
            self.places.finish(&input.place.name);
        } else {
            self.places.set(input.place.clone());
        }
        self.fit_places(&input.place.name);
    }

    /// Forgets files until the position is within its limit.
    pub(crate) fn fit_places(&mut self, keep: &str) {
        while !self.places.fits() {
            let Some(name) = self.places.forget_first(keep) else { break };
            tracing::warn!(file = name, "more files than can be watched: this one is read and no longer looked at");
        }
    }

    pub(crate) fn send(&mut self, intake: Intake) -> Result<(), Stop> {
        self.out.blocking_send(Ok(SourceRead::Intake(Box::new(intake)))).map_err(|_| Stop::Gone)
    }

    /// Refuses an event that is too long to be read and goes on behind its line.
    fn skip_event(&mut self, input: &mut Input, decode: &Decode) -> Result<(), Stop> {
        let place = format!("{}:{}", input.place.name, input.place.lines + 1);
        let raw = input.bytes().get(..RAW_BYTES_MAX).unwrap_or_default().to_vec();
        loop {
            if let Some(at) = memchr::memchr(b'\n', input.bytes()) {
                input.take(at + 1);
                break;
            }
            input.take(input.bytes().len());
            input.fill(CHUNK_BYTES)?;
            if input.bytes().is_empty() {
                break;
            }
        }
        self.note(input, false);
        let reason = format!("the event is longer than {EVENT_BYTES_MAX} bytes; its first {} are kept", raw.len());
        let refused = vec![refused_event(&raw, too_long(), reason, place)];
        let position = Some(self.places.encode()?);
        self.send(Intake { rows: decode.empty(), refused, position, extra: Vec::new(), receipt: None })
    }

    /// Waits until it is time to look again; false when nobody takes the events any more.
    pub(crate) fn wait(&self) -> bool {
        const STEP: Duration = Duration::from_millis(50);
        let mut left = self.settings.poll;
        while !left.is_zero() && !self.gone() {
            let step = left.min(STEP);
            std::thread::sleep(step);
            left -= step;
        }
        !self.gone()
    }

    /// What the system says of a file.
    pub(crate) fn fault(&self, doing: &str, name: &str, e: &io::Error) -> ConnectError {
        io_error(doing, &self.pattern.path(name), e)
    }
}

/// What the end of a file means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// More may follow: an event without line end is not whole yet.
    Waits,
    /// Nothing follows, but the file stays listed.
    Ends,
    /// Nothing follows and the file is done.
    Finishes,
}

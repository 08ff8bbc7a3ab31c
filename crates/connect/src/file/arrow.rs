//! Arrow IPC files: a record batch at a time, from the place where reading stopped.
//!
//! A place is the byte where a message begins and the number of events read before and within it, so a large record
//! batch goes into the log in several commits and reading goes on in its middle. Going on means to walk the messages
//! from the beginning: columns and dictionaries are read again, record batches are passed over.
//!
//! A followed file is read when it is whole, by its end; what grows meanwhile is looked at again.

use std::path::Path;

use arrow_array::RecordBatch;

use super::input::Input;
use super::position::FilePlace;
use super::reader::{End, Reader, Stop};
use crate::decode::refused_event;
use crate::event::ipc::{Look, StreamReader};
use crate::service::{ConnectError, INTAKE_ROWS_MAX, Intake, RefusedEvent};

/// How many of the last bytes tell whether a file is whole.
const END_BYTES: usize = 8;

/// How many of the first bytes tell a file from others: all files with the same columns begin alike.
const HEAD_BYTES: usize = 64 << 10;

/// A walk through the messages of a file.
struct Walk {
    input: Input,
    messages: StreamReader,
    /// The events in the record batches before this place.
    before: u64,
    /// The events that were read by an earlier task.
    done: u64,
}

impl Reader {
    /// Reads an Arrow file from its noted place to its end.
    pub(crate) fn arrow(&mut self, path: &Path, name: &str, end: End) -> Result<(), Stop> {
        let mut input = self.open(path, name)?;
        if input.compressed() {
            let what = "is packed as a whole, which is not read as Arrow; unpack it (inside, LZ4 is read)";
            return Err(ConnectError::permanent(format!("{} {what}", path.display())).into());
        }
        if input.size()? == 0 {
            return Ok(());
        }
        input.note_beginning(HEAD_BYTES)?;
        let begin = input.ends(END_BYTES)?;
        if end == End::Finishes && begin.0.starts_with(b"ARROW1") && !StreamReader::whole(&begin.0, &begin.1) {
            return Err(cut_off(path, 0).into());
        }
        let done = self.places.place(name).map_or(0, |place| place.lines);
        let messages = StreamReader::new(self.schema(), self.settings.unknown);
        let mut walk = Walk { input, messages, before: 0, done };
        loop {
            let found = walk.messages.look(walk.input.bytes());
            match found.map_err(|e| damaged(path, walk.before, &e))? {
                // A stream may just end behind a message.
                Look::More(_) if walk.input.ended() && walk.input.bytes().is_empty() => break,
                Look::More(_) if walk.input.ended() => return Err(cut_off(path, walk.before).into()),
                Look::More(bytes) => walk.input.fill(bytes)?,
                Look::End => break,
                Look::Padding(bytes) => walk.input.take_rows(bytes, 0),
                Look::Preface(bytes) => {
                    walk.whole(path, bytes)?;
                    walk.message(path, bytes)?;
                    walk.input.take_rows(bytes, 0);
                }
                Look::Batch { bytes, rows } if rows == 0 || walk.before + rows <= walk.done => {
                    walk.input.pass(bytes as u64, rows)?;
                    walk.before += rows;
                }
                Look::Batch { bytes, rows } => {
                    walk.whole(path, bytes)?;
                    let batch = walk.message(path, bytes)?;
                    self.arrow_batch(path, &mut walk, batch, bytes)?;
                    walk.before += rows;
                }
            }
        }
        if walk.input.place.lines < walk.done {
            let have = walk.before;
            return Err(ConnectError::permanent(format!(
                "{} has {have} events, but {} of it were read; put the old file back, or give the new one another name",
                path.display(),
                walk.done
            ))
            .into());
        }
        Ok(())
    }

    /// Hands over a record batch from the first event on that was not read before.
    fn arrow_batch(&mut self, path: &Path, walk: &mut Walk, batch: RecordBatch, bytes: usize) -> Result<(), Stop> {
        let name = walk.input.place.name.clone();
        let skip = usize::try_from(walk.done.saturating_sub(walk.before)).unwrap_or(usize::MAX).min(batch.num_rows());
        walk.input.place.lines = walk.before + skip as u64;
        let mut rows = batch.slice(skip, batch.num_rows() - skip);
        while rows.num_rows() > 0 {
            let fit = walk.messages.fit(&rows, INTAKE_ROWS_MAX);
            let fit = fit.map_err(|e| damaged(path, walk.input.place.lines, &e))?;
            let first = walk.input.place.lines + 1;
            let refused = fit.refused.into_iter().map(|(row, code, reason)| {
                let raw = walk.messages.row_text(&rows, row as usize).unwrap_or_default();
                refused_event(raw.as_bytes(), code.as_str(), reason, format!("{name}:{}", first + u64::from(row)))
            });
            let refused: Vec<RefusedEvent> = refused.collect();
            rows = rows.slice(fit.taken, rows.num_rows() - fit.taken);
            walk.input.place.lines += fit.taken as u64;
            if rows.num_rows() == 0 {
                walk.input.take_rows(bytes, 0);
            }
            self.places.set(walk.input.place.clone());
            self.fit_places(&name);
            let position = Some(self.places.encode()?);
            self.send(Intake { rows: fit.rows, refused, position, extra: Vec::new(), receipt: None })?;
        }
        Ok(())
    }

    /// Reads a followed file if it is whole; answers whether it was.
    pub(crate) fn follow_arrow(&mut self, path: &Path, name: &str) -> Result<bool, Stop> {
        let mut input = self.open(path, name)?;
        input.note_beginning(HEAD_BYTES)?;
        let (begin, end) = input.ends(END_BYTES)?;
        if !StreamReader::whole(&begin, &end) {
            return Ok(false);
        }
        if let Some(place) = self.places.place(name).cloned()
            && !input.is_of(&place)?
        {
            tracing::warn!(file = name, read = place.lines, "replaced; begins anew");
            self.places.drop_file(name);
        }
        let place = FilePlace { done: true, ..input.place.clone() };
        drop(input);
        self.arrow(path, name, End::Ends)?;
        let lines = self.places.place(name).map_or(0, |read| read.lines);
        self.places.set(FilePlace { lines, ..place });
        self.fit_places(name);
        Ok(true)
    }
}

impl Walk {
    /// Makes sure that a whole message is there.
    fn whole(&mut self, path: &Path, bytes: usize) -> Result<(), Stop> {
        if self.input.bytes().len() < bytes {
            self.input.fill(bytes)?;
        }
        if self.input.bytes().len() < bytes { Err(cut_off(path, self.before).into()) } else { Ok(()) }
    }

    /// Reads the message of so many bytes; rows without columns where it is no record batch.
    fn message(&mut self, path: &Path, bytes: usize) -> Result<RecordBatch, Stop> {
        let message = self.input.bytes().get(..bytes).unwrap_or_default();
        let read = self.messages.read(message).map_err(|e| damaged(path, self.before, &e))?;
        Ok(read.unwrap_or_else(|| RecordBatch::new_empty(std::sync::Arc::new(arrow_schema::Schema::empty()))))
    }
}

fn damaged(path: &Path, events: u64, e: &crate::event::ipc::Error) -> ConnectError {
    ConnectError::permanent(format!(
        "{} behind event {events}: {e}. Replace it by a sound file of the same events, or take it away",
        path.display()
    ))
}

fn cut_off(path: &Path, events: u64) -> ConnectError {
    ConnectError::permanent(format!(
        "{} is not whole: it ends behind event {events} in the middle of a record batch or without its footer. Wait until it is \
         written, then resume this source",
        path.display()
    ))
}

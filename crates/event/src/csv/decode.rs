//! CSV events to columns.

use std::borrow::Cow;

use arrow_schema::ArrowError;

use super::record::{Cell, Ending, cut};
use crate::builder::{Builder, Object};
use crate::column_type::ColumnType;
use crate::decoded::{Code, Decoded, LINE_BYTES_MAX, Refusal, Refused, Unknown};
use crate::json::Context;
use crate::schema::{EXTRA, Schema};

/// Why a file cannot be read as a whole.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The header does not fit the columns.
    #[error("the CSV header {0}")]
    Header(String),
    /// Arrow's own limits are passed.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// Decodes CSV events of one schema. It remembers the header, so one decoder reads one file.
pub struct Decoder {
    schema: Schema,
    policy: Unknown,
    delimiter: u8,
    null_text: Option<String>,
    record_bytes_max: usize,
    columns: Object,
    context: Context,
    header: Option<Vec<Slot>>,
    cells: Vec<Cell>,
}

/// What a cell's place in the record is.
enum Slot {
    Column(usize),
    Extra,
    Unknown(String),
}

impl Decoder {
    /// A decoder for `schema`; what [`Unknown`] says of fields goes for columns of the file.
    pub fn new(schema: &Schema, unknown: Unknown) -> Self {
        Self {
            schema: schema.clone(),
            policy: unknown,
            delimiter: b',',
            null_text: None,
            record_bytes_max: LINE_BYTES_MAX,
            columns: Object::of(schema),
            context: Context::new(schema, unknown),
            header: None,
            cells: Vec::new(),
        }
    }

    /// Another byte than a comma between cells.
    pub fn with_delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }

    /// A text that means null beside the empty cell, such as `NA`; only without quotes.
    pub fn with_null_text(mut self, text: impl Into<String>) -> Self {
        self.null_text = Some(text.into());
        self
    }

    /// Refuses records of more than `bytes`, instead of [`LINE_BYTES_MAX`].
    pub fn with_record_bytes_max(mut self, bytes: usize) -> Self {
        self.record_bytes_max = bytes;
        self
    }

    /// Reads the header from a file's start; gives back its length, or `None` where it is not whole yet. To resume
    /// in the middle of a file call this first, then [`Decoder::decode`] from the remembered place.
    pub fn read_header(&mut self, bytes: &[u8], last: bool) -> Result<Option<usize>, Error> {
        let start = crate::json::bom_len(bytes);
        let mut cells = Vec::new();
        let (end, next) = match cut(bytes, start, self.delimiter, last, &mut cells) {
            Ending::At(end, next) => (end, next),
            Ending::Open if !last && bytes.len() <= self.record_bytes_max => return Ok(None),
            Ending::Open | Ending::Broken => return Err(Error::Header("has wrong quotes, or no end".to_owned())),
        };
        if end == start && next == bytes.len() && last {
            // An empty file has no header and no events.
            self.header = Some(Vec::new());
            return Ok(Some(next));
        }
        self.header = Some(self.slots(bytes, &cells)?);
        Ok(Some(next))
    }

    fn slots(&self, bytes: &[u8], cells: &[Cell]) -> Result<Vec<Slot>, Error> {
        let mut slots = Vec::with_capacity(cells.len());
        let mut names = std::collections::HashSet::new();
        for cell in cells {
            let text = text_of(bytes, cell);
            let name = std::str::from_utf8(&text).map_err(|_| Error::Header("is not UTF-8".to_owned()))?;
            let name = if cell.quoted { name } else { name.trim() };
            if !names.insert(name.to_owned()) {
                return Err(Error::Header(format!(
                    "names the column `{}` twice",
                    crate::value::quoted(name.as_bytes())
                )));
            }
            slots.push(match self.columns.places.get(name.as_bytes()) {
                Some(_) if name == EXTRA && self.policy == Unknown::Keep => Slot::Extra,
                Some(place) => Slot::Column(*place),
                None if self.policy == Unknown::Reject => {
                    let name = crate::value::quoted(name.as_bytes());
                    return Err(Error::Header(format!("has the column `{name}`, which is not declared")));
                }
                None => Slot::Unknown(name.to_owned()),
            });
        }
        match self.schema.columns().iter().find(|c| !c.nullable && !names.contains(&c.name)) {
            Some(column) => Err(Error::Header(format!("lacks the column `{column}`, which must have a value"))),
            None => Ok(slots),
        }
    }

    /// Decodes the whole records of `bytes`, after the header if it has not been read; `last` tells that no bytes
    /// follow, so that the last record needs no line end. The rest, from `consumed` on, belongs to the next call.
    /// Where nothing was consumed though `bytes` is as long as a record may be, call with more or with `last`.
    pub fn decode(&mut self, bytes: &[u8], last: bool) -> Result<Decoded, Error> {
        let mut at = 0;
        if self.header.is_none() {
            match self.read_header(bytes, last)? {
                Some(len) => at = len,
                None => return self.finish(0, Vec::new(), Vec::new()),
            }
        }
        let header = self.header.take().unwrap_or_default();
        let mut cells = std::mem::take(&mut self.cells);
        let (mut source_rows, mut refused) = (Vec::new(), Vec::new());
        let mut row = 0u32;
        while at < bytes.len() {
            let ending = cut(bytes, at, self.delimiter, last, &mut cells);
            let (end, next, done) = match ending {
                Ending::At(end, next) => (end, next, self.record(bytes, at..end, &cells, &header)),
                Ending::Open if !last && bytes.len() - at <= self.record_bytes_max => break,
                // Only the line where the quote was opened is lost: the ones behind it are records of their own.
                Ending::Open | Ending::Broken => match line_end(bytes, at) {
                    None if !last && bytes.len() - at <= self.record_bytes_max => break,
                    found => {
                        let (end, next) = found.unwrap_or((bytes.len(), bytes.len()));
                        let reason = "not CSV: text behind a closing quote, or a quote that is never closed";
                        (end, next, Err(Refusal::new(Code::CsvSyntax, reason.to_owned())))
                    }
                },
            };
            match done {
                Ok(true) => source_rows.push(row),
                Ok(false) => {}
                Err(refusal) => refused.push(refusal.at(row, at..end)),
            }
            row += 1;
            at = next;
        }
        self.header = Some(header);
        self.cells = cells;
        self.finish(at, source_rows, refused)
    }

    fn finish(&mut self, consumed: usize, source_rows: Vec<u32>, refused: Vec<Refused>) -> Result<Decoded, Error> {
        let rows = self.columns.finish(&self.schema)?;
        Ok(Decoded { rows, source_rows, refused, unknown_fields: self.context.take_unknown(), consumed })
    }

    /// Reads one record; false where it is a blank line.
    fn record(
        &mut self,
        bytes: &[u8],
        place: std::ops::Range<usize>,
        cells: &[Cell],
        header: &[Slot],
    ) -> Result<bool, Box<Refusal>> {
        // In a file of one column a blank line is a null.
        if place.is_empty() && header.len() != 1 {
            return Ok(false);
        }
        let row = self.columns.rows;
        let done = self.try_record(bytes, place, cells, header);
        if done.is_err() {
            self.columns.truncate(row);
        }
        done.map(|()| true)
    }

    fn try_record(
        &mut self,
        bytes: &[u8],
        place: std::ops::Range<usize>,
        cells: &[Cell],
        header: &[Slot],
    ) -> Result<(), Box<Refusal>> {
        if place.len() > self.record_bytes_max {
            let reason = format!("the record has {} bytes, the limit is {}", place.len(), self.record_bytes_max);
            return Err(Refusal::new(Code::TooLong, reason));
        }
        let raw = bytes.get(place).unwrap_or(b"");
        if let Err(error) = std::str::from_utf8(raw) {
            let reason = format!("not UTF-8 from byte {} of the record on", error.valid_up_to());
            return Err(Refusal::new(Code::Utf8, reason));
        }
        if cells.len() != header.len() {
            let reason = format!("the record has {} cells, the header has {}", cells.len(), header.len());
            return Err(Refusal::new(Code::CsvSyntax, reason));
        }
        self.context.start_row();
        for (cell, slot) in cells.iter().zip(header) {
            let text = text_of(bytes, cell);
            let null = !cell.quoted
                && (text.is_empty() || self.null_text.as_ref().is_some_and(|null| null.as_bytes() == &*text));
            match slot {
                Slot::Column(place) => {
                    if let Some(field) = self.columns.fields.get_mut(*place).filter(|_| !null) {
                        read_cell(field, &text, &mut self.context)?;
                    }
                }
                Slot::Extra if !null => self.context.merge_extra(&text)?,
                Slot::Unknown(name) if !null => self.context.keep_text(name, &text),
                Slot::Extra | Slot::Unknown(_) => {}
            }
        }
        self.context.end_extra(&mut self.columns)?;
        self.columns.end_row()
    }
}

fn text_of<'a>(bytes: &'a [u8], cell: &Cell) -> Cow<'a, [u8]> {
    let text = bytes.get(cell.place.clone()).unwrap_or(b"");
    if !cell.doubled {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut second = false;
    out.extend(text.iter().copied().filter(|byte| {
        second = *byte == b'"' && !second;
        *byte != b'"' || second
    }));
    Cow::Owned(out)
}

/// The end of the line at `at`: before and behind its line end.
fn line_end(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let rest = bytes.get(at..)?;
    let len = memchr::memchr(b'\n', rest)?;
    let cr = rest.get(..len).is_some_and(|line| line.ends_with(b"\r"));
    Some((at + len - usize::from(cr), at + len + 1))
}

fn read_cell(field: &mut Builder, text: &[u8], context: &mut Context) -> Result<(), Box<Refusal>> {
    if field.kind == ColumnType::String {
        return field.push_bytes(text);
    }
    let text = text.trim_ascii();
    match field.kind {
        ColumnType::Bool if text.eq_ignore_ascii_case(b"true") => field.push_bool(true),
        ColumnType::Bool if text.eq_ignore_ascii_case(b"false") => field.push_bool(false),
        ColumnType::Int | ColumnType::BigInt | ColumnType::Double => field.push_number(text),
        // Only RFC 3339 has colons; without them it is a number of milliseconds or wrong.
        ColumnType::Timestamp if text.iter().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.')) => {
            field.push_number(text)
        }
        ColumnType::Json | ColumnType::Array(_) | ColumnType::Struct(_) => context.read_json(field, text),
        _ => field.push_text(text),
    }
}

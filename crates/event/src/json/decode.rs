//! JSON events to columns, directed by a schema.
//!
//! The bytes are cut into lines (or array elements) first, so that a bad one is refused alone and keeps its raw
//! bytes. Rules, beside those of each type in `value.rs`:
//! - a field that is named twice in one object has the last value; each of them must fit;
//! - a missing field is null, and a null in a not-null column refuses the event;
//! - unknown fields inside a struct go by the same policy, kept under their path (`address.zip`);
//! - `null` in a `json` column is the column's null;
//! - a byte order mark at the start, blank lines and CR before LF are skipped.

use std::ops::Range;

use arrow_schema::ArrowError;

use super::members::{Context, members};
use super::scan::Scanner;
use crate::builder::Object;
use crate::decoded::{Code, Decoded, LINE_BYTES_MAX, Refusal, Refused, Unknown};
use crate::schema::Schema;

/// Decodes JSON events of one schema. Keep it: its buffers grow to the size of the batches.
pub struct Decoder {
    schema: Schema,
    line_bytes_max: usize,
    columns: Object,
    context: Context,
}

/// The length of the whole lines at the start of `bytes`: what a source that reads in parts can decode already.
pub fn complete(bytes: &[u8]) -> usize {
    memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1)
}

impl Decoder {
    /// A decoder for `schema`. With [`Unknown::Keep`] give it [`Schema::with_extra`]; without that column unknown
    /// fields are only counted.
    pub fn new(schema: &Schema, unknown: Unknown) -> Self {
        let context = Context::new(schema, unknown);
        Self { schema: schema.clone(), line_bytes_max: LINE_BYTES_MAX, columns: Object::of(schema), context }
    }

    /// Refuses lines and array elements of more than `bytes`, instead of [`LINE_BYTES_MAX`].
    pub fn with_line_bytes_max(mut self, bytes: usize) -> Self {
        self.line_bytes_max = bytes;
        self
    }

    /// The schema of the decoded rows.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Decodes all lines; the last one needs no line end. Errors only where Arrow's own limits are passed.
    pub fn decode_lines(&mut self, bytes: &[u8]) -> Result<Decoded, ArrowError> {
        let utf8 = std::str::from_utf8(bytes).is_ok();
        let start = bom_len(bytes);
        let mut run = Run::default();
        let mut at = start;
        while at < bytes.len() {
            let rest = bytes.get(at..).unwrap_or(b"");
            let len = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let line = rest.get(..len).unwrap_or(b"");
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            self.event(line, at, utf8, &mut run);
            run.row += 1;
            at += len + 1;
        }
        self.finish(run, bytes.len())
    }

    /// Decodes a whole document: an array of events, one event over any number of lines, or lines of events.
    pub fn decode_document(&mut self, bytes: &[u8]) -> Result<Decoded, ArrowError> {
        let mut scanner = Scanner::new(bytes);
        scanner.skip(bom_len(bytes));
        scanner.space();
        let start = scanner.position();
        if scanner.peek() == Some(b'[') {
            return self.decode_array(bytes, start);
        }
        if let Ok(event) = scanner.skip_value(0)
            && scanner.at_end()
        {
            let mut run = Run::default();
            self.event(event, start, false, &mut run);
            return self.finish(run, bytes.len());
        }
        self.decode_lines(bytes)
    }

    /// Each element is an event. They are cut apart by brackets and quotes only, so that a bad element does not
    /// spoil its neighbours.
    fn decode_array(&mut self, bytes: &[u8], start: usize) -> Result<Decoded, ArrowError> {
        let utf8 = std::str::from_utf8(bytes).is_ok();
        let mut run = Run::default();
        let mut at = start + 1;
        loop {
            let rest = bytes.get(at..).unwrap_or(b"");
            let (len, end) = element_len(rest);
            let element = rest.get(..len).unwrap_or(b"");
            let blank = element.iter().all(u8::is_ascii_whitespace);
            if !blank {
                let lead = element.len() - element.trim_ascii_start().len();
                self.event(element.trim_ascii(), at + lead, utf8, &mut run);
            } else if end == Some(b',') || (run.row > 0 && end == Some(b']')) {
                run.refuse(at..at + len, *Refusal::new(Code::JsonSyntax, "not JSON: an empty array element".into()));
            }
            run.row += u32::from(!blank || end == Some(b','));
            at += len + 1;
            match end {
                Some(b',') => {}
                Some(_) => break,
                None => {
                    let reason = "not JSON: the array has no end; the events before it are whole".to_owned();
                    run.refuse(bytes.len()..bytes.len(), *Refusal::new(Code::JsonSyntax, reason));
                    break;
                }
            }
        }
        let tail = bytes.get(at..).unwrap_or(b"");
        if !tail.iter().all(u8::is_ascii_whitespace) {
            let reason = "not JSON: text behind the array's end".to_owned();
            run.refuse(at..bytes.len(), *Refusal::new(Code::JsonSyntax, reason));
        }
        self.finish(run, bytes.len())
    }

    /// Decodes one event; `utf8` tells that its bytes are known to be UTF-8.
    fn event(&mut self, line: &[u8], at: usize, utf8: bool, run: &mut Run) {
        let row = self.columns.rows;
        match self.try_event(line, utf8) {
            Ok(true) => run.source_rows.push(run.row),
            Ok(false) => {}
            Err(refusal) => {
                self.columns.truncate(row);
                run.refuse(at..at + line.len(), *refusal);
            }
        }
    }

    fn try_event(&mut self, line: &[u8], utf8: bool) -> Result<bool, Box<Refusal>> {
        if line.len() > self.line_bytes_max {
            let reason = format!("the event has {} bytes, the limit is {}", line.len(), self.line_bytes_max);
            return Err(Refusal::new(Code::TooLong, reason));
        }
        let mut scanner = Scanner::new(line);
        if scanner.peek() != Some(b'{') && scanner.at_end() {
            return Ok(false);
        }
        if !utf8 && let Err(error) = std::str::from_utf8(line) {
            let reason = format!("not UTF-8 from byte {} of the event on", error.valid_up_to());
            return Err(Refusal::new(Code::Utf8, reason));
        }
        if scanner.peek() != Some(b'{') {
            return Err(scanner.syntax("an event, which is an object `{…}`,"));
        }
        self.context.start_row();
        members(&mut self.columns, &mut scanner, &mut self.context, "", 1)?;
        self.context.end_extra(&mut self.columns)?;
        self.columns.end_row()?;
        if !scanner.at_end() {
            return Err(scanner.syntax("the end of the event"));
        }
        Ok(true)
    }

    fn finish(&mut self, run: Run, consumed: usize) -> Result<Decoded, ArrowError> {
        Ok(Decoded {
            rows: self.columns.finish(&self.schema)?,
            source_rows: run.source_rows,
            refused: run.refused,
            unknown_fields: self.context.take_unknown(),
            consumed,
        })
    }
}

/// One call's results so far.
#[derive(Default)]
struct Run {
    row: u32,
    source_rows: Vec<u32>,
    refused: Vec<Refused>,
}

impl Run {
    fn refuse(&mut self, bytes: Range<usize>, refusal: Refusal) {
        self.refused.push(refusal.at(self.row, bytes));
    }
}

/// The length of a UTF-8 byte order mark at the start.
pub(crate) fn bom_len(bytes: &[u8]) -> usize {
    if bytes.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 }
}

/// The length of the array element at the start, and the `,` or `]` that ends it.
fn element_len(text: &[u8]) -> (usize, Option<u8>) {
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for (i, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => depth += 1,
            b',' | b']' if depth == 0 => return (i, Some(*byte)),
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    (text.len(), None)
}

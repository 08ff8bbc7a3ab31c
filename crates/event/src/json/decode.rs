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

use super::scan::Scanner;
use super::text::{unescape, write_compact, write_string};
use crate::builder::{Builder, Data, Object};
use crate::decoded::{Code, Decoded, LINE_BYTES_MAX, Refusal, Refused, Unknown};
use crate::schema::{EXTRA, Schema};

/// The most fields of an object whose order is remembered for the next one.
const ORDER_MAX: usize = 4096;

/// Decodes JSON events of one schema. Keep it: its buffers grow to the size of the batches.
pub struct Decoder {
    schema: Schema,
    line_bytes_max: usize,
    columns: Object,
    context: Context,
}

/// What a row needs beside its columns.
pub(crate) struct Context {
    policy: Unknown,
    /// Strings with escapes, resolved here.
    scratch: Vec<u8>,
    /// The members of this row's `_extra`, each with a comma before it.
    extra: Vec<u8>,
    /// The place of the column `_extra`, where the schema has it and the policy is to keep.
    extra_place: Option<usize>,
    unknown: u64,
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

impl Context {
    pub(crate) fn new(schema: &Schema, policy: Unknown) -> Self {
        let extra_place = schema.column(EXTRA).map(|(place, _)| place).filter(|_| policy == Unknown::Keep);
        Self { policy, scratch: Vec::new(), extra: Vec::new(), extra_place, unknown: 0 }
    }

    pub(crate) fn start_row(&mut self) {
        self.extra.clear();
    }

    /// Writes this row's `_extra`.
    pub(crate) fn end_extra(&mut self, columns: &mut Object) -> Result<(), Box<Refusal>> {
        let field = self.extra_place.and_then(|place| columns.fields.get_mut(place));
        let (Some(field), Some(first)) = (field, self.extra.first_mut()) else { return Ok(()) };
        *first = b'{';
        self.extra.push(b'}');
        field.push_bytes(&self.extra)
    }

    /// The unknown fields since the last call.
    pub(crate) fn take_unknown(&mut self) -> u64 {
        std::mem::take(&mut self.unknown)
    }

    /// Keeps and counts an unknown field that is a text.
    pub(crate) fn keep_text(&mut self, name: &str, text: &[u8]) {
        self.unknown += 1;
        if self.extra_place.is_some() {
            self.extra.push(b',');
            write_string(name.as_bytes(), &mut self.extra);
            self.extra.push(b':');
            write_string(text, &mut self.extra);
        }
    }

    /// Keeps the members of a JSON text that stood in the column `_extra` itself.
    pub(crate) fn merge_extra(&mut self, text: &[u8]) -> Result<(), Box<Refusal>> {
        let mut scanner = Scanner::new(text);
        scanner.space();
        unknown_field(EXTRA.as_bytes(), &mut scanner, self, "", 0)?;
        if scanner.at_end() { Ok(()) } else { Err(scanner.syntax("the end of `_extra`")) }
    }

    /// Reads a JSON text into one column.
    pub(crate) fn read_json(&mut self, field: &mut Builder, text: &[u8]) -> Result<(), Box<Refusal>> {
        let mut scanner = Scanner::new(text);
        scanner.space();
        value(field, &mut scanner, self, 0)?;
        if scanner.at_end() { Ok(()) } else { Err(scanner.syntax("the end of the value")) }
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

/// Reads an object's members into columns; the row is not ended.
fn members(
    object: &mut Object,
    scanner: &mut Scanner<'_>,
    context: &mut Context,
    path: &str,
    depth: usize,
) -> Result<(), Box<Refusal>> {
    scanner.take(b'{');
    scanner.space();
    let row = object.rows;
    let mut more = !scanner.take(b'}');
    let mut nth = 0;
    while more {
        let expected = object.order.get(nth).copied();
        let expected = expected.filter(|place| object.keys.get(*place).is_some_and(|key| scanner.take_key(key)));
        let place = match expected {
            Some(place) => Some(place),
            None => {
                let key = scanner.string()?;
                let name = if key.escaped {
                    context.scratch.clear();
                    unescape(key.text, &mut context.scratch).ok_or_else(|| scanner.bad_escape())?;
                    context.scratch.as_slice()
                } else {
                    key.text
                };
                let place = object.places.get(name).copied();
                if place.is_none() || (path.is_empty() && place == context.extra_place) {
                    let name = name.to_vec();
                    scanner.colon()?;
                    unknown_field(&name, scanner, context, path, depth)?;
                    more = scanner.more(b'}')?;
                    nth += 1;
                    continue;
                }
                place
            }
        };
        scanner.colon()?;
        if let Some(place) = place {
            if path.is_empty() && context.extra_place == Some(place) {
                unknown_field(EXTRA.as_bytes(), scanner, context, path, depth)?;
            } else if let Some(field) = object.fields.get_mut(place) {
                if field.len() > row {
                    field.truncate(row);
                }
                value(field, scanner, context, depth)?;
            }
            remember(&mut object.order, nth, place);
        }
        more = scanner.more(b'}')?;
        nth += 1;
    }
    Ok(())
}

/// Expects the column at `place` as the `nth` field of the next object.
#[inline]
fn remember(order: &mut Vec<usize>, nth: usize, place: usize) {
    match order.get_mut(nth) {
        Some(slot) => *slot = place,
        None if nth < ORDER_MAX => {
            order.resize(nth, usize::MAX);
            order.push(place);
        }
        None => {}
    }
}

/// A field without a column, or the column `_extra` itself, whose members are kept beside the other unknown fields.
fn unknown_field(
    name: &[u8],
    scanner: &mut Scanner<'_>,
    context: &mut Context,
    path: &str,
    depth: usize,
) -> Result<(), Box<Refusal>> {
    if context.policy == Unknown::Reject {
        let shown = crate::value::quoted(name);
        let reason = format!("field `{path}{shown}` is not declared as a column, and unknown fields are rejected");
        return Err(Refusal::new(Code::Unknown, reason));
    }
    let raw = scanner.skip_value(depth)?;
    let own = path.is_empty() && name == EXTRA.as_bytes() && context.extra_place.is_some();
    if !own {
        context.unknown += 1;
    }
    if context.extra_place.is_none() || (own && raw == b"null") {
        return Ok(());
    }
    let inside = raw.strip_prefix(b"{").and_then(|raw| raw.strip_suffix(b"}")).map(<[u8]>::trim_ascii);
    match inside.filter(|_| own) {
        Some(b"") => {}
        Some(inside) => {
            context.extra.push(b',');
            write_compact(inside, &mut context.extra);
        }
        None => {
            context.extra.push(b',');
            write_string(&[path.as_bytes(), name].concat(), &mut context.extra);
            context.extra.push(b':');
            write_compact(raw, &mut context.extra);
        }
    }
    Ok(())
}

/// Reads one value into its column.
fn value(
    field: &mut Builder,
    scanner: &mut Scanner<'_>,
    context: &mut Context,
    depth: usize,
) -> Result<(), Box<Refusal>> {
    match scanner.peek() {
        Some(b'n') => {
            scanner.word("null")?;
            return field.null();
        }
        _ if matches!(field.data, Data::Json(_)) => {
            let raw = scanner.skip_value(depth)?;
            if let Data::Json(texts) = &mut field.data {
                write_compact(raw, &mut texts.bytes);
            }
            return field.end_bytes();
        }
        Some(b'"') => {
            let inside = scanner.string()?;
            if !inside.escaped {
                return field.push_text(inside.text);
            }
            context.scratch.clear();
            unescape(inside.text, &mut context.scratch).ok_or_else(|| scanner.bad_escape())?;
            return field.push_text(&context.scratch);
        }
        Some(b't') => {
            scanner.word("true")?;
            return field.push_bool(true);
        }
        Some(b'f') => {
            scanner.word("false")?;
            return field.push_bool(false);
        }
        Some(b'{') => {
            scanner.deeper(depth)?;
            let Builder { data: Data::Struct(object), path, .. } = field else {
                return Err(field.wrong_kind("an object", b""));
            };
            members(object, scanner, context, &format!("{path}."), depth + 1)?;
            object.end_row()?;
        }
        Some(b'[') => {
            scanner.deeper(depth)?;
            let Data::List { ends, item } = &mut field.data else {
                return Err(field.wrong_kind("an array", b""));
            };
            scanner.take(b'[');
            scanner.space();
            let mut more = !scanner.take(b']');
            while more {
                value(item, scanner, context, depth + 1)?;
                more = scanner.more(b']')?;
            }
            let end = i32::try_from(item.len());
            ends.push(end.map_err(|_| Refusal::new(Code::TooLong, "an array column passes 2^31 items".into()))?);
        }
        _ => {
            let number = scanner.number()?;
            return field.push_number(number);
        }
    }
    field.valid();
    Ok(())
}

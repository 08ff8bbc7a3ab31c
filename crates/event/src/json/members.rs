//! One event's members to columns, directed by what the scanner finds; unknown ones by the policy.

use super::scan::Scanner;
use super::text::{unescape, write_compact, write_string};
use crate::builder::{Builder, Data, Object};
use crate::decoded::{Code, Refusal, Unknown};
use crate::schema::{EXTRA, Schema};

/// The most fields of an object whose order is remembered for the next one.
const ORDER_MAX: usize = 4096;

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

/// Reads an object's members into columns; the row is not ended.
pub(super) fn members(
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

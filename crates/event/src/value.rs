//! Parsers of single values, shared by JSON and CSV: the same text means the same value in both.
//!
//! Every parser takes the bytes of one number or one text and is exact: what does not fit is an error, never a
//! rounded or wrapped value. The one exception is said in [`timestamp`].

mod number;
mod time;

pub(crate) use number::{bigint, decimal, double, int, write_decimal, write_double};
pub(crate) use time::{date, timestamp, timestamp_micros, write_date, write_timestamp};

use crate::column_type::ColumnType;

/// Why a text is not a value of a column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The value's kind or form is not that of the type.
    Form(&'static str),
    /// The value lies outside the type's range.
    Range(&'static str),
}

/// The longest part of a value that a message quotes, in bytes.
const QUOTED_BYTES_MAX: usize = 40;

/// The start of a value for an error message: printable, at most [`QUOTED_BYTES_MAX`] bytes and a mark.
pub(crate) fn quoted(text: &[u8]) -> String {
    let head = text.get(..QUOTED_BYTES_MAX).unwrap_or(text);
    let mut shown: String =
        String::from_utf8_lossy(head).chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    if head.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// The words for a type in an error message: its text, cut where a struct is long.
pub(crate) fn type_name(kind: &ColumnType) -> String {
    quoted(kind.to_string().as_bytes())
}

#[cfg(test)]
mod tests;

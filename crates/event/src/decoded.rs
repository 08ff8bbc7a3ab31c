//! What a decoder gives back: the good events in columns, and each bad one with its reason and its raw bytes' place.

use std::fmt;
use std::ops::Range;

use arrow_array::RecordBatch;

/// The longest reason, in bytes.
pub const REASON_BYTES_MAX: usize = 200;

/// The longest line, record or array element that is read unless a decoder is told otherwise: 16 MiB.
pub const LINE_BYTES_MAX: usize = 16 << 20;

/// What happens to fields that no column is declared for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// They are kept as a JSON object in the column [`crate::EXTRA`], where the schema has it, and counted.
    #[default]
    Keep,
    /// They are dropped and counted.
    Drop,
    /// They refuse the event.
    Reject,
}

/// Why an event was refused, as a stable word for dead letters and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The bytes are not UTF-8.
    Utf8,
    /// The text is not JSON, or not an object.
    JsonSyntax,
    /// The value is nested deeper than a decoder follows.
    Nesting,
    /// The line is longer than allowed.
    TooLong,
    /// A not-null column has no value.
    Missing,
    /// A value's kind or form is not that of the column's type.
    Type,
    /// A value lies outside its column's range.
    Range,
    /// A field is not declared, and the policy is to reject.
    Unknown,
    /// A CSV record's quotes or number of cells are wrong.
    CsvSyntax,
}

impl Code {
    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Utf8 => "utf8-invalid",
            Self::JsonSyntax => "json-syntax",
            Self::Nesting => "nesting-too-deep",
            Self::TooLong => "line-too-long",
            Self::Missing => "value-missing",
            Self::Type => "value-type",
            Self::Range => "value-range",
            Self::Unknown => "field-unknown",
            Self::CsvSyntax => "csv-syntax",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An event that was refused. Its neighbours are not touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The number of its line, record or array element in the decoded bytes, from 0.
    pub row: u32,
    /// Why, as a stable word.
    pub code: Code,
    /// Why, for a person; at most [`REASON_BYTES_MAX`] bytes.
    pub reason: String,
    /// Where its raw bytes are in the decoded bytes, without the line end.
    pub bytes: Range<usize>,
}

/// The result of decoding some bytes.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// The good events: the user's columns ([`crate::Schema::arrow`]).
    pub rows: RecordBatch,
    /// For each row of `rows`, the number of its line, record or array element, from 0 and growing. Blank lines
    /// count, so that a number is a place in the input.
    pub source_rows: Vec<u32>,
    /// The others, in the order of the input.
    pub refused: Vec<Refused>,
    /// How many fields no column was declared for.
    pub unknown_fields: u64,
    /// How many bytes were read, up to the end of the last whole event. Bytes behind that belong to the next call.
    pub consumed: usize,
}

/// The reason under construction; boxed where it travels, because the good way is the common one.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) reason: String,
}

impl Refusal {
    pub(crate) fn new(code: Code, mut reason: String) -> Box<Self> {
        if reason.len() > REASON_BYTES_MAX {
            let end = (0..=REASON_BYTES_MAX - '…'.len_utf8()).rev().find(|i| reason.is_char_boundary(*i));
            reason.truncate(end.unwrap_or(0));
            reason.push('…');
        }
        Box::new(Self { code, reason })
    }

    pub(crate) fn at(self, row: u32, bytes: Range<usize>) -> Refused {
        Refused { row, code: self.code, reason: self.reason, bytes }
    }
}

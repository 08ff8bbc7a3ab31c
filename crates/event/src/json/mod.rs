//! JSON: newline-delimited events, arrays of events and single events, to columns and back.
//!
//! The reader is our own instead of serde_json because of four promises that serde_json without features that slow
//! it down cannot keep: a double is the nearest to its text, a decimal and an integer come from their digits and
//! never pass through a double, a `json` column keeps its text, and a skipped value's nesting is bounded. Text is
//! copied once, from the line into the column. A property test holds it against serde_json.

mod decode;
mod encode;
mod members;
mod scan;
mod text;

pub(crate) use decode::bom_len;
pub use decode::{Decoder, complete};
pub(crate) use encode::Cells;
pub use encode::{Decimals, Encoder};
pub(crate) use members::Context;
pub(crate) use text::quote;

/// How deep objects and arrays may be nested.
pub const NESTING_MAX: usize = 128;

//! CSV with a header line (RFC 4180), to columns and back.
//!
//! Columns are found by name and may stand in any order. An empty cell without quotes is null, `""` is an empty
//! text. Numbers, times and bytes are read by the parsers that JSON uses, white space around them is skipped; `json`,
//! `array` and `struct` cells hold JSON. Records end with LF or CRLF and may go over lines inside quotes.
//!
//! ```
//! use millstream_event::{Column, Schema, Unknown, csv};
//!
//! let schema = Schema::new(vec![Column::parse("id", "int!").unwrap(), Column::parse("name", "string").unwrap()]).unwrap();
//! let mut decoder = csv::Decoder::new(&schema, Unknown::Drop);
//! let decoded = decoder.decode(b"name,id\n\"Ada, C.\",1\nx,y\n,2\n3,", false).unwrap();
//! assert_eq!((decoded.rows.num_rows(), decoded.refused.len(), decoded.consumed), (2, 1, 27));
//! ```

mod decode;
mod encode;
mod record;

pub use decode::{Decoder, Error};
pub use encode::Encoder;

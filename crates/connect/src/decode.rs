//! Bytes to events, whatever the format: what file, stdin and HTTP sources share.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use arrow_array::RecordBatch;
use bytes::Bytes;

use crate::event::{self, Decoded, LINE_BYTES_MAX, Refused, Schema, Unknown, csv, json};
use crate::service::{ConnectError, Refusal, RefusedEvent};

/// The most bytes of a refused event that its dead letter keeps: the rest of a longer one is cut off, and its reason
/// says so.
pub const RAW_BYTES_MAX: usize = 1 << 20;

/// The form in which events come in or go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object per line.
    #[default]
    Ndjson,
    /// Comma-separated values; the first record names the columns.
    Csv,
    /// Arrow IPC, files and streams; sinks write streams.
    Arrow,
}

impl Format {
    /// The suffix of file names.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Arrow => "arrows",
        }
    }

    /// The format that a file's name tells.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "ndjson" | "jsonl" | "json" => Some(Self::Ndjson),
            "csv" => Some(Self::Csv),
            "arrow" | "arrows" | "feather" => Some(Self::Arrow),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Arrow => "arrow",
            text => text.suffix(),
        })
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ndjson" | "json" | "jsonl" => Ok(Self::Ndjson),
            "csv" => Ok(Self::Csv),
            "arrow" => Ok(Self::Arrow),
            _ => Err(format!("`{text}` is no format; there are `ndjson`, `csv` and `arrow`")),
        }
    }
}

/// A decoder of one format, fed with a stream of bytes in parts.
pub(crate) enum Decode {
    Ndjson(Box<json::Decoder>),
    Csv(Box<csv::Decoder>, Schema),
}

impl Decode {
    /// A decoder of lines.
    pub(crate) fn ndjson(schema: &Schema, unknown: Unknown) -> Self {
        Self::Ndjson(Box::new(json::Decoder::new(schema, unknown)))
    }

    /// A decoder of the records behind a CSV header, and the header's length; `None`: the header is not whole yet.
    pub(crate) fn csv(
        schema: &Schema,
        unknown: Unknown,
        bytes: &[u8],
        last: bool,
    ) -> Result<Option<(Self, usize)>, String> {
        let mut decoder = csv::Decoder::new(schema, unknown);
        let header = decoder.read_header(bytes, last).map_err(|e| e.to_string())?;
        Ok(header.map(|length| (Self::Csv(Box::new(decoder), schema.clone()), length)))
    }

    /// Decodes the whole events at the start of `bytes`; `last`: nothing follows, so an event without a line end is whole.
    /// [`Decoded::consumed`] is 0 where not even one event is whole.
    pub(crate) fn decode(&mut self, bytes: &[u8], last: bool) -> Result<Decoded, ConnectError> {
        let fault =
            |e: &dyn fmt::Display| ConnectError::permanent(format!("the events cannot be kept in columns: {e}"));
        match self {
            Self::Ndjson(decoder) => {
                let whole = if last { bytes.len() } else { json::complete(bytes) };
                decoder.decode_lines(bytes.get(..whole).unwrap_or_default()).map_err(|e| fault(&e))
            }
            Self::Csv(decoder, _) => decoder.decode(bytes, last).map_err(|e| fault(&e)),
        }
    }

    /// An empty batch of the right columns.
    pub(crate) fn empty(&self) -> RecordBatch {
        let schema = match self {
            Self::Ndjson(decoder) => decoder.schema(),
            Self::Csv(_, schema) => schema,
        };
        RecordBatch::new_empty(schema.arrow().clone())
    }
}

/// The refused events of a decoded part, with their places: `name:line`.
pub(crate) fn refused(name: &str, lines_before: u64, bytes: &[u8], refused: &[Refused]) -> Vec<RefusedEvent> {
    let mut counted = 0;
    let mut line = lines_before + 1;
    refused
        .iter()
        .map(|one| {
            let between = bytes.get(counted..one.bytes.start).unwrap_or_default();
            line += memchr::memchr_iter(b'\n', between).count() as u64;
            counted = one.bytes.start.max(counted);
            let raw = bytes.get(one.bytes.clone()).unwrap_or_default();
            refused_event(raw, one.code.as_str(), one.reason.clone(), format!("{name}:{line}"))
        })
        .collect()
}

/// One refused event; its bytes are kept up to [`RAW_BYTES_MAX`].
pub(crate) fn refused_event(raw: &[u8], code: &'static str, mut reason: String, place: String) -> RefusedEvent {
    let kept = raw.get(..RAW_BYTES_MAX).unwrap_or(raw);
    if kept.len() < raw.len() {
        reason.push_str(&format!(" (only the first {RAW_BYTES_MAX} of {} bytes are kept)", raw.len()));
    }
    RefusedEvent { raw: Bytes::copy_from_slice(kept), code, reason, place }
}

/// Decodes the raw bytes of a refused event again: what [`crate::service::Source::redecode`] asks.
pub(crate) fn redecode(decode: &mut Decode, raw: &[u8]) -> Result<RecordBatch, Refusal> {
    let fault = |code, reason| Err(Refusal { code, reason });
    match decode.decode(raw, true) {
        Err(e) => fault("decode", e.to_string()),
        Ok(decoded) => match decoded.refused.into_iter().next() {
            Some(refused) => fault(refused.code.as_str(), refused.reason),
            None => Ok(decoded.rows),
        },
    }
}

/// The longest event of a stream.
pub(crate) const EVENT_BYTES_MAX: usize = LINE_BYTES_MAX;

/// The code of an event that is longer than [`EVENT_BYTES_MAX`].
pub(crate) fn too_long() -> &'static str {
    event::Code::TooLong.as_str()
}

/// A checksum (FNV-1a) that tells files and bodies apart; it keeps no secret.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

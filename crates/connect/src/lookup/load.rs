//! Reading a lookup's file into a table.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use arrow_array::RecordBatch;

use super::Settings;
use crate::decode::{Decode, Format, refused};
use crate::event::{Schema, Unknown};
use crate::file::Input;
use crate::service::flow::{LookupError, LookupSchema, LookupTable};

/// The most bytes of a lookup's file, decompressed: all of it is held in memory.
pub(crate) const LOOKUP_BYTES_MAX: u64 = 4 << 30;
/// How much is decoded at once.
const PART_BYTES: usize = 4 << 20;

/// What tells one version of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    modified: SystemTime,
    size: u64,
    inode: u64,
}

impl Fingerprint {
    /// The file as it is now; `None` where there is none.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self { modified: meta.modified().ok()?, size: meta.len(), inode: meta.ino() })
    }
}

/// Reads the whole file; the first thing that is wrong with it is the error.
pub(crate) fn load(settings: &Settings, schema: &LookupSchema) -> Result<LookupTable, String> {
    let rows = read(settings, &schema.schema)?;
    let lines = rows.lines;
    LookupTable::build(schema, rows.rows).map_err(|e| explain(settings, &lines, &e))
}

struct Rows {
    rows: RecordBatch,
    /// For each row, the line it came from (for CSV: the record, the header being the first).
    lines: Vec<u64>,
}

/// The table's rows in the words of the file.
fn explain(settings: &Settings, lines: &[u64], e: &LookupError) -> String {
    let path = settings.path.display();
    let unit = if settings.format == Format::Csv { "record" } else { "line" };
    let line = |row: usize| row.checked_sub(1).and_then(|r| lines.get(r)).copied().unwrap_or_default();
    match e {
        LookupError::Duplicate { key, first, second } => format!(
            "{path}: {unit}s {} and {} have the same key {key}; a key finds at most one row",
            line(*first),
            line(*second)
        ),
        LookupError::Null { column, row } => {
            format!("{path}: {unit} {} has no value for the key column `{column}`", line(*row))
        }
        other => format!("{path}: {other}"),
    }
}

fn read(settings: &Settings, schema: &Schema) -> Result<Rows, String> {
    let path = settings.path.display().to_string();
    let mut input = Input::open(&settings.path, &path, settings.compression).map_err(|e| e.to_string())?;
    let (mut batches, mut lines) = (Vec::new(), Vec::new());
    let mut decode = match settings.format {
        Format::Ndjson => Decode::ndjson(schema, Unknown::Drop),
        Format::Csv => header(&mut input, schema)?,
        Format::Arrow => return Err(format!("{path}: a lookup is read from CSV or NDJSON")),
    };
    let mut wanted = PART_BYTES;
    loop {
        input.fill(wanted).map_err(|e| e.to_string())?;
        let decoded = decode.decode(input.bytes(), input.ended()).map_err(|e| e.to_string())?;
        if let Some(fault) = refused(&path, input.place.lines, input.bytes(), &decoded.refused).first() {
            return Err(format!("{}: {}", fault.place, fault.reason));
        }
        if decoded.consumed == 0 {
            if input.ended() {
                break;
            }
            wanted = input.bytes().len() * 2;
            continue;
        }
        wanted = PART_BYTES;
        // A CSV decoder counts records, a JSON decoder lines; both count on from part to part.
        let before = if settings.format == Format::Csv { lines.len() as u64 + 1 } else { input.place.lines };
        lines.extend(decoded.source_rows.iter().map(|row| before + u64::from(*row) + 1));
        input.take(decoded.consumed);
        if input.place.offset > LOOKUP_BYTES_MAX {
            return Err(format!("{path} is larger than {LOOKUP_BYTES_MAX} bytes, too large to be held in memory"));
        }
        batches.push(decoded.rows);
    }
    let rows = arrow_select::concat::concat_batches(schema.arrow(), &batches);
    Ok(Rows { rows: rows.map_err(|e| format!("{path}: {e}"))?, lines })
}

fn header(input: &mut Input, schema: &Schema) -> Result<Decode, String> {
    input.fill(PART_BYTES).map_err(|e| e.to_string())?;
    let opened = Decode::csv(schema, Unknown::Drop, input.bytes(), input.ended());
    match opened.map_err(|e| format!("the header: {e}"))? {
        Some((decoder, consumed)) => {
            input.take(consumed);
            Ok(decoder)
        }
        None => Err(format!("{} has no header", input.place.name)),
    }
}

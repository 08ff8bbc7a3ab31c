//! Reading a lookup's file into a table.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use arrow_array::RecordBatch;

use super::Settings;
use crate::decode::{Decode, Format, refused};
use crate::event::{Schema, Unknown, csv};
use crate::file::Input;
use crate::service::flow::{LookupSchema, LookupTable};

/// The most bytes of a lookup's file, decompressed: all of it is held in memory.
pub const LOOKUP_BYTES_MAX: u64 = 4 << 30;
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
    LookupTable::build(schema, rows.rows).map_err(|e| rows.places.explain(settings, &e.to_string()))
}

struct Rows {
    rows: RecordBatch,
    places: Places,
}

fn read(settings: &Settings, schema: &Schema) -> Result<Rows, String> {
    let path = settings.path.display().to_string();
    let mut input = Input::open(&settings.path, &path, settings.compression).map_err(|e| e.to_string())?;
    let mut batches = Vec::new();
    let mut decode = match settings.format {
        Format::Ndjson => Decode::ndjson(schema, Unknown::Drop),
        Format::Csv => header(&mut input, schema)?,
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
        input.take(decoded.consumed);
        if input.place.offset > LOOKUP_BYTES_MAX {
            return Err(format!("{path} is larger than {LOOKUP_BYTES_MAX} bytes, too large to be held in memory"));
        }
        batches.push(decoded.rows);
    }
    let rows = arrow_select::concat::concat_batches(schema.arrow(), &batches);
    Ok(Rows { rows: rows.map_err(|e| format!("{path}: {e}"))? })
}

fn header(input: &mut Input, schema: &Schema) -> Result<Decode, String> {
    input.fill(PART_BYTES).map_err(|e| e.to_string())?;
    let opened = csv::Decoder::open(schema, Unknown::Drop, input.bytes(), input.ended());
    match opened.map_err(|e| format!("the header: {e}"))? {
        Some((decoder, consumed)) => {
            input.take(consumed);
            Ok(Decode::Csv(Box::new(decoder)))
        }
        None => Err(format!("{} has no header", input.place.name)),
    }
}

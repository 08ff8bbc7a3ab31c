//! Arrow IPC streams and files, as other programs write them, to rows of a declared schema: record batch by record
//! batch, from bytes that come in parts.
//!
//! 1. [`StreamReader::look`] tells what stands next and how many bytes of it are needed.
//! 2. [`StreamReader::read`] takes one whole message and gives a record batch's rows as they were written. Messages before it
//!    that are no record batches must have been read; record batches may be passed over.
//! 3. [`StreamReader::fit`] brings a part of these rows into the declared columns; a row that does not fit is refused alone.
//!
//! arrow-ipc asserts much of what it reads. What would make it allocate is checked before (see `messages.rs`), and its
//! panics are errors here.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_buffer::Buffer;
use arrow_ipc::MessageHeader;
use arrow_ipc::reader::{read_dictionary, read_record_batch};
use arrow_schema::{ArrowError, DataType, SchemaRef};

use super::Error;
use super::expand::row_limit;
use super::messages::{Look, Place, UNPACKED_BYTES_MAX, check, damaged, look, parts};
use crate::conform::{ConformError, Fitted};
use crate::decoded::{Code, LINE_BYTES_MAX, Refusal, Unknown};
use crate::json::{Decimals, Encoder};
use crate::schema::{Column, EXTRA, Schema};

/// How deep columns of a file may be nested.
const DEPTH_MAX: usize = 16;
/// The most rows that [`read`] fits at once.
const FIT_ROWS_MAX: usize = 16_384;

/// Reads one Arrow IPC stream or file.
pub struct StreamReader {
    schema: Schema,
    unknown: Unknown,
    place: Place,
    plan: Option<Plan>,
    dictionaries: HashMap<i64, ArrayRef>,
}

/// What is read of a file with certain columns.
struct Plan {
    /// All columns of the file.
    all: SchemaRef,
    /// The places of those that are read, and these alone.
    places: Vec<usize>,
    read: SchemaRef,
    /// The columns that are not declared and are kept.
    kept: Option<(Schema, Encoder)>,
}

/// Rows of a file in the declared columns.
#[derive(Debug)]
pub struct Fit {
    /// The user's columns ([`Schema::arrow`]).
    pub rows: RecordBatch,
    /// The rows that do not fit, by their number among those that were given, and why.
    pub refused: Vec<(u32, Code, String)>,
    /// How many of the given rows these are; call again with the rest.
    pub taken: usize,
}

impl StreamReader {
    /// A reader into the columns of `schema`; what [`Unknown`] says of fields goes for columns of the file.
    pub fn new(schema: &Schema, unknown: Unknown) -> Self {
        let (schema, dictionaries) = (schema.clone(), HashMap::new());
        Self { schema, unknown, place: Place::default(), plan: None, dictionaries }
    }

    /// What stands at the start of `bytes`, the next of the stream. The caller goes on behind it.
    pub fn look(&mut self, bytes: &[u8]) -> Result<Look, Error> {
        let (found, place) = look(self.place, bytes)?;
        self.place = place;
        Ok(found)
    }

    /// Whether a file that begins and ends like this is whole; a stream without an end may still be.
    pub fn whole(begin: &[u8], end: &[u8]) -> bool {
        match begin.starts_with(super::messages::MAGIC) {
            true => end.ends_with(super::messages::MAGIC),
            false => end.ends_with(&[0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]),
        }
    }

    /// Reads one whole message: [`Look::Preface`] (gives nothing) or [`Look::Batch`].
    pub fn read(&mut self, message: &[u8]) -> Result<Option<RecordBatch>, Error> {
        let done = catch_unwind(AssertUnwindSafe(|| self.message(message)));
        done.unwrap_or_else(|_| Err(damaged("its structure is damaged")))
    }

    fn message(&mut self, bytes: &[u8]) -> Result<Option<RecordBatch>, Error> {
        let (message, body) = parts(bytes)?;
        let fault = |e: ArrowError| damaged(e.to_string());
        if let Some(found) = message.header_as_schema() {
            if self.plan.is_some() {
                return Err(damaged("it describes its columns twice"));
            }
            if found.endianness() != arrow_ipc::Endianness::Little {
                return Err(damaged("it was written by a big-endian machine"));
            }
            let columns = arrow_ipc::convert::fb_to_schema(found);
            self.plan = Some(Plan::new(Arc::new(columns), &self.schema, self.unknown)?);
            return Ok(None);
        }
        let plan = self.plan.as_ref().ok_or_else(|| damaged("it does not begin with its columns"))?;
        check(&message, body)?;
        match message.header_type() {
            MessageHeader::RecordBatch => {
                let batch = message.header_as_record_batch().ok_or_else(|| damaged("a message has no columns"))?;
                let (body, all) = (Buffer::from(body), Arc::clone(&plan.all));
                let rows =
                    read_record_batch(&body, batch, all, &self.dictionaries, Some(&plan.places), &message.version());
                Ok(Some(rows.map_err(fault)?))
            }
            MessageHeader::DictionaryBatch => {
                let batch = message.header_as_dictionary_batch().ok_or_else(|| damaged("a message has no columns"))?;
                if plan.reads_dictionary(batch.id()) {
                    let body = Buffer::from(body);
                    read_dictionary(&body, batch, &plan.read, &mut self.dictionaries, &message.version())
                        .map_err(fault)?;
                }
                let held: usize = self.dictionaries.values().map(|d| d.get_array_memory_size()).sum();
                if held as u64 > UNPACKED_BYTES_MAX {
                    return Err(damaged(format!("its dictionaries have more than {UNPACKED_BYTES_MAX} bytes")));
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Brings the first of `rows`, which [`StreamReader::read`] gave, into the declared columns: as many as stay within the
    /// limit of memory, at most `rows_max`.
    pub fn fit(&self, rows: &RecordBatch, rows_max: usize) -> Result<Fit, Error> {
        let fitted = catch_unwind(AssertUnwindSafe(|| self.fit_some(rows, rows_max)));
        fitted.unwrap_or_else(|_| Err(damaged("its structure is damaged")))
    }

    fn fit_some(&self, rows: &RecordBatch, rows_max: usize) -> Result<Fit, Error> {
        let taken = rows.num_rows().min(rows_max);
        let Some(taken) = row_limit(&rows.slice(0, taken)) else {
            // Not even one row is within the limit.
            let reason = format!("the event has more than {LINE_BYTES_MAX} bytes");
            let rows = RecordBatch::new_empty(self.schema.arrow().clone());
            return Ok(Fit { rows, refused: vec![(0, Code::TooLong, reason)], taken: 1 });
        };
        let part = self.with_extra(rows.slice(0, taken))?;
        let Fitted { rows, refused } = self.schema.fit(&part)?;
        let refused = refused.into_iter().map(|(row, error)| {
            let code = if matches!(error, ConformError::Null { .. }) { Code::Missing } else { Code::Range };
            (row, code, Refusal::new(code, error.to_string()).reason)
        });
        Ok(Fit { rows, refused: refused.collect(), taken })
    }

    /// Rows with the columns that are not declared as one JSON object each, where they are kept.
    fn with_extra(&self, rows: RecordBatch) -> Result<RecordBatch, Error> {
        let Some((kept, encoder)) = self.plan.as_ref().and_then(|plan| plan.kept.as_ref()) else { return Ok(rows) };
        let (mut text, fitted) = (Vec::new(), kept.conform(&rows)?);
        let ends = encoder.encode_with_ends(&fitted, &mut text)?;
        let mut begin = 0;
        let objects = ends.into_iter().map(|end| {
            let line = text.get(begin..end).unwrap_or_default();
            begin = end;
            String::from_utf8_lossy(line.trim_ascii_end()).into_owned()
        });
        let objects: ArrayRef = Arc::new(StringArray::from_iter_values(objects));
        let columns = rows.columns().iter().cloned().chain([objects]).collect();
        let fields = rows.schema_ref().fields().iter().cloned();
        let extra = Arc::new(Column::nullable(EXTRA, crate::ColumnType::Json).to_arrow());
        let fields: Vec<_> = fields.chain([extra]).collect();
        RecordBatch::try_new(Arc::new(arrow_schema::Schema::new(fields)), columns).map_err(|e| damaged(e.to_string()))
    }

    /// One row as a JSON object in the columns of the file, as far as these have a JSON form.
    pub fn row_text(&self, rows: &RecordBatch, row: usize) -> Option<String> {
        let text = || {
            let natural = rows.schema().fields().iter().map(|f| Column::from_arrow(f)).collect::<Option<Vec<_>>>()?;
            let natural = Schema::new(natural).ok()?;
            let one = natural.conform(&rows.slice(row, 1)).ok()?;
            Encoder::new(&natural, Decimals::Numbers).encode_row(&one, 0).ok()
        };
        row_limit(&rows.slice(row, 1))?;
        catch_unwind(AssertUnwindSafe(text)).ok().flatten()
    }
}

impl Plan {
    fn new(all: SchemaRef, schema: &Schema, unknown: Unknown) -> Result<Self, Error> {
        let mut places = BTreeSet::new();
        let mut others = Vec::new();
        let keeps = unknown == Unknown::Keep && schema.column(EXTRA).is_some() && all.index_of(EXTRA).is_err();
        for (place, field) in all.fields().iter().enumerate() {
            let name = field.name();
            let declared = schema.column(name).is_some();
            if all.index_of(name).ok() != Some(place) {
                return Err(damaged(format!("two of its columns are named `{name}`")));
            }
            if !declared && unknown == Unknown::Reject {
                return Err(damaged(format!("it has the column `{name}`, which is not declared")));
            }
            if !declared && !keeps {
                continue;
            }
            let column = Column::from_arrow(field).filter(|_| readable(field.data_type(), 0));
            let column = column.ok_or_else(|| {
                damaged(format!("its column `{name}` has the Arrow type {}, which is not read", field.data_type()))
            })?;
            places.insert(place);
            if !declared {
                others.push(Column { nullable: true, ..column });
            }
        }
        let places: Vec<usize> = places.into_iter().collect();
        let read = Arc::new(all.project(&places).map_err(|e| damaged(e.to_string()))?);
        // Whether the types go at all does not depend on the rows.
        schema.conform(&RecordBatch::new_empty(Arc::clone(&read)))?;
        let kept = match others.is_empty() {
            true => None,
            false => {
                let others = Schema::new(others).map_err(|e| damaged(e.to_string()))?;
                let encoder = Encoder::new(&others, Decimals::Numbers);
                Some((others, encoder))
            }
        };
        Ok(Self { all, places, read, kept })
    }

    #[expect(deprecated, reason = "a dictionary's message names no more than this id")]
    fn reads_dictionary(&self, id: i64) -> bool {
        !self.read.fields_with_dict_id(id).is_empty()
    }
}

/// Whether columns of a type are read: those whose length in memory follows from their length in the file.
fn readable(kind: &DataType, depth: usize) -> bool {
    match kind {
        DataType::Null => depth == 0,
        DataType::List(item) | DataType::LargeList(item) => depth < DEPTH_MAX && readable(item.data_type(), depth + 1),
        DataType::FixedSizeList(item, len) => *len > 0 && depth < DEPTH_MAX && readable(item.data_type(), depth + 1),
        DataType::Struct(fields) => {
            !fields.is_empty() && depth < DEPTH_MAX && fields.iter().all(|f| readable(f.data_type(), depth + 1))
        }
        DataType::Dictionary(_, values) => !values.is_nested() && readable(values, depth + 1),
        DataType::FixedSizeBinary(len) => *len > 0,
        DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::Map(_, _)
        | DataType::Union(_, _)
        | DataType::RunEndEncoded(_, _) => false,
        _ => true,
    }
}

/// Reads a whole Arrow IPC stream or file, conformed to `schema` batch by batch. A row that does not fit is an error.
pub fn read(schema: &Schema, mut bytes: &[u8]) -> Result<Vec<RecordBatch>, Error> {
    let mut reader = StreamReader::new(schema, Unknown::Drop);
    let mut batches = Vec::new();
    let cut = || damaged("it ends in the middle of a message");
    loop {
        let (len, batch) = match reader.look(bytes)? {
            // A stream may just end, once it has said what its columns are.
            Look::More(_) if bytes.is_empty() && reader.plan.is_some() => break,
            Look::End => break,
            Look::More(_) => return Err(cut()),
            Look::Padding(len) => (len, None),
            Look::Preface(len) | Look::Batch { bytes: len, .. } => {
                (len, reader.read(bytes.get(..len).ok_or_else(cut)?)?)
            }
        };
        bytes = bytes.get(len..).ok_or_else(cut)?;
        let Some(mut rows) = batch else { continue };
        loop {
            let fit = reader.fit(&rows, FIT_ROWS_MAX)?;
            if let Some((row, _, reason)) = fit.refused.into_iter().next() {
                return Err(damaged(format!("event {row}: {reason}")));
            }
            batches.push(fit.rows);
            rows = rows.slice(fit.taken, rows.num_rows() - fit.taken);
            if rows.num_rows() == 0 {
                break;
            }
        }
    }
    Ok(batches)
}

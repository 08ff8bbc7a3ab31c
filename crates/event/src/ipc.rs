//! Columns to bytes and back without their schema: what a log stores; and Arrow IPC streams and files, read and written
//! as other programs do ([`StreamReader`], [`StreamWriter`]).
//!
//! [`encode`] writes the body that Arrow IPC writes (each column's buffers, padded to 8 bytes, so that reading copies
//! nothing), but with a table of lengths in front instead of a flatbuffer. Three reasons: arrow-ipc builds the body
//! in a buffer of its own and copies it, its message is built anew for each batch, however few events it has, and
//! its reader panics on a length that lies. Version 1, little-endian:
//!
//! ```text
//! u32 version | u32 rows | u32 buffers | u32 bytes of the whole message
//! u32 length of each buffer, in the order of the columns (depth first): validity (0 where nothing is null),
//!     then values; texts and lists: offsets from 0, then bytes or items
//! padding to 16 | buffers, each padded to 8 (decimals start at a multiple of 16)
//! ```
//! A message is a multiple of 16 bytes long. Put it at a multiple of 16 in memory and nothing is copied; elsewhere
//! the columns that are misplaced are.

mod arrow_file;
mod expand;
mod messages;
mod writer;

use std::sync::Arc;

use arrow_array::{Array, RecordBatch, RecordBatchOptions, make_array};
use arrow_buffer::Buffer;
use arrow_data::ArrayData;
use arrow_schema::{ArrowError, DataType, SchemaRef};

pub use arrow_file::{Fit, StreamReader, read};
pub use messages::{BODY_BYTES_MAX, Look};
pub use writer::{STREAM_END, StreamWriter};

/// The version of the layout.
const VERSION: u32 = 1;

/// The bytes before the table of lengths.
const HEAD: usize = 16;

/// The nesting of types that is followed; a declared type is shallower.
const DEPTH_MAX: usize = 32;

/// Why bytes are no columns, or columns cannot become bytes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The columns have a type that is not canonical.
    #[error("a column of type {0} is not stored; conform the rows to a schema first")]
    Unsupported(DataType),
    /// A batch is larger than the layout can say.
    #[error("a batch of more than 4 GiB; split it")]
    TooLarge,
    /// The bytes are not what was written.
    #[error("the stored columns are damaged: {0}")]
    Damaged(&'static str),
    /// The bytes hold columns, but not valid ones of this schema.
    #[error("the stored columns do not fit their schema: {0}")]
    Invalid(#[from] ArrowError),
    /// An Arrow IPC file or stream that cannot be read.
    #[error("not a readable Arrow IPC file or stream: {0}")]
    File(String),
    /// The columns of a file do not fit the declared ones.
    #[error(transparent)]
    Conform(#[from] crate::ConformError),
}

/// Appends `rows` to `out`; only its own rows where it is a slice. On an error `out` is as before.
pub fn encode(rows: &RecordBatch, out: &mut Vec<u8>) -> Result<(), Error> {
    let start = out.len();
    let done = try_encode(rows, out, start);
    if done.is_err() {
        out.truncate(start);
    }
    done
}

fn try_encode(rows: &RecordBatch, out: &mut Vec<u8>, start: usize) -> Result<(), Error> {
    let buffers = rows.columns().iter().map(|c| buffer_count(c.data_type(), 0)).sum::<Result<usize, Error>>()?;
    out.resize(start + (HEAD + 4 * buffers).next_multiple_of(16), 0);
    let mut writer = Writer { out, start, entry: start + HEAD };
    for column in rows.columns() {
        writer.array(&column.to_data())?;
    }
    writer.pad(16);
    let bytes = writer.out.len() - start;
    let head = [VERSION as usize, rows.num_rows(), buffers, bytes];
    for (i, value) in head.into_iter().enumerate() {
        writer.entry = start + 4 * i;
        writer.length(value)?;
    }
    Ok(())
}

/// How many buffers a column of a canonical type has.
fn buffer_count(kind: &DataType, depth: usize) -> Result<usize, Error> {
    match kind {
        _ if depth > DEPTH_MAX => Err(Error::Unsupported(kind.clone())),
        DataType::Utf8 | DataType::Binary => Ok(3),
        DataType::List(item) => Ok(2 + buffer_count(item.data_type(), depth + 1)?),
        DataType::Struct(fields) => {
            Ok(1 + fields.iter().map(|f| buffer_count(f.data_type(), depth + 1)).sum::<Result<usize, Error>>()?)
        }
        kind if kind.primitive_width().is_some() || *kind == DataType::Boolean => Ok(2),
        kind => Err(Error::Unsupported(kind.clone())),
    }
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    /// Where the next length is written.
    entry: usize,
}

impl Writer<'_> {
    fn pad(&mut self, alignment: usize) {
        let len = self.out.len() - self.start;
        self.out.resize(self.start + len.next_multiple_of(alignment), 0);
    }

    fn length(&mut self, len: usize) -> Result<(), Error> {
        let len = u32::try_from(len).map_err(|_| Error::TooLarge)?;
        if let Some(place) = self.out.get_mut(self.entry..self.entry + 4) {
            place.copy_from_slice(&len.to_le_bytes());
        }
        self.entry += 4;
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.length(bytes.len())?;
        self.out.extend_from_slice(bytes);
        self.pad(8);
        Ok(())
    }

    fn array(&mut self, data: &ArrayData) -> Result<(), Error> {
        match data.nulls().filter(|nulls| nulls.null_count() > 0) {
            Some(nulls) => self.bytes(nulls.inner().sliced().as_slice())?,
            None => self.bytes(&[])?,
        }
        let broken = || Error::Damaged("a column in memory lacks a buffer");
        let (offset, len) = (data.offset(), data.len());
        match data.data_type() {
            DataType::Boolean => {
                let bits = data.buffers().first().ok_or_else(broken)?.bit_slice(offset, len);
                self.bytes(bits.get(..len.div_ceil(8)).unwrap_or(&bits))
            }
            DataType::Utf8 | DataType::Binary => {
                let [_, bytes] = data.buffers() else { return Err(broken()) };
                let (from, to) = self.offsets(data)?;
                self.bytes(bytes.get(from..to).ok_or_else(broken)?)
            }
            DataType::List(_) => {
                let (from, to) = self.offsets(data)?;
                self.array(&data.child_data().first().ok_or_else(broken)?.slice(from, to - from))
            }
            // A sliced struct has sliced members already, whatever its own offset says.
            DataType::Struct(_) => data.child_data().iter().try_for_each(|child| {
                if child.len() == len { self.array(child) } else { self.array(&child.slice(offset, len)) }
            }),
            kind => {
                let width = kind.primitive_width().ok_or_else(|| Error::Unsupported(kind.clone()))?;
                let values = data.buffers().first().ok_or_else(broken)?;
                let values = values.get(offset * width..(offset + len) * width).ok_or_else(broken)?;
                if width > 8 {
                    self.pad(16);
                }
                self.bytes(values)
            }
        }
    }

    /// Writes the offsets of the array's own rows, from 0; gives back the range that they cover.
    fn offsets(&mut self, data: &ArrayData) -> Result<(usize, usize), Error> {
        let all: &[i32] = data.buffers().first().map_or(&[], |offsets| offsets.typed_data());
        let own = all.get(data.offset()..=data.offset() + data.len()).unwrap_or(&[0]);
        let (Some(from), Some(to)) = (own.first().copied(), own.last().copied()) else {
            return Err(Error::Damaged("a column in memory lacks its offsets"));
        };
        self.length(own.len() * 4)?;
        if from == 0 {
            self.out.extend(own.iter().flat_map(|offset| offset.to_le_bytes()));
        } else {
            self.out.extend(own.iter().flat_map(|offset| (offset - from).to_le_bytes()));
        }
        self.pad(8);
        Ok((from as usize, to as usize))
    }
}

/// Reads columns of `schema` (a topic's [`crate::Schema::physical`]) from the message at the start of `message`. The
/// columns share its memory. Every length, offset and text is checked: no bytes make this panic.
pub fn decode(schema: &SchemaRef, message: &Buffer) -> Result<RecordBatch, Error> {
    let word = |i: usize| -> Option<usize> {
        let bytes = message.get(4 * i..4 * i + 4)?.first_chunk::<4>()?;
        usize::try_from(u32::from_le_bytes(*bytes)).ok()
    };
    let (Some(version), Some(rows), Some(buffers), Some(bytes)) = (word(0), word(1), word(2), word(3)) else {
        return Err(Error::Damaged("they are shorter than their head"));
    };
    if version != VERSION as usize {
        return Err(Error::Damaged("they have an unknown version"));
    }
    if bytes > message.len() || buffers > bytes / 4 {
        return Err(Error::Damaged("they are cut short"));
    }
    let counts = schema.fields().iter().map(|f| buffer_count(f.data_type(), 0));
    if counts.sum::<Result<usize, Error>>()? != buffers {
        return Err(Error::Damaged("they have another number of buffers than their schema"));
    }
    let at = (HEAD + 4 * buffers).next_multiple_of(16);
    let mut reader = Reader { message, end: bytes, entry: HEAD, at };
    let columns = schema.fields().iter().map(|field| Ok(make_array(reader.array(field.data_type(), rows)?)));
    let columns = columns.collect::<Result<Vec<_>, Error>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// The length of the message at the start of `bytes`, as its head says; `None` where there is no head.
pub fn message_len(bytes: &[u8]) -> Option<usize> {
    let len = bytes.get(12..16)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*len)).ok()
}

struct Reader<'a> {
    message: &'a Buffer,
    end: usize,
    /// Where the next length is read.
    entry: usize,
    /// Where the next buffer starts.
    at: usize,
}

impl Reader<'_> {
    fn buffer(&mut self, alignment: usize) -> Result<Buffer, Error> {
        let len = self.message.get(self.entry..self.entry + 4).and_then(<[u8]>::first_chunk::<4>);
        let len = len.map(|len| u32::from_le_bytes(*len) as usize).ok_or(Error::Damaged("a length is missing"))?;
        let start = self.at.next_multiple_of(alignment);
        if start + len > self.end {
            return Err(Error::Damaged("a buffer reaches behind the end"));
        }
        self.entry += 4;
        self.at = (start + len).next_multiple_of(8);
        Ok(self.message.slice_with_length(start, len))
    }

    fn array(&mut self, kind: &DataType, rows: usize) -> Result<ArrayData, Error> {
        let validity = self.buffer(8)?;
        let mut array = ArrayData::builder(kind.clone()).len(rows).align_buffers(true);
        if !validity.is_empty() {
            array = array.null_bit_buffer(Some(exact(validity, rows.div_ceil(8))?));
        }
        // Arrow checks what offsets and texts say; that buffers have whole elements it takes for granted.
        let offsets_len = rows.saturating_add(1).saturating_mul(4);
        match kind {
            DataType::Utf8 | DataType::Binary => {
                let offsets = exact(self.buffer(8)?, offsets_len)?;
                array = array.add_buffer(offsets).add_buffer(self.buffer(8)?);
            }
            DataType::List(item) => {
                let offsets = exact(self.buffer(8)?, offsets_len)?;
                let items = offsets.last_chunk::<4>().and_then(|last| usize::try_from(i32::from_le_bytes(*last)).ok());
                let items = items.ok_or(Error::Damaged("a list's offsets are wrong"))?;
                array = array.add_buffer(offsets).add_child_data(self.array(item.data_type(), items)?);
            }
            DataType::Struct(fields) => {
                for field in fields {
                    array = array.add_child_data(self.array(field.data_type(), rows)?);
                }
            }
            DataType::Boolean => array = array.add_buffer(exact(self.buffer(8)?, rows.div_ceil(8))?),
            kind => {
                let width = kind.primitive_width().ok_or_else(|| Error::Unsupported(kind.clone()))?;
                let values = self.buffer(if width > 8 { 16 } else { 8 })?;
                array = array.add_buffer(exact(values, rows.saturating_mul(width))?);
            }
        }
        Ok(array.build()?)
    }
}

fn exact(buffer: Buffer, len: usize) -> Result<Buffer, Error> {
    if buffer.len() == len { Ok(buffer) } else { Err(Error::Damaged("a buffer has the wrong length")) }
}

//! Arrow IPC streams and files, as other programs write them, to rows of a declared schema.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_schema::ArrowError;

use super::Error;
use crate::schema::Schema;

/// What an Arrow IPC *file* starts with; a stream does not.
const FILE_MAGIC: &[u8] = b"ARROW1";

/// Reads a whole Arrow IPC stream or file, conformed to `schema` batch by batch. A batch that does not fit is an
/// error, since its rows have no raw bytes of their own that could be refused alone.
pub fn read(schema: &Schema, bytes: &[u8]) -> Result<Vec<RecordBatch>, Error> {
    // arrow-ipc checks most of what it reads, but asserts some of it; a file from outside must not end a task.
    let batches = catch_unwind(AssertUnwindSafe(|| batches(bytes)));
    let batches = batches.map_err(|_| Error::File("its structure is damaged".to_owned()))?;
    let batches = batches.map_err(|error| Error::File(error.to_string()))?;
    batches.iter().map(|rows| Ok(schema.conform(rows)?)).collect()
}

fn batches(bytes: &[u8]) -> Result<Vec<RecordBatch>, ArrowError> {
    // A file is a stream between its magic (padded with zeros to 8 bytes, or to 64 by arrow-rs) and a footer that
    // only serves random access.
    let stream = match bytes.strip_prefix(FILE_MAGIC) {
        Some(rest) => rest.iter().position(|b| *b != 0).and_then(|start| rest.get(start..)).unwrap_or(b""),
        None => bytes,
    };
    check_lengths(stream)?;
    StreamReader::try_new(Cursor::new(stream), None)?.collect()
}

/// Compares the lengths that messages claim with the bytes there are: the reader would allocate first.
fn check_lengths(mut stream: &[u8]) -> Result<(), ArrowError> {
    let damaged = || ArrowError::IpcError("a message is longer than the file".to_owned());
    loop {
        stream = stream.strip_prefix(&[0xFF; 4]).unwrap_or(stream);
        let Some((len, rest)) = stream.split_first_chunk::<4>() else { return Ok(()) };
        let len = u32::from_le_bytes(*len) as usize;
        if len == 0 {
            return Ok(());
        }
        let (message, rest) = rest.split_at_checked(len).ok_or_else(damaged)?;
        let message = arrow_ipc::root_as_message(message).map_err(|error| ArrowError::IpcError(error.to_string()))?;
        let body = usize::try_from(message.bodyLength()).map_err(|_| damaged())?;
        stream = rest.split_at_checked(body).ok_or_else(damaged)?.1;
    }
}

//! Arrow IPC streams and files, as other programs write them, to rows of a declared schema.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_array::RecordBatch;
use arrow_ipc::reader::{FileReader, StreamReader};
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
    if bytes.starts_with(FILE_MAGIC) {
        return FileReader::try_new(Cursor::new(bytes), None)?.collect();
    }
    StreamReader::try_new(Cursor::new(bytes), None)?.collect()
}

//! Rows to an Arrow IPC stream, as other programs read it.

use arrow_array::RecordBatch;
use arrow_ipc::writer;
use arrow_schema::ArrowError;

use super::Error;
use crate::schema::Schema;

/// What ends a stream.
pub const STREAM_END: &[u8] = &[0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];

/// Writes record batches of one schema. A stream is [`StreamWriter::header`], then what [`StreamWriter::rows`] gives, then
/// [`STREAM_END`]; it may be cut behind any of these.
pub struct StreamWriter {
    schema: Schema,
    header: Vec<u8>,
    inner: writer::StreamWriter<Vec<u8>>,
}

fn fault(e: ArrowError) -> Error {
    Error::File(e.to_string())
}

impl StreamWriter {
    /// A writer of the user's columns of `schema`.
    pub fn new(schema: &Schema) -> Result<Self, Error> {
        let mut inner = writer::StreamWriter::try_new(Vec::new(), schema.arrow()).map_err(fault)?;
        let header = std::mem::take(inner.get_mut());
        Ok(Self { schema: schema.clone(), header, inner })
    }

    /// What stands at the start of a stream: the columns.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Appends one record batch; system columns behind the schema's are left out.
    pub fn rows(&mut self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<(), Error> {
        if rows.num_rows() > 0 {
            self.inner.write(&self.schema.user_rows(rows)?).map_err(fault)?;
            out.append(self.inner.get_mut());
        }
        Ok(())
    }
}

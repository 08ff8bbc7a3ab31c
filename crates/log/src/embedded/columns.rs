//! Events as bytes: Arrow IPC record batches without their schema, which the log keeps once per topic version.

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_schema::{ArrowError, SchemaRef};
use arrow_ipc::reader::RecordBatchDecoder;
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};

/// Appends the batch to `out`, which ends on an 8-byte boundary before and after.
pub(super) fn encode(batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    let options = IpcWriteOptions::default();
    let mut dictionaries = DictionaryTracker::new(true);
    let mut context = IpcWriteContext::default();
    let (_, data) = IpcDataGenerator::default().encode(batch, &mut dictionaries, &options, &mut context)?;
    let from = out.len();
    out.extend_from_slice(&(data.ipc_message.len() as u64).to_le_bytes());
    out.extend_from_slice(&data.ipc_message);
    out.resize(from + (8 + data.ipc_message.len()).next_multiple_of(64), 0);
    out.extend_from_slice(&data.arrow_data);
    out.resize(out.len().next_multiple_of(8), 0);
    Ok(())
}

/// Reads a batch with the columns of `schema`; columns share `bytes`.
pub(super) fn decode(schema: &SchemaRef, bytes: &Buffer) -> Result<RecordBatch, ArrowError> {
    let fault = |what: &str| ArrowError::IpcError(what.to_owned());
    let len = bytes.get(..8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
    let len = len.and_then(|n| usize::try_from(n).ok()).ok_or_else(|| fault("no length"))?;
    let meta = len.checked_add(8).and_then(|n| n.checked_next_multiple_of(64)).filter(|m| *m <= bytes.len());
    let meta = meta.ok_or_else(|| fault("a length behind the end"))?;
    let message = bytes.get(8..8 + len).ok_or_else(|| fault("a length behind the end"))?;
    let message = arrow_ipc::root_as_message(message).map_err(|e| fault(&e.to_string()))?;
    let batch = message.header_as_record_batch().ok_or_else(|| fault("no record batch"))?;
    let version = message.version();
    let dictionaries = std::collections::HashMap::new();
    let body = bytes.slice(meta);
    RecordBatchDecoder::try_new(&body, batch, schema.clone(), &dictionaries, &version)?.read_record_batch()
}

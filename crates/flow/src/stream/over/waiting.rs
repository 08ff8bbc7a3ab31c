//! Events that wait for the watermark, in the order of their times.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, SchemaRef};

use crate::ops::batch_of;
use crate::stream::changes::Changes;
use crate::stream::groups::Keys;
use crate::stream::operator::Broken;
use crate::stream::over::{WAITS, times_of};
use crate::stream::window_aggregate::{time_key, time_of};

/// How many events are released at once.
const ROWS_PER_BATCH: usize = 8192;
/// What an event takes beside its bytes.
const ROW_OVERHEAD_BYTES: usize = 48;

/// The waiting events, by time and then by number.
pub(crate) struct Waiting {
    rows: BTreeMap<(i64, u64), Box<[u8]>>,
    /// The number of the next event.
    next: u64,
    bytes: usize,
    whole: Keys,
    schema: SchemaRef,
}

impl Waiting {
    /// Nobody waits yet.
    pub(crate) fn new(schema: &SchemaRef) -> Result<Self, Broken> {
        let types: Vec<DataType> = schema.fields().iter().map(|f| f.data_type().clone()).collect();
        Ok(Self { rows: BTreeMap::new(), next: 0, bytes: 0, whole: Keys::new(&types)?, schema: Arc::clone(schema) })
    }

    /// Takes rows that all have a time.
    pub(crate) fn push(&mut self, rows: &RecordBatch, time: usize, changes: &mut Changes) -> Result<(), Broken> {
        let times = times_of(rows, time)?;
        let encoded = self.whole.encode(rows.columns(), rows.num_rows())?;
        for (row, time) in times.values().iter().enumerate() {
            let bytes = encoded.key(row);
            changes.put(&[&time_key(*time), &self.next.to_be_bytes(), &[WAITS]], bytes);
            self.insert(*time, self.next, bytes);
        }
        Ok(())
    }

    fn insert(&mut self, time: i64, number: u64, bytes: &[u8]) {
        self.bytes += bytes.len() + ROW_OVERHEAD_BYTES;
        self.next = self.next.max(number + 1);
        self.rows.insert((time, number), bytes.into());
    }

    /// The first events with a time before the watermark, all of the same time together; `None` when there are no more.
    pub(crate) fn release(&mut self, watermark: i64, changes: &mut Changes) -> Result<Option<RecordBatch>, Broken> {
        let mut released: Vec<Box<[u8]>> = Vec::new();
        let mut last = i64::MIN;
        while let Some(entry) = self.rows.first_entry() {
            let (time, number) = *entry.key();
            // At the end of time nothing more will come.
            if (time >= watermark && watermark != i64::MAX) || (released.len() >= ROWS_PER_BATCH && time != last) {
                break;
            }
            last = time;
            let bytes = entry.remove();
            self.bytes -= bytes.len() + ROW_OVERHEAD_BYTES;
            changes.delete(&[&time_key(time), &number.to_be_bytes(), &[WAITS]]);
            released.push(bytes);
        }
        if released.is_empty() {
            return Ok(None);
        }
        let columns = self.whole.decode(released.iter().map(AsRef::as_ref))?;
        Ok(Some(batch_of(&self.schema, columns, released.len())?))
    }

    /// Takes a change; `None` where it is not one.
    pub(crate) fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Option<()> {
        let (time, number) = time_of(key)?;
        let number = u64::from_be_bytes(number.try_into().ok()?);
        match value {
            Some(bytes) => self.insert(time, number, bytes),
            None => {
                if let Some(bytes) = self.rows.remove(&(time, number)) {
                    self.bytes -= bytes.len() + ROW_OVERHEAD_BYTES;
                }
            }
        }
        Some(())
    }

    /// How many wait, and about how many bytes they take.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.rows.len(), self.bytes)
    }
}

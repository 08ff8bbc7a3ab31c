//! The rows that a fold gives out in one call, in order.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow_schema::SchemaRef;
use arrow_select::take::take_record_batch;

use crate::expr::value::{Sink, Val};
use crate::ops::batch_of;
use crate::outcome::concat_batches;
use crate::stream::Broken;

/// The most rows of one batch that is given out.
const ROWS_PER_BATCH: usize = 8192;

/// Rows with the output's columns, each with the place of what gave it out.
pub(crate) struct Given {
    schema: SchemaRef,
    sinks: Vec<Sink>,
    stamps: Vec<i64>,
    order: Vec<(u32, u32)>,
    chunks: Vec<(RecordBatch, Vec<(u32, u32)>)>,
    /// Rows of one place are in the order in which they came.
    next: u32,
}

impl Given {
    /// For rows of the physical schema `schema`.
    pub(crate) fn new(schema: &SchemaRef) -> Self {
        let user = schema.fields().len().saturating_sub(1);
        let sinks = schema.fields().iter().take(user).map(|f| Sink::new(f.data_type())).collect();
        Self { schema: Arc::clone(schema), sinks, stamps: Vec::new(), order: Vec::new(), chunks: Vec::new(), next: 0 }
    }

    /// Adds one row.
    pub(crate) fn row<'v>(&mut self, values: impl Iterator<Item = &'v Val<'v>>, stamp: i64, place: u32) {
        self.sinks.iter_mut().zip(values).for_each(|(sink, value)| sink.push(value));
        self.stamps.push(stamp);
        self.order.push((place, self.next));
        self.next += 1;
    }

    /// Adds rows of columns.
    pub(crate) fn columns(
        &mut self,
        columns: Vec<ArrayRef>,
        stamps: ArrayRef,
        places: impl Iterator<Item = u32>,
    ) -> Result<(), Broken> {
        let rows = stamps.len();
        let columns = columns.into_iter().chain([stamps]).collect();
        let next = self.next;
        self.chunks.push((batch_of(&self.schema, columns, rows)?, places.map(|place| (place, next)).collect()));
        self.next += 1;
        Ok(())
    }

    /// The rows by their places, of which each stands where `rank` says.
    pub(crate) fn finish(mut self, rank: impl Fn(u32) -> u32) -> Result<Vec<RecordBatch>, Broken> {
        let mut order: Vec<(u32, u32)> = Vec::new();
        let mut batches = Vec::new();
        for (batch, places) in std::mem::take(&mut self.chunks) {
            batches.push(batch);
            order.extend(places);
        }
        if !self.stamps.is_empty() {
            let rows = self.stamps.len();
            let columns = self.sinks.into_iter().map(Sink::finish);
            let mut columns = columns.collect::<Result<Vec<ArrayRef>, _>>()?;
            columns.push(Arc::new(TimestampMicrosecondArray::from(self.stamps).with_timezone("+00:00")));
            batches.push(batch_of(&self.schema, columns, rows)?);
            order.extend(self.order);
        }
        if batches.is_empty() {
            return Ok(Vec::new());
        }
        let mut all = concat_batches(&batches)?;
        order.iter_mut().for_each(|(place, _)| *place = rank(*place));
        if !order.is_sorted() {
            let mut rows: Vec<u32> = (0..order.len() as u32).collect();
            rows.sort_unstable_by_key(|row| order.get(*row as usize));
            all = take_record_batch(&all, &UInt32Array::from(rows))?;
        }
        let firsts = (0..all.num_rows()).step_by(ROWS_PER_BATCH);
        Ok(firsts.map(|first| all.slice(first, ROWS_PER_BATCH.min(all.num_rows() - first))).collect())
    }
}

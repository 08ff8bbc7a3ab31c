//! Tables as they were, for a task that reads events again (see [`crate::again`]).
//!
//! Events that are read again meet the rows that had come in before them, by the times of both, and none behind the place
//! to which the task had read the topic. What compaction has let go of nobody knows any more: an event that is older
//! than all that is kept of a key meets the oldest row that is kept of it.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use millstream_event::{Batch, Name, Offset, Schema, Stamp, TopicPartition};
use millstream_flow::{LookupSchema, LookupSet, LookupTable};
use millstream_log::{Log, Read, Reader};

use super::Places;
use crate::placing::columns_of;
use crate::task::Fault;

/// The tables of a task, as far as its events have come.
pub(crate) struct Past {
    tables: Vec<Table>,
}

/// A table topic that is looked up.
#[derive(Debug, Clone)]
pub(crate) struct TableTopic {
    pub(crate) topic: Name,
    pub(crate) schema: Arc<LookupSchema>,
}

struct Table {
    lookup: Name,
    schema: Arc<LookupSchema>,
    table: LookupTable,
    partitions: Vec<Partition>,
}

/// One partition, up to where it was read.
struct Partition {
    reader: Box<dyn Reader>,
    head: Option<Batch>,
    until: Offset,
    /// Whether all up to there was read.
    ended: bool,
}

impl Past {
    /// The tables as they were before anything that is kept; each with how far the task had read it.
    pub(crate) async fn open(tables: Vec<((Name, TableTopic), Option<Places>)>, log: &dyn Log) -> Result<Self, Fault> {
        let mut opened = Vec::with_capacity(tables.len());
        for ((lookup, of), met) in tables {
            opened.push(Table::open(lookup, of, met, log).await?);
        }
        Ok(Self { tables: opened })
    }

    /// Lets rows in that came before this time or at it.
    pub(crate) async fn advance(&mut self, micros: i64) -> Result<(), Fault> {
        for table in &mut self.tables {
            table.advance(micros).await?;
        }
        Ok(())
    }

    /// When the next row came in that is not in yet.
    pub(crate) async fn next(&mut self) -> Result<Option<i64>, Fault> {
        let mut first = None;
        for partition in self.tables.iter_mut().flat_map(|table| &mut table.partitions) {
            let next = partition.micros().await?;
            first = first.into_iter().chain(next).min();
        }
        Ok(first)
    }

    /// These lookups, with the tables as they were.
    pub(crate) fn instead(&self, now: &LookupSet) -> LookupSet {
        let with = |set: LookupSet, table: &Table| set.with(table.lookup.clone(), Arc::new(table.table.clone()));
        self.tables.iter().fold(now.clone(), with)
    }
}

impl Table {
    async fn open(lookup: Name, of: TableTopic, met: Option<Places>, log: &dyn Log) -> Result<Self, Fault> {
        let schema = of.schema;
        let met = met.filter(|met| met.topic == of.topic);
        let mut table = LookupTable::empty(&schema).map_err(failed)?;
        let mut partitions = Vec::new();
        let count = log.topic(&of.topic).map_or(0, |info| info.spec.partitions);
        for number in 0..count {
            let at = TopicPartition::new(of.topic.clone(), number);
            let until = match met.as_ref().map(|met| met.next.get(number as usize).copied().unwrap_or_default()) {
                Some(until) => until,
                // It has never looked anything up here.
                None => log.end(&at).await.map_err(|e| Fault::log(&e))?,
            };
            let start = log.start(&at).await.map_err(|e| Fault::log(&e))?;
            let mut oldest = Partition::open(log, &at, start, until)?;
            while let Some(batch) = oldest.take(i64::MAX).await? {
                let rows = columns_of(&batch.rows, &schema.schema).map_err(failed)?;
                table = merged(table.first(&schema, &rows).map_err(failed)?, &schema)?;
                tokio::task::yield_now().await;
            }
            partitions.push(Partition::open(log, &at, start, until)?);
        }
        Ok(Self { lookup, schema, table, partitions })
    }

    async fn advance(&mut self, micros: i64) -> Result<(), Fault> {
        let mut rows: Vec<RecordBatch> = Vec::new();
        for partition in &mut self.partitions {
            while let Some(batch) = partition.take(micros).await? {
                rows.push(columns_of(&batch.rows, &self.schema.schema).map_err(failed)?);
            }
        }
        if !rows.is_empty() {
            let rows = concat_batches(self.schema.schema.physical(), &rows).map_err(failed)?;
            let changed = self.table.changed(&self.schema, &rows, 0).map_err(failed)?;
            self.table = merged(changed, &self.schema)?;
        }
        Ok(())
    }
}

impl Partition {
    fn open(log: &dyn Log, at: &TopicPartition, start: Offset, until: Offset) -> Result<Self, Fault> {
        Ok(Self { reader: log.read(at, start).map_err(|e| Fault::log(&e))?, head: None, until, ended: false })
    }

    /// When the first row came in that was not taken.
    async fn micros(&mut self) -> Result<Option<i64>, Fault> {
        while self.head.is_none() && !self.ended {
            match self.reader.next().await.map_err(|e| Fault::log(&e))? {
                Read::Batch(batch) if batch.base < self.until => {
                    let batch = batch.before_offset(self.until);
                    self.head = Some(batch).filter(|batch| batch.rows.num_rows() > 0);
                }
                // Whatever was read once is before the end: what is missing is gone.
                Read::Batch(_) | Read::AtEnd { .. } => self.ended = true,
            }
        }
        Ok(self.head.as_ref().and_then(|batch| came_in(batch, 0)))
    }

    /// The next rows, as far as they came in at this time or before it.
    async fn take(&mut self, micros: i64) -> Result<Option<Batch>, Fault> {
        if self.micros().await?.is_none_or(|first| first > micros) {
            return Ok(None);
        }
        let Some(batch) = self.head.take() else { return Ok(None) };
        let later = |row: &usize| came_in(&batch, *row).is_some_and(|at| at > micros);
        let Some(row) = (1..batch.rows.num_rows()).find(later) else { return Ok(Some(batch)) };
        let at = batch.offset(row);
        self.head = Some(batch.from_offset(at));
        Ok(Some(batch.before_offset(at)))
    }
}

/// When a row came into the pipeline; one without a time came at its beginning.
fn came_in(batch: &Batch, row: usize) -> Option<i64> {
    if row >= batch.rows.num_rows() {
        return None;
    }
    Some(Schema::ingested_at(&batch.rows).map_or(i64::MIN, |stamps| Stamp(stamps.value(row)).micros()))
}

fn merged(table: LookupTable, schema: &LookupSchema) -> Result<LookupTable, Fault> {
    match table.merge_due(schema) {
        Some(merge) => Ok(table.merged(merge.run().map_err(failed)?)),
        None => Ok(table),
    }
}

fn failed(error: impl std::fmt::Display) -> Fault {
    Fault::Failed(error.to_string())
}

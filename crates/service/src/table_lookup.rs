//! A table topic as a lookup: whoever joins it finds the newest row of each key, whatever partition that is in.
//!
//! 1. One reader for all tasks reads every partition of the topic from its start to where it ends at that moment. Before that
//!    nobody gets a table: a service that is new misses nothing of what is there.
//! 2. Then it follows the topic. Rows that come make the next table, which shares the rest with the one before; with
//!    each table is published how far the topic was read for it.
//! 3. A task takes the newest table for each batch, and commits with the batch how far that was read ([`Places`]). So
//!    it is part of the commit what the events met; a task that starts again waits until a table has been read at least as
//!    far, and takes up there: the time of the table never goes back.
//!
//! Nothing of the table is kept but the topic: of each key that holds the newest row, so reading it anew gives the table as
//! it is at the end, however much compaction has let go of.

mod past;
mod places;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use futures::future::select_all;
use millstream_event::{Name, Offset, TopicPartition};
use millstream_flow::{LookupError, LookupSchema, LookupTable, MergedLayers};
use millstream_log::{Clock, Log, Read, Reader, SystemClock};
use tokio::task::JoinHandle;

use crate::clock::Backoff;
use crate::lookup::{LookupHandle, LookupPublisher};
use crate::placing::columns_of;

pub(crate) use past::{Past, TableTopic};
pub(crate) use places::Places;
pub use places::{LOOKUP_PARTITIONS_MAX, lookup_input};

/// At most about so many rows make the next table.
const ROUND_ROWS: usize = 1 << 16;
/// So many rows are worked on where they are read; more where it may take its time.
const INLINE_ROWS: usize = 1 << 10;
/// How often it is looked whether the topic is there by now.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Keeps a lookup of a table topic fresh; dropping it stops that, the last table stays.
#[derive(Debug)]
pub struct TableLookup {
    task: JoinHandle<()>,
}

impl TableLookup {
    /// Starts reading on the current tokio runtime; the handle has a table when the topic's present end is read. A topic
    /// that is not there has no rows.
    pub fn start(log: Arc<dyn Log>, name: Name, topic: Name, schema: LookupSchema) -> (Self, LookupHandle) {
        let schema = Arc::new(schema);
        let of = TableTopic { topic: topic.clone(), schema: Arc::clone(&schema) };
        let (publisher, handle) = LookupPublisher::of_table(name, of);
        let keeper = Keeper { log, topic, schema, publisher };
        (Self { task: tokio::spawn(keeper.keep()) }, handle)
    }
}

impl Drop for TableLookup {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Keeper {
    log: Arc<dyn Log>,
    topic: Name,
    schema: Arc<LookupSchema>,
    publisher: LookupPublisher,
}

/// One partition being read.
struct Partition {
    reader: Box<dyn Reader>,
    /// Behind the last row that was read.
    next: Offset,
    /// Where it ended when reading began.
    end: Offset,
}

impl Keeper {
    async fn keep(self) {
        let mut backoff = Backoff::new();
        // What was said last: the same reason is no news however often it is met.
        let mut said = String::new();
        loop {
            let mut published = false;
            let Err(reason) = self.follow(&mut published).await;
            if published {
                backoff.reset();
            }
            self.publisher.failed(&reason);
            if said != reason {
                tracing::warn!(topic = %self.topic, reason, "a lookup's topic is read again from its start");
                said = reason;
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    async fn follow(&self, published: &mut bool) -> Result<Infallible, String> {
        let mut table = LookupTable::empty(&self.schema).map_err(text)?;
        let mut partitions = self.open(&table, published).await?;
        // A large table becomes one layer bit by bit; nobody waits for the next row yet.
        while partitions.iter().any(|partition| partition.next < partition.end) {
            let (rows, _) = self.take(&mut partitions).await?;
            table = self.changed(table, rows, 0).await?;
            if let Some(merge) = table.merge_due(&self.schema) {
                table = table.merged(joined(tokio::task::spawn_blocking(move || merge.run()).await)?);
            }
        }
        self.publish(&table, &partitions);
        *published = true;
        tracing::info!(topic = %self.topic, rows = table.len(), "a lookup's topic is read");
        self.stay(table, partitions).await
    }

    /// Follows the topic from its end on.
    async fn stay(&self, mut table: LookupTable, mut partitions: Vec<Partition>) -> Result<Infallible, String> {
        let mut merging: Option<JoinHandle<Result<MergedLayers, LookupError>>> = None;
        let mut held = 0;
        let mut more = false;
        loop {
            if merging.is_none()
                && let Some(merge) = table.merge_due(&self.schema)
            {
                held = merge.holds();
                merging = Some(tokio::task::spawn_blocking(move || merge.run()));
            }
            let merged = async {
                match &mut merging {
                    Some(merging) => merging.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                merged = merged => {
                    (merging, held) = (None, 0);
                    table = table.merged(joined(merged)?);
                    self.publish(&table, &partitions);
                }
                () = changed(&mut partitions, more) => {
                    let (rows, left) = self.take(&mut partitions).await?;
                    more = left;
                    if !rows.is_empty() {
                        table = self.changed(table, rows, held).await?;
                        self.publish(&table, &partitions);
                    }
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Begins to read each partition. While nobody has made the topic, it has no rows.
    async fn open(&self, empty: &LookupTable, published: &mut bool) -> Result<Vec<Partition>, String> {
        let info = loop {
            if let Some(info) = self.log.topic(&self.topic) {
                break info;
            }
            if !std::mem::replace(published, true) {
                self.publish(empty, &[]);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        };
        let mut partitions = Vec::new();
        for number in 0..info.spec.partitions {
            let at = TopicPartition::new(self.topic.clone(), number);
            let end = self.log.end(&at).await.map_err(text)?;
            let next = self.log.start(&at).await.map_err(text)?;
            partitions.push(Partition { reader: self.log.read(&at, next).map_err(text)?, next, end });
        }
        // Whether a position has room for so many is known before anybody works with the table.
        self.places(&partitions).position()?;
        Ok(partitions)
    }

    /// Takes what is there, about [`ROUND_ROWS`] rows at most; also says whether something is left.
    async fn take(&self, partitions: &mut [Partition]) -> Result<(Vec<RecordBatch>, bool), String> {
        let mut taken = Vec::new();
        let mut left = false;
        // Each partition has its share, so that none waits for a busy one.
        let share = ROUND_ROWS / partitions.len().max(1) + 1;
        for partition in partitions {
            let mut own = 0;
            loop {
                if own >= share {
                    left = true;
                    break;
                }
                match partition.reader.next().await.map_err(text)? {
                    Read::Batch(batch) => {
                        partition.next = partition.next.max(batch.next());
                        own += batch.rows.num_rows().max(1);
                        if batch.rows.num_rows() > 0 {
                            taken.push(columns_of(&batch.rows, &self.schema.schema).map_err(text)?);
                        }
                    }
                    Read::AtEnd { next } => {
                        partition.next = partition.next.max(next);
                        break;
                    }
                }
            }
        }
        Ok((taken, left))
    }

    /// The table after these rows.
    async fn changed(&self, table: LookupTable, rows: Vec<RecordBatch>, held: usize) -> Result<LookupTable, String> {
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        let schema = Arc::clone(&self.schema);
        let change = move || {
            let rows = concat_batches(schema.schema.physical(), &rows);
            let rows = rows.map_err(|e| LookupError::Columns(e.to_string()))?;
            table.changed(&schema, &rows, held)
        };
        if count <= INLINE_ROWS {
            return change().map_err(text);
        }
        joined(tokio::task::spawn_blocking(change).await)
    }

    fn places(&self, partitions: &[Partition]) -> Places {
        Places { topic: self.topic.clone(), next: partitions.iter().map(|partition| partition.next).collect() }
    }

    fn publish(&self, table: &LookupTable, partitions: &[Partition]) {
        self.publisher.publish_read(Arc::new(table.clone()), SystemClock.now_us(), self.places(partitions));
    }
}

/// Waits until a partition may have more.
async fn changed(partitions: &mut [Partition], more: bool) {
    if more {
        return;
    }
    if partitions.is_empty() {
        return std::future::pending().await;
    }
    select_all(partitions.iter_mut().map(|partition| partition.reader.changed())).await;
}

fn joined<T>(ended: Result<Result<T, LookupError>, tokio::task::JoinError>) -> Result<T, String> {
    ended.map_err(text)?.map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

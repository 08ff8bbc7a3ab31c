//! Reading a partition in memory.

use std::sync::Arc;

use arrow_array::RecordBatch;
use futures::future::BoxFuture;
use millstream_event::{Batch, Offset, TopicPartition};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::store::Store;
use crate::evolution::upgrade;
use crate::newest::Progress;
use crate::{Error, Read, Reader};

pub(super) struct MemoryReader {
    store: Arc<Mutex<Store>>,
    at: TopicPartition,
    next: Offset,
    /// Of a table: how far it is.
    progress: Option<Progress>,
    /// Whether it was told what had been promised before its beginning.
    begun: bool,
    grown: watch::Receiver<Offset>,
}

impl MemoryReader {
    pub(super) fn new(
        store: Arc<Mutex<Store>>,
        at: TopicPartition,
        next: Offset,
        progress: Option<Progress>,
        grown: watch::Receiver<Offset>,
    ) -> Self {
        Self { store, at, next, progress, begun: false, grown }
    }

    fn read(&mut self) -> Result<Read, Error> {
        // Marked as seen before looking, so that what comes in between wakes `changed`.
        self.grown.borrow_and_update();
        let store = self.store.lock();
        let partition = store.partition(&self.at)?;
        if self.next < partition.start {
            return Err(Error::OutOfRange { at: self.at.clone(), asked: self.next, start: partition.start });
        }
        if let Some(progress) = &self.progress {
            progress.at(self.next.0);
        }
        let info = &store.topic(&self.at.topic)?.info;
        if !self.begun && partition.end >= self.next {
            self.begun = true;
            let marks = partition.promised_before(self.next);
            if !marks.is_empty() {
                let rows = RecordBatch::new_empty(info.spec.schema.physical().clone());
                return Ok(Read::Batch(Batch { marks, ..Batch::dense(self.next, info.schema_version, rows) }));
            }
        }
        let Some((batch, next)) = partition.next_at(self.next) else {
            // What is missing at the end was left out.
            self.next = self.next.max(partition.end);
            return Ok(Read::AtEnd { next: self.next });
        };
        self.next = next;
        if batch.schema_version == info.schema_version {
            return Ok(Read::Batch(batch));
        }
        let rows = upgrade(&batch.rows, &info.spec.schema)?;
        Ok(Read::Batch(Batch { rows, schema_version: info.schema_version, ..batch }))
    }
}

impl Reader for MemoryReader {
    fn next(&mut self) -> BoxFuture<'_, Result<Read, Error>> {
        let read = self.read();
        Box::pin(async move { read })
    }

    fn changed(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if self.grown.changed().await.is_err() {
                // The log is gone: nothing will ever change.
                std::future::pending::<()>().await;
            }
        })
    }
}

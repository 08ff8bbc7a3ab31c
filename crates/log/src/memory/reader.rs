//! Reading a partition in memory.

use std::sync::Arc;

use futures::future::BoxFuture;
use millstream_event::{Batch, Offset, TopicPartition};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::store::Store;
use crate::evolution::upgrade;
use crate::{Error, Read, Reader};

pub(super) struct MemoryReader {
    store: Arc<Mutex<Store>>,
    at: TopicPartition,
    next: Offset,
    grown: watch::Receiver<Offset>,
}

impl MemoryReader {
    pub(super) fn new(
        store: Arc<Mutex<Store>>,
        at: TopicPartition,
        next: Offset,
        grown: watch::Receiver<Offset>,
    ) -> Self {
        Self { store, at, next, grown }
    }

    fn read(&mut self) -> Result<Read, Error> {
        // Marked as seen before looking, so that what comes in between wakes `changed`.
        self.grown.borrow_and_update();
        let store = self.store.lock();
        let partition = store.partition(&self.at)?;
        if self.next < partition.start {
            return Err(Error::OutOfRange { at: self.at.clone(), asked: self.next, start: partition.start });
        }
        let Some((batch, next)) = partition.at(self.next) else { return Ok(Read::AtEnd { next: self.next }) };
        self.next = next;
        let info = &store.topic(&self.at.topic)?.info;
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

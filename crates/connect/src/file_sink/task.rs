//! One task: encodes on the compute pool, writes and syncs off it.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Settings;
use super::state::State;
use super::topic::{Topic, make_directory};
use crate::encode::Encode;
use crate::event::{Batch, Name, PartitionId};
use crate::service::{ConnectError, SinkTask};

/// Encoded bytes are written out in parts of this size.
const PART_BYTES: usize = 1 << 20;

pub(crate) struct FileTask {
    settings: Settings,
    partition: PartitionId,
    encoders: BTreeMap<Name, Pending>,
    /// Taken while a thread writes; gone when a write was given up on, and then the task is of no more use.
    files: Option<Topics>,
}

/// Encoded events that are not written yet.
struct Pending {
    encode: Encode,
    bytes: Vec<u8>,
}

type Topics = BTreeMap<Name, Topic>;

impl FileTask {
    pub(crate) fn open(settings: Settings, partition: PartitionId, state: Option<&[u8]>) -> Result<Self, ConnectError> {
        let state = State::decode(state)?;
        make_directory(&settings.path)?;
        let mut topics = BTreeMap::new();
        for state in state.map(|s| s.topics).unwrap_or_default() {
            let name = state.topic.clone();
            topics.insert(name.clone(), Topic::open(&settings, name, partition, Some(state))?);
        }
        Ok(Self { settings, partition, encoders: BTreeMap::new(), files: Some(topics) })
    }

    /// Does something with the files on a thread that may wait for a disk.
    async fn with_files<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Topics) -> Result<T, ConnectError> + Send + 'static,
    ) -> Result<T, ConnectError> {
        let lost = || ConnectError::temporary("an earlier write to the files was given up on; opening them again");
        let mut files = self.files.take().ok_or_else(lost)?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&mut files);
            (files, done)
        });
        let (files, done) = done.await.map_err(|e| ConnectError::temporary(format!("writing files: {e}")))?;
        // After a failure the files are behind what was handed over: only opening them again brings them into line.
        self.files = done.is_ok().then_some(files);
        done
    }

    /// Writes what is encoded for a topic; `close`: ends its file after that.
    async fn flush(&mut self, name: Name, close: bool) -> Result<(), ConnectError> {
        let Some(pending) = self.encoders.get_mut(&name) else { return Ok(()) };
        let bytes = std::mem::take(&mut pending.bytes);
        let mut header = Vec::new();
        pending.encode.header(&mut header);
        let (settings, partition, key) = (self.settings.clone(), self.partition, name.clone());
        let room = self
            .with_files(move |files| {
                let topic = match files.entry(name.clone()) {
                    std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                    std::collections::btree_map::Entry::Vacant(new) => {
                        new.insert(Topic::open(&settings, name, partition, None)?)
                    }
                };
                topic.append(&header, &bytes)?;
                if close {
                    topic.close()?;
                }
                Ok(bytes)
            })
            .await?;
        if let Some(pending) = self.encoders.get_mut(&key) {
            pending.bytes = room;
            pending.bytes.clear();
        }
        Ok(())
    }

    async fn flush_all(&mut self, close: bool) -> Result<Option<Bytes>, ConnectError> {
        let names: Vec<Name> =
            self.encoders.iter().filter(|(_, p)| !p.bytes.is_empty()).map(|(n, _)| n.clone()).collect();
        for name in names {
            self.flush(name, false).await?;
        }
        let state = self.with_files(move |files| {
            let states = files.values_mut().map(|topic| {
                if close {
                    topic.close()?;
                }
                topic.prepare()
            });
            Ok(State::new(states.collect::<Result<_, _>>()?))
        });
        state.await?.encode().map(Some)
    }
}

impl SinkTask for FileTask {
    fn write<'a>(&'a mut self, topic: &'a Name, batch: &'a Batch) -> BoxFuture<'a, Result<(), ConnectError>> {
        async move {
            if !self.encoders.contains_key(topic) {
                let pending = Pending {
                    encode: Encode::new(self.settings.format, self.settings.tables.contains(topic)),
                    bytes: Vec::new(),
                };
                self.encoders.insert(topic.clone(), pending);
            }
            let Some(pending) = self.encoders.get_mut(topic) else { return Ok(()) };
            if pending.encode.changes(batch.rows.schema_ref()) {
                // The old columns' header is needed for what is still to be written under it.
                self.flush(topic.clone(), self.settings.format != crate::decode::Format::Ndjson).await?;
            }
            let Some(pending) = self.encoders.get_mut(topic) else { return Ok(()) };
            pending.encode.ready(batch.rows.schema_ref())?;
            pending.encode.rows(&batch.rows, &mut pending.bytes)?;
            if pending.bytes.len() >= PART_BYTES { self.flush(topic.clone(), false).await } else { Ok(()) }
        }
        .boxed()
    }

    fn prepare(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, ConnectError>> {
        self.flush_all(false).boxed()
    }

    fn committed(&mut self) -> BoxFuture<'_, Result<(), ConnectError>> {
        self.with_files(|files| files.values_mut().try_for_each(Topic::committed)).boxed()
    }

    fn finish(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, ConnectError>> {
        self.flush_all(true).boxed()
    }
}

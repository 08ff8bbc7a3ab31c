//! Reading a partition: the newest batches from memory, then the journal, then settled files.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_buffer::MutableBuffer;
use futures::future::BoxFuture;
use millstream_event::{Batch, Mark, Offset, ipc};
use tokio::sync::watch;

use super::block::Events;
use super::index::{Entry, Partition, Place, Topic};
use super::settled_file::{OpenFile, SettledFile};
use super::walk::io_error;
use crate::evolution::upgrade;
use crate::newest::Progress;
use crate::vfs::Vfs;
use crate::{Error, Read, Reader, TopicKind};

pub(super) struct EmbeddedReader {
    vfs: Arc<dyn Vfs>,
    topic: Arc<Topic>,
    partition: Arc<Partition>,
    next: u64,
    /// Of a table: how far it is.
    progress: Option<Progress>,
    /// Whether it was told what had been promised before its beginning.
    begun: bool,
    grown: watch::Receiver<u64>,
    /// The settled file read last.
    open: Option<OpenFile>,
}

/// Events as they were found.
struct Raw {
    schema_version: u32,
    events: Events,
    /// Where reading goes on.
    next: u64,
}

impl EmbeddedReader {
    pub(super) fn new(vfs: Arc<dyn Vfs>, topic: Arc<Topic>, partition: Arc<Partition>, from: Offset) -> Self {
        let grown = partition.grown.subscribe();
        let table = topic.with_info(|info| info.spec.kind == TopicKind::Table);
        let progress = table.then(|| partition.contents.lock().readers.enter());
        Self { vfs, topic, partition, next: from.0, progress, begun: false, grown, open: None }
    }

    async fn read(&mut self) -> Result<Read, Error> {
        // Marked as seen before looking, so that what comes in between wakes `changed`.
        self.grown.borrow_and_update();
        loop {
            let Some((place, promised)) = self.look() else {
                // Files are being replaced, which takes as long as writing the checkpoint.
                tokio::task::yield_now().await;
                continue;
            };
            let raw = match place {
                Place::End | Place::Entry(_) | Place::File(_) if !promised.is_empty() => return Ok(self.tell(promised)),
                Place::End => return Ok(Read::AtEnd { next: Offset(self.next) }),
                Place::Gone { start } => {
                    let at = self.partition.at.clone();
                    return Err(Error::OutOfRange { at, asked: Offset(self.next), start: Offset(start) });
                }
                Place::Entry(entry) => match self.entry(entry).await? {
                    Some(raw) => raw,
                    None => continue,
                },
                Place::File(file) => match self.settled(file).await? {
                    Some(raw) => raw,
                    None => continue,
                },
            };
            if let Some(batch) = self.hand_out(raw)? {
                return Ok(Read::Batch(batch));
            }
        }
    }

    /// Where the next events are, and once, when the reader's beginning is there, what was promised before it; `None` where
    /// it may not begin just now.
    fn look(&mut self) -> Option<(Place, Arc<[Mark]>)> {
        let contents = self.partition.contents.lock();
        if let Some(progress) = &self.progress {
            if contents.swapping && !self.begun {
                return None;
            }
            progress.at(self.next);
        }
        let promised = if self.begun || contents.end < self.next {
            Arc::default()
        } else {
            self.begun = true;
            contents.promises.before(self.next)
        };
        Some((contents.find(self.next), promised))
    }

    /// A batch of marks alone.
    fn tell(&self, marks: Arc<[Mark]>) -> Read {
        let (version, schema) = self.topic.newest();
        let rows = RecordBatch::new_empty(schema.physical().clone());
        Read::Batch(Batch { marks, ..Batch::dense(Offset(self.next), version, rows) })
    }

    /// The events at or behind the place asked for; `None` where nothing is kept there.
    fn hand_out(&mut self, raw: Raw) -> Result<Option<Batch>, Error> {
        let Raw { schema_version, events: Events { base, rows, offsets, marks }, next } = raw;
        let batch = Batch { base: Offset(base), schema_version, rows, offsets, marks };
        let mut batch = batch.from_offset(Offset(self.next));
        self.next = next;
        if batch.rows.num_rows() == 0 {
            if batch.marks.is_empty() {
                return Ok(None);
            }
            batch.base = Offset(next);
        }
        let (newest, schema) = self.topic.newest();
        if batch.schema_version != newest {
            batch.rows = upgrade(&batch.rows, &schema)?;
            batch.schema_version = newest;
        }
        Ok(Some(batch))
    }

    fn schema(&self, version: u32) -> Result<arrow_schema::SchemaRef, Error> {
        let schema = self.topic.schema(version);
        let schema = schema.ok_or_else(|| Error::Refused(format!("events of the unknown schema version {version}")))?;
        Ok(schema.physical().clone())
    }

    /// The events of an entry; `None` where they have moved meanwhile.
    async fn entry(&self, entry: Entry) -> Result<Option<Raw>, Error> {
        let (base, next, schema_version, marks) = (entry.base, entry.next(), entry.schema_version, entry.marks.clone());
        let rows = match entry.cached.clone() {
            Some(rows) => rows,
            None => {
                let schema = self.schema(schema_version)?;
                let at = self.partition.at.to_string();
                match blocking(move || load_entry(&entry, &schema, &at)).await {
                    Ok(rows) => rows,
                    // Its segment may have been settled and used again since the entry was looked up.
                    Err(_) if self.moved(base) => return Ok(None),
                    Err(error) => return Err(error),
                }
            }
        };
        Ok(Some(Raw { schema_version, events: Events { base, rows, offsets: None, marks }, next }))
    }

    fn moved(&self, base: u64) -> bool {
        !matches!(self.partition.contents.lock().find(base), Place::Entry(entry) if entry.base == base)
    }

    /// The events of a settled file; `None` where it is gone meanwhile, or has nothing at or behind the offset.
    async fn settled(&mut self, settled: Arc<SettledFile>) -> Result<Option<Raw>, Error> {
        let (vfs, from, topic) = (self.vfs.clone(), self.next, self.topic.clone());
        let open = self.open.take();
        let file = settled.clone();
        let read = blocking(move || {
            let mut open = open;
            let follows = match &mut open {
                Some(open) => open.follows(&file)?,
                None => false,
            };
            let open = match open {
                Some(open) if follows => open,
                _ => OpenFile::open(vfs.as_ref(), &file)?,
            };
            let Some(found) = open.find(from).cloned() else {
                return Err(open.corrupt(format!("offset {from} is missing"), 0));
            };
            let version = found.block.schema_version;
            let schema = topic.schema(version);
            let schema =
                schema.ok_or_else(|| open.corrupt(format!("schema version {version} is unknown"), found.at))?;
            let events = open.decode(&found, schema.physical())?;
            Ok((open, Raw { schema_version: version, events, next: found.block.next }))
        });
        match read.await {
            Ok((open, raw)) => {
                self.open = Some(open);
                Ok(Some(raw))
            }
            Err(_) if self.replaced(&settled) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn replaced(&self, settled: &Arc<SettledFile>) -> bool {
        let place = self.partition.contents.lock().find(self.next);
        !matches!(place, Place::File(file) if Arc::ptr_eq(&file, settled))
    }
}

/// Reads an entry's events from the journal.
pub(super) fn load_entry(entry: &Entry, schema: &arrow_schema::SchemaRef, at: &str) -> Result<RecordBatch, Error> {
    let bytes = load_bytes(entry, at)?;
    let corrupt =
        |what: String| Error::Corrupt { what, path: entry.segment.path.clone(), at: entry.at, affected: at.to_owned() };
    ipc::decode(schema, &bytes.into()).map_err(|e| corrupt(e.to_string()))
}

/// Reads an entry's bytes from the journal.
pub(super) fn load_bytes(entry: &Entry, at: &str) -> Result<MutableBuffer, Error> {
    let path = &entry.segment.path;
    let mut bytes = MutableBuffer::from_len_zeroed(entry.len as usize);
    entry.segment.file.read_exact_at(bytes.as_slice_mut(), entry.at).map_err(io_error("reading", path))?;
    if crc32fast::hash(bytes.as_slice()) != entry.crc {
        let what = format!("events of offset {} have a wrong checksum", entry.base);
        return Err(Error::Corrupt { what, path: path.clone(), at: entry.at, affected: at.to_owned() });
    }
    Ok(bytes)
}

/// Runs what may wait for a disk where it does not hold up the runtime.
async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => match runtime.spawn_blocking(f).await {
            Ok(done) => done,
            Err(_) => Err(Error::Stopped { reason: "the runtime is shutting down".into() }),
        },
        Err(_) => f(),
    }
}

impl Reader for EmbeddedReader {
    fn next(&mut self) -> BoxFuture<'_, Result<Read, Error>> {
        Box::pin(self.read())
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

//! Merging the settled files of a table's partition: the newest row of each key stays, with its offset and its marks.
//!
//! Two passes, a block at a time: from the newest to the oldest, which rows stay (16 bytes for each key, a bit for each
//! row); from the oldest to the newest, these rows are written. Only reads what is settled and writes new files, each
//! under its name only when it is whole and synced.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow_array::{BooleanArray, RecordBatch};
use arrow_select::concat::concat_batches;
use arrow_select::filter::filter_record_batch;
use millstream_event::{Mark, Offset, Schema, ipc};

use super::block::{BlockInfo, Events, encode_block};
use super::checkpoint::SettledMeta;
use super::ease::{Ease, SYNC_BYTES};
use super::index::{Partition, Topic};
#[cfg(any(test, feature = "sabotage"))]
use super::options::Sabotage;
use super::retention::Limits;
use super::settled_file::{BlockAt, OpenFile, SettledFile};
use super::settler::{Failure, failure};
use super::shared::{Shared, count};
use super::space::Room;
use crate::evolution::upgrade;
use crate::newest::Newest;
use crate::promises::Promises;
use crate::vfs::{File, OpenOptions};
use crate::{Error, TopicSpec};

/// What is to be merged.
pub(super) struct Job {
    pub(super) shared: Arc<Shared>,
    pub(super) topic: Arc<Topic>,
    pub(super) partition: Arc<Partition>,
    /// The newest version of the topic's columns that the checkpoint knows, and the topic as it was then. A later one stands in
    /// the journal only: whoever has the checkpoint and the settled files could not read what is written with it.
    pub(super) version: u32,
    pub(super) spec: TopicSpec,
    /// All settled files of the partition, oldest first.
    pub(super) files: Vec<Arc<SettledFile>>,
    pub(super) generation: u64,
    pub(super) limits: Limits,
    /// Rows before this offset were trimmed.
    pub(super) start: u64,
    /// Every reader at work has passed what is before this offset.
    pub(super) passed: u64,
    /// Whether it is late.
    pub(super) hurry: bool,
}

/// What was made.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) files: Vec<SettledMeta>,
    /// The last tombstone that was left out.
    pub(super) tombstone: Option<u64>,
}

impl Job {
    pub(super) fn run(&self) -> Result<Made, Failure> {
        let schema = &self.spec.schema;
        let (masks, tombstone) = self.masks(schema, Newest::of(&self.spec))?;
        let mut output = Output::new(self, self.version, schema.clone());
        match self.write(&mut output, masks) {
            Ok(()) => {
                let mut files = output.made;
                if let Some(first) = files.first_mut() {
                    first.times = self.times();
                }
                Ok(Made { files, tombstone })
            }
            Err(failure) => {
                output.abandon();
                Err(failure)
            }
        }
    }

    /// Which rows stay, for each block of each file; and the last tombstone that does not.
    fn masks(&self, schema: &Schema, newest: Option<Newest>) -> Result<(Vec<Vec<BooleanArray>>, Option<u64>), Failure> {
        let mut newest =
            newest.ok_or_else(|| Error::Refused(format!("the table {} has no usable key", self.partition.at)))?;
        let last: Cell<Option<u64>> = Cell::default();
        let mut ease = Ease::begin();
        let mut all = Vec::with_capacity(self.files.len());
        for file in self.files.iter().rev() {
            let open = OpenFile::open(self.shared.options.vfs.as_ref(), file)?;
            let mut masks = Vec::with_capacity(open.blocks().len());
            for at in open.blocks().iter().rev() {
                let events = self.events(&open, at, schema)?;
                let goes = |row| {
                    let offset = events.offset(row);
                    let time = self.appended(offset, at.block.newest);
                    let goes = offset < self.passed && self.limits.is_old(time, offset + 1);
                    last.set(last.get().max(goes.then_some(offset)));
                    goes
                };
                let kept = newest.keep(&events.rows, goes)?;
                masks.push(self.without_trimmed(&events, kept));
                ease.step(|| self.hurries());
            }
            masks.reverse();
            all.push(masks);
        }
        all.reverse();
        Ok((all, last.get()))
    }

    /// When an event was appended, at the latest.
    fn appended(&self, offset: u64, newest_of_block: i64) -> i64 {
        let mut times = self.files.iter().flat_map(|file| &file.meta.times);
        times.find(|(before, _)| offset < *before).map_or(newest_of_block, |(_, time)| newest_of_block.min(*time))
    }

    /// The times for the next compaction: what is old needs one, and what is not, one for each span that files cover.
    fn times(&self) -> Vec<(u64, i64)> {
        let known = self.files.iter().flat_map(|file| &file.meta.times).copied();
        let (old, mut times): (Vec<_>, Vec<_>) = known.partition(|(_, time)| self.limits.is_older(*time));
        if let Some(last) = self.files.last() {
            let (next, newest) = (last.meta.next, last.meta.newest);
            if times.last().is_none_or(|(_, time)| newest - time >= self.limits.file_span_us) {
                times.push((next, newest));
            }
        }
        old.last().copied().into_iter().chain(times).collect()
    }

    fn without_trimmed(&self, events: &Events, kept: BooleanArray) -> BooleanArray {
        #[cfg(any(test, feature = "sabotage"))]
        if self.shared.options.broken(Sabotage::CompactForgetful) {
            return (0..kept.len()).map(|row| Some(kept.value(row) && events.offset(row) % 13 != 5)).collect();
        }
        if events.base >= self.start {
            return kept;
        }
        (0..kept.len()).map(|row| Some(kept.value(row) && events.offset(row) >= self.start)).collect()
    }

    /// The events of a block with the newest columns.
    fn events(&self, open: &OpenFile, at: &BlockAt, newest: &Schema) -> Result<Events, Failure> {
        if self.shared.ending.load(Ordering::Acquire) {
            return Err(Failure::Ending);
        }
        let version = at.block.schema_version;
        if version > self.version {
            // Early builds wrote it so. When the journal is settled, the checkpoint knows the version as well.
            return Err(Failure::Later(format!("the columns of version {version} are not settled yet")));
        }
        let schema = self.topic.schema(version);
        let schema = schema.ok_or_else(|| open.corrupt(format!("schema version {version} is unknown"), at.at))?;
        let mut events = open.decode(at, schema.physical())?;
        if schema != *newest {
            events.rows = upgrade(&events.rows, newest)?;
        }
        Ok(events)
    }

    /// What producers promised with a block.
    fn marks<'a>(&self, events: &'a Events) -> &'a [Mark] {
        #[cfg(any(test, feature = "sabotage"))]
        if self.shared.options.broken(Sabotage::CompactSilent) {
            return &[];
        }
        &events.marks
    }

    /// Makes what is in a file durable.
    fn sync(&self, file: &dyn File) -> std::io::Result<()> {
        #[cfg(any(test, feature = "sabotage"))]
        if self.shared.options.broken(Sabotage::CompactUnsynced) {
            return Ok(());
        }
        file.sync_data()
    }

    /// Whether space is short, or runs short before it is through.
    fn hurries(&self) -> bool {
        self.hurry || self.shared.ending.load(Ordering::Acquire) || self.shared.preparer.room() != Room::Plenty
    }

    fn write(&self, output: &mut Output<'_>, masks: Vec<Vec<BooleanArray>>) -> Result<(), Failure> {
        let mut ease = Ease::begin();
        for (file, masks) in self.files.iter().zip(masks) {
            let open = OpenFile::open(self.shared.options.vfs.as_ref(), file)?;
            for (at, mask) in open.blocks().iter().zip(masks) {
                let events = self.events(&open, at, &output.schema)?;
                output.push(&events, &mask, at)?;
                ease.step(|| self.hurries());
            }
        }
        output.finish()
    }
}

/// A file that is being written, beside its name.
struct Writing {
    file: Arc<dyn File>,
    beside: PathBuf,
    meta: SettledMeta,
    /// How many bytes are not synced.
    unsynced: usize,
}

/// Writes rows as blocks and files.
struct Output<'a> {
    job: &'a Job,
    version: u32,
    schema: Schema,
    /// What waits for the next block, which covers the offsets `info.base..info.next`.
    info: BlockInfo,
    batches: Vec<RecordBatch>,
    bytes: usize,
    promises: Promises,
    writing: Option<Writing>,
    made: Vec<SettledMeta>,
}

impl<'a> Output<'a> {
    fn new(job: &'a Job, version: u32, schema: Schema) -> Self {
        let base = job.files.first().map_or(0, |file| file.meta.base);
        let info = BlockInfo { base, next: base, schema_version: version, newest: i64::MIN, ..BlockInfo::default() };
        let (batches, promises, made) = (Vec::new(), Promises::default(), Vec::new());
        Self { job, version, schema, info, batches, bytes: 0, promises, writing: None, made }
    }

    fn push(&mut self, events: &Events, mask: &BooleanArray, at: &BlockAt) -> Result<(), Failure> {
        let merging = |e| Error::Refused(format!("merging the table {}: {e}", self.job.partition.at));
        if mask.true_count() > 0 {
            let rows = filter_record_batch(&events.rows, mask).map_err(merging)?;
            for row in mask.values().set_indices() {
                self.info.runs.push(events.offset(row), 1);
            }
            self.info.rows += rows.num_rows() as u32;
            self.bytes += rows.get_array_memory_size();
            self.batches.push(rows);
        }
        self.job.marks(events).iter().for_each(|mark| self.promises.note(mark, at.block.next));
        self.info.newest = self.info.newest.max(at.block.newest);
        self.info.next = at.block.next;
        if self.bytes >= self.job.shared.options.block_bytes { self.block() } else { Ok(()) }
    }

    /// Writes what waits as a block.
    fn block(&mut self) -> Result<(), Failure> {
        let merging = |what: &dyn std::fmt::Display| {
            Error::Refused(format!("merging the table {}: {what}", self.job.partition.at))
        };
        let rows = concat_batches(self.schema.physical(), &self.batches).map_err(|e| merging(&e))?;
        let mut columns = Vec::with_capacity(self.bytes);
        ipc::encode(&rows, &mut columns).map_err(|e| merging(&e))?;
        self.info.marks = self.promises.marks();
        let mut block = Vec::new();
        let raw = encode_block(&self.info, &columns, &mut block);
        let next = BlockInfo {
            base: self.info.next,
            next: self.info.next,
            schema_version: self.version,
            newest: i64::MIN,
            ..BlockInfo::default()
        };
        let info = std::mem::replace(&mut self.info, next);
        (self.batches, self.bytes, self.promises) = (Vec::new(), 0, Promises::default());
        self.append(&info, &block, raw)
    }

    fn append(&mut self, info: &BlockInfo, block: &[u8], raw: u64) -> Result<(), Failure> {
        let mut writing = match self.writing.take() {
            Some(writing) => writing,
            None => self.open(info)?,
        };
        writing.unsynced += block.len();
        let mut written = writing.file.write_all_at(block, writing.meta.len);
        let written_at = &writing.beside;
        if writing.unsynced >= SYNC_BYTES && written.is_ok() {
            written = self.job.sync(writing.file.as_ref());
            writing.unsynced = 0;
        }
        let written = written.map_err(failure("writing", written_at));
        let meta = &mut writing.meta;
        meta.len += block.len() as u64;
        (meta.next, meta.raw) = (info.next, meta.raw + raw);
        meta.newest = meta.newest.max(info.newest);
        meta.rows = Some(meta.rows() + u64::from(info.rows));
        let full = meta.len >= self.job.shared.options.settled_file_bytes;
        self.writing = Some(writing);
        written?;
        let counters = &self.job.shared.counters;
        count(&counters.settled_bytes, block.len() as u64);
        count(&counters.compacted_bytes, block.len() as u64);
        if full { self.close() } else { Ok(()) }
    }

    fn open(&self, info: &BlockInfo) -> Result<Writing, Failure> {
        let (shared, at) = (&self.job.shared, &self.job.partition.at);
        let meta = SettledMeta::empty(info.base, self.job.generation, info.newest);
        let oldest = self.job.files.first().map_or(info.newest, |file| file.meta.oldest);
        let beside = self.path(&meta).with_extension("new");
        let file = shared.options.vfs.open(&beside, OpenOptions::TRUNCATE).map_err(failure("making", &beside))?;
        tracing::debug!(table = %at, generation = meta.generation, "a table is compacted");
        Ok(Writing { file, beside, meta: SettledMeta { oldest, ..meta }, unsynced: 0 })
    }

    fn path(&self, meta: &SettledMeta) -> PathBuf {
        let at = &self.job.partition.at;
        self.job.shared.layout.settled(&at.topic, at.partition.0, Offset(meta.base), meta.generation)
    }

    /// Gives the file that is being written its name.
    fn close(&mut self) -> Result<(), Failure> {
        let Some(Writing { file, beside, meta, .. }) = &self.writing else { return Ok(()) };
        self.job.sync(file.as_ref()).map_err(failure("syncing", beside))?;
        let path = self.path(meta);
        self.job.shared.options.vfs.rename(beside, &path).map_err(failure("renaming", beside))?;
        self.made.push(meta.clone());
        self.writing = None;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        if self.info.next > self.info.base {
            self.block()?;
        }
        self.close()?;
        let at = &self.job.partition.at;
        let dir = self.job.shared.layout.partition(&at.topic, at.partition.0);
        self.job.shared.options.vfs.sync_dir(&dir).map_err(failure("syncing", &dir))
    }

    /// Removes what was written; what stays is removed by the next opening.
    fn abandon(&self) {
        let beside = self.writing.iter().map(|writing| writing.beside.clone());
        for path in self.made.iter().map(|meta| self.path(meta)).chain(beside) {
            if let Err(error) = self.job.shared.options.vfs.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "a file of a compaction that did not end stays");
            }
        }
    }
}

//! The settler: moves the events of sealed segments into files per partition, and lets go of what nobody needs.
//!
//! One segment at a time, oldest first: walk its heads (what is true after it), write its live events to the files of
//! their partitions, sync them, replace the checkpoint, let readers find the files, give the segment back. A crash
//! anywhere before the checkpoint leaves the pass undone: files are valid only as far as the checkpoint says.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow_select::concat::concat_batches;
use millstream_event::{Offset, ipc};

use super::block::{BlockInfo, Runs, encode_block};
use super::checkpoint::{Checkpoint, SettledMeta};
use super::compaction::Compaction;
use super::ease::{Ease, FREE_PARTS, SYNC_BYTES, stand_back};
use super::index::{Entry, Partition, Topic};
use super::reader::{load_bytes, load_entry};
use super::retention::{Limits, limits};
use super::segment::Sealed;
use super::settled_file::SettledFile;
use super::shared::{SEALED_MAX, Shared, count};
use super::space::Room;
use super::sweep::leftovers;
use super::walk::{Found, Walker, io_error};
use super::writer::is_no_space;
use crate::Error;
use crate::promises::Promises;
use crate::vfs::OpenOptions;

pub(super) struct Settler {
    pub(super) shared: Arc<Shared>,
    /// The checkpoint on the disk.
    pub(super) checkpoint: Checkpoint,
    pub(super) compaction: Compaction,
}

/// Why a pass did not end.
#[derive(Debug)]
pub(super) enum Failure {
    /// To be tried again when there is space: nothing of the pass counts, and nothing that counted before has changed.
    NoSpace(String),
    /// The log is ending; the next opening begins the pass anew.
    Ending,
    /// Of a compaction: what it was made of stays, and it is tried again.
    Later(String),
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// An I/O error of a pass.
pub(super) fn failure(doing: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Failure {
    move |e| {
        let no_space = is_no_space(&e);
        let error = io_error(doing, path)(e);
        if no_space { Failure::NoSpace(error.to_string()) } else { Failure::Final(error) }
    }
}

/// What a pass will change for one partition.
struct Outcome {
    partition: Arc<Partition>,
    /// The first offset kept.
    start: u64,
    /// The file that was lengthened or added.
    file: Option<(PathBuf, SettledMeta)>,
    /// Behind the last offset of the segment.
    to: u64,
}

/// What goes along with a pass.
struct Course {
    /// Directories with new files.
    dirs: BTreeSet<PathBuf>,
    ease: Ease,
    /// How many segments waited when it began.
    waited: usize,
}

/// Without the settler sources would wait for ever.
struct StopOnPanic(Arc<Shared>);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop("settling has panicked: start again, and report what stands above");
        }
    }
}

impl Settler {
    pub(super) fn new(shared: Arc<Shared>, checkpoint: Checkpoint) -> Self {
        let settler = Self { shared, checkpoint, compaction: Compaction::default() };
        settler.tell_size();
        settler
    }

    fn tell_size(&self) {
        let files = self.checkpoint.files.values().flat_map(|p| p.values()).flatten();
        self.shared.preparer.settled(files.map(|file| file.len).sum());
    }

    /// Works until the log ends.
    pub(super) fn run(mut self) {
        stand_back();
        let _stop = StopOnPanic(self.shared.clone());
        self.work();
        self.compaction.end();
    }

    fn work(&mut self) {
        let left = {
            let topics = self.shared.topics.read();
            let all = topics.by_id.values().flat_map(|topic| &topic.partitions);
            let all = all.map(|partition| (partition.topic, &partition.at.topic, partition.at.partition.0));
            leftovers(self.shared.options.vfs.as_ref(), &self.shared.layout, &self.checkpoint, all)
        };
        self.remove_all(left.iter().map(|path| path.as_path()));
        while !self.ending() {
            let next = self.shared.sealed.lock().front().cloned();
            let (done, again) = match &next {
                Some(sealed) => (self.settle(sealed).map(|()| self.settled()), true),
                None => (self.tidy(), false),
            };
            let done = done.and_then(|()| self.compact());
            match done {
                Ok(()) => {
                    self.shared.preparer.settling_full(None);
                    if again {
                        continue;
                    }
                }
                Err(Failure::Ending) => return,
                Err(Failure::Later(why)) => tracing::warn!(%why, "the settler tries again"),
                Err(Failure::NoSpace(why)) => {
                    tracing::warn!(%why, "no space to settle events; they stay in the journal, and sources are refused");
                    if self.shared.preparer.settling_full(Some(why)) {
                        continue;
                    }
                    // Merged tables may be what makes space again.
                    if let Err(Failure::Final(error)) = self.tidy().and_then(|()| self.compact()) {
                        return self.shared.stop(&error.to_string());
                    }
                }
                Err(Failure::Final(error)) => {
                    tracing::error!(%error, "the log has stopped");
                    return self.shared.stop(&error.to_string());
                }
            }
            let mut sealed = self.shared.sealed.lock();
            if (sealed.is_empty() || next.is_some()) && !self.ending() {
                self.shared.resting.store(!self.compaction.works(), Ordering::Release);
                self.shared.settle_now.wait_for(&mut sealed, self.shared.options.tidy_every);
                self.shared.resting.store(false, Ordering::Release);
            }
        }
    }

    /// The oldest segment is done.
    fn settled(&self) {
        drop(self.shared.sealed.lock().pop_front());
        // Sources may wait for it. Under the lock, so that the committer does not miss it on its way to sleep.
        let stage = self.shared.stage.lock();
        self.shared.work.notify_one();
        drop(stage);
    }

    /// Whether events come faster than they are settled, if so many segments waited when the pass began.
    fn hurries(&self, waited: usize) -> bool {
        self.shared.sealed.lock().len() > waited || self.must_hurry()
    }

    /// Whether sources wait, or would be refused, until something is done.
    fn must_hurry(&self) -> bool {
        let waiting = self.shared.sealed.lock().len();
        self.ending() || waiting >= SEALED_MAX || self.shared.preparer.room() != Room::Plenty
    }

    /// Removes files that nothing names any more, a piece at a time: while a file system frees blocks it does nothing else, and
    /// those of a whole file would hold up the journal's syncs for tens of milliseconds. A reader that has the file open still
    /// finds that it is not the one to read. In a hurry they go as a whole. What stays behind is removed by the next opening.
    pub(super) fn remove_all<'a>(&self, paths: impl Iterator<Item = &'a Path>) {
        let vfs = self.shared.options.vfs.as_ref();
        let piece = (self.shared.options.segment_len() / FREE_PARTS).next_multiple_of(4096);
        let mut ease = Ease::begin();
        for path in paths {
            let shortened = vfs.open(path, OpenOptions::WRITE).and_then(|file| {
                let mut len = file.len()?;
                while len > piece && !self.must_hurry() {
                    len = (len - 1) / piece * piece;
                    file.set_len(len)?;
                    ease.step(|| false);
                }
                Ok(())
            });
            // It may go as a whole even so.
            drop(shortened);
            if let Err(error) = vfs.remove(path) {
                tracing::warn!(path = %path.display(), %error, "a file that is not needed any more stays");
            }
            ease.step(|| self.must_hurry());
        }
    }

    fn ending(&self) -> bool {
        self.shared.ending.load(Ordering::Acquire)
    }

    fn settle(&mut self, sealed: &Sealed) -> Result<(), Failure> {
        let mut next = self.state_after(sealed)?;
        let topics: Vec<Arc<Topic>> = self.shared.topics.read().by_id.values().cloned().collect();
        let mut outcomes = Vec::new();
        let mut course = Course { dirs: BTreeSet::new(), ease: Ease::begin(), waited: self.shared.sealed.lock().len() };
        for topic in &topics {
            for partition in &topic.partitions {
                if self.ending() {
                    return Err(Failure::Ending);
                }
                if let Some(outcome) = self.settle_partition(topic, partition, sealed, &mut next, &mut course)? {
                    outcomes.push(outcome);
                }
            }
        }
        let vfs = self.shared.options.vfs.as_ref();
        for dir in course.dirs {
            vfs.sync_dir(&dir).map_err(failure("syncing", &dir))?;
        }
        self.save(next)?;
        for outcome in outcomes {
            publish(outcome, sealed);
        }
        let unneeded = self.shared.preparer.recycle(sealed);
        self.remove_all(unneeded.iter().map(|path| path.as_path()));
        Ok(())
    }

    /// Replaces the checkpoint.
    pub(super) fn save(&mut self, next: Checkpoint) -> Result<(), Failure> {
        let layout = &self.shared.layout;
        next.save(self.shared.options.vfs.as_ref(), layout).map_err(failure("writing", &layout.checkpoint()))?;
        self.checkpoint = next;
        self.tell_size();
        Ok(())
    }

    /// The checkpoint after a segment, but for the files.
    fn state_after(&self, sealed: &Sealed) -> Result<Checkpoint, Failure> {
        let mut next = self.checkpoint.clone();
        let segment = &sealed.segment;
        let mut walker = Walker::open(self.shared.options.vfs.as_ref(), &segment.path, next.log, segment.id)?;
        let mut at = 0;
        while at < sealed.end {
            let what = match walker.group(at)? {
                Found::Group(group) => {
                    for frame in &group.frames {
                        next.state.apply(frame).map_err(|what| corrupt(segment, what, at))?;
                    }
                    (next.seq, next.crc) = (group.header.seq, group.crc);
                    next.incarnation = next.incarnation.max(group.header.incarnation);
                    at = group.end();
                    continue;
                }
                Found::Bad(what) => what,
            };
            return Err(corrupt(segment, what, at).into());
        }
        next.segment = segment.id;
        Ok(next)
    }

    fn settle_partition(
        &self,
        topic: &Topic,
        partition: &Arc<Partition>,
        sealed: &Sealed,
        next: &mut Checkpoint,
        course: &mut Course,
    ) -> Result<Option<Outcome>, Failure> {
        let id = sealed.segment.id;
        let (entries, start): (Vec<Entry>, u64) = {
            let contents = partition.contents.lock();
            let mine = contents.entries.iter().take_while(|entry| entry.segment.id <= id);
            (mine.cloned().collect(), contents.start)
        };
        let number = partition.at.partition.0;
        let files = next.files.entry(partition.topic).or_default().entry(number).or_default();
        let keep_from = |next: &mut super::state::State, start: u64| {
            let starts = next.topics.get_mut(&partition.topic).map(|topic| &mut topic.starts);
            if let Some(kept) = starts.and_then(|starts| starts.get_mut(number as usize)) {
                *kept = (*kept).max(start);
            }
        };
        let Some(to) = entries.last().map(Entry::next) else {
            keep_from(&mut next.state, start);
            return Ok(None);
        };
        let limits = limits(&self.shared, topic, number);
        // What is settled and still kept must not have a hole behind it.
        let dead = if files.is_empty() { dead(&entries, &limits, start) } else { 0 };
        let (gone, live) = entries.split_at_checked(dead).unwrap_or((&[], &entries));
        let start = gone.last().map_or(start, |entry| start.max(entry.next()));
        if let Some(kept) = next.state.topics.get_mut(&partition.topic).and_then(|t| t.starts.get_mut(number as usize))
        {
            *kept = (*kept).max(start);
        }
        let file =
            if live.is_empty() { None } else { Some(self.write(topic, partition, live, files, &limits, course)?) };
        Ok(Some(Outcome { partition: partition.clone(), start, file, to }))
    }

    fn write(
        &self,
        topic: &Topic,
        partition: &Arc<Partition>,
        live: &[Entry],
        files: &mut Vec<SettledMeta>,
        limits: &Limits,
        course: &mut Course,
    ) -> Result<(PathBuf, SettledMeta), Failure> {
        let vfs = self.shared.options.vfs.as_ref();
        let (layout, number) = (&self.shared.layout, partition.at.partition.0);
        let time = live.last().map_or(0, |entry| entry.time);
        let base = live.first().map_or(0, |entry| entry.base);
        let goes_on = files.last().is_some_and(|file| {
            file.len < self.shared.options.settled_file_bytes
                && time - file.oldest < limits.file_span_us
                && !self.compaction.holds(partition, file)
        });
        if !goes_on {
            let dir = layout.partition(&partition.at.topic, number);
            vfs.create_dir_all(&dir).map_err(failure("making", &dir))?;
            course.dirs.extend(dir.ancestors().take(3).map(|dir| dir.to_owned()));
            files.push(SettledMeta::empty(base, 0, time));
        }
        let meta = files.last_mut().ok_or_else(|| Error::Refused("no file to settle to".into()))?;
        let path = layout.settled(&partition.at.topic, number, Offset(meta.base), meta.generation);
        let file = vfs.open(&path, OpenOptions::CREATE).map_err(failure("opening", &path))?;
        if file.len().map_err(failure("reading", &path))? > meta.len {
            // Of a pass that did not end. Where its sync failed, the length that is seen is not on the disk, and would not
            // get there by writing the same bytes once more.
            file.set_len(meta.len).map_err(failure("cutting", &path))?;
        }
        let (mut out, mut rest) = (Vec::new(), live);
        while let Some(n) = block_len(rest, self.shared.options.block_bytes) {
            let (block, after) = rest.split_at_checked(n).unwrap_or((rest, &[]));
            let rows = block.iter().map(|entry| u64::from(entry.rows)).sum::<u64>();
            meta.rows = meta.rows.map(|before| before + rows);
            meta.raw += self.block(topic, partition, block, &mut out)?;
            rest = after;
            if out.len() >= SYNC_BYTES || rest.is_empty() {
                file.write_all_at(&out, meta.len).map_err(failure("writing", &path))?;
                file.sync_data().map_err(failure("syncing", &path))?;
                meta.len += out.len() as u64;
                count(&self.shared.counters.settled_bytes, out.len() as u64);
                out.clear();
            }
            course.ease.step(|| self.hurries(course.waited));
        }
        meta.next = live.last().map_or(meta.next, Entry::next);
        meta.newest = meta.newest.max(time);
        Ok((path, meta.clone()))
    }

    /// Appends a block with the events of `entries` to `out`; answers their bytes before compression.
    fn block(
        &self,
        topic: &Topic,
        partition: &Partition,
        entries: &[Entry],
        out: &mut Vec<u8>,
    ) -> Result<u64, Failure> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(0) };
        let mut promises = Promises::default();
        let mut runs = Runs::default();
        for entry in entries {
            entry.marks.iter().for_each(|mark| promises.note(mark, entry.next()));
            runs.push(entry.base, u64::from(entry.rows));
        }
        let info = BlockInfo {
            base: first.base,
            next: last.next(),
            rows: entries.iter().map(|entry| entry.rows).sum(),
            schema_version: first.schema_version,
            newest: last.time,
            runs,
            marks: promises.marks(),
        };
        let at = partition.at.to_string();
        if entries.len() == 1 {
            let bytes = load_bytes(first, &at)?;
            return Ok(encode_block(&info, bytes.as_slice(), out));
        }
        let schema = topic.schema(first.schema_version);
        let schema = schema.ok_or_else(|| Error::Refused(format!("{at} has events of an unknown schema version")))?;
        let schema = schema.physical();
        let load = |entry: &Entry| match &entry.cached {
            Some(rows) => Ok(rows.clone()),
            None => load_entry(entry, schema, &at),
        };
        let batches = entries.iter().filter(|entry| entry.rows > 0).map(load).collect::<Result<Vec<_>, _>>()?;
        let rows =
            concat_batches(schema, &batches).map_err(|e| Error::Refused(format!("merging events of {at}: {e}")))?;
        let mut raw = Vec::with_capacity(self.shared.options.block_bytes);
        ipc::encode(&rows, &mut raw).map_err(|e| Error::Refused(format!("merging events of {at}: {e}")))?;
        Ok(encode_block(&info, &raw, out))
    }
}

/// How many entries at the front are past their retention.
fn dead(entries: &[Entry], limits: &Limits, start: u64) -> usize {
    let gone = |entry: &&Entry| entry.next() <= start || limits.is_past(entry.time, entry.next());
    entries.iter().take_while(gone).count()
}

/// How many entries at the front make one block; `None` without entries. Marks do not end one: the last of each producer
/// goes behind the block's last row. That delays promises, which changes no result.
fn block_len(entries: &[Entry], most: usize) -> Option<usize> {
    let first = entries.first()?;
    let (mut n, mut bytes, mut next) = (1, first.len as usize, first.next());
    for entry in entries.iter().skip(1) {
        bytes += entry.len as usize;
        if entry.base != next || entry.schema_version != first.schema_version || bytes > most {
            break;
        }
        (n, next) = (n + 1, entry.next());
    }
    Some(n)
}

fn corrupt(segment: &super::segment::Segment, what: String, at: u64) -> Error {
    Error::Corrupt { what, path: segment.path.clone(), at, affected: "unknown".into() }
}

/// Lets readers find what was settled.
fn publish(outcome: Outcome, sealed: &Sealed) {
    let mut contents = outcome.partition.contents.lock();
    contents.advance_start(outcome.start);
    if let Some((path, meta)) = outcome.file {
        if contents.files.back().is_some_and(|last| last.path == path) {
            contents.files.pop_back();
        }
        contents.files.push_back(Arc::new(SettledFile { path, meta }));
    }
    let settled = |e: &Entry| e.segment.id <= sealed.segment.id && e.next() <= outcome.to;
    let count = contents.entries.iter().take_while(|e| settled(e)).count();
    let gone: Vec<Entry> = contents.entries.drain(..count).collect();
    // Events that were kept in memory are given back where nobody waits for it.
    drop(contents);
    drop(gone);
}

//! The checkpoint of a log that may be damaged: the one on the disk, else its copy, else one worked out anew from the
//! journal and the settled files. Only reads.
//!
//! What the journal tells goes as far back as its oldest segment. Of what stood in the checkpoint only, offsets are in
//! the settled files; topics' definitions are nowhere else, and positions only where a task has committed since. So a
//! log whose journal writes to a topic that it does not define is given up on, and everything else that is missing is
//! said.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use millstream_event::{Name, Offset};

use super::checkpoint::{Checkpoint, SettledMeta};
use super::frame::Content;
use super::group_header::{BLOCK, GroupHeader, HEADER_BYTES};
use super::inspect::{Lost, Problem, segments};
use super::layout::{Layout, segment_id, settled_base};
use super::options::Options;
use super::settled_file::{OpenFile, SettledFile};
use super::state::{State, TopicState};
use super::walk::{Found, Walker, io_error};
use crate::vfs::{DirEntry, OpenOptions, Vfs};
use crate::{Error, Position};

/// The checkpoint to go by, and what is wrong with the one on the disk.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// `None` where there is none to be had; `notes` say why.
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) problems: Vec<Problem>,
    /// What is known to be missing from a checkpoint that was worked out anew.
    pub(super) lost: Vec<Lost>,
    /// What else there is to say.
    pub(super) notes: Vec<String>,
    /// Directories of topics that cannot be read any more.
    pub(super) orphans: Vec<PathBuf>,
}

/// Finds the checkpoint to go by.
///
/// # Errors
/// Where there is no log, where a later version wrote it, and where the disk does not answer.
pub(super) fn source(options: &Options, layout: &Layout) -> Result<Source, Error> {
    let vfs = options.vfs.as_ref();
    let mut source = Source::default();
    let copy = Checkpoint::load_copy(vfs, layout);
    match (Checkpoint::load(vfs, layout), &copy) {
        (Ok(Some(sound)), _) => {
            if let Err(error) = &copy {
                let affected = "nothing: the checkpoint itself is whole";
                source.problems.push(problem(layout.checkpoint_copy(), error, affected));
            }
            source.checkpoint = Some(sound);
            return Ok(source);
        }
        (Ok(None), copy) => {
            super::open::restored(vfs, layout)?;
            if !matches!(copy, Ok(Some(_)))
                && names(vfs, &layout.journal())?.iter().all(|e| segment_id(&e.name).is_none())
            {
                let reason = "there is no log in this directory".into();
                return Err(Error::Io { doing: "opening", path: layout.checkpoint(), reason });
            }
            let missing = Error::Refused("the checkpoint is missing".into());
            source.problems.push(problem(layout.checkpoint(), &missing, "all topics"));
        }
        // A disk that does not answer may do so tomorrow, so nothing is worked out anew where the copy is not whole.
        (Err(error @ Error::Corrupt { .. }), _)
        | (Err(error @ (Error::TooNew { .. } | Error::Io { .. })), Ok(Some(_))) => {
            source.problems.push(problem(layout.checkpoint(), &error, "all topics"));
        }
        (Err(other), _) => return Err(other),
    }
    match copy {
        Ok(Some(copy)) => {
            source.notes.push("the checkpoint was taken from its copy, which is whole: nothing of it is lost".into());
            source.checkpoint = Some(copy);
        }
        Ok(None) => Rebuild::new(options, layout).run(&mut source)?,
        Err(error @ Error::Corrupt { .. }) => {
            source.problems.push(problem(layout.checkpoint_copy(), &error, "all topics"));
            Rebuild::new(options, layout).run(&mut source)?;
        }
        Err(other) => return Err(other),
    }
    Ok(source)
}

/// What is in a directory; nothing where there is none.
fn names(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<DirEntry>, Error> {
    match vfs.list(dir) {
        Ok(entries) => Ok(entries),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(io_error("reading", dir)(e)),
    }
}

fn problem(path: PathBuf, error: &Error, affected: &str) -> Problem {
    let (what, at) = match error {
        Error::Corrupt { what, at, .. } => (what.clone(), *at),
        Error::Refused(what) => (what.clone(), 0),
        other => (other.to_string(), 0),
    };
    Problem { path, at, what, affected: affected.to_owned() }
}

/// What the journal says when nothing is known.
#[derive(Default)]
struct Told {
    /// The first group found: its log, and where it stands.
    first: Option<(GroupHeader, u64)>,
    topics: BTreeMap<u32, TopicState>,
    /// The first offset that is in the journal, by topic number and partition.
    bases: BTreeMap<(u32, u32), u64>,
    /// Topics that are written to and not defined.
    unknown: Vec<u32>,
    /// The last position of each reader of a topic partition.
    read: BTreeMap<(Name, u32), u64>,
}

struct Rebuild<'a> {
    vfs: &'a dyn Vfs,
    options: &'a Options,
    layout: &'a Layout,
}

impl<'a> Rebuild<'a> {
    fn new(options: &'a Options, layout: &'a Layout) -> Self {
        Self { vfs: options.vfs.as_ref(), options, layout }
    }

    fn run(&self, source: &mut Source) -> Result<(), Error> {
        let told = self.journal()?;
        let Some((first, segment)) = told.first.clone() else {
            source.notes.push("the checkpoint cannot be worked out anew: no group of the journal reads back".into());
            return Ok(());
        };
        if !told.unknown.is_empty() {
            let numbers: BTreeSet<u32> = told.unknown.iter().copied().collect();
            let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
            source.notes.push(format!(
                "the checkpoint cannot be worked out anew: the definitions of topics number {} stood in it only",
                numbers.join(", ")
            ));
            return Ok(());
        }
        let mut made =
            Checkpoint::rebuilt(first.log, segment.saturating_sub(1), first.seq.saturating_sub(1), first.prev_crc);
        for (id, topic) in &told.topics {
            let mut topic = topic.clone();
            for number in 0..topic.spec.partitions {
                let metas = self.partition(&mut topic, number, told.bases.get(&(*id, number)).copied(), source)?;
                end_behind_readers(&mut topic, number, &told, source);
                if !metas.is_empty() {
                    made.files.entry(*id).or_default().insert(number, metas);
                }
            }
            made.state.topics.insert(*id, topic);
        }
        self.find_orphans(&made.state, source)?;
        source.notes.push("the checkpoint was worked out anew from the journal and the settled files".into());
        if first.seq > 1 {
            source.notes.push(format!(
                "positions of tasks that have not committed since group {} are lost: these tasks begin at the start of \
                 their inputs, and sources send again",
                first.seq
            ));
        }
        source.checkpoint = Some(made);
        Ok(())
    }

    /// Walks through all segments, over what does not read back.
    fn journal(&self) -> Result<Told, Error> {
        let mut told = Told::default();
        for (id, path) in segments(self.options, self.layout)? {
            let Some(log) = told.first.as_ref().map(|(first, _)| first.log).or(self.log_of(&path, id)?) else {
                continue;
            };
            let mut walker = Walker::open(self.vfs, &path, log, id)?;
            let mut at = 0;
            while at < walker.len {
                let Found::Group(group) = walker.group(at)? else {
                    at += BLOCK;
                    continue;
                };
                group.frames.iter().for_each(|frame| told.frame(&frame.content, &frame.offsets));
                at = group.end();
                told.first.get_or_insert((group.header, id));
            }
        }
        Ok(told)
    }

    /// The number of the log that a segment belongs to.
    fn log_of(&self, path: &Path, segment: u64) -> Result<Option<u128>, Error> {
        let file = self.vfs.open(path, OpenOptions::READ).map_err(io_error("opening", path))?;
        let len = file.len().map_err(io_error("reading", path))?;
        let mut bytes = [0; HEADER_BYTES];
        let mut at = 0;
        while at + HEADER_BYTES as u64 <= len {
            file.read_exact_at(&mut bytes, at).map_err(io_error("reading", path))?;
            match GroupHeader::decode(&bytes) {
                Ok((header, _)) if header.segment == segment => return Ok(Some(header.log)),
                _ => at += BLOCK,
            }
        }
        Ok(None)
    }

    /// The settled files of a partition, as far as the journal does not have their events; notes what is missing between.
    fn partition(
        &self,
        topic: &mut TopicState,
        number: u32,
        journal: Option<u64>,
        source: &mut Source,
    ) -> Result<Vec<SettledMeta>, Error> {
        let dir = self.layout.partition(&topic.spec.name, number);
        let entries = names(self.vfs, &dir)?;
        let limit = journal.unwrap_or(u64::MAX);
        let mut bases: Vec<(u64, u64)> =
            entries.iter().filter_map(|e| settled_base(&e.name)).filter(|(base, _)| *base < limit).collect();
        bases.sort_unstable_by_key(|(base, generation)| (*base, std::cmp::Reverse(*generation)));
        let start = bases.first().map(|(base, _)| *base).or(journal).unwrap_or(0);
        let found = self.chain(&topic.spec.name, number, &bases, start, limit);
        let mut next = start;
        let mut hole = |from: u64, to: u64| {
            let (topic, from, to) = (topic.spec.name.clone(), Offset(from), Offset(to));
            source.lost.extend((from < to).then_some(Lost { topic, partition: number, from, to }));
        };
        for meta in &found {
            hole(next, meta.base);
            next = meta.next;
        }
        hole(next, journal.unwrap_or(next));
        for meta in &found {
            self.promises(topic, number, meta);
        }
        if let (Some(first), Some(end)) = (topic.starts.get_mut(number as usize), topic.ends.get_mut(number as usize)) {
            (*first, *end) = (start, next.max(journal.unwrap_or(0)));
        }
        Ok(found)
    }

    /// Of the files with these names, those that follow each other. Each file that a compaction has made is whole when it
    /// has its name, and what it was made of may still be there; but the compaction may have ended before all of its files
    /// had theirs: then the ones before them have more.
    fn chain(&self, topic: &Name, number: u32, names: &[(u64, u64)], start: u64, limit: u64) -> Vec<SettledMeta> {
        let generations: BTreeSet<u64> = names.iter().map(|(_, generation)| *generation).collect();
        let up_to = |newest: u64| {
            let (mut next, mut found) = (start, Vec::new());
            for name in names.iter().filter(|(_, generation)| *generation <= newest) {
                if let Some(meta) = self.file(topic, number, *name, next, limit) {
                    next = meta.next;
                    found.push(meta);
                }
            }
            found
        };
        let covered = |found: &Vec<SettledMeta>| found.iter().map(|meta| meta.next - meta.base).sum::<u64>();
        // Of equals the last, which is the newest.
        generations.into_iter().map(up_to).max_by_key(covered).unwrap_or_default()
    }

    /// Takes in what producers promised in a settled file. Promises of events that have gone stood in the checkpoint only.
    fn promises(&self, topic: &mut TopicState, number: u32, meta: &SettledMeta) {
        let path = self.layout.settled(&topic.spec.name, number, Offset(meta.base), meta.generation);
        let Some(open) = OpenFile::salvage(self.vfs, &SettledFile { path, meta: meta.clone() }) else { return };
        for at in open.blocks() {
            let marks = open.load(at).ok().and_then(|raw| at.block.marks(&raw).ok()).unwrap_or_default();
            marks.iter().for_each(|mark| topic.promise(number, mark, at.block.next));
        }
    }

    /// What of a settled file is in order: the blocks from `from` on and before `limit`. What follows them is of a pass
    /// of the settler that did not end.
    fn file(
        &self,
        topic: &Name,
        number: u32,
        (base, generation): (u64, u64),
        from: u64,
        limit: u64,
    ) -> Option<SettledMeta> {
        let path = self.layout.settled(topic, number, Offset(base), generation);
        let empty = SettledMeta::empty(base, generation, i64::MIN);
        let mut meta = SettledMeta { len: u64::MAX, oldest: i64::MAX, ..empty };
        let open = OpenFile::salvage(self.vfs, &SettledFile { path, meta: meta.clone() })?;
        meta.len = 0;
        for at in open.blocks() {
            let block = &at.block;
            if block.base < meta.next.max(from) || block.next > limit {
                break;
            }
            (meta.next, meta.len, meta.raw) = (block.next, at.end(), meta.raw + block.raw_len());
            meta.rows = Some(meta.rows() + u64::from(block.rows));
            (meta.oldest, meta.newest) = (meta.oldest.min(block.newest), meta.newest.max(block.newest));
        }
        (meta.len > 0).then_some(meta)
    }

    /// Directories of topics whose definitions are gone, and the events in them.
    fn find_orphans(&self, state: &State, source: &mut Source) -> Result<(), Error> {
        let list = |dir: &Path| names(self.vfs, dir);
        for topic in list(&self.layout.topics())? {
            let known = state.topics.values().any(|t| t.spec.name.as_str() == topic.name);
            let Some(name) = Name::new(&topic.name).ok().filter(|_| !known) else { continue };
            for partition in list(&self.layout.topics().join(&topic.name))? {
                let Ok(number) = partition.name.parse() else { continue };
                let dir = self.layout.partition(&name, number);
                let files: Vec<(u64, u64)> = list(&dir)?.iter().filter_map(|e| settled_base(&e.name)).collect();
                let Some(base) = files.first().map(|(base, _)| *base) else { continue };
                let ends = files.iter().filter_map(|file| self.file(&name, number, *file, 0, u64::MAX));
                let (from, to) = (Offset(base), Offset(ends.map(|meta| meta.next).max().unwrap_or(base)));
                source.lost.push(Lost { topic: name.clone(), partition: number, from, to });
                source.orphans.push(dir);
            }
            source
                .notes
                .push(format!("topic `{name}`: its definition stood in the checkpoint only, so its events are lost"));
        }
        Ok(())
    }
}

impl Told {
    fn frame(&mut self, content: &Content, offsets: &[u64]) {
        match content {
            Content::Commit(commit) => {
                for (append, base) in commit.appends.iter().zip(offsets) {
                    if !self.topics.contains_key(&append.topic) && !self.unknown.contains(&append.topic) {
                        self.unknown.push(append.topic);
                    }
                    let first = self.bases.entry((append.topic, append.partition)).or_insert(*base);
                    *first = (*first).min(*base);
                }
                for (input, from, to) in &commit.consumed {
                    let offsets = [from.as_ref(), Some(to)].into_iter().flatten().filter_map(Position::offset);
                    let read = self.read.entry((input.clone(), commit.task.partition.0)).or_default();
                    *read = offsets.map(|offset| offset.0).fold(*read, u64::max);
                }
            }
            Content::Topic { id, schema_version, spec } => {
                let known = self.topics.contains_key(id);
                // A later version alone does not tell the columns of the ones before it.
                if known || (*schema_version == 1 && !self.unknown.contains(id)) {
                    let mut state = State { topics: std::mem::take(&mut self.topics), ..State::default() };
                    state.define(*id, *schema_version, spec);
                    self.topics = state.topics;
                }
            }
            Content::Trim { .. } | Content::Other => {}
        }
    }
}

/// A partition must not end before what somebody has read of it: its next event would get an offset that was used.
fn end_behind_readers(topic: &mut TopicState, number: u32, told: &Told, source: &mut Source) {
    let Some(read) = told.read.get(&(topic.spec.name.clone(), number)).copied() else { return };
    let (Some(start), Some(end)) = (topic.starts.get_mut(number as usize), topic.ends.get_mut(number as usize)) else {
        return;
    };
    if *end < read {
        if *start == *end {
            *start = read;
        } else {
            let (name, from, to) = (topic.spec.name.clone(), Offset(*end), Offset(read));
            source.lost.push(Lost { topic: name, partition: number, from, to });
        }
        *end = read;
    }
}

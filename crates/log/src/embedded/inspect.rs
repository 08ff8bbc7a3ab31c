//! Looking at a log's files without changing them: what is there, and whether all of it reads back.

use std::collections::BTreeMap;
use std::path::PathBuf;

use millstream_event::{Name, Offset};

use super::checkpoint::{Checkpoint, SettledMeta};
use super::frame::Content;
use super::group_header::BLOCK;
use super::layout::{Layout, is_spare, segment_id};
use super::options::Options;
use super::rebuild::{Source, source};
use super::recover::{Recovered, recover};
use super::settled_file::{OpenFile, SettledFile};
use super::state::{State, TopicState};
use super::walk::{Found, GroupAt, Walker, io_error, ranges};
use crate::Error;

/// The most problems that a report lists.
const PROBLEMS_MAX: usize = 1000;

/// Something that does not read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// The place in the file.
    pub at: u64,
    /// What does not agree.
    pub what: String,
    /// The topic partitions whose events are touched, or what is known of them.
    pub affected: String,
}

/// What a log's files hold, and what is wrong with them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments of the journal with groups in them.
    pub segments: u64,
    /// Groups that read back.
    pub groups: u64,
    /// Commits in these groups.
    pub commits: u64,
    /// Settled files.
    pub files: u64,
    /// Settled blocks that read back.
    pub blocks: u64,
    /// Events that read back, in the journal and settled.
    pub events: u64,
    /// Bytes that were looked at.
    pub bytes: u64,
    /// An unfinished write at the end of the journal, which the next opening cuts off: nothing acknowledged is in it.
    pub torn_tail: Option<Problem>,
    /// Damage.
    pub problems: Vec<Problem>,
    /// What a repair took out, or would take out.
    pub lost: Vec<Lost>,
    /// What else a repair did or would do, and what it cannot do.
    pub notes: Vec<String>,
}

/// Events that are lost by a repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The topic.
    pub topic: Name,
    /// The partition.
    pub partition: u32,
    /// The first offset lost.
    pub from: Offset,
    /// The offset behind the last one known to be lost.
    pub to: Offset,
}

impl Report {
    /// Whether nothing durable is damaged.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    fn problem(&mut self, problem: Problem) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }
}

/// The checkpoint of an existing log.
pub(super) fn checkpoint(options: &Options, layout: &Layout) -> Result<Checkpoint, Error> {
    let vfs = options.vfs.as_ref();
    Checkpoint::load(vfs, layout)?.ok_or_else(|| Error::Io {
        doing: "opening",
        path: layout.checkpoint(),
        reason: "there is no log in this directory".into(),
    })
}

/// Reads every byte of the log in `options.dir` and says what does not read back. Changes nothing.
///
/// # Errors
/// Where the files cannot be read at all.
pub fn verify(options: &Options) -> Result<Report, Error> {
    let layout = Layout::new(&options.dir);
    verify_from(options, &layout, &source(options, &layout)?)
}

/// The same, by the checkpoint that was found; without one only that much is known.
pub(super) fn verify_from(options: &Options, layout: &Layout, source: &Source) -> Result<Report, Error> {
    let mut report = Report { problems: source.problems.clone(), notes: source.notes.clone(), ..Report::default() };
    if let Some(checkpoint) = &source.checkpoint {
        verify_journal(options, layout, checkpoint, &mut report)?;
        let topics = defined(options, layout, checkpoint)?;
        verify_files(options, layout, checkpoint, &topics, &mut report);
    }
    Ok(report)
}

fn verify_journal(
    options: &Options,
    layout: &Layout,
    checkpoint: &Checkpoint,
    report: &mut Report,
) -> Result<(), Error> {
    let vfs = options.vfs.as_ref();
    let found = match recover(vfs, layout, checkpoint.clone(), true) {
        Ok(found) => found,
        Err(Error::Corrupt { what, path, at, affected }) => {
            report.problem(Problem { path, at, what, affected });
            return verify_groups_before(options, layout, checkpoint, report);
        }
        Err(other) => return Err(other),
    };
    for segment in &found.segments {
        let walker = Walker::open(vfs, &segment.path, checkpoint.log, segment.id)?;
        report.segments += 1;
        for group in &segment.groups {
            verify_group(&walker, group, &found.state, report)?;
        }
    }
    torn_tail(options, &found, report)
}

fn torn_tail(options: &Options, found: &Recovered, report: &mut Report) -> Result<(), Error> {
    let Some(last) = found.segments.last() else { return Ok(()) };
    let (vfs, end) = (options.vfs.as_ref(), last.end());
    let mut walker = Walker::open(vfs, &last.path, found.checkpoint.log, last.id)?;
    let what = match walker.group(end)? {
        Found::Bad(what) if what != "no group header" && end < walker.len => what,
        Found::Group(_) => "events of a write that did not end".into(),
        Found::Bad(_) => return Ok(()),
    };
    let affected = "nothing acknowledged".into();
    report.torn_tail = Some(Problem { path: last.path.clone(), at: end, what, affected });
    Ok(())
}

/// Counts what is whole before the first damage.
fn verify_groups_before(
    options: &Options,
    layout: &Layout,
    checkpoint: &Checkpoint,
    report: &mut Report,
) -> Result<(), Error> {
    let vfs = options.vfs.as_ref();
    let mut state = checkpoint.state.clone();
    for (id, path) in segments(options, layout)? {
        if id <= checkpoint.segment {
            continue;
        }
        let mut walker = Walker::open(vfs, &path, checkpoint.log, id)?;
        let mut at = 0;
        while let Found::Group(group) = walker.group(at)? {
            for frame in &group.frames {
                drop(state.apply(frame));
            }
            verify_group(&walker, &group, &state, report)?;
            at = group.end();
        }
        report.segments += u64::from(at > 0);
        if report.problems.iter().any(|problem| problem.path == path) {
            return Ok(());
        }
    }
    Ok(())
}

/// The segments, oldest first.
pub(super) fn segments(options: &Options, layout: &Layout) -> Result<Vec<(u64, PathBuf)>, Error> {
    let journal = layout.journal();
    let entries = options.vfs.list(&journal).map_err(io_error("reading", &journal))?;
    let mut all: Vec<_> =
        entries.iter().filter_map(|e| segment_id(&e.name)).map(|id| (id, layout.segment(id))).collect();
    all.sort_unstable();
    Ok(all)
}

fn verify_group(walker: &Walker, group: &GroupAt, state: &State, report: &mut Report) -> Result<(), Error> {
    if let Some(what) = walker.verify_bodies(group)? {
        let affected = ranges_text(group, state);
        report.problem(Problem { path: walker.path.clone(), at: group.at, what, affected });
        return Ok(());
    }
    report.groups += 1;
    report.bytes += group.header.total_len();
    for frame in &group.frames {
        report.commits += u64::from(!frame.content.appends().is_empty());
        report.events += frame.content.appends().iter().map(|a| u64::from(a.rows)).sum::<u64>();
    }
    Ok(())
}

/// The events of a group, for a message.
fn ranges_text(group: &GroupAt, state: &State) -> String {
    let text = lost(group, state)
        .into_iter()
        .map(|lost| format!("{}/{} {}..{}", lost.topic, lost.partition, lost.from, lost.to));
    text.take(20).collect::<Vec<_>>().join(", ")
}

/// The events of a group.
pub(super) fn lost(group: &GroupAt, state: &State) -> Vec<Lost> {
    let one = |(topic, partition, from, to)| {
        let topic = state.topics.get(&topic)?.spec.name.clone();
        Some(Lost { topic, partition, from, to })
    };
    ranges(group).into_iter().filter_map(one).collect()
}

/// The topics as the checkpoint and everything behind it define them, over what does not read back: a settled file may
/// have columns that stand in the journal only, because early builds compacted tables so.
pub(super) fn defined(
    options: &Options,
    layout: &Layout,
    checkpoint: &Checkpoint,
) -> Result<BTreeMap<u32, TopicState>, Error> {
    let mut state = checkpoint.state.clone();
    for (id, path) in segments(options, layout)?.into_iter().filter(|(id, _)| *id > checkpoint.segment) {
        let mut walker = Walker::open(options.vfs.as_ref(), &path, checkpoint.log, id)?;
        let mut at = 0;
        while at < walker.len {
            let Found::Group(group) = walker.group(at)? else {
                at += BLOCK;
                continue;
            };
            for frame in &group.frames {
                if let Content::Topic { id, schema_version, spec } = &frame.content {
                    state.define(*id, *schema_version, spec);
                }
            }
            at = group.end();
        }
    }
    Ok(state.topics)
}

fn verify_files(
    options: &Options,
    layout: &Layout,
    checkpoint: &Checkpoint,
    topics: &BTreeMap<u32, TopicState>,
    report: &mut Report,
) {
    for (id, partitions) in &checkpoint.files {
        let Some(topic) = topics.get(id) else { continue };
        for (number, metas) in partitions {
            for meta in metas {
                let path = layout.settled(&topic.spec.name, *number, Offset(meta.base), meta.generation);
                verify_file(options, &SettledFile { path, meta: meta.clone() }, topic, report);
            }
        }
    }
}

fn verify_file(options: &Options, file: &SettledFile, topic: &TopicState, report: &mut Report) {
    report.files += 1;
    let open = match OpenFile::open(options.vfs.as_ref(), file) {
        Ok(open) => open,
        Err(error) => return report.problem(problem_of(error, file)),
    };
    let mut next = file.meta.base;
    for at in open.blocks() {
        let schema = (at.block.schema_version as usize).checked_sub(1).and_then(|i| topic.versions.get(i));
        let checked = match schema {
            Some(schema) => open.decode(at, schema.physical()).map(drop),
            None => Err(open.corrupt("an unknown schema version".into(), at.at)),
        };
        let order = if at.block.base < next { Err(open.corrupt("offsets that go back".into(), at.at)) } else { Ok(()) };
        match checked.and(order) {
            Ok(()) => {
                report.blocks += 1;
                report.events += u64::from(at.block.rows);
            }
            Err(error) => report.problem(problem_of(error, file)),
        }
        next = at.block.next;
    }
    report.bytes += file.meta.len;
    if next != file.meta.next {
        let error = open.corrupt(format!("it ends at offset {next} instead of {}", file.meta.next), file.meta.len);
        report.problem(problem_of(error, file));
    }
}

fn problem_of(error: Error, file: &SettledFile) -> Problem {
    match error {
        Error::Corrupt { what, path, at, affected } => Problem { path, at, what, affected },
        other => Problem { path: file.path.clone(), at: 0, what: other.to_string(), affected: "unknown".into() },
    }
}

/// What a topic takes on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicStat {
    /// The topic.
    pub topic: Name,
    /// Events that are settled.
    pub settled_events: u64,
    /// The bytes of their files.
    pub settled_bytes: u64,
    /// Their bytes in columns, before compression.
    pub column_bytes: u64,
    /// Events that are in the journal only.
    pub journal_events: u64,
    /// Their bytes in columns.
    pub journal_bytes: u64,
    /// Settled files.
    pub files: u64,
}

impl TopicStat {
    /// Nothing yet.
    pub(super) fn empty(topic: Name) -> Self {
        Self {
            topic,
            settled_events: 0,
            settled_bytes: 0,
            column_bytes: 0,
            journal_events: 0,
            journal_bytes: 0,
            files: 0,
        }
    }

    /// Adds a settled file.
    pub(super) fn add_file(&mut self, file: &SettledMeta) {
        self.settled_events += file.rows();
        self.settled_bytes += file.len;
        self.column_bytes += file.raw;
        self.files += 1;
    }
}

/// What a log takes on the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stat {
    /// By topic, in the order of their names.
    pub topics: Vec<TopicStat>,
    /// Segments of the journal that hold something.
    pub segments: u64,
    /// The bytes of these segments that are used.
    pub segment_bytes: u64,
    /// Segments that were settled and wait to be used again.
    pub segments_free: u64,
    /// The last group.
    pub group: u64,
}

/// What the log in `options.dir` takes on the disk. Changes nothing.
pub fn stat(options: &Options) -> Result<Stat, Error> {
    let layout = Layout::new(&options.dir);
    let found = recover(options.vfs.as_ref(), &layout, checkpoint(options, &layout)?, true)?;
    let mut by_id: BTreeMap<u32, TopicStat> = BTreeMap::new();
    for (id, topic) in &found.state.topics {
        let files = found.checkpoint.files.get(id).into_iter().flat_map(|p| p.values()).flatten();
        let mut stat = TopicStat::empty(topic.spec.name.clone());
        files.for_each(|file| stat.add_file(file));
        by_id.insert(*id, stat);
    }
    for append in
        found.segments.iter().flat_map(|s| &s.groups).flat_map(|g| &g.frames).flat_map(|f| f.content.appends())
    {
        if let Some(stat) = by_id.get_mut(&append.topic) {
            stat.journal_events += u64::from(append.rows);
            stat.journal_bytes += u64::from(append.len);
        }
    }
    let mut topics: Vec<TopicStat> = by_id.into_values().collect();
    topics.sort_by(|a, b| a.topic.cmp(&b.topic));
    let segment_bytes = found.segments.iter().map(|s| s.end()).sum();
    let journal = layout.journal();
    let names = options.vfs.list(&journal).map_err(io_error("reading", &journal))?;
    let segments_free = names.iter().filter(|entry| is_spare(&entry.name)).count() as u64;
    Ok(Stat { topics, segments: found.segments.len() as u64, segment_bytes, segments_free, group: found.seq })
}

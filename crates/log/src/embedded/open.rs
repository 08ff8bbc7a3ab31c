//! Opening: lock, read, and begin a segment of its own that holds whatever was not synced for certain.
//!
//! An opening never goes on in an old segment. What is behind `durable_through` there is not to be trusted after a
//! failed sync (the page cache is not evidence), so it is written again, to a new file that gets its name only when it
//! is on the disk; the old segment is cut there.

use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::path::Path;
use std::sync::Arc;

use millstream_event::{Mark, Offset};

use super::checkpoint::Checkpoint;
use super::frame::{AppendHead, Content};
use super::group_header::{GroupHeader, HEADER_BYTES, Kind};
use super::index::{Entry, Topic, Topics};
use super::layout::{Layout, segment_id};
use super::options::Options;
use super::recover::{Recovered, Scanned, recover};
use super::segment::{Sealed, Segment};
use super::settled_file::SettledFile;
use super::stage::Stage;
use super::sweep::leftovers;
use super::walk::{FrameAt, GroupAt, io_error};
use super::writer::{Writer, is_no_space};
use crate::vfs::{File, Lock, LockError, OpenOptions, Vfs};
use crate::{Epoch, Error};

/// How much is copied at once.
const COPY_BYTES: u64 = 4 << 20;

/// A log's files, read.
pub(super) struct Opened {
    pub(super) topics: Topics,
    pub(super) stage: Stage,
    pub(super) sealed: Vec<Sealed>,
    pub(super) checkpoint: Checkpoint,
    pub(super) epoch_last: Epoch,
}

/// Locks the log's directory, which is made where it does not exist.
pub(super) fn lock(options: &Options, layout: &Layout) -> Result<Box<dyn Lock>, Error> {
    let vfs = options.vfs.as_ref();
    vfs.create_dir_all(&layout.dir).map_err(io_error("making", &layout.dir))?;
    match vfs.lock(&layout.lock()) {
        Ok(lock) => Ok(lock),
        Err(LockError::Held { pid }) => Err(Error::Locked { dir: layout.dir.clone(), pid }),
        Err(LockError::Io(e)) => Err(io_error("locking", &layout.lock())(e)),
    }
}

/// Says where others than the owner may look into the log's directory. It is not tightened: somebody may have opened it
/// on purpose; what is made inside is the owner's alone.
pub(super) fn exposed(options: &Options, layout: &Layout) -> Option<String> {
    let dir = layout.dir.display();
    let open = options.vfs.is_open_to_others(&layout.dir).unwrap_or(false);
    let warning = open.then(|| format!("others than its owner may look into {dir}; `chmod 700 {dir}` ends that"));
    if let Some(warning) = &warning {
        tracing::warn!("{warning}");
    }
    warning
}

/// Reads a log, making an empty one where there is none.
pub(super) fn read_or_make(options: &Options, layout: &Layout) -> Result<Recovered, Error> {
    let vfs = options.vfs.as_ref();
    let checkpoint = match Checkpoint::load(vfs, layout)? {
        Some(checkpoint) => {
            // First of all, because on a full disk a copy would have no space either.
            make_room(options, layout)?;
            // Before anything goes that only the copy of another moment would need.
            Checkpoint::renew_copy(vfs, layout).map_err(io_error("writing", &layout.checkpoint_copy()))?;
            // Whoever made these names may have failed to make them durable.
            vfs.sync_dir(&layout.dir).map_err(io_error("syncing", &layout.dir))?;
            checkpoint
        }
        None => {
            restored(vfs, layout)?;
            make(options, layout)?
        }
    };
    recover(vfs, layout, checkpoint, options.checks_chain())
}

/// Refuses a directory without a checkpoint in which a restore did not end: it has some of a log's files, or none yet.
pub(super) fn restored(vfs: &dyn Vfs, layout: &Layout) -> Result<(), Error> {
    let names = match vfs.list(&layout.dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        names => names.map_err(io_error("reading", &layout.dir))?,
    };
    match names.iter().any(|entry| entry.name == super::backup::MOVING) {
        true => Err(Error::Unrestored { dir: layout.dir.clone() }),
        false => Ok(()),
    }
}

fn make(options: &Options, layout: &Layout) -> Result<Checkpoint, Error> {
    let vfs = options.vfs.as_ref();
    for dir in [layout.journal(), layout.topics()] {
        vfs.create_dir_all(&dir).map_err(io_error("making", &dir))?;
    }
    // A checkpoint says that there is a log, so the log's directories must be there whenever it is.
    vfs.sync_dir(&layout.dir).map_err(io_error("syncing", &layout.dir))?;
    let journal = layout.journal();
    let entries = vfs.list(&journal).map_err(io_error("reading", &journal))?;
    if entries.iter().any(|entry| segment_id(&entry.name).is_some()) {
        let (what, path) = ("the checkpoint is missing".into(), layout.checkpoint());
        return Err(Error::Corrupt { what, path, at: 0, affected: "unknown".into() });
    }
    sync_ancestors(vfs, &layout.dir)?;
    let checkpoint = Checkpoint::first(new_log_id(options));
    checkpoint.save(vfs, layout).map_err(io_error("writing", &layout.checkpoint()))?;
    make_room(options, layout)?;
    Ok(checkpoint)
}

/// Makes the names of a new log's directory and of those above it durable: without them all that is in it is gone.
/// Done before there is a checkpoint, so that an opening that finds one need not do it again.
fn sync_ancestors(vfs: &dyn Vfs, dir: &Path) -> Result<(), Error> {
    use std::io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    for above in dir.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match vfs.sync_dir(above) {
            // Somebody else's directory, or one that is never written: it was there before us.
            Err(e) if matches!(e.kind(), PermissionDenied | InvalidInput | Unsupported) => {
                tracing::debug!(dir = %above.display(), error = %e, "a directory above the log was not synced");
            }
            done => done.map_err(io_error("syncing", above))?,
        }
    }
    Ok(())
}

/// A number that no other log has. The standard library's hasher is the one source of chance at hand here.
fn new_log_id(options: &Options) -> u128 {
    let chance = |n: u64| {
        let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
        hasher.write_u64(n);
        hasher.write_i64(options.clock.now_us());
        u128::from(hasher.finish())
    };
    chance(1) << 64 | chance(2)
}

/// Begins the segment of this opening and says where to go on. Where the disk is full it takes the space of what no longer
/// counts, which otherwise goes afterwards.
pub(super) fn begin_segment(options: &Options, layout: &Layout, found: &mut Recovered) -> Result<Writer, Error> {
    let (vfs, new, id) = (options.vfs.as_ref(), layout.segment_new(), found.id_last + 1);
    let mut begun = write_segment(options, &new, id, found);
    if begun.as_ref().is_err_and(is_no_space) {
        free_space(options, layout, found)?;
        begun = write_segment(options, &new, id, found);
    }
    let Begun { file, again, end, crc } = begun.map_err(io_error("writing", &new))?;
    let path = layout.segment(id);
    vfs.rename(&new, &path).map_err(io_error("renaming", &new))?;
    vfs.sync_dir(&layout.journal()).map_err(io_error("syncing", &layout.journal()))?;
    let capacity = options.segment_len().max(end);
    let segment = Arc::new(Segment { id, path: path.clone(), file: file.clone(), capacity });
    // Only now that they stand elsewhere.
    for segment in &mut found.segments {
        segment.groups.retain(|group| group.header.seq <= found.durable_through);
    }
    discard_tails(options, layout, found)?;
    found.segments.push(Scanned { id, path, file, groups: again });
    let writer = Writer {
        log: found.checkpoint.log,
        incarnation: found.incarnation + 1,
        capacity: segment.capacity,
        segment,
        at: end,
        seq: found.seq + 1,
        prev_crc: crc,
        durable_through: found.seq + 1,
        sealed: Vec::new(),
        syncs: 0,
    };
    Ok(writer)
}

/// The file of a segment that has begun, under another name still.
struct Begun {
    file: Arc<dyn File>,
    /// The groups that it has besides that of the opening.
    again: Vec<GroupAt>,
    end: u64,
    crc: u32,
}

/// Writes the groups that were not synced for certain, and behind them that this opening was.
fn write_segment(options: &Options, new: &Path, id: u64, found: &Recovered) -> io::Result<Begun> {
    let file = options.vfs.open(new, OpenOptions::TRUNCATE)?;
    let (mut at, mut crc) = (0, durable_crc(found));
    let mut again = Vec::new();
    for segment in &found.segments {
        for group in segment.groups.iter().filter(|group| group.header.seq > found.durable_through) {
            let moved = copy(segment, group, file.as_ref(), id, at, crc)?;
            (at, crc) = (moved.end(), moved.crc);
            again.push(moved);
        }
    }
    let opening = GroupHeader {
        features_required: 0,
        features_optional: 0,
        log: found.checkpoint.log,
        segment: id,
        seq: found.seq + 1,
        durable_through: found.durable_through,
        incarnation: found.incarnation + 1,
        time: options.clock.now_us(),
        prev_crc: crc,
        frames: 0,
        table_len: 0,
        heads_len: 0,
        body_len: 0,
        table_crc: crc32fast::hash(&[]),
        kind: Kind::Opening,
    };
    let (mut bytes, crc) = opening.encode();
    bytes.resize(opening.total_len() as usize, 0);
    file.write_all_at(&bytes, at)?;
    file.sync_data()?;
    Ok(Begun { file, again, end: at + opening.total_len(), crc })
}

/// Takes the space of segments without a group that counts, of what is prepared behind the last groups of the others, and of
/// what passes left behind. A process that ended on a full disk may have left all of these, and no reserve.
fn free_space(options: &Options, layout: &Layout, found: &Recovered) -> Result<(), Error> {
    let vfs = options.vfs.as_ref();
    // They go when the new segment has its name. Until then they keep their numbers from being given again.
    found.leftovers.iter().try_for_each(|path| cut(vfs, path, 0))?;
    found.segments.iter().try_for_each(|segment| cut(vfs, &segment.path, segment.end()))?;
    let topics = found.state.topics.iter();
    let partitions =
        topics.flat_map(|(id, topic)| (0..topic.spec.partitions).map(|number| (*id, &topic.spec.name, number)));
    for (topic, name, number) in partitions.clone() {
        let files = found.checkpoint.files.get(&topic).and_then(|files| files.get(&number));
        // A pass goes on in the last one.
        if let Some(last) = files.and_then(|files| files.last()) {
            cut(vfs, &layout.settled(name, number, Offset(last.base), last.generation), last.len)?;
        }
    }
    for path in leftovers(vfs, layout, &found.checkpoint, partitions) {
        if let Err(error) = vfs.remove(&path) {
            tracing::warn!(path = %path.display(), %error, "a file that is not needed any more stays");
        }
    }
    Ok(())
}

/// The CRC of the last group that was synced for certain.
fn durable_crc(found: &Recovered) -> u32 {
    let groups = found.segments.iter().flat_map(|s| &s.groups);
    let last = groups.take_while(|g| g.header.seq <= found.durable_through).last();
    last.map_or(found.checkpoint.crc, |g| g.crc)
}

fn copy(from: &Scanned, group: &GroupAt, to: &dyn File, segment: u64, at: u64, prev_crc: u32) -> io::Result<GroupAt> {
    let header = GroupHeader { segment, prev_crc, ..group.header.clone() };
    let (bytes, crc) = header.encode();
    to.write_all_at(&bytes, at)?;
    let mut done = HEADER_BYTES as u64;
    let mut buffer = Vec::new();
    while done < header.total_len() {
        let n = COPY_BYTES.min(header.total_len() - done);
        buffer.resize(n as usize, 0);
        // The padding of a file's last group may be missing.
        let have = from.file.len()?.saturating_sub(group.at + done).min(n);
        buffer.fill(0);
        from.file.read_exact_at(buffer.get_mut(..have as usize).unwrap_or_default(), group.at + done)?;
        to.write_all_at(&buffer, at + done)?;
        done += n;
    }
    let moved = |frame: FrameAt| FrameAt { body_at: frame.body_at - group.at + at, ..frame };
    Ok(GroupAt { header, crc, at, frames: group.frames.iter().cloned().map(moved).collect() })
}

/// Removes spares and the reserve, which are made anew: on a full disk they are the room for the copy of the checkpoint and
/// for the segment that begins. Nothing that any checkpoint speaks of is in them.
fn make_room(options: &Options, layout: &Layout) -> Result<(), Error> {
    let (vfs, journal) = (options.vfs.as_ref(), layout.journal());
    for entry in vfs.list(&journal).map_err(io_error("reading", &journal))? {
        if segment_id(&entry.name).is_none() {
            let path = journal.join(entry.name);
            vfs.remove(&path).map_err(io_error("removing", &path))?;
        }
    }
    Ok(())
}

/// Cuts off what no longer counts, and removes segments of which nothing does.
fn discard_tails(options: &Options, layout: &Layout, found: &mut Recovered) -> Result<(), Error> {
    let vfs = options.vfs.as_ref();
    let (kept, emptied): (Vec<_>, Vec<_>) =
        std::mem::take(&mut found.segments).into_iter().partition(|s| !s.groups.is_empty());
    found.leftovers.extend(emptied.into_iter().map(|s| s.path));
    kept.iter().try_for_each(|segment| cut(vfs, &segment.path, segment.end()))?;
    found.segments = kept;
    for path in std::mem::take(&mut found.leftovers) {
        vfs.remove(&path).map_err(io_error("removing", &path))?;
    }
    vfs.sync_dir(&layout.journal()).map_err(io_error("syncing", &layout.journal()))
}

/// Cuts off what a file has behind `end`.
fn cut(vfs: &dyn Vfs, path: &Path, end: u64) -> Result<(), Error> {
    let file = match vfs.open(path, OpenOptions::WRITE) {
        // A topic may not have been settled yet.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(io_error("opening", path))?,
    };
    if file.len().map_err(io_error("reading", path))? > end {
        file.set_len(end).map_err(io_error("cutting", path))?;
    }
    Ok(())
}

/// Builds the index. `current` is the segment that is being written.
pub(super) fn index(layout: &Layout, found: Recovered, current: Option<&Arc<Segment>>) -> Opened {
    let mut topics = Topics::default();
    for (id, topic) in &found.state.topics {
        topics.add(Arc::new(Topic::new(*id, topic.spec.clone(), topic.versions.clone())));
    }
    for (id, files) in &found.checkpoint.files {
        for (number, metas) in files {
            let Some(partition) = topics.partition_by_id(*id, *number) else { continue };
            let settled = metas.iter().map(|meta| {
                let path = layout.settled(&partition.at.topic, *number, Offset(meta.base), meta.generation);
                Arc::new(SettledFile { path, meta: meta.clone() })
            });
            partition.contents.lock().files.extend(settled);
        }
    }
    let mut sealed = Vec::new();
    for scanned in found.segments {
        let end = scanned.end();
        let segment = match current.filter(|s| s.id == scanned.id) {
            Some(segment) => segment.clone(),
            None => {
                let Scanned { id, path, file, .. } = &scanned;
                Arc::new(Segment { id: *id, path: path.clone(), file: file.clone(), capacity: end })
            }
        };
        for group in &scanned.groups {
            for frame in &group.frames {
                let Content::Commit(commit) = &frame.content else { continue };
                for (append, base) in commit.appends.iter().zip(&frame.offsets) {
                    let marks = commit.mark(append).into_iter().collect();
                    add_entry(&topics, append, marks, *base, frame, group, &segment);
                }
            }
        }
        if current.is_none_or(|s| s.id != scanned.id) {
            sealed.push(Sealed { segment, end });
        }
    }
    for (id, topic) in &found.state.topics {
        for ((number, start), end) in (0..).zip(&topic.starts).zip(&topic.ends) {
            let Some(partition) = topics.partition_by_id(*id, number) else { continue };
            let mut contents = partition.contents.lock();
            contents.end = *end;
            if let Some(promises) = topic.promises.get(number as usize) {
                contents.promises = promises.clone();
            }
            contents.advance_start(*start);
            partition.grown.send_replace(*end);
        }
    }
    let mut stage = Stage::default();
    for (task, positions) in found.state.positions {
        stage.tasks.entry(task).or_default().durable = positions.into_iter().collect();
    }
    let epoch_last = Epoch((found.incarnation + 1) << 32);
    Opened { topics, stage, sealed, checkpoint: found.checkpoint, epoch_last }
}

fn add_entry(
    topics: &Topics,
    append: &AppendHead,
    marks: Arc<[Mark]>,
    base: u64,
    frame: &FrameAt,
    group: &GroupAt,
    segment: &Arc<Segment>,
) {
    let Some(partition) = topics.partition_by_id(append.topic, append.partition) else { return };
    partition.contents.lock().push(Entry {
        base,
        rows: append.rows,
        schema_version: append.schema_version,
        marks,
        time: group.header.time,
        segment: segment.clone(),
        at: frame.body_at + u64::from(append.at),
        len: append.len,
        crc: append.crc,
        before: 0,
        cached: None,
    });
}

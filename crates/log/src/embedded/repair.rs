//! Repair: makes a damaged log open again, keeps what reads back, and says exactly what is lost.
//!
//! The journal is cut at its first damaged group, because what follows was built on it: positions and events go back
//! together, so that sources send again what is missing and nothing is processed twice. A damaged settled file is cut at
//! its first damaged block and the rest of its blocks is lost with it only where their headers do not read either.
//! A damaged checkpoint is replaced by its copy, or worked out anew where it can be (`rebuild`). Whatever is taken out is
//! kept in `damaged/`.

use std::path::Path;

use millstream_event::Offset;

use super::checkpoint::{Checkpoint, SettledMeta};
use super::inspect::{Lost, Problem, Report, lost, segments, verify_from};
use super::layout::Layout;
use super::open;
use super::options::Options;
use super::rebuild::source;
use super::settled_file::{OpenFile, SettledFile};
use super::state::State;
use super::walk::{Found, Walker, io_error};
use crate::Error;
use crate::vfs::OpenOptions;

/// How much is copied at once.
const COPY_BYTES: u64 = 1 << 20;

/// Repairs the log in `options.dir`. Without `confirm` nothing is changed, and the report's `lost` says what would be.
///
/// # Errors
/// [`Error::Locked`] where the log is in use; [`Error::Refused`] where the checkpoint is damaged and can neither be taken
/// from its copy nor be worked out anew: then only a backup can help.
pub fn repair(options: &Options, confirm: bool) -> Result<Report, Error> {
    let layout = Layout::new(&options.dir);
    let _lock = open::lock(options, &layout)?;
    let source = source(options, &layout)?;
    let mut report = verify_from(options, &layout, &source)?;
    if report.is_sound() {
        return Ok(report);
    }
    let Some(mut next) = source.checkpoint else {
        let why = report.notes.join("; ");
        return Err(Error::Refused(format!("{why}; nothing was changed; put `checkpoint` back from a backup")));
    };
    report.lost.extend(source.lost);
    let journal = report.problems.iter().filter(|p| p.path.starts_with(layout.journal()));
    let journal = journal.min_by(|a, b| (&a.path, a.at).cmp(&(&b.path, b.at))).cloned();
    if let Some(first) = journal {
        cut_journal(options, &layout, &next, &first.path, first.at, confirm, &mut report.lost)?;
    }
    let mended = mend_files(options, &layout, &mut next, confirm, &mut report.lost)?;
    if confirm {
        for dir in &source.orphans {
            take_out(options, &layout, dir)?;
        }
        if mended || !source.problems.is_empty() {
            replace_checkpoint(options, &layout, &next, &source.problems)?;
        }
    }
    Ok(report)
}

/// Whether nobody uses the log in `options.dir`, so that it could be repaired now.
///
/// # Errors
/// [`Error::Locked`] where somebody does.
pub fn is_free(options: &Options) -> Result<(), Error> {
    open::lock(options, &Layout::new(&options.dir)).map(drop)
}

/// Puts another checkpoint in the place of the one there and of its copy; what was damaged is kept.
fn replace_checkpoint(options: &Options, layout: &Layout, next: &Checkpoint, damaged: &[Problem]) -> Result<(), Error> {
    let vfs = options.vfs.as_ref();
    let names = vfs.list(&layout.dir).map_err(io_error("reading", &layout.dir))?;
    for problem in damaged {
        // A checkpoint may be missing altogether.
        if names.iter().any(|entry| layout.dir.join(&entry.name) == problem.path) {
            keep_copy(options, layout, &problem.path)?;
        }
    }
    next.save(vfs, layout).map_err(io_error("writing", &layout.checkpoint()))
}

/// Moves the files of a directory to `damaged/`.
fn take_out(options: &Options, layout: &Layout, dir: &Path) -> Result<(), Error> {
    let vfs = options.vfs.as_ref();
    for entry in vfs.list(dir).map_err(io_error("reading", dir))? {
        let path = dir.join(&entry.name);
        keep_copy(options, layout, &path)?;
        vfs.remove(&path).map_err(io_error("removing", &path))?;
    }
    vfs.sync_dir(dir).map_err(io_error("syncing", dir))
}

/// Cuts the journal before the group at `at` of the segment `path`; later segments go whole.
fn cut_journal(
    options: &Options,
    layout: &Layout,
    from: &Checkpoint,
    path: &Path,
    at: u64,
    confirm: bool,
    gone: &mut Vec<Lost>,
) -> Result<(), Error> {
    let vfs = options.vfs.as_ref();
    let mut state = from.state.clone();
    let mut cut = false;
    for (id, segment) in segments(options, layout)? {
        if id <= from.segment {
            continue;
        }
        let begin = if segment == path { at } else { 0 };
        let mut walker = Walker::open(vfs, &segment, from.log, id)?;
        let mut place = 0;
        while place < walker.len {
            let Found::Group(group) = walker.group(place)? else {
                // What is behind a bad header is looked for on every boundary.
                place += super::group_header::BLOCK;
                continue;
            };
            if cut || (segment == path && place >= begin) {
                let later = lost(&group, &state);
                // Whatever stood between what was seen before and what comes now was in damaged groups.
                gone.extend(later.iter().filter_map(|next| hole_before(next, &state)));
                gone.extend(later);
            }
            for frame in &group.frames {
                drop(state.apply(frame));
            }
            place = group.end();
        }
        if (cut || segment == path) && confirm {
            keep_copy(options, layout, &segment)?;
            if cut || begin == 0 {
                vfs.remove(&segment).map_err(io_error("removing", &segment))?;
            } else {
                let file = vfs.open(&segment, OpenOptions::WRITE).map_err(io_error("opening", &segment))?;
                file.set_len(begin).and_then(|()| file.sync_data()).map_err(io_error("cutting", &segment))?;
            }
        }
        cut |= segment == path;
    }
    if confirm {
        vfs.sync_dir(&layout.journal()).map_err(io_error("syncing", &layout.journal()))?;
    }
    Ok(())
}

fn hole_before(next: &Lost, state: &State) -> Option<Lost> {
    let topic = state.topics.values().find(|topic| topic.spec.name == next.topic)?;
    let end = Offset(*topic.ends.get(next.partition as usize)?);
    (end < next.from).then(|| Lost { from: end, to: next.from, ..next.clone() })
}

/// Takes damaged blocks out of settled files; answers whether there were any.
fn mend_files(
    options: &Options,
    layout: &Layout,
    next: &mut Checkpoint,
    confirm: bool,
    gone: &mut Vec<Lost>,
) -> Result<bool, Error> {
    let mut changed = false;
    for (id, partitions) in &mut next.files {
        let Some(topic) = next.state.topics.get(id) else { continue };
        for (number, metas) in partitions {
            let mut kept = Vec::new();
            for meta in std::mem::take(metas) {
                let path = layout.settled(&topic.spec.name, *number, Offset(meta.base));
                let file = SettledFile { path, meta };
                let pieces = sound_pieces(options, &file, topic);
                if pieces.len() == 1 && pieces.first().is_some_and(|(piece, _)| *piece == file.meta) {
                    kept.push(file.meta);
                    continue;
                }
                changed = true;
                let mut at = file.meta.base;
                for (piece, _) in &pieces {
                    let hole = Lost {
                        topic: topic.spec.name.clone(),
                        partition: *number,
                        from: Offset(at),
                        to: Offset(piece.base),
                    };
                    gone.extend((at < piece.base).then_some(hole));
                    at = piece.next;
                }
                let (from, to) = (Offset(at), Offset(file.meta.next));
                let hole = Lost { topic: topic.spec.name.clone(), partition: *number, from, to };
                gone.extend((from < to).then_some(hole));
                if confirm {
                    rewrite(options, layout, &file, &pieces, &topic.spec.name, *number)?;
                }
                kept.extend(pieces.into_iter().map(|(piece, _)| piece));
            }
            *metas = kept;
        }
    }
    Ok(changed)
}

/// The runs of blocks that read back: each as a file of its own, with where it stands in the old one.
fn sound_pieces(options: &Options, file: &SettledFile, topic: &super::state::TopicState) -> Vec<(SettledMeta, u64)> {
    let mut pieces: Vec<(SettledMeta, u64)> = Vec::new();
    let blocks = OpenFile::salvage(options.vfs.as_ref(), file);
    let Some(open) = blocks else { return pieces };
    for at in open.blocks() {
        let schema = (at.block.schema_version as usize).checked_sub(1).and_then(|i| topic.versions.get(i));
        if schema.is_none_or(|schema| open.decode(at, schema.physical()).is_err()) {
            continue;
        }
        let (begin, end, raw) = (at.header_at(), at.end(), at.block.raw_len());
        match pieces.last_mut() {
            Some((piece, from)) if *from + piece.len == begin => {
                piece.len += end - begin;
                piece.next = at.block.next();
                piece.newest = at.block.newest;
                piece.raw += raw;
            }
            _ => {
                let (base, next, time) = (at.block.base, at.block.next(), at.block.newest);
                let piece = SettledMeta { base, next, len: end - begin, oldest: time, newest: time, raw };
                pieces.push((piece, begin));
            }
        }
    }
    if let [(piece, 0)] = pieces.as_mut_slice()
        && (piece.len, piece.next) == (file.meta.len, file.meta.next)
    {
        // Nothing is missing: the times and sizes are as they were noted.
        *piece = file.meta.clone();
    }
    pieces
}

fn rewrite(
    options: &Options,
    layout: &Layout,
    file: &SettledFile,
    pieces: &[(SettledMeta, u64)],
    topic: &millstream_event::Name,
    number: u32,
) -> Result<(), Error> {
    let vfs = options.vfs.as_ref();
    keep_copy(options, layout, &file.path)?;
    let old = vfs.open(&file.path, OpenOptions::READ).map_err(io_error("opening", &file.path))?;
    vfs.remove(&file.path).map_err(io_error("removing", &file.path))?;
    for (piece, from) in pieces {
        let path = layout.settled(topic, number, Offset(piece.base));
        let new = vfs.open(&path, OpenOptions::TRUNCATE).map_err(io_error("making", &path))?;
        copy(old.as_ref(), new.as_ref(), *from, piece.len).map_err(io_error("copying", &path))?;
    }
    let dir = layout.partition(topic, number);
    vfs.sync_dir(&dir).map_err(io_error("syncing", &dir))
}

fn copy(from: &dyn crate::vfs::File, to: &dyn crate::vfs::File, at: u64, len: u64) -> std::io::Result<()> {
    let mut done = 0;
    let mut buffer = Vec::new();
    while done < len {
        buffer.resize(COPY_BYTES.min(len - done) as usize, 0);
        from.read_exact_at(&mut buffer, at + done)?;
        to.write_all_at(&buffer, done)?;
        done += buffer.len() as u64;
    }
    to.sync_data()
}

/// Keeps the file as it is in `damaged/`.
fn keep_copy(options: &Options, layout: &Layout, path: &Path) -> Result<(), Error> {
    let vfs = options.vfs.as_ref();
    let inside = path.strip_prefix(&layout.dir).unwrap_or(path);
    let name = inside.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("-");
    let (dir, to) = (layout.damaged(), layout.damaged().join(name));
    vfs.create_dir_all(&dir).map_err(io_error("making", &dir))?;
    let old = vfs.open(path, OpenOptions::READ).map_err(io_error("opening", path))?;
    let new = vfs.open(&to, OpenOptions::TRUNCATE).map_err(io_error("making", &to))?;
    let len = old.len().map_err(io_error("reading", path))?;
    copy(old.as_ref(), new.as_ref(), 0, len).map_err(io_error("copying", path))?;
    vfs.sync_dir(&dir).map_err(io_error("syncing", &dir))
}

//! Repair: makes a damaged log open again, keeps what reads back, and says exactly what is lost.
//!
//! The journal is cut at its first damaged group, because what follows was built on it: positions and events go back
//! together, so that sources send again what is missing and nothing is processed twice. A damaged settled file is cut at
//! its first damaged block and the rest of its blocks is lost with it only where their headers do not read either.
//! A damaged checkpoint is replaced by its copy, or worked out anew where it can be (`rebuild`). Whatever is taken out is
//! kept in `damaged/`, as far as the disk still gives it.
//!
//! A repair that is cut short, or finds no space, can be begun again: what the checkpoint on the disk speaks of changes
//! only after another one, which no longer speaks of it, has taken its place.

use std::path::Path;

use millstream_event::Offset;

use super::checkpoint::Checkpoint;
use super::damaged::{keep_copy, move_out};
use super::inspect::{Lost, Problem, Report, defined, lost, segments, verify_from};
use super::layout::Layout;
use super::mend::{cut_files, learn_versions, mend_files};
use super::open;
use super::options::Options;
use super::rebuild::source;
use super::state::State;
use super::walk::{Found, Walker, io_error};
use crate::Error;
use crate::vfs::OpenOptions;

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
    let topics = defined(options, &layout, &next)?;
    if learn_versions(options, &layout, &mut next, &topics) && confirm {
        // Before they may go from the journal.
        replace_checkpoint(options, &layout, &next, &source.problems, &mut report.notes)?;
    }
    let journal = report.problems.iter().filter(|p| p.path.starts_with(layout.journal()));
    let journal = journal.min_by(|a, b| (&a.path, a.at).cmp(&(&b.path, b.at))).cloned();
    if let Some(first) = journal {
        cut_journal(options, &layout, &next, &first.path, first.at, confirm, &mut report)?;
    }
    let cuts = mend_files(options, &layout, &mut next, &topics, confirm, &mut report)?;
    if confirm {
        for dir in &source.orphans {
            take_out(options, &layout, dir)?;
        }
        if !cuts.is_empty() || !source.problems.is_empty() {
            replace_checkpoint(options, &layout, &next, &source.problems, &mut report.notes)?;
        }
        cut_files(options, &layout, &cuts)?;
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
fn replace_checkpoint(
    options: &Options,
    layout: &Layout,
    next: &Checkpoint,
    damaged: &[Problem],
    notes: &mut Vec<String>,
) -> Result<(), Error> {
    let vfs = options.vfs.as_ref();
    for problem in damaged {
        keep_copy(options, layout, &problem.path, notes)?;
    }
    next.save(vfs, layout).map_err(io_error("writing", &layout.checkpoint()))
}

/// Moves the files of a directory to `damaged/`.
fn take_out(options: &Options, layout: &Layout, dir: &Path) -> Result<(), Error> {
    let vfs = options.vfs.as_ref();
    for entry in vfs.list(dir).map_err(io_error("reading", dir))? {
        let path = dir.join(&entry.name);
        move_out(options, layout, &path)?;
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
    report: &mut Report,
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
                report.lost.extend(later.iter().filter_map(|next| hole_before(next, &state)));
                report.lost.extend(later);
            }
            for frame in &group.frames {
                drop(state.apply(frame));
            }
            place = group.end();
        }
        if (cut || segment == path) && confirm {
            if cut || begin == 0 {
                move_out(options, layout, &segment)?;
            } else {
                keep_copy(options, layout, &segment, &mut report.notes)?;
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

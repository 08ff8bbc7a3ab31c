//! Mending settled files: damaged blocks are taken out, and the runs of sound ones between them become files.
//!
//! 1. A copy of the damaged file goes to `damaged/`.
//! 2. Each run but one at the file's beginning is written beside it, synced and named.
//! 3. The caller replaces the checkpoint by one that speaks of the runs.
//! 4. Only then the damaged file is cut behind the run at its beginning, or goes where there is none.
//!
//! So whenever this ends, the checkpoint on the disk finds all sound blocks where it says that they are. Files of 2 that no
//! checkpoint came to speak of are removed by the next opening.

use std::collections::BTreeMap;
use std::path::PathBuf;

use millstream_event::{Name, Offset};

use super::checkpoint::{Checkpoint, SettledMeta};
use super::damaged::{copy, keep_copy, move_out};
use super::inspect::{Lost, Report};
use super::layout::Layout;
use super::options::Options;
use super::settled_file::{BlockAt, OpenFile, SettledFile};
use super::state::TopicState;
use super::walk::io_error;
use crate::vfs::OpenOptions;
use crate::{Error, TopicKind};

/// What is to become of a damaged file when the checkpoint no longer speaks of what is damaged.
#[derive(Debug)]
pub(super) struct Cut {
    path: PathBuf,
    /// How much of it stays.
    keep: u64,
}

/// Takes damaged blocks out of what the checkpoint says, and with `confirm` writes the runs of sound ones that need files
/// of their own. What is left to do is for [`cut_files`].
pub(super) fn mend_files(
    options: &Options,
    layout: &Layout,
    next: &mut Checkpoint,
    topics: &BTreeMap<u32, TopicState>,
    confirm: bool,
    report: &mut Report,
) -> Result<Vec<Cut>, Error> {
    let mut cuts = Vec::new();
    for (id, partitions) in &mut next.files {
        let Some(topic) = topics.get(id) else { continue };
        let name = &topic.spec.name;
        for (number, metas) in partitions {
            let mut kept = Vec::new();
            for meta in std::mem::take(metas) {
                let path = layout.settled(name, *number, Offset(meta.base), meta.generation);
                let file = SettledFile { path, meta };
                let pieces = sound_pieces(options, &file, topic);
                if pieces.len() == 1 && pieces.first().is_some_and(|(piece, _)| *piece == file.meta) {
                    kept.push(file.meta);
                    continue;
                }
                let holes = holes(&file, &pieces, name, *number);
                if !holes.is_empty() && topic.spec.kind == TopicKind::Table {
                    report.notes.push(format!(
                        "table `{name}`, partition {number}: a key whose newest row is lost shows its row before that where \
                         there is one, also if it was deleted since"
                    ));
                }
                report.lost.extend(holes);
                if confirm {
                    keep_copy(options, layout, &file.path, &mut report.notes)?;
                    write_pieces(options, layout, &file, &pieces, name, *number)?;
                }
                let first = pieces.first().filter(|(_, from)| *from == 0);
                cuts.push(Cut { keep: first.map_or(0, |(piece, _)| piece.len), path: file.path });
                kept.extend(pieces.into_iter().map(|(piece, _)| piece));
            }
            *metas = kept;
        }
    }
    Ok(cuts)
}

/// Puts the versions of columns into the checkpoint that its settled files have and that stand in the journal only, so that
/// they can be read whatever becomes of that; answers whether there were any.
pub(super) fn learn_versions(
    options: &Options,
    layout: &Layout,
    next: &mut Checkpoint,
    topics: &BTreeMap<u32, TopicState>,
) -> bool {
    let mut learned = false;
    for (id, partitions) in &next.files {
        let (Some(known), Some(told)) = (next.state.topics.get_mut(id), topics.get(id)) else { continue };
        if told.versions.len() <= known.versions.len() {
            continue;
        }
        let files = partitions.iter().flat_map(|(number, metas)| metas.iter().map(move |meta| (*number, meta)));
        let newer = files.into_iter().any(|(number, meta)| {
            let path = layout.settled(&known.spec.name, number, Offset(meta.base), meta.generation);
            let open = OpenFile::salvage(options.vfs.as_ref(), &SettledFile { path, meta: meta.clone() });
            let is_newer = |at: &BlockAt| at.block.schema_version as usize > known.versions.len();
            open.is_some_and(|open| open.blocks().iter().any(is_newer))
        });
        if newer {
            (known.versions, known.spec) = (told.versions.clone(), told.spec.clone());
            learned = true;
        }
    }
    learned
}

/// What is between the pieces and around them.
fn holes(file: &SettledFile, pieces: &[(SettledMeta, u64)], topic: &Name, partition: u32) -> Vec<Lost> {
    let begins = pieces.iter().map(|(piece, _)| piece.base).chain([file.meta.next]);
    let ends = [file.meta.base].into_iter().chain(pieces.iter().map(|(piece, _)| piece.next));
    let hole = |(from, to)| Lost { topic: topic.clone(), partition, from: Offset(from), to: Offset(to) };
    ends.zip(begins).filter(|(from, to)| from < to).map(hole).collect()
}

/// The runs of blocks that read back: each as a file of its own, with where it stands in the old one.
fn sound_pieces(options: &Options, file: &SettledFile, topic: &TopicState) -> Vec<(SettledMeta, u64)> {
    let mut pieces: Vec<(SettledMeta, u64)> = Vec::new();
    let blocks = OpenFile::salvage(options.vfs.as_ref(), file);
    let Some(open) = blocks else { return pieces };
    for at in open.blocks() {
        let schema = (at.block.schema_version as usize).checked_sub(1).and_then(|i| topic.versions.get(i));
        if schema.is_none_or(|schema| open.decode(at, schema.physical()).is_err()) {
            continue;
        }
        let (begin, end, raw) = (at.header_at(), at.end(), at.block.raw_len());
        let rows = u64::from(at.block.rows);
        match pieces.last_mut() {
            Some((piece, from)) if *from + piece.len == begin => {
                piece.len += end - begin;
                piece.next = at.block.next;
                piece.newest = at.block.newest;
                piece.raw += raw;
                piece.rows = Some(piece.rows() + rows);
            }
            _ => {
                let (base, next, time) = (at.block.base, at.block.next, at.block.newest);
                let empty = SettledMeta::empty(base, file.meta.generation, time);
                let piece = SettledMeta { next, len: end - begin, raw, rows: Some(rows), ..empty };
                pieces.push((piece, begin));
            }
        }
    }
    if let [(piece, 0)] = pieces.as_mut_slice()
        && (piece.base, piece.len, piece.next) == (file.meta.base, file.meta.len, file.meta.next)
    {
        // Nothing is missing: the times and sizes are as they were noted.
        *piece = file.meta.clone();
    }
    pieces
}

/// Writes the pieces that do not begin where the file does.
fn write_pieces(
    options: &Options,
    layout: &Layout,
    file: &SettledFile,
    pieces: &[(SettledMeta, u64)],
    topic: &Name,
    number: u32,
) -> Result<(), Error> {
    let vfs = options.vfs.as_ref();
    for (piece, from) in pieces.iter().filter(|(_, from)| *from > 0) {
        let old = vfs.open(&file.path, OpenOptions::READ).map_err(io_error("opening", &file.path))?;
        let path = layout.settled(topic, number, Offset(piece.base), piece.generation);
        let beside = path.with_extension("new");
        let new = vfs.open(&beside, OpenOptions::TRUNCATE).map_err(io_error("making", &beside))?;
        copy(old.as_ref(), new.as_ref(), *from, piece.len).map_err(io_error("copying", &path))?;
        vfs.rename(&beside, &path).map_err(io_error("renaming", &beside))?;
    }
    let dir = layout.partition(topic, number);
    match vfs.sync_dir(&dir) {
        // The directory may be what is missing.
        Err(e) if pieces.is_empty() && e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(io_error("syncing", &dir)),
    }
}

/// Cuts off what the checkpoint no longer speaks of.
pub(super) fn cut_files(options: &Options, layout: &Layout, cuts: &[Cut]) -> Result<(), Error> {
    let vfs = options.vfs.as_ref();
    for cut in cuts {
        if cut.keep == 0 {
            move_out(options, layout, &cut.path)?;
            continue;
        }
        let file = vfs.open(&cut.path, OpenOptions::WRITE).map_err(io_error("opening", &cut.path))?;
        file.set_len(cut.keep).and_then(|()| file.sync_data()).map_err(io_error("cutting", &cut.path))?;
    }
    Ok(())
}

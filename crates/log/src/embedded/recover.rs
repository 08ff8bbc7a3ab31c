//! What a log's files say: the checkpoint, then the journal's tail. Only reads; `open` carries out what follows.
//!
//! A segment's groups end where the first group of any later segment takes over, so that what an opening has cut off, or
//! has written again, can never come back, in whichever order that opening's cuts and removals reach the disk. In the
//! last segment the first bad group is the end (a torn tail), *unless* a later group says that it was durable: then it
//! is damage, and so is any bad group before the one that a later segment begins with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checkpoint::Checkpoint;
use super::group_header::BLOCK;
use super::layout::{Layout, segment_id};
use super::state::State;
use super::walk::{Found, GroupAt, Walker, io_error};
use crate::Error;
use crate::vfs::{File, Vfs};

/// A segment and its groups that count.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) id: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    pub(super) groups: Vec<GroupAt>,
}

impl Scanned {
    /// Where its groups end.
    pub(super) fn end(&self) -> u64 {
        self.groups.last().map_or(0, GroupAt::end)
    }
}

/// What the files say.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) checkpoint: Checkpoint,
    /// After the last group.
    pub(super) state: State,
    /// Segments with groups, oldest first.
    pub(super) segments: Vec<Scanned>,
    /// Segment files without a group that counts.
    pub(super) leftovers: Vec<PathBuf>,
    /// The greatest number of a segment.
    pub(super) id_last: u64,
    pub(super) seq: u64,
    /// Groups up to here were synced for certain.
    pub(super) durable_through: u64,
    pub(super) incarnation: u64,
}

struct Live {
    id: u64,
    walker: Walker,
    first: Option<u64>,
    /// What its groups prove to have been synced, where the first is bad.
    proof: Option<u64>,
}

/// Reads everything behind the checkpoint.
pub(super) fn recover(
    vfs: &dyn Vfs,
    layout: &Layout,
    checkpoint: Checkpoint,
    check_chain: bool,
) -> Result<Recovered, Error> {
    let (mut ids, mut leftovers) = (Vec::new(), Vec::new());
    let journal = layout.journal();
    for entry in vfs.list(&journal).map_err(io_error("reading", &journal))? {
        ids.extend(segment_id(&entry.name));
    }
    ids.sort_unstable();
    let id_last = ids.last().copied().unwrap_or(0).max(checkpoint.segment);
    let mut live = Vec::new();
    for id in ids {
        let path = layout.segment(id);
        if id <= checkpoint.segment {
            leftovers.push(path);
            continue;
        }
        let mut walker = Walker::open(vfs, &path, checkpoint.log, id)?;
        let first = match walker.group(0)? {
            Found::Group(group) => Some(group.header.seq),
            Found::Bad(_) => None,
        };
        let proof = if first.is_some() { None } else { walker.scan_proof(BLOCK)? };
        if first.is_some() || proof.is_some() {
            live.push(Live { id, walker, first, proof });
        } else {
            leftovers.push(path);
        }
    }
    let mut walk = Walk { state: checkpoint.state.clone(), seq: checkpoint.seq, crc: checkpoint.crc, check_chain };
    let mut segments = Vec::new();
    while !live.is_empty() {
        let mut one = live.remove(0);
        // The least, not the nearest: the nearest may be torn and itself written again by one further on.
        let limit = live.iter().filter_map(|later| later.first).min();
        let proof = live.iter().filter_map(|later| later.proof).max();
        let groups = walk.segment(&mut one.walker, limit, proof)?;
        let Walker { file, path, .. } = one.walker;
        if groups.is_empty() {
            leftovers.push(path);
        } else {
            segments.push(Scanned { id: one.id, path, file, groups });
        }
    }
    cut_torn_bodies(vfs, &checkpoint, &mut segments, &mut leftovers)?;
    let mut state = checkpoint.state.clone();
    let headers = || segments.iter().flat_map(|s| &s.groups);
    for group in headers() {
        for frame in &group.frames {
            state.apply(frame).map_err(|what| Error::Corrupt {
                what,
                path: layout.segment(group.header.segment),
                at: group.at,
                affected: "unknown".into(),
            })?;
        }
    }
    let last = headers().last();
    let seq = last.map_or(checkpoint.seq, |g| g.header.seq);
    let durable_through = durable_through(&checkpoint, &segments);
    let incarnation = headers().map(|g| g.header.incarnation).max().unwrap_or(0).max(checkpoint.incarnation);
    Ok(Recovered { checkpoint, state, segments, leftovers, id_last, seq, durable_through, incarnation })
}

/// What was synced for certain: as headers say, and what an opening wrote again, because that was acknowledged perhaps and
/// stands nowhere else any more.
fn durable_through(checkpoint: &Checkpoint, segments: &[Scanned]) -> u64 {
    let told = segments.iter().flat_map(|s| &s.groups).map(|g| g.header.proves()).max();
    told.unwrap_or(0).max(checkpoint.seq)
}

struct Walk {
    /// Of the checkpoint; only for the names of topics in messages.
    state: State,
    seq: u64,
    crc: u32,
    check_chain: bool,
}

impl Walk {
    /// The groups of a segment that count; `limit` is where a later segment takes over, `proof` the last group that later
    /// segments prove to have been synced.
    fn segment(&mut self, walker: &mut Walker, limit: Option<u64>, proof: Option<u64>) -> Result<Vec<GroupAt>, Error> {
        let mut groups: Vec<GroupAt> = Vec::new();
        let mut at = 0;
        while limit.is_none_or(|limit| self.seq + 1 < limit) {
            let mut strange = false;
            let what = match walker.group(at)? {
                Found::Group(group) => match self.follows(&group) {
                    Ok(()) => {
                        (self.seq, self.crc, at) = (group.header.seq, group.crc, group.end());
                        for frame in &group.frames {
                            // Only to know more names; what cannot follow is reported by the caller.
                            drop(self.state.apply(frame));
                        }
                        groups.push(group);
                        continue;
                    }
                    Err(what) => {
                        // A segment is begun behind groups that are on the disk: no torn write explains this.
                        strange = at == 0;
                        what
                    }
                },
                Found::Bad(what) => what,
            };
            if limit.is_some() || strange || walker.scan_proof(at)?.max(proof) >= Some(self.seq + 1) {
                return Err(self.corrupt(what, &walker.path, at));
            }
            break;
        }
        Ok(groups)
    }

    fn follows(&self, group: &GroupAt) -> Result<(), String> {
        if group.header.seq != self.seq + 1 {
            return Err(format!("group {} where group {} belongs", group.header.seq, self.seq + 1));
        }
        if self.check_chain && group.header.prev_crc != self.crc {
            return Err(format!("group {} follows another group than the one before it", group.header.seq));
        }
        Ok(())
    }

    fn corrupt(&self, what: String, path: &Path, at: u64) -> Error {
        let names: Vec<&str> = self.state.topics.values().map(|t| t.spec.name.as_str()).collect();
        let affected = if names.is_empty() { "unknown".into() } else { format!("perhaps {}", names.join(", ")) };
        Error::Corrupt { what: format!("{what} (group {})", self.seq + 1), path: path.to_owned(), at, affected }
    }
}

/// Of the groups that were not synced for certain, those from the first on whose events are torn go.
fn cut_torn_bodies(
    vfs: &dyn Vfs,
    checkpoint: &Checkpoint,
    segments: &mut Vec<Scanned>,
    leftovers: &mut Vec<PathBuf>,
) -> Result<(), Error> {
    let durable = durable_through(checkpoint, segments);
    let mut torn = false;
    for segment in segments.iter_mut() {
        let Scanned { id, path, groups, .. } = segment;
        let Some(first) = groups.iter().position(|g| g.header.seq > durable) else { continue };
        let walker = Walker::open(vfs, path, checkpoint.log, *id)?;
        let mut keep = if torn { 0 } else { groups.len() };
        for (i, group) in groups.iter().enumerate().skip(first) {
            if torn {
                break;
            }
            if walker.verify_bodies(group)?.is_some() {
                torn = true;
                keep = i;
            }
        }
        groups.truncate(keep);
    }
    segments.retain(|segment| {
        if segment.groups.is_empty() {
            leftovers.push(segment.path.clone());
        }
        !segment.groups.is_empty()
    });
    Ok(())
}

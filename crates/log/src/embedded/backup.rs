//! What a copy of the log consists of at one moment, and reading it with its checks, while the log works on.
//!
//! 1. [`Source::image`] takes the checkpoint, the settled files as far as it says, and the journal's groups behind it up
//!    to the last one that readers see. Nothing is locked: commits and the settler never wait for a backup.
//! 2. [`Source::read`] gives a range of a file out, and computes every checksum in it again on the bytes it gives.
//! 3. What a checkpoint speaks of is only removed, and its segments are only written anew, after the *next* checkpoint has
//!    its name. So where bytes are not what they were and the checkpoint has changed, the round begins again with a new
//!    image; where it has not, they are damaged.
//!
//! A file's bytes never change below the length that an image gives it. A [`Step`] is a place where it may be cut; its
//! mark is a running checksum of all before it, so that who has a copy up to a step of that mark need not read it again.
//! A restored directory with the files of one image is a log as a power cut at that moment would have left it.

mod marks;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use millstream_event::Offset;
use parking_lot::Mutex;

use self::marks::{Mismatch, check_blocks, check_groups, steps_of_blocks};
use super::checkpoint::Checkpoint;
use super::layout::{Layout, segment_id};
use super::options::Options;
use super::recover::recover;
use super::settled_file::{OpenFile, SettledFile};
use super::shared::Shared;
use super::state::State;
use super::walk::{Found, GroupAt, Walker, io_error};
use super::{EmbeddedLog, inspect};
use crate::Error;
use crate::vfs::{Lock, LockError, OpenOptions};

/// How often an image is begun again because the settler was faster.
const TRIES_MAX: usize = 20;
/// The checkpoint's name.
pub const CHECKPOINT: &str = "checkpoint";
/// The file that is in a directory while a restore moves a log's files into it. Where the checkpoint, which comes last, is
/// not there beside it, the restore did not end, and the directory is no log.
pub const MOVING: &str = ".restoring-moves";

/// A place where a file may be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Step {
    /// How many bytes are before it.
    pub to: u64,
    /// A running checksum of these bytes; 0 where there are none.
    pub mark: u32,
}

/// A file, as far as it belongs to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// Its name below the log's directory, with `/` between the parts.
    pub path: String,
    /// Where it may be cut, in order; the last one is its end.
    pub steps: Vec<Step>,
}

impl ImageFile {
    /// Its end.
    pub fn end(&self) -> Step {
        self.steps.last().copied().unwrap_or_default()
    }
}

/// What a copy of the log consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The log's own number.
    pub log: u128,
    /// The checkpoint's bytes, for a file named [`CHECKPOINT`].
    pub checkpoint: Vec<u8>,
    /// The last group of commits in it.
    pub group: u64,
    /// When that group was made, in microseconds since 1970; `None` where all is settled.
    pub time_us: Option<i64>,
    /// How many positions of tasks are in it.
    pub positions: u64,
    /// Settled files and the journal's segments.
    pub files: Vec<ImageFile>,
}

/// Where images come from: a log that works, or the files of one that does not.
pub struct Source {
    options: Options,
    layout: Layout,
    /// Of a log that works.
    shared: Option<Arc<Shared>>,
    /// Held so that nobody opens a stopped log meanwhile.
    _lock: Option<Box<dyn Lock>>,
    /// The steps of settled files, by name, with the length they are for.
    settled: Mutex<HashMap<String, (u64, Vec<Step>)>>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("dir", &self.layout.dir).finish_non_exhaustive()
    }
}

/// Why an image, or a part of one, could not be had.
enum Missed {
    /// Files are not as the checkpoint says; perhaps because there is a new one.
    Mismatch(Mismatch),
    Failed(Error),
}

impl From<Error> for Missed {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Source {
    /// The images of a log that works.
    pub fn of(log: &EmbeddedLog) -> Self {
        let shared = log.shared.clone();
        Self::new(shared.options.clone(), Some(shared), None)
    }

    /// The image of the log in `options.dir`, which nobody uses and nobody can open as long as this is kept.
    ///
    /// # Errors
    /// [`Error::Locked`] where a process has it open, and [`Error::Io`] where there is none.
    pub fn stopped(options: Options) -> Result<Self, Error> {
        let layout = Layout::new(&options.dir);
        inspect::checkpoint(&options, &layout)?;
        let lock = options.vfs.lock(&layout.lock()).map_err(|e| match e {
            LockError::Held { pid } => Error::Locked { dir: layout.dir.clone(), pid },
            LockError::Io(e) => io_error("locking", &layout.lock())(e),
        })?;
        Ok(Self::new(options, None, Some(lock)))
    }

    fn new(options: Options, shared: Option<Arc<Shared>>, lock: Option<Box<dyn Lock>>) -> Self {
        let layout = Layout::new(&options.dir);
        Self { options, layout, shared, _lock: lock, settled: Mutex::default() }
    }

    /// What a copy consists of now.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where files are not as the checkpoint says, [`Error::Io`], and [`Error::Refused`] where the
    /// settler was faster again and again.
    pub fn image(&self) -> Result<Image, Error> {
        for _ in 0..TRIES_MAX {
            let (checkpoint, bytes) = self.checkpoint()?;
            match self.image_behind(checkpoint, &bytes) {
                Ok(image) => return Ok(image),
                Err(Missed::Failed(error)) => return Err(error),
                Err(Missed::Mismatch(mismatch)) if !self.has_changed(&bytes)? => return Err(mismatch.damage()),
                Err(Missed::Mismatch(_)) => {}
            }
        }
        Err(Error::Refused(format!("the log was settled {TRIES_MAX} times while its files were listed; try again")))
    }

    /// The bytes of a file of an image from one of its steps (or its beginning) to a later one. `None` where the log has
    /// gone on since, so that they are not there any more: take a new image.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the bytes are damaged, and [`Error::Io`].
    pub fn read(&self, image: &Image, path: &str, from: Step, to: Step) -> Result<Option<Vec<u8>>, Error> {
        match self.read_checked(image, path, from, to) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Missed::Failed(error)) => Err(error),
            Err(Missed::Mismatch(mismatch)) => match self.has_changed(&image.checkpoint)? {
                true => {
                    self.settled.lock().clear();
                    Ok(None)
                }
                false => Err(mismatch.damage()),
            },
        }
    }

    fn checkpoint(&self) -> Result<(Checkpoint, Vec<u8>), Error> {
        let found = Checkpoint::load_with_bytes(self.options.vfs.as_ref(), &self.layout)?;
        found.ok_or_else(|| Error::Io {
            doing: "reading",
            path: self.layout.checkpoint(),
            reason: "there is no log in this directory".into(),
        })
    }

    fn has_changed(&self, checkpoint: &[u8]) -> Result<bool, Error> {
        Ok(self.checkpoint()?.1 != checkpoint)
    }

    fn image_behind(&self, checkpoint: Checkpoint, bytes: &[u8]) -> Result<Image, Missed> {
        let mut files = self.settled_files(&checkpoint)?;
        let mut tail = match &self.shared {
            Some(shared) => self.tail_until(&checkpoint, shared.counters.group.load(Ordering::Relaxed))?,
            None => self.tail_of_stopped(&checkpoint)?,
        };
        files.append(&mut tail.files);
        let positions = tail.state.positions.values().map(|inputs| inputs.len() as u64).sum();
        let (log, checkpoint) = (checkpoint.log, bytes.to_vec());
        Ok(Image { log, checkpoint, group: tail.seq, time_us: tail.time_us, positions, files })
    }

    fn settled_files(&self, checkpoint: &Checkpoint) -> Result<Vec<ImageFile>, Missed> {
        let mut known = self.settled.lock();
        let mut still = HashSet::new();
        let mut files = Vec::new();
        for (id, partitions) in &checkpoint.files {
            let Some(topic) = checkpoint.state.topics.get(id) else { continue };
            for (number, metas) in partitions {
                for meta in metas {
                    let path = self.layout.settled(&topic.spec.name, *number, Offset(meta.base), meta.generation);
                    let name = self.name(&path);
                    let steps = match known.get(&name) {
                        Some((len, steps)) if *len == meta.len => steps.clone(),
                        _ => {
                            // Kept whatever comes of the others.
                            let steps = self.steps(&SettledFile { path, meta: meta.clone() })?;
                            known.insert(name.clone(), (meta.len, steps.clone()));
                            steps
                        }
                    };
                    still.insert(name.clone());
                    files.push(ImageFile { path: name, steps });
                }
            }
        }
        known.retain(|name, _| still.contains(name));
        Ok(files)
    }

    fn steps(&self, file: &SettledFile) -> Result<Vec<Step>, Missed> {
        match OpenFile::open(self.options.vfs.as_ref(), file) {
            Ok(open) => Ok(steps_of_blocks(open.blocks())),
            // Removed, or not what it was: the checkpoint tells whether it should be there.
            Err(error) => Err(Missed::Mismatch(Mismatch::of(error, &file.path))),
        }
    }

    /// The groups behind the checkpoint, up to one that is there for certain.
    fn tail_until(&self, checkpoint: &Checkpoint, last: u64) -> Result<Tail, Missed> {
        let (vfs, journal) = (self.options.vfs.as_ref(), self.layout.journal());
        let entries = vfs.list(&journal).map_err(io_error("reading", &journal))?;
        let mut ids: Vec<u64> = entries.iter().filter_map(|entry| segment_id(&entry.name)).collect();
        ids.sort_unstable();
        let mut tail = Tail::behind(checkpoint);
        for id in ids.into_iter().filter(|id| *id > checkpoint.segment) {
            if tail.seq >= last {
                break;
            }
            let path = self.layout.segment(id);
            let mut walker = match Walker::open(vfs, &path, checkpoint.log, id) {
                Ok(walker) => walker,
                Err(error) => return Err(Missed::Mismatch(Mismatch::of(error, &path))),
            };
            let (mut steps, mut at) = (Vec::new(), 0);
            while tail.seq < last
                && let Ok(Found::Group(group)) = walker.group(at)
                && tail.take(&group)
            {
                at = group.end();
                steps.push(Step { to: at, mark: group.crc });
            }
            tail.add(self.name(&path), steps);
        }
        if tail.seq < last {
            let what = format!("the journal ends with group {} instead of {last}", tail.seq);
            return Err(Missed::Mismatch(Mismatch::new(what, &journal, 0)));
        }
        Ok(tail)
    }

    /// The groups that an opening would find.
    fn tail_of_stopped(&self, checkpoint: &Checkpoint) -> Result<Tail, Missed> {
        let vfs = self.options.vfs.as_ref();
        let found = recover(vfs, &self.layout, checkpoint.clone(), self.options.checks_chain())?;
        let mut tail = Tail::behind(checkpoint);
        for segment in &found.segments {
            let steps = segment.groups.iter().map(|group| {
                tail.take(group);
                Step { to: group.end(), mark: group.crc }
            });
            let steps = steps.collect();
            tail.add(self.name(&segment.path), steps);
        }
        Ok(tail)
    }

    fn read_checked(&self, image: &Image, path: &str, from: Step, to: Step) -> Result<Vec<u8>, Missed> {
        let full = self.layout.dir.join(path);
        let bytes = self.bytes(&full, from.to, to.to)?;
        let segment = full.file_name().and_then(|name| segment_id(&name.to_string_lossy()));
        match segment {
            Some(segment) => check_groups(bytes, &full, image.log, segment, from.to, to),
            None => check_blocks(bytes, &full, from, to),
        }
        .map_err(Missed::Mismatch)
    }

    fn bytes(&self, path: &Path, from: u64, to: u64) -> Result<Vec<u8>, Missed> {
        let missed = |what: String| Missed::Mismatch(Mismatch::new(what, path, from));
        let file = self.options.vfs.open(path, OpenOptions::READ).map_err(|e| missed(e.to_string()))?;
        let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(0)];
        // The padding of a journal's last group may be missing.
        let have = file.len().map_err(io_error("reading", path))?.saturating_sub(from).min(bytes.len() as u64);
        let part = bytes.get_mut(..have as usize).unwrap_or_default();
        file.read_exact_at(part, from).map_err(|e| missed(e.to_string()))?;
        Ok(bytes)
    }

    /// A path below the log's directory, as images name it.
    fn name(&self, path: &Path) -> String {
        let parts = path.strip_prefix(&self.layout.dir).unwrap_or(path).iter();
        parts.map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
    }
}

/// The journal behind a checkpoint, as far as it was walked.
struct Tail {
    state: State,
    seq: u64,
    crc: u32,
    time_us: Option<i64>,
    files: Vec<ImageFile>,
}

impl Tail {
    fn behind(checkpoint: &Checkpoint) -> Self {
        let (state, seq, crc) = (checkpoint.state.clone(), checkpoint.seq, checkpoint.crc);
        Self { state, seq, crc, time_us: None, files: Vec::new() }
    }

    /// Takes the next group in; `false` where it does not follow.
    fn take(&mut self, group: &GroupAt) -> bool {
        if group.header.seq != self.seq + 1 || group.header.prev_crc != self.crc {
            return false;
        }
        for frame in &group.frames {
            // Only to count; what cannot follow is reported by whoever opens the log.
            drop(self.state.apply(frame));
        }
        (self.seq, self.crc, self.time_us) = (group.header.seq, group.crc, Some(group.header.time));
        true
    }

    fn add(&mut self, path: String, steps: Vec<Step>) {
        if !steps.is_empty() {
            self.files.push(ImageFile { path, steps });
        }
    }
}

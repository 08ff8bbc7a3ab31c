//! Segments made ready ahead of the writer, so that a sync has nothing but data to write, and the space for them.
//!
//! A thread writes zeros a little ahead of the writer and makes the next segment before it is needed, from a settled
//! one where there is any. It never holds the writer up for more than one such piece: a writer that is faster goes on
//! without, and the thread leaves it alone until it is slower.
//!
//! When there is no space, sources are refused; what is on its way through may fill the reserve, a file that was written
//! in better days. The thread looks for space until there is some again.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::layout::Layout;
use super::options::Options;
use super::segment::{Sealed, Segment};
use super::space::{Budget, Room};
use super::writer::{WriteError, is_no_space};
use crate::vfs::{File, OpenOptions, Vfs};

/// The most zeros written at once.
const PIECE_BYTES_MAX: u64 = 2 << 20;
/// How long a writer that was faster is left alone.
const PAUSE: Duration = Duration::from_millis(50);
/// How often to look for space.
const RETRY: Duration = Duration::from_millis(100);
/// The most settled segments kept for use again.
const SPARES_MAX: usize = 2;

/// Makes segments ready.
#[derive(Debug)]
pub(super) struct Preparer {
    vfs: Arc<dyn Vfs>,
    layout: Layout,
    segment_bytes: u64,
    reserve_bytes: u64,
    budget: Budget,
    ahead: bool,
    state: Mutex<State>,
    /// Wakes the thread.
    wanted: Condvar,
    /// Wakes a writer that waits for a piece.
    done: Condvar,
    settled_bytes: AtomicU64,
}

#[derive(Debug)]
struct Ready {
    segment: Arc<Segment>,
    /// Up to here it was written before.
    prepared: u64,
}

#[derive(Debug)]
struct State {
    next_id: u64,
    current: Ready,
    written: u64,
    /// A piece or a segment is being made ready; a piece from here on.
    busy: Option<Busy>,
    next: Option<Ready>,
    spares: Vec<PathBuf>,
    reserve: bool,
    overtaken: Option<Instant>,
    no_space: Option<String>,
    /// Why the settler cannot go on, while it finds no space.
    settling_full: Option<String>,
    sealed_bytes: u64,
    closing: bool,
    broken: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Busy {
    Piece { to: u64 },
    Next,
    Reserve,
}

impl Preparer {
    pub(super) fn new(options: &Options, layout: &Layout, current: Arc<Segment>, at: u64, sealed: u64) -> Self {
        let budget = Budget::of(options);
        let state = State {
            next_id: current.id + 1,
            current: Ready { segment: current, prepared: at },
            written: at,
            busy: None,
            next: None,
            spares: Vec::new(),
            reserve: false,
            overtaken: None,
            no_space: None,
            settling_full: None,
            sealed_bytes: sealed,
            closing: false,
            broken: None,
        };
        Self {
            vfs: options.vfs.clone(),
            layout: layout.clone(),
            segment_bytes: options.segment_len(),
            reserve_bytes: budget.reserve(options.reserve_bytes),
            budget,
            ahead: options.prepare_ahead,
            state: Mutex::new(state),
            wanted: Condvar::new(),
            done: Condvar::new(),
            settled_bytes: AtomicU64::new(0),
        }
    }

    /// Says how many bytes settled files have.
    pub(super) fn settled(&self, bytes: u64) {
        self.settled_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The bytes on the disk.
    pub(super) fn used(&self) -> u64 {
        self.used_by(&self.state.lock())
    }

    /// The bytes of segments that are written or were.
    pub(super) fn used_segments(&self) -> u64 {
        let state = self.state.lock();
        state.sealed_bytes + state.written
    }

    fn used_by(&self, state: &State) -> u64 {
        let reserve = if state.reserve { self.reserve_bytes } else { 0 };
        let spares = state.spares.len() as u64 * self.segment_bytes;
        let next = state.next.as_ref().map_or(0, |next| next.prepared);
        let journal = state.sealed_bytes + state.current.prepared + next + reserve + spares;
        journal + self.settled_bytes.load(Ordering::Relaxed)
    }

    fn budget(&self, state: &State, growth: u64) -> Result<(), String> {
        self.budget.allows(self.used_by(state), growth)
    }

    /// Says that the writer is about to write up to `end` of its segment.
    pub(super) fn claim(&self, end: u64) -> Result<(), String> {
        let mut state = self.state.lock();
        while matches!(state.busy, Some(Busy::Piece { .. })) && end > state.current.prepared {
            self.done.wait(&mut state);
        }
        let growth = end.saturating_sub(state.current.prepared);
        if growth > 0 {
            self.budget(&state, growth)?;
            state.current.prepared = end;
            state.overtaken = Some(Instant::now());
        }
        Ok(())
    }

    /// Says that the writer has written up to `end`.
    pub(super) fn written(&self, end: u64) {
        let mut state = self.state.lock();
        state.written = end;
        if self.job(&state).is_some() {
            self.wanted.notify_one();
        }
    }

    /// Why the thread could not go on, if it could not.
    pub(super) fn broken(&self) -> Option<String> {
        self.state.lock().broken.clone()
    }

    /// Who may write now. What is settled counts as well: a journal that uses its segments again does not grow.
    pub(super) fn room(&self) -> Room {
        let mut state = self.state.lock();
        if let Some(why) = state.no_space.as_ref().or(state.settling_full.as_ref()) {
            return Room::Reserve(why.clone());
        }
        if self.budget(&state, 1).is_err() {
            self.give_spares_back(&mut state);
        }
        self.budget(&state, 1).map_or_else(Room::Reserve, |()| Room::Plenty)
    }

    /// Says that settling found no space, or (`None`) that it finds some again. Until then sources are refused, and the
    /// segments that were kept for use again go; answers whether there were any, so that it is worth another attempt.
    pub(super) fn settling_full(&self, why: Option<String>) -> bool {
        let mut state = self.state.lock();
        state.settling_full = why;
        state.settling_full.is_some() && self.give_spares_back(&mut state)
    }

    /// Removes the segments that were kept for use again; answers whether there were any.
    fn give_spares_back(&self, state: &mut State) -> bool {
        let spares = std::mem::take(&mut state.spares);
        for path in &spares {
            // What stays behind is removed by the next opening.
            if let Err(error) = self.vfs.remove(path) {
                tracing::warn!(path = %path.display(), %error, "a segment that is not needed any more stays");
            }
        }
        !spares.is_empty()
    }

    /// The journal's segments that wait to be used again.
    pub(super) fn spares(&self) -> u64 {
        self.state.lock().spares.len() as u64
    }

    /// Says that a write found no space and was taken back; answers who may go on, in the next segment.
    pub(super) fn no_space(&self, why: &str) -> Room {
        let mut state = self.state.lock();
        state.no_space = Some(why.to_owned());
        self.wanted.notify_one();
        while state.busy.is_some() {
            self.done.wait(&mut state);
        }
        // Where the disk was full it was cut to what is written; where the budget was, it is as long as before.
        state.current.prepared = state.current.segment.file.len().unwrap_or(state.written).max(state.written);
        if !state.reserve {
            return Room::None;
        }
        state.reserve = false;
        match self.open_as_next(&mut state, &self.layout.reserve()) {
            Ok(ready) => {
                // An unused next segment has no more room than the disk; its number is given up.
                if let Some(unused) = state.next.replace(ready) {
                    self.spare_or_remove(&mut state, unused.segment.path.clone(), 0);
                }
                Room::Reserve(why.to_owned())
            }
            Err(_) => Room::None,
        }
    }

    fn open_as_next(&self, state: &mut State, from: &std::path::Path) -> io::Result<Ready> {
        let id = state.next_id;
        state.next_id += 1;
        let path = self.layout.segment(id);
        self.vfs.rename(from, &path)?;
        self.vfs.sync_dir(&self.layout.journal())?;
        let file = self.vfs.open(&path, OpenOptions::WRITE)?;
        let len = file.len()?;
        Ok(Ready { segment: Arc::new(Segment { id, path, file, capacity: len }), prepared: len })
    }

    /// The next segment, with room for a group of `min` bytes.
    pub(super) fn next_segment(&self, min: u64) -> Result<Arc<Segment>, WriteError> {
        let mut state = self.state.lock();
        while state.busy.is_some() {
            self.done.wait(&mut state);
        }
        if let Some(why) = &state.broken {
            return Err(WriteError::Broken(why.clone()));
        }
        let ready = match state.next.take() {
            Some(ready) if ready.segment.capacity >= min => ready,
            other => {
                if let Some(small) = other {
                    self.spare_or_remove(&mut state, small.segment.path.clone(), 0);
                }
                self.make(&mut state, min).map_err(|e| match is_no_space(&e) {
                    true => WriteError::NoSpace(e.to_string()),
                    false => WriteError::Broken(format!("making a segment: {e}")),
                })?
            }
        };
        let segment = ready.segment.clone();
        state.sealed_bytes += state.current.prepared;
        state.current = ready;
        state.written = 0;
        self.wanted.notify_one();
        Ok(segment)
    }

    /// Makes the next segment: a settled one, or an empty one.
    fn make(&self, state: &mut State, min: u64) -> io::Result<Ready> {
        if min <= self.segment_bytes
            && let Some(spare) = state.spares.pop()
        {
            return self.open_as_next(state, &spare);
        }
        let id = state.next_id;
        state.next_id += 1;
        let path = self.layout.segment(id);
        let file = self.vfs.open(&path, OpenOptions::TRUNCATE)?;
        self.vfs.sync_dir(&self.layout.journal())?;
        let capacity = self.segment_bytes.max(min);
        Ok(Ready { segment: Arc::new(Segment { id, path, file, capacity }), prepared: 0 })
    }

    /// Takes back a segment of which all is settled, and the checkpoint says so; answers the file where it is not needed
    /// again. Removing that takes a while, and the writer waits for whoever has the lock here.
    pub(super) fn recycle(&self, sealed: &Sealed) -> Option<PathBuf> {
        let len = sealed.segment.file.len().unwrap_or(sealed.end);
        let mut state = self.state.lock();
        state.sealed_bytes = state.sealed_bytes.saturating_sub(len);
        self.spare(&mut state, sealed.segment.path.clone(), len)
    }

    fn spare_or_remove(&self, state: &mut State, path: PathBuf, len: u64) {
        let Some(path) = self.spare(state, path, len) else { return };
        // What stays behind is removed by the next opening.
        if let Err(error) = self.vfs.remove(&path) {
            tracing::warn!(path = %path.display(), %error, "a segment that is not needed any more stays");
        }
    }

    /// Keeps a segment for use again; gives it back where it is not needed.
    fn spare(&self, state: &mut State, path: PathBuf, len: u64) -> Option<PathBuf> {
        let full = state.no_space.is_some() || state.settling_full.is_some() || self.budget(state, len).is_err();
        if self.ahead && len == self.segment_bytes && state.spares.len() < SPARES_MAX && !full {
            let id = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let spare = self.layout.spare(&id);
            if self.vfs.rename(&path, &spare).is_ok() {
                state.spares.push(spare);
                return None;
            }
        }
        Some(path)
    }

    fn job(&self, state: &State) -> Option<Busy> {
        let (prepared, capacity) = (state.current.prepared, state.current.segment.capacity);
        let piece = (capacity / 4).clamp(4096, PIECE_BYTES_MAX).min(state.written.max(256 << 10));
        let left_alone = state.overtaken.is_some_and(|at| at.elapsed() < PAUSE);
        if self.reserve_bytes > 0 && !state.reserve {
            return Some(Busy::Reserve);
        }
        if !self.ahead || left_alone {
            return None;
        }
        if prepared < capacity && prepared.saturating_sub(state.written) < piece {
            return Some(Busy::Piece { to: (prepared + piece).min(capacity) });
        }
        (state.next.is_none() && state.written > capacity / 2).then_some(Busy::Next)
    }

    /// The thread: works until [`Preparer::close`].
    pub(super) fn run(&self) {
        let mut state = self.state.lock();
        while !state.closing && state.broken.is_none() {
            let Some(job) = self.job(&state) else {
                if state.no_space.take().is_none() {
                    self.wanted.wait_for(&mut state, PAUSE * 20);
                }
                continue;
            };
            state.busy = Some(job);
            let result = self.work(&mut state, job);
            state.busy = None;
            self.done.notify_all();
            match result {
                Ok(()) => {
                    if state.reserve || self.reserve_bytes == 0 {
                        state.no_space = None;
                    }
                }
                Err(e) if is_no_space(&e) => {
                    state.no_space = Some(e.to_string());
                    self.wanted.wait_for(&mut state, RETRY);
                }
                Err(e) => state.broken = Some(format!("preparing the journal: {e}")),
            }
        }
    }

    fn work(&self, state: &mut parking_lot::MutexGuard<'_, State>, job: Busy) -> io::Result<()> {
        let full = |why: String| io::Error::new(io::ErrorKind::StorageFull, why);
        match job {
            Busy::Piece { to } => {
                let (file, from) = (state.current.segment.file.clone(), state.current.prepared);
                self.budget(state, to - from).map_err(full)?;
                parking_lot::MutexGuard::unlocked(state, || write_zeros(file.as_ref(), from, to))?;
                state.current.prepared = to;
            }
            Busy::Next => {
                let ready = self.make(state, 0)?;
                state.next = Some(ready);
            }
            Busy::Reserve => {
                self.budget(state, self.reserve_bytes).map_err(full)?;
                parking_lot::MutexGuard::unlocked(state, || self.make_reserve())?;
                state.reserve = true;
            }
        }
        Ok(())
    }

    fn make_reserve(&self) -> io::Result<()> {
        let path = self.layout.reserve();
        let made = self.vfs.open(&path, OpenOptions::TRUNCATE).and_then(|file| {
            write_zeros(file.as_ref(), 0, self.reserve_bytes)?;
            self.vfs.sync_dir(&self.layout.journal())
        });
        if made.is_err() {
            // A part of a reserve would only take the space that is missing.
            drop(self.vfs.remove(&path));
        }
        made
    }

    /// Whether the thread has done all that there is to do, or cannot.
    #[cfg(test)]
    pub(super) fn rests(&self) -> bool {
        let state = self.state.lock();
        let left_alone = state.overtaken.is_some_and(|at| at.elapsed() < PAUSE);
        state.no_space.is_some() || (state.busy.is_none() && !left_alone && self.job(&state).is_none())
    }

    /// Ends the thread.
    pub(super) fn close(&self) {
        self.state.lock().closing = true;
        self.wanted.notify_all();
    }
}

fn write_zeros(file: &dyn File, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; usize::try_from((to - from).min(PIECE_BYTES_MAX)).unwrap_or(0)];
    let mut at = from;
    while at < to {
        let n = (to - at).min(zeros.len() as u64);
        file.write_all_at(zeros.get(..n as usize).unwrap_or_default(), at)?;
        at += n;
    }
    file.sync_data()
}

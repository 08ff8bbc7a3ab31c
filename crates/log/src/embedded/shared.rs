//! What the callers' side and the threads of a log share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, RwLock};

use super::index::Topics;
use super::layout::Layout;
use super::options::Options;
use super::prepare::Preparer;
use super::segment::Sealed;
use super::space::Room;
use super::stage::Stage;
use crate::{Epoch, Groups, TaskId};

/// What is said after an orderly end.
pub(super) const CLOSED: &str = "the log is closed";
/// The most buffers kept for the next commits, and the largest that is kept.
const BUFFERS_MAX: usize = 32;
/// As many segments may wait to be settled before sources wait as well.
pub(super) const SEALED_MAX: usize = 8;
const BUFFER_BYTES_MAX: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) layout: Layout,
    pub(super) groups: Groups,
    pub(super) topics: RwLock<Topics>,
    pub(super) stage: Mutex<Stage>,
    /// Wakes the committer.
    pub(super) work: Condvar,
    pub(super) preparer: Preparer,
    /// Sealed segments that are not settled, oldest first.
    pub(super) sealed: Mutex<VecDeque<Sealed>>,
    /// Wakes the settler.
    pub(super) settle_now: Condvar,
    /// The settler waits, and no table is being compacted; only to be believed under the lock of `sealed`.
    pub(super) resting: AtomicBool,
    /// Set when the settler must end.
    pub(super) ending: AtomicBool,
    pub(super) counters: Counters,
    buffers: Mutex<Vec<Vec<u8>>>,
}

/// What was done since opening.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) groups: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) settled_bytes: AtomicU64,
    pub(super) compacted_bytes: AtomicU64,
    /// The last group.
    pub(super) group: AtomicU64,
}

impl Shared {
    pub(super) fn new(options: Options, layout: Layout, last: Epoch, topics: Topics, preparer: Preparer) -> Arc<Self> {
        Arc::new(Self {
            options,
            layout,
            groups: Groups::new(last),
            topics: RwLock::new(topics),
            stage: Mutex::default(),
            work: Condvar::new(),
            preparer,
            sealed: Mutex::default(),
            settle_now: Condvar::new(),
            resting: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            counters: Counters::default(),
            buffers: Mutex::default(),
        })
    }

    /// Whether a task's commits of this epoch are its owner's.
    pub(super) fn is_current(&self, task: &TaskId, epoch: Epoch) -> bool {
        #[cfg(any(test, feature = "sabotage"))]
        if self.options.broken(super::options::Sabotage::NoEpochCheck) {
            return true;
        }
        self.groups.is_current(task, epoch)
    }

    /// Whether so many segments wait to be settled that sources must wait: else the journal would grow, and the next opening
    /// would take longer, as long as events come faster than they are settled. Where there is no room they are refused
    /// instead.
    pub(super) fn settling_is_behind(&self) -> bool {
        self.sealed.lock().len() >= SEALED_MAX && self.preparer.room() == Room::Plenty
    }

    /// An empty buffer to encode into.
    pub(super) fn buffer(&self) -> Vec<u8> {
        self.buffers.lock().pop().unwrap_or_default()
    }

    /// Takes buffers back.
    pub(super) fn reuse(&self, back: impl Iterator<Item = Vec<u8>>) {
        let mut buffers = self.buffers.lock();
        for mut buffer in back {
            if buffers.len() < BUFFERS_MAX && buffer.capacity() <= BUFFER_BYTES_MAX {
                buffer.clear();
                buffers.push(buffer);
            }
        }
    }

    /// Stops accepting: whatever waits is answered.
    pub(super) fn stop(&self, why: &str) {
        let left = self.stage.lock().stop(why);
        let reason = crate::AbortReason::Stopped(why.to_owned());
        for waiting in left {
            // Nobody has to listen.
            drop(waiting.answer.send(crate::Outcome::Aborted(reason.clone())));
        }
        self.work.notify_all();
    }
}

pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

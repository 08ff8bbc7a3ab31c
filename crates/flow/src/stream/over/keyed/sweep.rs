//! Keys that are forgotten: far behind the watermark where frames are bounded by time, or behind their time to live.

use std::hash::BuildHasher;

use crate::stream::changes::Changes;
use crate::stream::over::keyed::Keyed;
use crate::stream::over::{EVENT, NEWEST, RUNNING};

/// How many keys are looked at for being forgotten when the watermark advances.
const SWEPT_AT_ONCE: usize = 4096;

impl Keyed {
    /// Forgets some keys that are so far behind the watermark that no event will ask for them, unless it is very late.
    pub(crate) fn sweep(&mut self, watermark: i64, changes: &mut Changes) {
        let ends = self.keep.rows == 0 && self.held == 0 && self.keep.micros.is_some();
        if !ends || watermark == i64::MAX {
            return;
        }
        self.settle_restored();
        let horizon = self.keep.horizon(watermark).saturating_sub(self.keep.slack);
        for _ in 0..SWEPT_AT_ONCE.min(self.entries.len()) {
            let slot = self.next_swept();
            let Some(entry) = self.entry(slot as u32) else { continue };
            if entry.history.newest().is_some_and(|newest| newest >= horizon) {
                continue;
            }
            self.let_go(slot, changes);
        }
    }

    /// The entry of a key for which an event of this time has come: a new one if the key has not lived on until then.
    pub(super) fn slot_at(&mut self, key: &[u8], time: i64, changes: &mut Changes) -> u32 {
        let mut slot = self.slot(key);
        if self.keep.ttl.is_none() {
            return slot;
        }
        if time > self.newest.0 {
            self.newest = (time, false);
        }
        if self.is_old(slot as usize) {
            self.let_go(slot as usize, changes);
            slot = self.slot(key);
        }
        if let Some(entry) = self.entries.get_mut(slot as usize).and_then(Option::as_mut) {
            entry.last = Some(time);
        }
        slot
    }

    /// Looks at some keys whether they have outlived their time. Nobody can see that they are gone.
    pub(super) fn sweep_old(&mut self, keys: usize, changes: &mut Changes) {
        if self.keep.ttl.is_none() {
            return;
        }
        for _ in 0..keys.min(self.entries.len()) {
            let slot = self.next_swept();
            if self.is_old(slot) {
                self.let_go(slot, changes);
            }
        }
    }

    /// Tells the changelog the newest time, if it has changed.
    pub(super) fn log_newest(&mut self, changes: &mut Changes) {
        if !self.newest.1 {
            changes.put(&[&[NEWEST]], &self.newest.0.to_le_bytes());
            self.newest.1 = true;
        }
    }

    fn is_old(&self, slot: usize) -> bool {
        let last = self.entry(slot as u32).and_then(|entry| entry.last);
        self.keep.ttl.zip(last).is_some_and(|(ttl, last)| last.saturating_add(ttl) < self.newest.0)
    }

    fn next_swept(&mut self) -> usize {
        let slot = self.swept;
        self.swept = if slot + 1 < self.entries.len() { slot + 1 } else { 0 };
        slot
    }

    /// Forgets a key.
    fn let_go(&mut self, slot: usize, changes: &mut Changes) {
        let Some(entry) = self.entries.get(slot).and_then(Option::as_ref) else { return };
        let kept = entry.history.range(&self.layout);
        if self.held > 0 {
            changes.delete(&[&entry.key, &[RUNNING]]);
        }
        for number in kept.clone() {
            changes.delete(&[&entry.key, &number.to_be_bytes(), &[EVENT]]);
        }
        self.rows -= (kept.end - kept.start) as usize;
        let hash = self.hasher.hash_one(&*entry.key);
        if let Ok(found) = self.index.find_entry(hash, |at| *at as usize == slot) {
            found.remove();
        }
        if let Some(place) = self.entries.get_mut(slot) {
            *place = None;
        }
        self.free.push(slot as u32);
    }
}

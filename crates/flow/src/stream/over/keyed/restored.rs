//! What a changelog had: rows may come in another order than that in which they were told.

use std::collections::BTreeSet;
use std::hash::BuildHasher;

use crate::stream::over::held::Held;
use crate::stream::over::keyed::{Keyed, summarise};

impl Keyed {
    /// Takes an event's change; `None` where it is not one.
    pub(crate) fn restore_event(&mut self, key: &[u8], value: Option<&[u8]>) -> Option<()> {
        let (key, number) = key.split_last_chunk::<8>()?;
        let number = u64::from_be_bytes(*number);
        let Some(row) = value else {
            self.restored.remove(&(Box::from(key), number));
            if let Some(entry) =
                self.find(key).and_then(|slot| self.entries.get_mut(slot as usize)).and_then(Option::as_mut)
            {
                let kept = entry.history.range(&self.layout);
                if kept.contains(&number) {
                    entry.history.forget(&self.layout, number + 1);
                    self.rows -= (number + 1 - kept.start) as usize;
                }
            }
            return Some(());
        };
        (row.len() >= self.layout.width).then_some(())?;
        let slot = self.slot(key);
        match self.entry(slot).map(|entry| entry.history.range(&self.layout)) {
            Some(kept) if kept.is_empty() || kept.end == number => self.append_restored(slot, number, row),
            _ => {
                self.restored.insert((key.into(), number), row.into());
            }
        }
        Some(())
    }

    /// Reads where an event's change will go.
    pub(crate) fn touch_event(&self, key: &[u8]) -> u8 {
        let found = key.split_last_chunk::<8>().and_then(|(key, _)| self.entry(self.find(key)?));
        found.map_or(0, |entry| entry.history.last_byte())
    }

    fn find(&self, key: &[u8]) -> Option<u32> {
        let same = |slot: &u32| self.entry(*slot).is_some_and(|entry| *entry.key == *key);
        self.index.find(self.hasher.hash_one(key), same).copied()
    }

    /// Takes the newest time; `None` where it is not that.
    pub(crate) fn restore_newest(&mut self, value: Option<&[u8]>) -> Option<()> {
        let time = value.map_or(Some(i64::MIN), |value| Some(i64::from_le_bytes(value.try_into().ok()?)))?;
        self.newest = (time, true);
        Some(())
    }

    /// Takes what unbounded frames of a key have added up; `None` where it is not that.
    pub(crate) fn restore_running(&mut self, key: &[u8], value: Option<&[u8]>) -> Option<()> {
        let slot = self.slot(key);
        let entry = self.entries.get_mut(slot as usize)?.as_mut()?;
        let Some(mut rest) = value else {
            entry.held.fill(Held::default());
            entry.last = None;
            return Some(());
        };
        if self.keep.ttl.is_some() {
            let (last, behind) = rest.split_first_chunk::<8>()?;
            entry.last = Some(i64::from_le_bytes(*last));
            rest = behind;
        }
        for held in &mut entry.held {
            (*held, rest) = Held::read(rest)?;
        }
        rest.is_empty().then_some(())
    }

    fn append_restored(&mut self, slot: u32, number: u64, row: &[u8]) {
        let Self { entries, layout, functions, summed, held, .. } = self;
        let Some(entry) = entries.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        if entry.history.len(layout) == 0 {
            entry.history.begin(number);
        }
        entry.history.append_written(layout, row);
        if *held == 0 {
            entry.last = row.first_chunk::<8>().map(|time| i64::from_le_bytes(*time));
        }
        self.rows += 1;
        if !summed.is_empty() {
            summarise(&mut entry.history, layout, functions, summed);
        }
    }

    /// Puts the restored rows that did not come in order where they belong.
    pub(super) fn settle_restored(&mut self) {
        if self.restored.is_empty() {
            return;
        }
        let mut whole = std::mem::take(&mut self.restored);
        let keys: BTreeSet<Box<[u8]>> = whole.keys().map(|(key, _)| key.clone()).collect();
        for key in keys {
            let slot = self.slot(&key);
            let Some(entry) = self.entries.get_mut(slot as usize).and_then(Option::as_mut) else { continue };
            let history = std::mem::take(&mut entry.history);
            let kept = history.range(&self.layout);
            self.rows -= (kept.end - kept.start) as usize;
            for number in kept {
                let mut row = Vec::new();
                history.row(&self.layout, number).write(&mut row);
                whole.insert((key.clone(), number), row.into());
            }
        }
        for ((key, number), row) in whole {
            let slot = self.slot(&key);
            self.append_restored(slot, number, &row);
        }
    }
}

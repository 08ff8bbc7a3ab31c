//! A file's bytes: as they read, as they are on the disk, and what lies between.

use std::collections::BTreeMap;

use super::rng::Rng;

/// What a disk writes whole.
const SECTOR: usize = 512;

/// Stands for a file, whatever its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Inode(pub(super) u64);

/// Zeros behind the end are not stored.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    current: Vec<u8>,
    durable: Vec<u8>,
    /// What each sector held after each write since the last sync, oldest first.
    pending: BTreeMap<usize, Vec<Vec<u8>>>,
    /// Lengths since the last sync.
    lengths: Vec<usize>,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.current.len() as u64
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.current.clone()
    }

    pub(super) fn read(&self, into: &mut [u8], offset: u64) -> usize {
        let rest = usize::try_from(offset).ok().and_then(|at| self.current.get(at..)).unwrap_or_default();
        let n = rest.len().min(into.len());
        into.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        n
    }

    pub(super) fn write(&mut self, from: &[u8], offset: u64) {
        let Ok(at) = usize::try_from(offset) else { return };
        let end = at + from.len();
        if end > self.current.len() {
            self.current.resize(end, 0);
            self.lengths.push(end);
        }
        if let Some(to) = self.current.get_mut(at..end) {
            to.copy_from_slice(from);
        }
        self.touch(at, end);
    }

    pub(super) fn set_len(&mut self, len: u64) {
        let Ok(len) = usize::try_from(len) else { return };
        let before = self.current.len();
        self.current.resize(len, 0);
        if len != before {
            self.lengths.push(len);
        }
        // What is cut off and comes back later comes back as zeros.
        self.touch(len, before);
    }

    /// Writes out what counts as dirty, and only that: what a failed sync lost stays lost.
    pub(super) fn sync(&mut self) {
        let beyond = self.pending.last_key_value().is_some_and(|(last, _)| last * SECTOR >= self.durable.len());
        if beyond || !self.lengths.is_empty() {
            self.durable.resize(self.current.len(), 0);
        }
        for sector in std::mem::take(&mut self.pending).into_keys() {
            let from = self.current.get(sector * SECTOR..).unwrap_or_default().iter().take(SECTOR);
            let to = self.durable.get_mut(sector * SECTOR..).unwrap_or_default();
            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        }
        self.lengths.clear();
    }

    /// Makes the disk hold what is read.
    pub(super) fn settle(&mut self) {
        self.durable.clone_from(&self.current);
        self.pending.clear();
        self.lengths.clear();
    }

    /// A sync that failed: some sectors made it, the others never will, and no later sync knows of them.
    pub(super) fn failed_sync(&mut self, rng: &mut Rng) {
        let odds = rng.odds();
        let partly = self.after_crash(rng, odds);
        self.durable = partly.durable;
        self.pending.clear();
        self.lengths.clear();
    }

    pub(super) fn flip(&mut self, at: u64, mask: u8) {
        let Ok(at) = usize::try_from(at) else { return };
        for bytes in [&mut self.current, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= mask;
            }
        }
    }

    /// What is left when the power goes; each unsynced write survives with `odds` per cent.
    pub(super) fn after_crash(&self, rng: &mut Rng, odds: u64) -> Self {
        let mut bytes = self.durable.clone();
        let new_len = self.lengths.last().filter(|_| rng.chance(odds));
        let longest = self.lengths.iter().copied().max().unwrap_or(0).max(bytes.len());
        let len = new_len.copied().unwrap_or(bytes.len());
        bytes.resize(longest, 0);
        for (sector, versions) in &self.pending {
            if !rng.chance(odds) {
                continue;
            }
            // Mostly the last write, sometimes one before it.
            let back = if rng.chance(80) { 0 } else { rng.below(versions.len() as u64) as usize };
            let version = versions.iter().rev().nth(back);
            let place = bytes.get_mut(sector * SECTOR..).unwrap_or_default();
            place.iter_mut().zip(version.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        }
        bytes.truncate(len);
        Self { current: bytes.clone(), durable: bytes, ..Self::default() }
    }

    /// Notes the sectors that hold the bytes from `at` to `end` as written.
    fn touch(&mut self, at: usize, end: usize) {
        if end <= at {
            return;
        }
        for sector in at / SECTOR..end.div_ceil(SECTOR) {
            let from = (sector * SECTOR).min(self.current.len());
            let to = (from + SECTOR).min(self.current.len());
            let mut bytes = self.current.get(from..to).unwrap_or_default().to_vec();
            bytes.resize(SECTOR, 0);
            self.pending.entry(sector).or_default().push(bytes);
        }
    }
}

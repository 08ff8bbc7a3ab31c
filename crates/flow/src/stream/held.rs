//! Rows that a join holds: by time, in the order of their arrival, and by key.
//!
//! A row is bytes: a flag, the length of the key, the key and the columns. These bytes are also what the changelog has, so
//! that a row is put together once. Its name there is `time, number`; numbers grow in the order of arrival.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;

use crate::stream::changes::Changes;
use crate::stream::operator::Broken;
use crate::stream::window_aggregate::{time_key, time_of};

/// Rows by time and by key.
#[derive(Debug, Default)]
pub(crate) struct Held {
    slots: Vec<Slot>,
    free: Vec<u32>,
    times: BTreeMap<(i64, u64), u32>,
    keys: HashMap<Box<[u8]>, VecDeque<Place>, foldhash::fast::FixedState>,
    next: u64,
    bytes: usize,
}

/// A row's time, its number and its slot.
type Place = (i64, u64, u32);

/// A row.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    time: i64,
    number: u64,
    bytes: Box<[u8]>,
}

/// The flag and the length of the key.
const HEAD_BYTES: usize = 5;

/// What a row takes beside its bytes: the slot, its places by time and by key.
const ROW_OVERHEAD_BYTES: usize = 120;

impl Slot {
    /// The time.
    pub(crate) fn time(&self) -> i64 {
        self.time
    }

    /// The flag.
    pub(crate) fn flag(&self) -> u8 {
        self.bytes.first().copied().unwrap_or_default()
    }

    /// The key.
    pub(crate) fn key(&self) -> &[u8] {
        self.split().map_or(&[], |(key, _)| key)
    }

    /// The columns.
    pub(crate) fn row(&self) -> &[u8] {
        self.split().map_or(&[], |(_, row)| row)
    }

    fn split(&self) -> Option<(&[u8], &[u8])> {
        split_held(&self.bytes).map(|(_, key, row)| (key, row))
    }
}

/// The flag, the key and the columns of a row's bytes.
pub(crate) fn split_held(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (flag, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (key, row) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((*flag, key, row))
}

impl Held {
    /// Takes a row in, and tells the changelog under `prefix`.
    pub(crate) fn insert(&mut self, time: i64, flag: u8, key: &[u8], row: &[u8], prefix: u8, changes: &mut Changes) {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + key.len() + row.len());
        bytes.push(flag);
        bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(row);
        let number = self.next;
        changes.put(&[&[prefix], &time_key(time), &number.to_be_bytes()], &bytes);
        self.place(Slot { time, number, bytes: bytes.into() });
    }

    fn place(&mut self, slot: Slot) {
        let (time, number) = (slot.time, slot.number);
        self.next = self.next.max(number + 1);
        self.bytes += slot.bytes.len() + ROW_OVERHEAD_BYTES;
        let at = self.free.pop().unwrap_or(self.slots.len() as u32);
        let place = (time, number, at);
        match self.keys.get_mut(slot.key()) {
            Some(places) => match places.back().is_none_or(|last| *last < place) {
                true => places.push_back(place),
                false => places.insert(places.partition_point(|before| *before < place), place),
            },
            None => {
                self.keys.insert(slot.key().into(), VecDeque::from([place]));
            }
        }
        self.times.insert((time, number), at);
        match self.slots.get_mut(at as usize) {
            Some(free) => *free = slot,
            None => self.slots.push(slot),
        }
    }

    /// Lets a row go and tells the changelog.
    pub(crate) fn remove(&mut self, at: u32, prefix: u8, changes: &mut Changes) -> Option<Slot> {
        let slot = self.slots.get(at as usize)?;
        changes.delete(&[&[prefix], &time_key(slot.time), &slot.number.to_be_bytes()]);
        self.forget(slot.time, slot.number)
    }

    fn forget(&mut self, time: i64, number: u64) -> Option<Slot> {
        let at = self.times.remove(&(time, number))?;
        let slot = std::mem::take(self.slots.get_mut(at as usize)?);
        self.free.push(at);
        self.bytes -= slot.bytes.len() + ROW_OVERHEAD_BYTES;
        if let Some(places) = self.keys.get_mut(slot.key()) {
            match places.front() == Some(&(time, number, at)) {
                true => drop(places.pop_front()),
                false => places.retain(|place| *place != (time, number, at)),
            }
            if places.is_empty() {
                self.keys.remove(slot.key());
            }
        }
        Some(slot)
    }

    /// Takes a change that was told before, without its prefix.
    pub(crate) fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Broken> {
        let broken = || Broken("a join's state has another form than this version's".into());
        let (time, number) = time_of(key).ok_or_else(broken)?;
        let number = u64::from_be_bytes(number.try_into().map_err(|_| broken())?);
        self.forget(time, number);
        if let Some(bytes) = value {
            let slot = Slot { time, number, bytes: bytes.into() };
            slot.split().ok_or_else(broken)?;
            self.place(slot);
        }
        Ok(())
    }

    /// The rows of a key from one time to another, both included, by time and arrival.
    pub(crate) fn find(&self, key: &[u8], from: i64, to: i64) -> impl Iterator<Item = u32> {
        let places = self.keys.get(key);
        let first = places.map_or(0, |places| places.partition_point(|(time, ..)| *time < from));
        let rest = places.into_iter().flat_map(move |places| places.iter().skip(first));
        rest.take_while(move |(time, ..)| *time <= to).map(|(.., at)| *at)
    }

    /// The last row of a key at or before a time.
    pub(crate) fn last(&self, key: &[u8], to: i64) -> Option<u32> {
        let places = self.keys.get(key)?;
        let behind = places.partition_point(|(time, ..)| *time <= to);
        places.get(behind.checked_sub(1)?).map(|(.., at)| *at)
    }

    /// The row with the least time, the first of these to arrive: its time and place.
    pub(crate) fn first(&self) -> Option<(i64, u32)> {
        self.times.first_key_value().map(|((time, _), at)| (*time, *at))
    }

    /// The rows with times above `from` up to `to`, by time and arrival.
    pub(crate) fn between(&self, from: i64, to: i64) -> Vec<u32> {
        if from >= to {
            return Vec::new();
        }
        self.times.range((from, u64::MAX)..=(to, u64::MAX)).map(|(_, at)| *at).collect()
    }

    /// Sets the flag of a row, if it is not set, and tells the changelog.
    pub(crate) fn mark(&mut self, at: u32, flag: u8, prefix: u8, changes: &mut Changes) {
        let Some(slot) = self.slots.get_mut(at as usize) else { return };
        let Some(first) = slot.bytes.first_mut().filter(|first| **first != flag) else { return };
        *first = flag;
        changes.put(&[&[prefix], &time_key(slot.time), &slot.number.to_be_bytes()], &slot.bytes);
    }

    /// The flag of a row.
    pub(crate) fn flag(&self, at: u32) -> u8 {
        self.slots.get(at as usize).map_or(0, Slot::flag)
    }

    /// The key of a row.
    pub(crate) fn key(&self, at: u32) -> &[u8] {
        self.slots.get(at as usize).map_or(&[], Slot::key)
    }

    /// The columns of a row.
    pub(crate) fn row(&self, at: u32) -> &[u8] {
        self.slots.get(at as usize).map_or(&[], Slot::row)
    }

    /// The time of a row.
    pub(crate) fn time(&self, at: u32) -> i64 {
        self.slots.get(at as usize).map_or(i64::MIN, |slot| slot.time)
    }

    /// How many rows, and about how many bytes they take.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.times.len(), self.bytes)
    }
}

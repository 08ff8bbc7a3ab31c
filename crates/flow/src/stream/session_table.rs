//! Sessions by key, and by when they may end.
//!
//! A session has a slot. The slots of a key are a chain; a heap has one entry for each session, with its end when the entry
//! was made. Ends only grow, so an entry that comes up too early goes back with the end that the session has then.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::BuildHasher;

use hashbrown::hash_table::{Entry, HashTable};

/// The slot of no session.
pub(crate) const NO_SLOT: u32 = u32::MAX;

/// One session. It holds its start and not its end.
#[derive(Debug)]
pub(crate) struct Session {
    /// The key, then the states of the aggregates.
    bytes: Box<[u8]>,
    key: u32,
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// The end in the heap's entry that counts.
    timer: i64,
    /// The next slot of the same key.
    next: u32,
    live: bool,
}

impl Session {
    fn split(&self) -> (&[u8], &[u8]) {
        self.bytes.split_at_checked(self.key as usize).unwrap_or_default()
    }

    /// The key.
    pub(crate) fn key(&self) -> &[u8] {
        self.split().0
    }

    /// The states of the aggregates.
    pub(crate) fn state(&self) -> &[u8] {
        self.split().1
    }
}

fn joined(key: &[u8], state: &[u8]) -> Box<[u8]> {
    let mut bytes = Vec::with_capacity(key.len() + state.len());
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(state);
    bytes.into()
}

/// What a session takes beside its bytes: the slot, the heap's entry, the control byte and the allocator's share.
const SESSION_OVERHEAD_BYTES: usize = 96;

/// All sessions that are open.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    slots: Vec<Session>,
    free: Vec<u32>,
    /// The first slot of each key.
    heads: HashTable<u32>,
    timers: BinaryHeap<Reverse<(i64, u32)>>,
    hasher: foldhash::fast::FixedState,
    live: usize,
    bytes: usize,
}

impl Sessions {
    /// The session of a slot.
    pub(crate) fn get(&self, slot: u32) -> Option<&Session> {
        self.slots.get(slot as usize).filter(|session| session.live)
    }

    /// The slots of a key, in no order.
    pub(crate) fn of_key<'a>(&'a self, key: &[u8]) -> impl Iterator<Item = u32> + 'a {
        let hash = self.hasher.hash_one(key);
        let head = self.heads.find(hash, |slot| self.get(*slot).is_some_and(|s| s.key() == key)).copied();
        std::iter::successors(head, |slot| self.get(*slot).map(|s| s.next).filter(|next| *next != NO_SLOT))
    }

    /// Adds a session.
    pub(crate) fn add(&mut self, key: &[u8], start: i64, end: i64, state: &[u8]) {
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        let hash = self.hasher.hash_one(key);
        let (slots, hasher) = (&self.slots, &self.hasher);
        let key_of = |slot: &u32| slots.get(*slot as usize).map(Session::key).unwrap_or_default();
        let next = match self.heads.entry(hash, |head| key_of(head) == key, |head| hasher.hash_one(key_of(head))) {
            Entry::Occupied(mut head) => std::mem::replace(head.get_mut(), slot),
            Entry::Vacant(free) => {
                free.insert(slot);
                NO_SLOT
            }
        };
        let session =
            Session { bytes: joined(key, state), key: key.len() as u32, start, end, timer: end, next, live: true };
        self.bytes += session.bytes.len() + SESSION_OVERHEAD_BYTES;
        self.live += 1;
        match self.slots.get_mut(slot as usize) {
            Some(free) => *free = session,
            None => self.slots.push(session),
        }
        self.timers.push(Reverse((end, slot)));
    }

    /// Gives a session other ends and another state.
    pub(crate) fn set(&mut self, slot: u32, start: i64, end: i64, state: &[u8]) {
        let Some(session) = self.slots.get_mut(slot as usize).filter(|session| session.live) else { return };
        (session.start, session.end) = (start, end);
        let place = session.key as usize;
        match session.bytes.get_mut(place..) {
            Some(old) if old.len() == state.len() => old.copy_from_slice(state),
            _ => {
                let bytes = joined(session.key(), state);
                self.bytes = self.bytes + bytes.len() - session.bytes.len();
                session.bytes = bytes;
            }
        }
    }

    /// Removes a session.
    pub(crate) fn remove(&mut self, slot: u32) {
        let slots = &self.slots;
        let Some(session) = slots.get(slot as usize).filter(|session| session.live) else { return };
        let (key, next) = (session.key(), session.next);
        let hash = self.hasher.hash_one(key);
        self.live -= 1;
        self.bytes -= session.bytes.len() + SESSION_OVERHEAD_BYTES;
        let same = |head: &u32| slots.get(*head as usize).is_some_and(|s| s.key() == key);
        let mut before = NO_SLOT;
        if let Ok(mut head) = self.heads.find_entry(hash, same) {
            match (*head.get() == slot, next) {
                (true, NO_SLOT) => {
                    head.remove();
                }
                (true, next) => *head.get_mut() = next,
                (false, _) => {
                    before = *head.get();
                    while let Some(next) = slots.get(before as usize).map(|s| s.next).filter(|next| *next != slot) {
                        before = next;
                    }
                }
            }
        }
        if let Some(before) = self.slots.get_mut(before as usize) {
            before.next = next;
        }
        if let Some(session) = self.slots.get_mut(slot as usize) {
            session.live = false;
            session.bytes = Box::default();
        }
        self.free.push(slot);
    }

    /// The slots of all sessions that end at or before `watermark`; they are to be removed.
    pub(crate) fn ended(&mut self, watermark: i64) -> Vec<u32> {
        let mut ended = Vec::new();
        while let Some(Reverse((timer, slot))) = self.timers.peek().copied().filter(|t| t.0.0 <= watermark) {
            self.timers.pop();
            let Some(session) = self.slots.get_mut(slot as usize).filter(|s| s.live && s.timer == timer) else {
                continue;
            };
            if session.end <= watermark {
                // Another entry for this slot may be left from a session that had it before.
                session.timer = i64::MIN;
                ended.push(slot);
            } else {
                session.timer = session.end;
                self.timers.push(Reverse((session.end, slot)));
            }
        }
        ended
    }

    /// How many sessions there are.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// About how many bytes they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

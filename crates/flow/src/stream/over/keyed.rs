//! The histories of all keys, and what unbounded frames have added up.

mod restored;
mod results;
mod sweep;

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use arrow_array::Array;
use hashbrown::hash_table::{Entry as Found, HashTable};

use crate::stream::changes::Changes;
use crate::stream::over::columns::Results;
use crate::stream::over::function::{Frame, Function, Part, What, fold};
use crate::stream::over::held::Held;
use crate::stream::over::history::{History, Layout};
use crate::stream::over::summary::{Acc, Level};
use crate::stream::over::{EVENT, RUNNING, Rows};

/// What of a key's past is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    /// So many of the last rows.
    pub(crate) rows: u64,
    /// And those not longer before the newest, in microseconds.
    pub(crate) micros: Option<i64>,
    /// And so much longer.
    pub(crate) slack: i64,
    /// Nothing, where the newest event of all is so much later than the key's last one.
    pub(crate) ttl: Option<i64>,
}

impl Keep {
    /// The time before which rows are in no RANGE any more.
    fn horizon(&self, newest: i64) -> i64 {
        self.micros.map_or(i64::MAX, |micros| newest.saturating_sub(micros).saturating_sub(self.slack))
    }
}

/// A key and the number of one of its rows.
type Place = (Box<[u8]>, u64);

#[derive(Debug)]
struct Entry {
    key: Box<[u8]>,
    history: History,
    held: Box<[Held]>,
    /// Whether `held` changed in this batch.
    dirty: bool,
    /// The time of the last event that came.
    last: Option<i64>,
}

/// All keys.
pub(crate) struct Keyed {
    layout: Layout,
    functions: Vec<Function>,
    keep: Keep,
    by_time: bool,
    /// The different bounded frames, and which one each function has; or its number among the unbounded ones.
    frames: Vec<Frame>,
    uses: Vec<Use>,
    /// The functions that blocks add up, by their place there.
    summed: Vec<usize>,
    held: usize,
    index: HashTable<u32>,
    hasher: foldhash::fast::FixedState,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    swept: usize,
    /// The newest time of all events, and whether the changelog knows it.
    newest: (i64, bool),
    rows: usize,
    /// Restored rows that came before an earlier one.
    restored: BTreeMap<Place, Box<[u8]>>,
    scratch: Scratch,
}

/// Where a function gets its rows from.
#[derive(Debug, Clone, Copy)]
enum Use {
    /// A bounded frame, and its place in blocks.
    Frame(usize, usize),
    /// What is held.
    Held(usize),
    /// The history itself.
    History,
}

#[derive(Default)]
struct Scratch {
    row: Vec<u8>,
    parts: Vec<Vec<Part>>,
    distinct: Vec<u64>,
    /// The entries and numbers of the rows of a run.
    run: Vec<(u32, u64)>,
    dirty: Vec<u32>,
}

impl Keyed {
    pub(crate) fn new(layout: Layout, functions: Vec<Function>, mut keep: Keep, by_time: bool) -> Self {
        let mut frames: Vec<Frame> = Vec::new();
        let (mut uses, mut summed, mut held) = (Vec::new(), Vec::new(), 0);
        for (number, function) in functions.iter().enumerate() {
            uses.push(match (function.frame, &function.what) {
                (_, What::Lag { .. }) => Use::History,
                (Frame::Running { before: false, .. }, What::Last) => Use::History,
                (Frame::Running { .. }, _) => {
                    held += 1;
                    Use::Held(held - 1)
                }
                (frame, what) => {
                    let known = frames.iter().position(|f| *f == frame);
                    let at = known.unwrap_or_else(|| {
                        frames.push(frame);
                        frames.len() - 1
                    });
                    let place = summed.len();
                    if what.adds_up() {
                        summed.push(number);
                    }
                    Use::Frame(at, place)
                }
            });
        }
        if keep.ttl.is_some() && held == 0 {
            // Of the last row one knows when the key was seen last.
            keep.rows = keep.rows.max(1);
        }
        let scratch = Scratch { parts: frames.iter().map(|_| Vec::new()).collect(), ..Scratch::default() };
        Self {
            layout,
            functions,
            keep,
            by_time,
            frames,
            uses,
            summed,
            held,
            index: HashTable::new(),
            hasher: foldhash::fast::FixedState::default(),
            entries: Vec::new(),
            free: Vec::new(),
            swept: 0,
            newest: (i64::MIN, true),
            rows: 0,
            restored: BTreeMap::new(),
            scratch,
        }
    }

    /// Answers rows in their order: a result of each function for each row.
    pub(crate) fn answer(&mut self, rows: &Rows<'_>, results: &mut [Results], changes: &mut Changes) {
        self.settle_restored();
        let mut scratch = std::mem::take(&mut self.scratch);
        let times = rows.times;
        let mut row = 0;
        while row < times.len() {
            if times.is_null(row) {
                self.answer_without_time(results);
                row += 1;
                continue;
            }
            let time = times.value(row);
            let mut next = row + 1;
            while self.by_time && next < times.len() && times.value(next) == time {
                next += 1;
            }
            self.run(rows, row..next, time, results, changes, &mut scratch);
            row = next;
        }
        self.log_held(&mut scratch, changes);
        self.scratch = scratch;
        self.log_newest(changes);
        self.sweep_old(rows.times.len().saturating_mul(2).saturating_add(SWEPT_MIN), changes);
    }

    /// Rows of one time: all are added before the first is answered.
    fn run(
        &mut self,
        rows: &Rows<'_>,
        range: std::ops::Range<usize>,
        time: i64,
        results: &mut [Results],
        changes: &mut Changes,
        scratch: &mut Scratch,
    ) {
        scratch.run.clear();
        for row in range.clone() {
            let slot = self.slot_at(rows.keys.key(row), time, changes);
            let newest = self.entry(slot).and_then(|e| e.history.newest());
            self.forget(slot, newest.map_or(time, |newest| newest.max(time)), u64::MAX, changes);
            scratch.run.push((slot, 0));
        }
        for (row, (slot, number)) in range.clone().zip(&mut scratch.run) {
            *number = self.append(*slot, rows, row, time, &mut scratch.row);
        }
        for at in 0..scratch.run.len() {
            let Some(&(slot, number)) = scratch.run.get(at) else { continue };
            self.results(slot, number, time, results, scratch);
        }
        for (slot, number) in &scratch.run {
            let newest = self.entry(*slot).and_then(|e| e.history.newest()).unwrap_or(time);
            self.forget(*slot, newest, *number, changes);
            let Some(entry) = self.entries.get(*slot as usize).and_then(Option::as_ref) else { continue };
            if entry.history.range(&self.layout).contains(number) {
                entry.history.row(&self.layout, *number).write(&mut scratch.row);
                changes.put(&[&entry.key, &number.to_be_bytes(), &[EVENT]], &scratch.row);
            }
            if self.held > 0
                && let Some(entry) = self.entries.get_mut(*slot as usize).and_then(Option::as_mut)
                && !std::mem::replace(&mut entry.dirty, true)
            {
                scratch.dirty.push(*slot);
            }
        }
    }

    fn entry(&self, slot: u32) -> Option<&Entry> {
        self.entries.get(slot as usize).and_then(Option::as_ref)
    }

    /// The entry of a key; a new one if there is none.
    fn slot(&mut self, key: &[u8]) -> u32 {
        let Self { index, entries, hasher, free, held, .. } = self;
        let key_of = |slot: u32| entries.get(slot as usize).and_then(Option::as_ref).map_or(&[][..], |e| &e.key);
        let hash = hasher.hash_one(key);
        let place = match index.entry(hash, |slot| key_of(*slot) == key, |slot| hasher.hash_one(key_of(*slot))) {
            Found::Occupied(found) => return *found.get(),
            Found::Vacant(place) => place,
        };
        let slot = free.pop().unwrap_or(entries.len() as u32);
        place.insert(slot);
        let held = vec![Held::default(); *held].into();
        let entry = Some(Entry { key: key.into(), history: History::default(), held, dirty: false, last: None });
        match entries.get_mut(slot as usize) {
            Some(place) => *place = entry,
            None => entries.push(entry),
        }
        slot
    }

    fn append(&mut self, slot: u32, rows: &Rows<'_>, row: usize, time: i64, bytes: &mut Vec<u8>) -> u64 {
        let Self { entries, layout, functions, summed, .. } = self;
        let Some(entry) = entries.get_mut(slot as usize).and_then(Option::as_mut) else { return 0 };
        bytes.clear();
        bytes.extend_from_slice(&time.to_le_bytes());
        for columns in rows.columns.chunks(8) {
            let bits = columns.iter().enumerate().map(|(bit, column)| u8::from(column.is_null(row)) << bit);
            bytes.push(bits.fold(0, |all, bit| all | bit));
        }
        rows.columns.iter().for_each(|column| column.write(row, bytes));
        entry.history.append(layout, bytes, |column| rows.columns.get(column).and_then(|c| c.bytes(row)));
        self.rows += 1;
        if !summed.is_empty() {
            summarise(&mut entry.history, layout, functions, summed);
        }
        let number = entry.history.range(layout).end - 1;
        for (held, function) in held_of(&mut entry.held, &self.uses, functions) {
            if let Frame::Running { peers: true, .. } = function.frame {
                held.add(function, (&entry.history, layout), number);
            }
        }
        number
    }

    /// Lets go of rows that no later row's frame has, and tells those that were told of: with numbers before `told`.
    fn forget(&mut self, slot: u32, newest: i64, told: u64, changes: &mut Changes) {
        let Self { entries, layout, keep, .. } = self;
        let Some(entry) = entries.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let kept = entry.history.range(layout);
        let last = kept.end.saturating_sub(keep.rows);
        let horizon = keep.horizon(newest);
        let mut first = kept.start;
        while first < last.min(kept.end) && entry.history.row(layout, first).time() < horizon {
            if first < told {
                changes.delete(&[&entry.key, &first.to_be_bytes(), &[EVENT]]);
            }
            first += 1;
        }
        self.rows -= (first - kept.start) as usize;
        entry.history.forget(layout, first);
    }

    fn log_held(&mut self, scratch: &mut Scratch, changes: &mut Changes) {
        for slot in scratch.dirty.drain(..) {
            let Some(entry) = self.entries.get_mut(slot as usize).and_then(Option::as_mut) else { continue };
            entry.dirty = false;
            scratch.row.clear();
            if self.keep.ttl.is_some() {
                scratch.row.extend_from_slice(&entry.last.unwrap_or(i64::MIN).to_le_bytes());
            }
            entry.held.iter().for_each(|held| held.write(&mut scratch.row));
            changes.put(&[&entry.key, &[RUNNING]], &scratch.row);
        }
    }

    /// How many rows it keeps, and about how many bytes they take.
    pub(crate) fn size(&self) -> (usize, usize) {
        let entries = self.entries.iter().flatten();
        let own = |e: &Entry| {
            e.key.len() + e.history.bytes() + e.held.len() * size_of::<Held>() + size_of::<Entry>() + KEY_OVERHEAD_BYTES
        };
        let waiting: usize = self.restored.values().map(|row| row.len()).sum();
        (self.rows + self.restored.len(), entries.map(own).sum::<usize>() + waiting)
    }
}

/// How many keys are looked at for being forgotten with each batch, beside two for each of its events.
const SWEPT_MIN: usize = 16;

/// What a key takes beside its entry: its place in the index and the allocator's share.
const KEY_OVERHEAD_BYTES: usize = 40;

/// The functions with something held, with it.
fn held_of<'e>(
    held: &'e mut [Held],
    uses: &'e [Use],
    functions: &'e [Function],
) -> impl Iterator<Item = (&'e mut Held, &'e Function)> {
    let of = uses.iter().zip(functions).filter(|(used, _)| matches!(used, Use::Held(_)));
    held.iter_mut().zip(of.map(|(_, function)| function))
}

/// Adds up blocks that are whole.
fn summarise(history: &mut History, layout: &Layout, functions: &[Function], summed: &[usize]) {
    let times = |parts: &mut dyn Iterator<Item = (i64, i64)>| {
        parts.fold((i64::MAX, i64::MIN), |(least, most), (from, to)| (least.min(from), most.max(to)))
    };
    let all = || summed.iter().filter_map(|number| functions.get(*number)).enumerate();
    let fold_rows = |history: &History, rows: std::ops::Range<u64>, accs: &mut Vec<Acc>| {
        let mut parts = Vec::new();
        for number in rows.clone() {
            parts.push(Part::row(number));
        }
        accs.extend(all().map(|(place, function)| fold((history, layout), function, place, &parts)));
        times(&mut rows.map(|number| history.row(layout, number).time()).map(|time| (time, time)))
    };
    let merge = |history: &History, level: Level, rows: std::ops::Range<u64>, accs: &mut Vec<Acc>| {
        let starts = || rows.clone().step_by(level.rows() as usize);
        let parts: Vec<Part> = starts().map(|number| Part::block(number, level)).collect();
        accs.extend(all().map(|(place, function)| fold((history, layout), function, place, &parts)));
        times(&mut starts().filter_map(|number| Some(history.blocks().get(level, number)?.times)))
    };
    history.summarise(layout, fold_rows, merge);
}

//! A fold at work on one partition of its input.
//!
//! State: the key has the bytes of the state row ([`StatePlan::encode`]); a key whose state is the initial one has none.
//! With a timer a row of its own ([`HEARD`]) has the greatest event time heard and whether the end was concluded.
//!
//! At the end of time timers run up to the greatest time heard and then once more each, so that a timer that always sets
//! itself again ends; after that they rest until an event comes.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow_select::take::take_record_batch;
use millstream_event::{Name, Stamp};

use crate::fold::given::Given;
use crate::fold::program::{Frame, HoistedColumns, event_side};
use crate::fold::rounds::{Member, round, stamps};
use crate::fold::run::{Verdict, one};
use crate::fold::state::Slots;
use crate::fold::{Fold, Timer};
use crate::lookup::LookupSet;
use crate::ops::batch_of;
use crate::outcome::Failed;
use crate::stream::{Broken, ChangeRows, Changes, Derived, Groups, Keys, RowTable, Step, text_of_row};

/// Rounds of fewer rows are taken row by row.
const ROUND_ROWS_MIN: usize = 8;
/// The most timers that run together.
const TIMERS_PER_BATCH: usize = 8192;
/// Timers run in slices of time, of which this is the first; the next are longer where few timers are due, and shorter
/// where many are.
const SLICE_US: i64 = 1_000_000;
/// The longest slice.
const SLICE_US_MAX: i64 = 86_400_000_000;
/// The changelog's key of what was heard.
const HEARD: [u8; 1] = [1];
/// What a timer takes beside its key.
const TIMER_BYTES: usize = 32;

/// A fold at work. Not shared: each task has its own.
pub struct Folding {
    fold: Arc<Fold>,
    keys: Keys,
    rows: RowTable,
    timers: Timers,
    changes: Changes,
    /// The greatest watermark so far, but for the end of time.
    watermark: i64,
    /// Where there is a timer: the greatest event time so far.
    heard: Option<i64>,
    /// Nothing has come since the end of time was concluded.
    ended: bool,
    slice_us: i64,
    ways: Ways,
}

/// Which way batches are run.
#[derive(Debug, Clone, Copy)]
struct Ways {
    events_by_row: bool,
    timers_by_row: bool,
    round_rows_min: usize,
}

/// The times at which keys are due.
#[derive(Debug, Default)]
struct Timers {
    due: BTreeSet<(i64, Box<[u8]>)>,
    bytes: usize,
}

impl Timers {
    /// The time of a key was `before` and is `after`.
    fn set(&mut self, key: &[u8], before: Option<i64>, after: Option<i64>) {
        if before == after {
            return;
        }
        if let Some(time) = before
            && self.due.remove(&(time, key.into()))
        {
            self.bytes -= key.len() + TIMER_BYTES;
        }
        if let Some(time) = after
            && self.due.insert((time, key.into()))
        {
            self.bytes += key.len() + TIMER_BYTES;
        }
    }

    /// When the first is due.
    fn first(&self) -> Option<i64> {
        self.due.first().map(|(time, _)| *time)
    }

    /// The keys that are due at a time, the earliest first.
    fn take(&mut self, watermark: i64, most: usize) -> Vec<(i64, Box<[u8]>)> {
        let mut taken = Vec::new();
        while taken.len() < most && self.due.first().is_some_and(|(time, _)| *time <= watermark) {
            if let Some((time, key)) = self.due.pop_first() {
                self.bytes -= key.len() + TIMER_BYTES;
                taken.push((time, key));
            }
        }
        taken
    }
}

/// The rows of a push that are folded.
struct Arrived {
    rows: RecordBatch,
    /// Where they stood in what was pushed.
    from: Option<Vec<u32>>,
    /// Their event times, where there is a timer.
    times: Vec<i64>,
}

/// What timers did, in the order in which they ran.
struct Ran {
    given: Given,
    due: Vec<(i64, Box<[u8]>)>,
    derived: Vec<(u32, Derived)>,
}

impl Ran {
    /// Gives it out by the timers' times.
    fn finish(mut self, step: &mut Step) -> Result<(), Broken> {
        let mut sorted: Vec<u32> = (0..self.due.len() as u32).collect();
        sorted.sort_unstable_by_key(|at| self.due.get(*at as usize));
        let mut ranks = vec![0; self.due.len()];
        for (rank, at) in (0_u32..).zip(sorted) {
            ranks.iter_mut().skip(at as usize).take(1).for_each(|place| *place = rank);
        }
        let rank = |at: u32| ranks.get(at as usize).copied().unwrap_or(at);
        self.derived.sort_by_key(|(at, _)| rank(*at));
        step.derived = self.derived.into_iter().map(|(_, derived)| derived).collect();
        step.rows = self.given.finish(rank)?;
        Ok(())
    }
}

impl Folding {
    pub(crate) fn new(fold: Arc<Fold>) -> Result<Self, Broken> {
        let keys = Keys::new(&fold.kinds)?;
        let timers_by_row = fold.timer.as_ref().is_none_or(|t| t.program.by_row());
        let ways = Ways { events_by_row: fold.events.by_row(), timers_by_row, round_rows_min: ROUND_ROWS_MIN };
        Ok(Self {
            fold,
            keys,
            rows: RowTable::default(),
            timers: Timers::default(),
            changes: Changes::default(),
            watermark: i64::MIN,
            heard: None,
            ended: false,
            slice_us: SLICE_US,
            ways,
        })
    }

    /// Everything in rounds, or row by row where that can be.
    #[cfg(test)]
    pub(crate) fn in_rounds(&mut self) {
        self.ways = Ways { events_by_row: false, timers_by_row: false, round_rows_min: 1 };
    }

    /// Takes rows of a topic, with the columns of [`millstream_event::Schema::physical`]. A fold reads no lookups.
    pub fn push(&mut self, _topic: &Name, rows: &RecordBatch, _lookups: &LookupSet) -> Result<Step, Broken> {
        let mut step = Step::default();
        if rows.num_rows() == 0 {
            return Ok(step);
        }
        let fold = Arc::clone(&self.fold);
        let arrived = arrive(&fold, rows, &mut step)?;
        let batch = &arrived.rows;
        let count = batch.num_rows();
        self.hear(arrived.times.iter().copied().max());
        let columns: Vec<ArrayRef> = fold.places.iter().filter_map(|i| batch.columns().get(*i).cloned()).collect();
        let keys = self.keys.encode(&columns, count)?;
        let groups = Groups::new(&keys, |_| 0);
        let key = |group: usize| keys.key(groups.first.get(group).copied().unwrap_or(0));
        let mut slots = self.read((0..groups.len()).map(key))?;
        let before = self.times(&slots, groups.len());
        let hoisted = HoistedColumns::compute(&fold.events, batch).map_err(|e| Broken(e.reason))?;
        let frame = Frame::new(&fold.events, batch, &hoisted);
        let stamps = stamps(batch)?;
        let mut given = Given::new(fold.schema.physical());
        let member = |row: u32| Member { row, place: row, key: groups.of_row.get(row as usize).copied().unwrap_or(0) };
        let back = |row: u32| arrived.from.as_ref().map_or(row, |from| from.get(row as usize).copied().unwrap_or(row));
        let judge = |step: &mut Step, member: &Member, verdict: Verdict| match verdict {
            Verdict::Done => {}
            Verdict::Dropped => step.unmatched.push(back(member.row)),
            Verdict::Failed(error) => {
                step.failed.push(Failed { row: back(member.row), code: error.code, reason: error.reason });
            }
        };
        let due = |member: &Member, slots: &mut Slots, given: &mut Given, step: &mut Step| match &fold.timer {
            None => Ok(()),
            Some(timer) => {
                let time = arrived.times.get(member.row as usize).copied().unwrap_or(i64::MIN);
                run_due(&fold, timer, &columns, member, time, slots, given, step)
            }
        };
        let by_row = |member: &Member, slots: &mut Slots, given: &mut Given| {
            let row = member.row as usize;
            let stamp = stamps.get(row).copied().unwrap_or_default();
            one(&frame, row, &fold.state, slots.change(member.key), stamp, member.place, given)
        };
        let rounds = if self.ways.events_by_row { vec![(0..count as u32).collect()] } else { in_rounds(&groups) };
        for rows in rounds {
            let members: Vec<Member> = rows.into_iter().map(member).collect();
            if self.ways.events_by_row || members.len() < self.ways.round_rows_min {
                for member in &members {
                    due(member, &mut slots, &mut given, &mut step)?;
                    let verdict = by_row(member, &mut slots, &mut given);
                    judge(&mut step, member, verdict);
                }
                continue;
            }
            for member in &members {
                due(member, &mut slots, &mut given, &mut step)?;
            }
            round(&frame, &members, &fold.state, &mut slots, &mut given, |m, v| judge(&mut step, m, v))?;
        }
        step.failed.sort_by_key(|failed| failed.row);
        step.unmatched.sort_unstable();
        self.write((0..groups.len()).map(key), &slots, &before)?;
        step.rows = given.finish(|place| place)?;
        Ok(step)
    }

    /// No row that is not late will be pushed any more with an event time before `watermark` (microseconds since 1970
    /// UTC; `i64::MAX`: nothing more will be pushed, as far as is known). Runs the timers that are due by then, by their
    /// times. A watermark that goes back changes nothing.
    pub fn advance(&mut self, watermark: i64, _lookups: &LookupSet) -> Result<Step, Broken> {
        let mut step = Step::default();
        let end = watermark == i64::MAX;
        if !end {
            self.watermark = self.watermark.max(watermark);
        }
        let fold = Arc::clone(&self.fold);
        let Some(timer) = fold.timer.as_ref().filter(|_| !(end && self.ended)) else { return Ok(step) };
        let until = if end { self.watermark.max(self.heard.unwrap_or(i64::MIN)) } else { self.watermark };
        let mut ran = Ran { given: Given::new(fold.schema.physical()), due: Vec::new(), derived: Vec::new() };
        self.run_until(timer, until, &mut ran)?;
        if end {
            let last = self.timers.take(i64::MAX, usize::MAX);
            for due in last.chunks(TIMERS_PER_BATCH) {
                self.run_timers(timer, due, &mut ran)?;
            }
            self.end();
        }
        ran.finish(&mut step)?;
        Ok(step)
    }

    /// Runs the timers up to a time, by their times, one slice of time after the other: what a slice gives out is before
    /// what the next one does.
    fn run_until(&mut self, timer: &Timer, until: i64, ran: &mut Ran) -> Result<(), Broken> {
        while let Some(first) = self.timers.first().filter(|first| *first <= until) {
            let slice_end = first.saturating_add(self.slice_us).min(until);
            let before = ran.due.len();
            loop {
                let due = self.timers.take(slice_end, TIMERS_PER_BATCH);
                if due.is_empty() {
                    break;
                }
                self.run_timers(timer, &due, ran)?;
            }
            let many = ran.due.len() - before > TIMERS_PER_BATCH;
            self.slice_us =
                if many { (self.slice_us / 2).max(1) } else { self.slice_us.saturating_mul(2).min(SLICE_US_MAX) };
        }
        Ok(())
    }

    /// Events of these times have come.
    fn hear(&mut self, time: Option<i64>) {
        if time.is_some() && (self.ended || time > self.heard) {
            self.heard = self.heard.max(time);
            self.ended = false;
            self.keep_heard();
        }
    }

    /// The end of time is concluded.
    fn end(&mut self) {
        self.ended = true;
        if !self.timers.due.is_empty() {
            self.heard.get_or_insert(i64::MIN);
            self.keep_heard();
        }
    }

    fn keep_heard(&mut self) {
        let Some(heard) = self.heard else { return };
        let value = [heard.to_be_bytes().as_slice(), &[u8::from(self.ended)]].concat();
        self.changes.of_stage(HEARD[0]).put(&[], &value);
    }

    /// Whether a timer waits for event time to go on.
    pub fn waits(&self) -> bool {
        !self.timers.due.is_empty()
    }

    /// What has changed in the state since it was asked the last time.
    pub fn changes(&mut self) -> Option<ChangeRows> {
        self.changes.take()
    }

    /// Takes a change that was told before, in the order of telling; `value` is `None` where the key is gone.
    pub fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Broken> {
        if key == HEARD {
            let (heard, ended) = match value {
                Some(value) => value.split_first_chunk::<8>().ok_or_else(unfit)?,
                None => return Err(unfit()),
            };
            (self.heard, self.ended) = (Some(i64::from_be_bytes(*heard)), ended == [1]);
            return Ok(());
        }
        let Some((0, key)) = key.split_first() else { return Err(unfit()) };
        let before = match self.rows.get(key) {
            Some(old) => self.time_in(old)?,
            None => None,
        };
        let after = match value {
            Some(value) => {
                let time = self.time_in(value)?;
                self.rows.put(key, value);
                time
            }
            None => {
                self.rows.remove(key);
                None
            }
        };
        self.timers.set(key, before, after);
        Ok(())
    }

    /// How many rows the state has, and about how many bytes they take.
    pub fn size(&self) -> (usize, usize) {
        (self.rows.len() + usize::from(self.heard.is_some()), self.rows.bytes() + self.timers.bytes)
    }

    /// The state rows of keys.
    fn read<'k>(&self, keys: impl ExactSizeIterator<Item = &'k [u8]>) -> Result<Slots, Broken> {
        let plan = &self.fold.state;
        let mut slots = Slots::new(plan.columns.len(), keys.len());
        for key in keys {
            match self.rows.get(key) {
                Some(bytes) => {
                    if !plan.decode(bytes, slots.values()) {
                        return Err(unfit());
                    }
                }
                None => slots.values().extend_from_slice(&plan.initial),
            }
        }
        Ok(slots)
    }

    /// The timers of keys.
    fn times(&self, slots: &Slots, keys: usize) -> Vec<Option<i64>> {
        let Some(timer) = &self.fold.timer else { return Vec::new() };
        (0..keys).map(|key| slots.time(key, timer.column)).collect()
    }

    /// The timer in a row's bytes.
    fn time_in(&self, bytes: &[u8]) -> Result<Option<i64>, Broken> {
        let mut slots = Slots::new(self.fold.state.columns.len(), 1);
        if !self.fold.state.decode(bytes, slots.values()) {
            return Err(unfit());
        }
        Ok(self.fold.timer.as_ref().and_then(|timer| slots.time(0, timer.column)))
    }

    /// Keeps what has changed, where the timers stood at `before`.
    fn write<'k>(
        &mut self,
        keys: impl Iterator<Item = &'k [u8]>,
        slots: &Slots,
        before: &[Option<i64>],
    ) -> Result<(), Broken> {
        let fold = Arc::clone(&self.fold);
        let mut bytes = Vec::new();
        for (number, key) in keys.enumerate().filter(|(number, _)| slots.is_touched(*number)) {
            fold.state.encode(slots.row(number), &mut bytes);
            if bytes == fold.state.fresh {
                if self.rows.remove(key) {
                    self.changes.of_stage(0).delete(&[key]);
                }
            } else if self.rows.get(key) != Some(bytes.as_slice()) {
                self.rows.put(key, &bytes);
                self.changes.of_stage(0).put(&[key], &bytes);
            }
            if let Some(timer) = &fold.timer {
                self.timers.set(key, before.get(number).copied().flatten(), slots.time(number, timer.column));
            }
        }
        Ok(())
    }

    /// Runs the timers of different keys, which are out of the list already.
    fn run_timers(&mut self, timer: &Timer, due: &[(i64, Box<[u8]>)], ran: &mut Ran) -> Result<(), Broken> {
        let fold = Arc::clone(&self.fold);
        let first = ran.due.len() as u32;
        ran.due.extend_from_slice(due);
        let Ran { given, derived, .. } = ran;
        let mut slots = self.read(due.iter().map(|(_, key)| key.as_ref()))?;
        let columns = self.keys.decode(due.iter().map(|(_, key)| key.as_ref()))?;
        let batch = timer_batch(timer, columns, due.iter().map(|(time, _)| *time))?;
        let hoisted = HoistedColumns::compute(&timer.program, &batch).map_err(|e| Broken(e.reason))?;
        let frame = Frame::new(&timer.program, &batch, &hoisted);
        let members = (0..due.len() as u32).map(|row| Member { row, key: row as usize, place: first + row });
        let members: Vec<Member> = members.collect();
        let mut judge = |member: &Member, verdict: Verdict| {
            if let Verdict::Failed(error) = verdict {
                let row = text_of_row(&batch, member.key);
                derived.push((member.place, Derived { code: error.code, reason: error.reason, row }));
            }
        };
        if self.ways.timers_by_row || members.len() < self.ways.round_rows_min {
            let stamps = stamps(&batch)?;
            for member in &members {
                let stamp = stamps.get(member.key).copied().unwrap_or_default();
                let state = slots.change(member.key);
                let verdict = one(&frame, member.key, &fold.state, state, stamp, member.place, given);
                judge(member, verdict);
            }
        } else {
            round(&frame, &members, &fold.state, &mut slots, given, judge)?;
        }
        for (number, (time, _)) in due.iter().enumerate() {
            rest(timer, *time, slots.change(number));
        }
        // They were taken out of the list: none of them stands there now.
        let before = vec![None; due.len()];
        self.write(due.iter().map(|(_, key)| key.as_ref()), &slots, &before)
    }
}

fn unfit() -> Broken {
    Broken("the stored state does not fit the fold: a row has another form".into())
}

/// A timer that has run is off, unless it was set to a later time.
fn rest(timer: &Timer, time: i64, state: &mut [crate::expr::value::Val<'static>]) {
    use crate::expr::value::Val;
    if let Some(value) = state.get_mut(timer.column)
        && !matches!(value, Val::Int(next) if *next > time)
    {
        *value = Val::Null;
    }
}

/// The key's columns with the times as the system column, which is `now()`.
fn timer_batch(
    timer: &Timer,
    mut columns: Vec<ArrayRef>,
    times: impl Iterator<Item = i64>,
) -> Result<RecordBatch, Broken> {
    let stamps: TimestampMicrosecondArray = times.map(|time| Some(Stamp::at(time).0)).collect();
    let rows = stamps.len();
    columns.push(Arc::new(stamps.with_timezone("+00:00")));
    Ok(batch_of(&event_side(&timer.program.schema, timer.program.events), columns, rows)?)
}

/// Runs the timer of an event's key as often as it is due at the event's time.
#[expect(clippy::too_many_arguments, reason = "the parts of one push, which are borrowed apart")]
fn run_due(
    fold: &Fold,
    timer: &Timer,
    columns: &[ArrayRef],
    member: &Member,
    time: i64,
    slots: &mut Slots,
    given: &mut Given,
    step: &mut Step,
) -> Result<(), Broken> {
    while let Some(due) = slots.time(member.key, timer.column).filter(|due| *due <= time) {
        let key = columns.iter().map(|c| c.slice(member.row as usize, 1)).collect();
        let batch = timer_batch(timer, key, std::iter::once(due))?;
        let hoisted = HoistedColumns::compute(&timer.program, &batch).map_err(|e| Broken(e.reason))?;
        let frame = Frame::new(&timer.program, &batch, &hoisted);
        let stamp = Stamp::at(due).0;
        let verdict = one(&frame, 0, &fold.state, slots.change(member.key), stamp, member.place, given);
        if let Verdict::Failed(error) = verdict {
            step.derived.push(Derived { code: error.code, reason: error.reason, row: text_of_row(&batch, 0) });
        }
        rest(timer, due, slots.change(member.key));
    }
    Ok(())
}

/// The rows of each round: the first of each key, the second of each, and so on.
fn in_rounds(groups: &Groups) -> Vec<Vec<u32>> {
    let mut rounds: Vec<Vec<u32>> = Vec::new();
    let mut seen = vec![0_usize; groups.len()];
    for (row, group) in (0_u32..).zip(&groups.of_row) {
        let Some(number) = seen.get_mut(*group) else { continue };
        match rounds.get_mut(*number) {
            Some(round) => round.push(row),
            None => rounds.push(vec![row]),
        }
        *number += 1;
    }
    rounds
}

/// What of a push is folded. With a timer late rows are not, and those without event time fail.
fn arrive(fold: &Fold, rows: &RecordBatch, step: &mut Step) -> Result<Arrived, Broken> {
    let Some(timer) = &fold.timer else { return Ok(Arrived { rows: rows.clone(), from: None, times: Vec::new() }) };
    let times = rows.columns().get(timer.time).and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
    let times = times.ok_or_else(|| Broken("the event time is no timestamp".into()))?;
    let (mut from, mut kept) = (Vec::with_capacity(rows.num_rows()), Vec::with_capacity(rows.num_rows()));
    for (row, stamp) in (0_u32..).zip(stamps(rows)?) {
        let at = row as usize;
        if Stamp(*stamp).is_late() {
            step.late.push(row);
        } else if times.is_null(at) {
            let reason = "the event has no time, so nobody knows which timers are before it".to_owned();
            step.failed.push(Failed { row, code: "event-time-missing", reason });
        } else {
            from.push(row);
            kept.push(times.value(at).saturating_add(timer.plus_us));
        }
    }
    if from.len() == rows.num_rows() {
        return Ok(Arrived { rows: rows.clone(), from: None, times: kept });
    }
    let rows = take_record_batch(rows, &UInt32Array::from(from.clone()))?;
    Ok(Arrived { rows, from: Some(from), times: kept })
}

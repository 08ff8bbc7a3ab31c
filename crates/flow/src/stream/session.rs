//! Aggregates over sessions: rows of a key belong together as long as each is less than a gap behind the one before. A
//! session begins with its first event and ends a gap behind its last; when the watermark reaches its end it is given out,
//! once. An event that comes between two sessions joins them.
//!
//! State: the key `group key, start` has the end of the session and the aggregates' states; the empty key has the end of
//! the last session that was given out.
//!
//! A batch is laid out first: for each row, in order, which sessions it joins, by times alone. Then the rows are added
//! vectorized, in rounds: sessions that nothing was joined into, those that were joined from these, and so on. So states
//! are merged in the order in which rows came, however they were cut into batches.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow_schema::{DataType, SchemaRef};
use arrow_select::filter::filter_record_batch;
use millstream_event::Stamp;

use crate::ops::{batch_of, take_all};
use crate::stream::aggregates::{Aggregate, Aggregates, fitted};
use crate::stream::groups::{Groups, Keys};
use crate::stream::legend::{Legend, SessionLegend};
use crate::stream::operator::{Blueprint, Broken, Operator, Out};
use crate::stream::running::Derived;
use crate::stream::session_table::{NO_SLOT, Sessions};
use crate::stream::window_aggregate::{GroupColumn, time_key, time_of};

/// How many sessions are given out in one batch.
const SESSIONS_PER_BATCH: usize = 8192;

/// A planned aggregate over sessions.
#[derive(Debug)]
pub(crate) struct SessionPlan {
    /// In microseconds.
    pub(crate) gap: i64,
    /// The place of the event time in the input.
    pub(crate) time: usize,
    /// Whether that is the event time with the gap added instead.
    pub(crate) by_end: bool,
    /// The places and types of the key in the input.
    pub(crate) key: Vec<(usize, DataType)>,
    pub(crate) aggregates: Vec<Aggregate>,
    /// What the output has before the aggregates' results.
    pub(crate) group: Vec<GroupColumn>,
    /// The columns of the output and the system's.
    pub(crate) schema: SchemaRef,
}

impl Blueprint for SessionPlan {
    fn open(&self) -> Result<Box<dyn Operator>, Broken> {
        let types: Vec<DataType> = self.key.iter().map(|(_, kind)| kind.clone()).collect();
        Ok(Box::new(SessionAggregate {
            gap: self.gap,
            time: self.time,
            behind: if self.by_end { self.gap } else { 0 },
            key: self.key.iter().map(|(place, _)| *place).collect(),
            group: self.group.clone(),
            schema: Arc::clone(&self.schema),
            keys: Keys::new(&types)?,
            aggregates: Aggregates::new(&self.aggregates)?,
            sessions: Sessions::default(),
            given: i64::MIN,
        }))
    }

    fn timed(&self) -> bool {
        true
    }

    fn meanings(&self, _side: usize) -> Vec<usize> {
        self.key.iter().map(|(place, _)| *place).chain([self.time]).collect()
    }

    fn signature(&self) -> String {
        let types: Vec<&DataType> = self.key.iter().map(|(_, kind)| kind).collect();
        let states = Aggregates::new(&self.aggregates).map(|a| a.signature().to_owned()).unwrap_or_default();
        format!("session {} by {types:?}: {states}", self.gap)
    }

    fn legend(&self) -> Result<Box<dyn Legend>, Broken> {
        Ok(Box::new(SessionLegend::new(self)?))
    }

    fn describe(&self) -> String {
        let names: Vec<&str> = self.aggregates.iter().map(|a| a.function.name()).collect();
        let gap = self.gap as f64 / 1e6;
        format!("session with a gap of {gap} s, {} key columns: {}", self.key.len(), names.join(", "))
    }
}

struct SessionAggregate {
    gap: i64,
    /// The place of the column that says when a row happened.
    time: usize,
    /// How far that column is behind the event time.
    behind: i64,
    key: Vec<usize>,
    group: Vec<GroupColumn>,
    schema: SchemaRef,
    keys: Keys,
    aggregates: Aggregates,
    sessions: Sessions,
    /// The end of the last session that was given out.
    given: i64,
}

/// A session while a batch is laid out.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: i64,
    end: i64,
    /// The stored session that it goes on.
    slot: u32,
    /// Where its rows go; `None` if it got none.
    part: Option<usize>,
}

/// Rows that are added to one state.
#[derive(Debug, Default)]
struct Part {
    /// The round in which its rows are added.
    round: usize,
    /// What it begins with: stored sessions and earlier parts, by their starts.
    from: [Option<From>; 2],
}

#[derive(Debug, Clone, Copy)]
enum From {
    Slot(u32),
    Part(usize),
}

/// How a batch's rows fall into sessions.
#[derive(Default)]
struct Layout {
    parts: Vec<Part>,
    /// The part of each row.
    of_row: Vec<usize>,
    /// Stored sessions that were joined into another one.
    gone: Vec<u32>,
}

impl Operator for SessionAggregate {
    fn push(&mut self, _side: usize, rows: &RecordBatch, out: &mut Out<'_>) -> Result<(), Broken> {
        let Some((rows, times)) = self.placed(rows, &mut out.late)? else { return Ok(()) };
        let columns: Vec<ArrayRef> = self.key.iter().filter_map(|i| rows.columns().get(*i).cloned()).collect();
        let keys = self.keys.encode(&columns, rows.num_rows())?;
        let groups = Groups::new(&keys, |_| 0);
        let mut spans: Vec<Vec<Span>> = groups.first.iter().map(|row| self.stored(keys.key(*row))).collect();
        let mut layout = Layout { of_row: Vec::with_capacity(times.len()), ..Layout::default() };
        for (time, group) in times.iter().zip(&groups.of_row) {
            if let Some(spans) = spans.get_mut(*group) {
                layout.place(*time, self.gap, spans);
            }
        }
        let states = self.computed(&rows, &layout)?;
        for slot in layout.gone {
            if let Some(session) = self.sessions.get(slot) {
                out.changes.delete(&[session.key(), &time_key(session.start)]);
            }
            self.sessions.remove(slot);
        }
        for (spans, row) in spans.iter().zip(&groups.first) {
            let key = keys.key(*row);
            for span in spans {
                let Some(state) = span.part.and_then(|part| states.get(part)) else { continue };
                match self.sessions.get(span.slot).map(|session| session.start) {
                    Some(start) => {
                        if start != span.start {
                            out.changes.delete(&[key, &time_key(start)]);
                        }
                        self.sessions.set(span.slot, span.start, span.end, state);
                    }
                    None => self.sessions.add(key, span.start, span.end, state),
                }
                let value = [time_key(span.end).as_slice(), state].concat();
                out.changes.put(&[key, &time_key(span.start)], &value);
            }
        }
        Ok(())
    }

    fn advance(&mut self, watermark: i64, out: &mut Out<'_>) -> Result<(), Broken> {
        let mut ended = self.sessions.ended(watermark);
        let sessions = &self.sessions;
        ended.sort_unstable_by_key(|slot| sessions.get(*slot).map(|s| (s.end, s.key(), s.start)));
        let last = ended.last().and_then(|slot| self.sessions.get(*slot)).map(|session| session.end);
        if let Some(end) = last.filter(|end| *end > self.given) {
            self.given = end;
            out.changes.put(&[], &time_key(end));
        }
        for slots in ended.chunks(SESSIONS_PER_BATCH) {
            out.rows.push(self.batch(slots, &mut out.failed)?);
        }
        for slot in ended {
            if let Some(session) = self.sessions.get(slot) {
                out.changes.delete(&[session.key(), &time_key(session.start)]);
            }
            self.sessions.remove(slot);
        }
        Ok(())
    }

    fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Broken> {
        let broken = || Broken("a session's state has another form than this version's".into());
        if key.is_empty() {
            self.given = value.map_or(Some((i64::MIN, [].as_slice())), time_of).ok_or_else(broken)?.0;
            return Ok(());
        }
        let (key, start) = key.split_last_chunk::<8>().ok_or_else(broken)?;
        let (start, _) = time_of(start).ok_or_else(broken)?;
        let known = self.sessions.of_key(key).find(|slot| self.sessions.get(*slot).is_some_and(|s| s.start == start));
        match (value, known) {
            (Some(value), known) => {
                let (end, state) = time_of(value).ok_or_else(broken)?;
                match known {
                    Some(slot) => self.sessions.set(slot, start, end, state),
                    None => self.sessions.add(key, start, end, state),
                }
            }
            (None, Some(slot)) => self.sessions.remove(slot),
            (None, None) => {}
        }
        Ok(())
    }

    fn waits(&self) -> bool {
        self.sessions.len() > 0
    }

    fn size(&self) -> (usize, usize) {
        (self.sessions.len(), self.sessions.bytes())
    }
}

impl Layout {
    /// Puts a row at `time` into the sessions of its key, which stand by their starts.
    fn place(&mut self, time: i64, gap: i64, spans: &mut Vec<Span>) {
        let end = time.saturating_add(gap);
        let first = spans.partition_point(|span| span.end <= time);
        let touched = spans.iter().skip(first).take_while(|span| span.start < end).count();
        let part = match (spans.get(first).copied(), spans.get(first + 1).copied()) {
            (Some(one), _) if touched == 1 => {
                let part = one.part.unwrap_or_else(|| self.begin([Some(From::Slot(one.slot)), None]));
                self.replace(spans, first, Span { part: Some(part), ..one }.over(time, end))
            }
            // A row reaches at most two: they are at least a gap long and do not touch.
            (Some(one), Some(two)) if touched > 1 => {
                let from = |span: Span| span.part.map_or(From::Slot(span.slot), From::Part);
                let part = self.begin([Some(from(one)), Some(from(two))]);
                spans.remove(first + 1);
                let slot = match (one.slot, two.slot) {
                    (NO_SLOT, slot) | (slot, NO_SLOT) => slot,
                    (slot, gone) => {
                        self.gone.push(gone);
                        slot
                    }
                };
                let joined = Span { start: one.start, end: two.end, slot, part: Some(part) };
                self.replace(spans, first, joined.over(time, end))
            }
            _ => {
                let part = self.begin([None, None]);
                spans.insert(first, Span { start: time, end, slot: NO_SLOT, part: Some(part) });
                part
            }
        };
        self.of_row.push(part);
    }

    fn replace(&self, spans: &mut [Span], at: usize, span: Span) -> usize {
        if let Some(old) = spans.get_mut(at) {
            *old = span;
        }
        span.part.unwrap_or_default()
    }

    fn begin(&mut self, from: [Option<From>; 2]) -> usize {
        let rounds = from.iter().flatten().map(|from| match from {
            From::Slot(_) => 0,
            From::Part(part) => self.parts.get(*part).map_or(0, |p| p.round + 1),
        });
        let round = rounds.max().unwrap_or(0);
        self.parts.push(Part { round, from });
        self.parts.len() - 1
    }
}

impl Span {
    fn over(self, start: i64, end: i64) -> Self {
        Self { start: self.start.min(start), end: self.end.max(end), ..self }
    }
}

impl SessionAggregate {
    /// The rows that have a time, and their times. Rows whose session alone would have been given out are added to `late`.
    fn placed(&self, rows: &RecordBatch, late: &mut Vec<u32>) -> Result<Option<(RecordBatch, Vec<i64>)>, Broken> {
        let times = rows.columns().get(self.time).and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        let times = times.ok_or_else(|| Broken("the session's time is no timestamp".into()))?;
        let open = |time: &i64| time.saturating_add(self.gap) > self.given;
        let own: Vec<Option<i64>> =
            times.iter().map(|time| time.map(|time| time.saturating_sub(self.behind))).collect();
        late.extend((0_u32..).zip(&own).filter(|(_, time)| time.is_some_and(|time| !open(&time))).map(|(row, _)| row));
        let kept: Vec<i64> = own.iter().flatten().copied().filter(open).collect();
        Ok(match kept.len() {
            0 => None,
            all if all == times.len() => Some((rows.clone(), kept)),
            _ => {
                let mask: BooleanArray = own.iter().map(|time| Some(time.as_ref().is_some_and(open))).collect();
                Some((filter_record_batch(rows, &mask)?, kept))
            }
        })
    }

    /// The sessions of a key, by their starts.
    fn stored(&self, key: &[u8]) -> Vec<Span> {
        let slots = self.sessions.of_key(key);
        let span = |slot| self.sessions.get(slot).map(|s| Span { start: s.start, end: s.end, slot, part: None });
        let mut spans: Vec<Span> = slots.filter_map(span).collect();
        spans.sort_unstable_by_key(|span| span.start);
        spans
    }

    /// The state of each part, with its rows.
    fn computed(&self, rows: &RecordBatch, layout: &Layout) -> Result<Vec<Box<[u8]>>, Broken> {
        let mut states: Vec<Box<[u8]>> = vec![Box::default(); layout.parts.len()];
        let rounds = layout.parts.iter().map(|part| part.round).max().unwrap_or(0);
        for round in 0..=rounds {
            let parts: Vec<usize> = (0..layout.parts.len())
                .filter(|part| layout.parts.get(*part).is_some_and(|p| p.round == round))
                .collect();
            let mut place = vec![usize::MAX; layout.parts.len()];
            for (group, part) in parts.iter().enumerate() {
                if let Some(place) = place.get_mut(*part) {
                    *place = group;
                }
            }
            let of = |part: &usize| place.get(*part).copied().filter(|group| *group != usize::MAX);
            let (kept, of_row): (Vec<u32>, Vec<usize>) =
                (0_u32..).zip(&layout.of_row).filter_map(|(row, part)| Some((row, of(part)?))).unzip();
            let own = match kept.len() == rows.num_rows() {
                true => rows.clone(),
                false => {
                    let count = kept.len();
                    batch_of(rows.schema_ref(), take_all(rows.columns(), &UInt32Array::from(kept))?, count)?
                }
            };
            let (mut before, mut of_state) = (Vec::new(), Vec::new());
            for (group, part) in parts.iter().enumerate() {
                for from in layout.parts.get(*part).iter().flat_map(|part| part.from.iter().flatten()) {
                    let state = match from {
                        From::Slot(slot) => self.sessions.get(*slot).map(|session| session.state()),
                        From::Part(part) => states.get(*part).map(AsRef::as_ref),
                    };
                    before.extend(state);
                    of_state.extend(state.map(|_| group));
                }
            }
            let after = self.aggregates.merged(&own, &of_row, parts.len(), &before, &of_state)?;
            for (group, part) in parts.iter().enumerate() {
                if let Some(state) = states.get_mut(*part) {
                    *state = after.get(group).into();
                }
            }
        }
        Ok(states)
    }

    fn batch(&self, slots: &[u32], failed: &mut Vec<Derived>) -> Result<RecordBatch, Broken> {
        let sessions: Vec<_> = slots.iter().filter_map(|slot| self.sessions.get(*slot)).collect();
        let states: Vec<&[u8]> = sessions.iter().map(|session| session.state()).collect();
        let of: Vec<usize> = (0..sessions.len()).collect();
        let results = self.aggregates.results(&states, &of, sessions.len())?;
        let keys = sessions.iter().map(|session| session.key());
        let decoded = if self.key.is_empty() { Vec::new() } else { self.keys.decode(keys)? };
        let times =
            |times: Vec<i64>| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(times).with_timezone("+00:00")) };
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for column in &self.group {
            columns.push(match column {
                GroupColumn::Key(place) => {
                    decoded.get(*place).cloned().ok_or_else(|| Broken("a key has too few columns".into()))?
                }
                GroupColumn::Start => times(sessions.iter().map(|session| session.start).collect()),
                GroupColumn::End => times(sessions.iter().map(|session| session.end).collect()),
            });
        }
        columns.extend(results);
        columns.push(times(sessions.iter().map(|session| Stamp::at(session.end.saturating_sub(1)).0).collect()));
        fitted(&self.schema, columns, sessions.len(), failed)
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;

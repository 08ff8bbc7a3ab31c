//! Late events that update results: windows that were given out are kept for a while, and the rows that a late event
//! changes are taken back and given out again. Both carry the mark of late rows, because their time is behind what was
//! promised when their window was given out.
//!
//! An event that is marked as late is taken if its last window ended less than the given time before the newest pane that
//! a row came for. The watermark is not asked: whether an event counts follows from the rows before it, and not from how
//! fast, or in which batches, they are read. All windows of an event that counts are updated; so panes are kept for the
//! length of a window longer.
//!
//! A service may begin to take late events, or take them for longer: what is gone by then stays closed.

use std::collections::BTreeSet;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow_cast::cast;
use arrow_schema::{DataType, SchemaRef};
use arrow_select::concat::concat;
use arrow_select::take::take;
use millstream_event::Stamp;

use crate::stream::groups::{Encoded, Keys};
use crate::stream::operator::{Broken, Out};
use crate::stream::window_aggregate::{Row, WindowAggregate, name_of, time_key, time_of};

/// What late events need.
pub(super) struct Late {
    /// For how long they are taken, in microseconds.
    micros: i64,
    /// Windows that ended at this time or before take no late events any more: so far behind the start of the newest pane
    /// that a row came for, or given out when nothing more was expected.
    closed: i64,
    /// Whether it has changed since the changelog was told.
    told: bool,
    /// For the bytes of results, to compare them.
    results: Keys,
}

impl Late {
    /// For results that stand behind `group` columns of `schema`.
    pub(super) fn new(micros: i64, schema: &SchemaRef, group: usize) -> Result<Self, Broken> {
        let fields = schema.fields().len().saturating_sub(1);
        let types = schema.fields().iter().take(fields).skip(group).map(|field| field.data_type().clone());
        let results = Keys::new(&types.collect::<Vec<DataType>>())?;
        Ok(Self { micros, closed: i64::MIN, told: true, results })
    }
}

/// The results of some groups of windows.
pub(super) struct Results {
    /// The groups that have any, by their places in what was asked for.
    present: Vec<usize>,
    columns: Vec<ArrayRef>,
    bytes: Encoded,
}

impl WindowAggregate {
    /// Which rows of a batch are marked as late, where that matters.
    pub(super) fn late_marks(&self, rows: &RecordBatch) -> Option<Vec<bool>> {
        self.late.as_ref()?;
        let stamps = rows.columns().last()?.as_primitive_opt::<TimestampMicrosecondType>()?;
        Some(stamps.values().iter().map(|stamp| Stamp(*stamp).is_late()).collect())
    }

    /// Whether a row counts whose pane ends at `pane`. Asked for each row, in their order.
    pub(super) fn takes(&mut self, pane: i64, marked: bool) -> bool {
        let last = self.last_end(pane);
        let gone = self.gone();
        let start = if self.spread { self.windows.start(pane) } else { pane.saturating_sub(self.windows.pane()) };
        let Some(late) = &mut self.late else { return last > self.fired };
        // What nobody marked as late, and is, counts as long as its panes are there.
        let taken = if marked { last > late.closed } else { last > gone };
        let closed = start.saturating_sub(late.micros);
        if taken && closed > late.closed {
            late.closed = closed;
            late.told = false;
        }
        taken
    }

    /// Panes whose last window ended at this time or before are needed no more.
    pub(super) fn gone(&self) -> i64 {
        self.late.as_ref().map_or(self.fired, |late| self.fired.min(self.whole_behind(late)))
    }

    /// Of windows that end behind this time all panes are there.
    fn whole_behind(&self, late: &Late) -> i64 {
        late.closed.saturating_sub(self.windows.size())
    }

    /// The watermark is here: windows without a row count as given out too, so that what comes for them late is known to
    /// be late. When nothing more is expected, the windows that there were take nothing more; a source that finds more begins
    /// new ones.
    pub(super) fn conclude(&mut self, watermark: i64) {
        if watermark != i64::MAX {
            self.fired = self.windows.last_over(watermark).map_or(self.fired, |over| over.max(self.fired));
            return;
        }
        let fired = self.fired;
        if let Some(late) = self.late.as_mut().filter(|late| late.closed < fired) {
            late.closed = fired;
            late.told = false;
        }
    }

    /// What the changelog has under the empty key.
    pub(super) fn places(&mut self) -> Vec<u8> {
        let mut places = time_key(self.fired).to_vec();
        if let Some(late) = &mut self.late {
            late.told = true;
            places.extend_from_slice(&time_key(late.closed));
        }
        places
    }

    /// Tells the changelog which windows are closed, if that has changed.
    pub(super) fn tell_closed(&mut self, out: &mut Out<'_>) {
        if self.late.as_ref().is_some_and(|late| !late.told) {
            out.changes.put(&[], &self.places());
        }
    }

    /// Takes what [`Self::places`] gave. Where panes were not kept before, all windows with some that are gone are closed.
    pub(super) fn restore_places(&mut self, places: &[u8]) -> Option<()> {
        let (fired, rest) = time_of(places)?;
        self.fired = fired;
        if let Some(late) = &mut self.late {
            late.closed = match rest.is_empty() {
                true => fired.saturating_add(self.windows.size()),
                false => time_of(rest)?.0,
            };
        }
        Some(())
    }

    /// The windows that were given out among those that hold these panes, with the panes' keys.
    pub(super) fn given_out<'k>(&self, panes: impl Iterator<Item = (i64, &'k [u8])>) -> Vec<(i64, &'k [u8])> {
        let Some(late) = &self.late else { return Vec::new() };
        let whole = self.whole_behind(late);
        let mut windows = BTreeSet::new();
        for (pane, key) in panes {
            let last = self.last_end(pane).min(self.fired);
            let mut end = self.first_end(pane);
            while end <= last {
                if end > whole {
                    windows.insert((end, key));
                }
                let next = self.windows.next_end(end);
                if next == end {
                    break;
                }
                end = next;
            }
        }
        windows.into_iter().collect()
    }

    /// The results of keys in windows, where there are any.
    pub(super) fn results_of(&self, windows: &[(i64, &[u8])]) -> Result<Results, Broken> {
        let (mut present, mut states, mut of, mut from) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (at, (end, key)) in windows.iter().enumerate() {
            let before = states.len();
            for (pane, state) in self.panes_of(*end).filter_map(|(end, pane)| Some((end, pane.get(key)?))) {
                states.push(state);
                from.push((pane, *key));
            }
            if states.len() > before {
                of.resize(states.len(), present.len());
                present.push(at);
            }
        }
        let columns = match present.len() {
            0 => Vec::new(),
            groups => {
                let name = |at: usize| from.get(at).map(|(pane, key)| name_of(*pane, key)).unwrap_or_default();
                self.aggregates.results(&states, &of, groups, &name)?
            }
        };
        let fields = self.schema.fields().iter().skip(self.group.len());
        let columns = columns.into_iter().zip(fields).map(|(column, field)| {
            if column.data_type() == field.data_type() { Ok(column) } else { cast(&column, field.data_type()) }
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let bytes = match &self.late {
            Some(late) if !present.is_empty() => late.results.encode(&columns, present.len())?,
            _ => Encoded::Empty(0),
        };
        Ok(Results { present, columns, bytes })
    }

    /// Takes back the rows that have changed, and gives them out as they are now.
    pub(super) fn correct(&self, windows: &[(i64, &[u8])], old: &Results, out: &mut Out<'_>) -> Result<(), Broken> {
        let new = self.results_of(windows)?;
        let (mut rows, mut places) = (Vec::new(), Vec::new());
        let mut before = old.present.iter().enumerate().peekable();
        for (place, at) in new.present.iter().enumerate() {
            let Some((end, key)) = windows.get(*at).copied() else { continue };
            // What was there is there: an event only adds.
            if let Some((was, _)) = before.next_if(|(_, known)| *known == at) {
                if old.bytes.key(was) == new.bytes.key(place) {
                    continue;
                }
                rows.push(Row { end, key, marks: Stamp::LATE | Stamp::DELETED });
                places.push(was as u32);
            }
            rows.push(Row { end, key, marks: Stamp::LATE });
            places.push((old.present.len() + place) as u32);
        }
        if rows.is_empty() {
            return Ok(());
        }
        let places = UInt32Array::from(places);
        let column = |at: usize| -> Result<ArrayRef, Broken> {
            let both: Vec<&dyn Array> =
                [old, &new].iter().filter_map(|results| results.columns.get(at).map(AsRef::as_ref)).collect();
            Ok(take(&concat(&both)?, &places, None)?)
        };
        let columns = (0..new.columns.len()).map(column).collect::<Result<_, _>>()?;
        out.rows.push(self.batch(&rows, columns, &mut out.failed)?);
        Ok(())
    }
}

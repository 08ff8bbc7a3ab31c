//! Aggregates over windows of fixed places: each pane holds the states of its keys; when the watermark reaches the end of
//! a window, its panes are merged and the results given out, once (see [`ended`]).
//!
//! Where late events update results, panes are kept for a while behind that, and the rows that a late event changes are
//! given out again (see [`late`]).
//!
//! State: the key `pane end, group key` has the aggregates' states (behind a 0, where there are aggregates that keep all
//! values, which are behind a 1: see [`Lists`]); the empty key has the end of the last window given out,
//! and, where panes are kept, up to when windows take no late events any more.
//!
//! [`Lists`]: crate::stream::lists::Lists

mod ended;
mod late;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use arrow_schema::{DataType, SchemaRef};
use arrow_select::filter::filter_record_batch;
use millstream_event::Stamp;

use crate::stream::aggregates::{Aggregate, fitted};
use crate::stream::groups::{Groups, Keys};
use crate::stream::kept::{GROUP, Kept};
use crate::stream::legend::{Legend, WindowLegend};
use crate::stream::lists::VALUE;
use crate::stream::operator::{Blueprint, Broken, Operator, Out};
use crate::stream::panes::Windows;
use crate::stream::row_table::RowTable;
use crate::stream::running::Derived;
use crate::stream::window_aggregate::late::Late;

/// A column of the output before the aggregates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupColumn {
    /// This column of the key.
    Key(usize),
    /// The start of the window.
    Start,
    /// Its end.
    End,
}

/// A planned aggregate over windows.
#[derive(Debug)]
pub(crate) struct WindowAggregatePlan {
    pub(crate) windows: Windows,
    /// Whether the rows are copied into their windows already, so that each window is a pane of its own.
    pub(crate) spread: bool,
    /// The place of the end of each row's pane in the input.
    pub(crate) end: usize,
    /// Whether that is the start of the pane instead.
    pub(crate) by_start: bool,
    /// The places and types of the key in the input.
    pub(crate) key: Vec<(usize, DataType)>,
    pub(crate) aggregates: Vec<Aggregate>,
    /// What the output has before the aggregates' results.
    pub(crate) group: Vec<GroupColumn>,
    /// Where late events update results: for how long, in microseconds.
    pub(crate) late: Option<i64>,
    /// The columns of the output and the system's.
    pub(crate) schema: SchemaRef,
}

impl Blueprint for WindowAggregatePlan {
    fn open(&self) -> Result<Box<dyn Operator>, Broken> {
        let types: Vec<DataType> = self.key.iter().map(|(_, kind)| kind.clone()).collect();
        Ok(Box::new(WindowAggregate {
            windows: self.windows,
            spread: self.spread,
            end: self.end,
            behind: match self.by_start {
                true if self.spread => self.windows.size(),
                true => self.windows.pane(),
                false => 0,
            },
            key: self.key.iter().map(|(place, _)| *place).collect(),
            group: self.group.clone(),
            schema: Arc::clone(&self.schema),
            keys: Keys::new(&types)?,
            aggregates: Kept::new(&self.aggregates)?,
            panes: BTreeMap::new(),
            fired: i64::MIN,
            late: match self.late {
                Some(micros) => Some(Late::new(micros, &self.schema, self.group.len())?),
                None => None,
            },
        }))
    }

    fn timed(&self) -> bool {
        true
    }

    fn takes_late(&self) -> bool {
        self.late.is_some()
    }

    fn gives_on_push(&self) -> bool {
        self.late.is_some()
    }

    fn updates(&self) -> bool {
        self.late.is_some()
    }

    fn meanings(&self, _side: usize) -> Vec<usize> {
        self.key.iter().map(|(place, _)| *place).chain([self.end]).collect()
    }

    fn signature(&self) -> String {
        let types: Vec<&DataType> = self.key.iter().map(|(_, kind)| kind).collect();
        let states = Kept::new(&self.aggregates).map(|kept| kept.signature()).unwrap_or_default();
        format!("window {:?} {} by {types:?}: {states}", self.windows, self.spread)
    }

    fn legend(&self) -> Result<Box<dyn Legend>, Broken> {
        Ok(Box::new(WindowLegend::new(self)?))
    }

    fn describe(&self) -> String {
        let names: Vec<&str> = self.aggregates.iter().map(|a| a.function.name()).collect();
        let late = self.late.map(|micros| format!(", updated by late events for {} s", micros as f64 / 1e6));
        let late = late.unwrap_or_default();
        format!("{}, {} key columns: {}{late}", self.windows.describe(), self.key.len(), names.join(", "))
    }
}

struct WindowAggregate {
    windows: Windows,
    /// See [`WindowAggregatePlan::spread`].
    spread: bool,
    /// The place of the column that says which pane a row is in.
    end: usize,
    /// How far behind that column the pane ends.
    behind: i64,
    key: Vec<usize>,
    group: Vec<GroupColumn>,
    schema: SchemaRef,
    keys: Keys,
    aggregates: Kept,
    /// By the end of the pane.
    panes: BTreeMap<i64, RowTable>,
    /// The end of the last window that was given out.
    fired: i64,
    /// Where late events update results.
    late: Option<Late>,
}

/// A row that is given out.
#[derive(Clone, Copy)]
struct Row<'k> {
    /// The end of its window.
    end: i64,
    key: &'k [u8],
    /// The marks of its stamp.
    marks: i64,
}

/// The name of a group in the changelog.
fn name_of(pane: i64, key: &[u8]) -> Vec<u8> {
    [time_key(pane).as_slice(), key].concat()
}

/// A time as bytes that sort as it does.
pub(crate) fn time_key(time: i64) -> [u8; 8] {
    ((time as u64) ^ (1 << 63)).to_be_bytes()
}

/// The time that [`time_key`] wrote, and what stands behind it.
pub(crate) fn time_of(key: &[u8]) -> Option<(i64, &[u8])> {
    let (time, rest) = key.split_first_chunk::<8>()?;
    Some(((u64::from_be_bytes(*time) ^ (1 << 63)) as i64, rest))
}

impl Operator for WindowAggregate {
    fn push(&mut self, _side: usize, rows: &RecordBatch, out: &mut Out<'_>) -> Result<(), Broken> {
        let Some((rows, ends)) = self.placed(rows, &mut out.late)? else { return Ok(()) };
        let columns: Vec<ArrayRef> = self.key.iter().filter_map(|i| rows.columns().get(*i).cloned()).collect();
        let keys = self.keys.encode(&columns, rows.num_rows())?;
        let groups = Groups::new(&keys, |row| ends.get(row).copied().unwrap_or(0));
        let place = |group: usize| {
            let row = groups.first.get(group).copied().unwrap_or(0);
            (ends.get(row).copied().unwrap_or(0), keys.key(row))
        };
        let corrected = self.given_out((0..groups.len()).map(place));
        let before = self.results_of(&corrected)?;
        let mut after = Vec::with_capacity(groups.len());
        let panes = &self.panes;
        let state = |group: usize| {
            let (end, key) = place(group);
            panes.get(&end)?.get(key)
        };
        let name = |group: usize| {
            let (end, key) = place(group);
            name_of(end, key)
        };
        let put = |group: usize, state: &[u8]| after.push((group, Box::<[u8]>::from(state)));
        self.aggregates.update(&rows, &groups, &name, state, put, out.changes)?;
        for (group, state) in after {
            let (end, key) = place(group);
            self.panes.entry(end).or_default().put(key, &state);
            out.changes.put(&[self.aggregates.group(), &time_key(end), key], &state);
        }
        self.correct(&corrected, &before, out)?;
        self.tell_closed(out);
        Ok(())
    }

    fn advance(&mut self, watermark: i64, out: &mut Out<'_>) -> Result<(), Broken> {
        let before = self.fired;
        self.give_out_until(watermark, out)?;
        let through = self.due().is_none_or(|due| due > watermark);
        if self.late.is_some() && through {
            self.conclude(watermark);
            self.forget(out);
        }
        if self.fired != before {
            out.changes.put(&[], &self.places());
        }
        self.tell_closed(out);
        Ok(())
    }

    fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Broken> {
        let broken = || Broken("a window's state has another form than this version's".into());
        if key.is_empty() {
            match value {
                Some(places) => self.restore_places(places).ok_or_else(broken)?,
                None => self.fired = i64::MIN,
            }
            return Ok(());
        }
        let key = match (self.aggregates.has_lists(), key.split_first_chunk::<1>()) {
            (false, _) => key,
            (true, Some((&GROUP, key))) => key,
            (true, Some((&VALUE, key))) => return self.aggregates.restore_value(key, value),
            (true, _) => return Err(broken()),
        };
        let (end, key) = time_of(key).ok_or_else(broken)?;
        match value {
            Some(state) => self.panes.entry(end).or_default().put(key, state),
            None => {
                if let Some(pane) = self.panes.get_mut(&end) {
                    pane.remove(key);
                    if pane.is_empty() {
                        self.panes.remove(&end);
                    }
                }
            }
        }
        Ok(())
    }

    fn waits(&self) -> bool {
        self.due().is_some()
    }

    fn due(&self) -> Option<i64> {
        self.next_behind(self.fired)
    }

    fn size(&self) -> (usize, usize) {
        let panes = self.panes.values();
        panes.fold(self.aggregates.size(), |(rows, bytes), pane| (rows + pane.len(), bytes + pane.bytes()))
    }
}

impl WindowAggregate {
    fn first_end(&self, pane_end: i64) -> i64 {
        if self.spread { pane_end } else { self.windows.first_end(pane_end) }
    }

    fn last_end(&self, pane_end: i64) -> i64 {
        if self.spread { pane_end } else { self.windows.last_end(pane_end) }
    }

    /// The rows that are in a window still to be given out, or to be updated, and the ends of their panes. Rows whose
    /// windows are all behind that are added to `late`; those without a time, or between two windows, are in none.
    fn placed(&mut self, rows: &RecordBatch, late: &mut Vec<u32>) -> Result<Option<(RecordBatch, Vec<i64>)>, Broken> {
        let times = rows.columns().get(self.end).and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        let times = times.ok_or_else(|| Broken("the window's time is no timestamp".into()))?;
        let end = |row: usize| -> Option<i64> {
            let end = times.is_valid(row).then(|| times.value(row).saturating_add(self.behind))?;
            (self.first_end(end) <= self.last_end(end)).then_some(end)
        };
        let mut ends: Vec<Option<i64>> = (0..times.len()).map(end).collect();
        let marks = self.late_marks(rows);
        for (row, end) in (0_u32..).zip(&mut ends) {
            let marked = marks.as_ref().and_then(|marks| marks.get(row as usize)).copied().unwrap_or(false);
            if end.is_some_and(|end| !self.takes(end, marked)) {
                late.push(row);
                *end = None;
            }
        }
        let kept: Vec<i64> = ends.iter().copied().flatten().collect();
        Ok(match kept.len() {
            0 => None,
            all if all == ends.len() => Some((rows.clone(), kept)),
            _ => {
                let mask: BooleanArray = ends.iter().map(|end| Some(end.is_some())).collect();
                Some((filter_record_batch(rows, &mask)?, kept))
            }
        })
    }

    /// The panes of the window that ends at `end`, with their ends.
    fn panes_of(&self, end: i64) -> impl Iterator<Item = (i64, &RowTable)> {
        let first = if self.spread { end } else { self.windows.start(end).saturating_add(1) };
        self.panes.range(first..=end).map(|(end, pane)| (*end, pane))
    }

    fn batch(
        &self,
        rows: &[Row<'_>],
        results: Vec<ArrayRef>,
        failed: &mut Vec<Derived>,
    ) -> Result<RecordBatch, Broken> {
        let decoded =
            if self.key.is_empty() { Vec::new() } else { self.keys.decode(rows.iter().map(|row| row.key))? };
        let times = |of: &dyn Fn(&Row<'_>) -> i64| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(of)).with_timezone("+00:00"))
        };
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for column in &self.group {
            columns.push(match column {
                GroupColumn::Key(place) => {
                    decoded.get(*place).cloned().ok_or_else(|| Broken("a key has too few columns".into()))?
                }
                GroupColumn::Start => times(&|row| self.windows.start(row.end)),
                GroupColumn::End => times(&|row| row.end),
            });
        }
        columns.extend(results);
        columns.push(times(&|row| Stamp::at(row.end - 1).with(row.marks).0));
        fitted(&self.schema, columns, rows.len(), failed)
    }
}

#[cfg(test)]
mod tests;

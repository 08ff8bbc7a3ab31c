//! Deduplication: the first row of each key passes, in the order of arrival; later ones are dropped. A key is remembered
//! until its window is over, or for a while after its first row by event time: a row that happened later than that is a
//! first one again.
//!
//! State: the key `end of the window, key` (`0, key` without windows) has the event time of the row that passed; the empty
//! key has the end of the last window that is over.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch};
use arrow_cast::cast;
use arrow_schema::{DataType, SchemaRef};
use arrow_select::filter::filter_record_batch;

use crate::ops::batch_of;
use crate::stream::groups::{Groups, Keys};
use crate::stream::legend::{DedupLegend, Legend};
use crate::stream::operator::{Blueprint, Broken, Operator, Out};
use crate::stream::row_table::RowTable;
use crate::stream::window_aggregate::{time_key, time_of};

/// How long a key is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// To the end of the window: so many microseconds behind the time in this column, which belongs to the key.
    Window { place: usize, plus: i64 },
    /// So many microseconds behind the time in this column.
    Ttl { place: usize, ttl: i64 },
    /// For ever.
    Ever,
}

/// A planned deduplication.
#[derive(Debug)]
pub(crate) struct DedupPlan {
    /// The places and types of the key in the input.
    pub(crate) key: Vec<(usize, DataType)>,
    pub(crate) until: Until,
    /// How many columns of the input are given out.
    pub(crate) width: usize,
    /// Whether the number of the row, which is 1, stands behind them.
    pub(crate) numbered: bool,
    /// The columns of the output and the system's.
    pub(crate) schema: SchemaRef,
}

impl Blueprint for DedupPlan {
    fn open(&self) -> Result<Box<dyn Operator>, Broken> {
        let types: Vec<DataType> = self.key.iter().map(|(_, kind)| kind.clone()).collect();
        Ok(Box::new(Dedup {
            key: self.key.iter().map(|(place, _)| *place).collect(),
            until: self.until,
            width: self.width,
            numbered: self.numbered,
            schema: Arc::clone(&self.schema),
            keys: Keys::new(&types)?,
            seen: BTreeMap::new(),
            swept: i64::MIN,
            over: i64::MIN,
        }))
    }

    fn timed(&self) -> bool {
        self.until != Until::Ever
    }

    fn meanings(&self, _side: usize) -> Vec<usize> {
        let time = match self.until {
            Until::Window { place, .. } | Until::Ttl { place, .. } => Some(place),
            Until::Ever => None,
        };
        self.key.iter().map(|(place, _)| *place).chain(time).collect()
    }

    fn signature(&self) -> String {
        let types: Vec<&DataType> = self.key.iter().map(|(_, kind)| kind).collect();
        let until = match self.until {
            Until::Window { .. } => "window",
            Until::Ttl { .. } => "ttl",
            Until::Ever => "ever",
        };
        format!("first of {types:?} {until}")
    }

    fn legend(&self) -> Result<Box<dyn Legend>, Broken> {
        Ok(Box::new(DedupLegend::new(self)?))
    }

    fn describe(&self) -> String {
        let until = match self.until {
            Until::Window { .. } => "in its window".to_owned(),
            Until::Ttl { ttl, .. } => format!("in {} s", ttl as f64 / 1e6),
            Until::Ever => "ever".to_owned(),
        };
        format!("keep the first of {} key columns {until}", self.key.len())
    }
}

struct Dedup {
    key: Vec<usize>,
    until: Until,
    width: usize,
    numbered: bool,
    schema: SchemaRef,
    keys: Keys,
    /// By the end of the window, or all under 0.
    seen: BTreeMap<i64, RowTable>,
    /// The watermark when keys were last forgotten.
    swept: i64,
    /// The end of the last window that is over.
    over: i64,
}

/// Keys are looked through for old ones so many times within their time to live.
const SWEEPS: i64 = 8;

impl Operator for Dedup {
    fn push(&mut self, _side: usize, rows: &RecordBatch, out: &mut Out<'_>) -> Result<(), Broken> {
        let columns: Vec<ArrayRef> = self.key.iter().filter_map(|i| rows.columns().get(*i).cloned()).collect();
        let keys = self.keys.encode(&columns, rows.num_rows())?;
        let times = self.times(rows)?;
        let time = |row: usize| times.get(row).copied().flatten();
        let window = |row: usize| match self.until {
            Until::Window { .. } => time(row).unwrap_or(i64::MIN),
            _ => 0,
        };
        let groups = Groups::new(&keys, window);
        let before = groups.first.iter().map(|row| {
            let state = self.seen.get(&window(*row)).and_then(|seen| seen.get(keys.key(*row)));
            state.and_then(time_of).map(|(time, _)| time)
        });
        let mut known: Vec<Option<i64>> = before.collect();
        let mut changed = vec![false; groups.len()];
        let mut passes = Vec::with_capacity(rows.num_rows());
        for (row, group) in groups.of_row.iter().enumerate() {
            let (Some(known), Some(changed)) = (known.get_mut(*group), changed.get_mut(*group)) else { continue };
            let first = match (self.until, *known, time(row)) {
                // Without a place in time it is in no window, and nobody knows when to forget it.
                (Until::Window { .. }, _, None) => None,
                (Until::Window { .. }, _, Some(end)) if end <= self.over => {
                    out.late.push(row as u32);
                    None
                }
                (_, Some(_), None) | (Until::Window { .. } | Until::Ever, Some(_), _) => None,
                (Until::Ttl { ttl, .. }, Some(first), Some(time)) => {
                    (time >= first.saturating_add(ttl)).then_some(Some(time))
                }
                (Until::Ever, None, _) => Some(Some(0)),
                (_, None, time) => Some(time),
            };
            passes.push(first.is_some());
            if let Some(Some(time)) = first {
                (*known, *changed) = (Some(time), true);
            }
        }
        let found = groups.first.iter().zip(known).zip(changed);
        for (row, time) in found.filter_map(|((row, known), changed)| Some((*row, known.filter(|_| changed)?))) {
            let (window, key) = (window(row), keys.key(row));
            self.seen.entry(window).or_default().put(key, &time_key(time));
            out.changes.put(&[&time_key(window), key], &time_key(time));
        }
        out.rows.extend(self.given(rows, &BooleanArray::from(passes))?);
        Ok(())
    }

    fn advance(&mut self, watermark: i64, out: &mut Out<'_>) -> Result<(), Broken> {
        match self.until {
            Until::Window { .. } => {
                while let Some(window) = self.seen.first_entry().filter(|window| *window.key() <= watermark) {
                    let (end, seen) = window.remove_entry();
                    self.over = end;
                    out.changes.put(&[], &time_key(end));
                    seen.iter().for_each(|(key, _)| out.changes.delete(&[&time_key(end), key]));
                }
            }
            // The end of time says nothing about when what begins again goes on.
            Until::Ttl { .. } if watermark == i64::MAX => {}
            Until::Ttl { ttl, .. } if watermark >= self.swept.saturating_add(ttl / SWEEPS).max(i64::MIN + 1) => {
                self.swept = watermark;
                if let Some(seen) = self.seen.get_mut(&0) {
                    seen.retain(|key, first| {
                        let kept = time_of(first).is_some_and(|(first, _)| first.saturating_add(ttl) > watermark);
                        if !kept {
                            out.changes.delete(&[&time_key(0), key]);
                        }
                        kept
                    });
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Broken> {
        let broken = || Broken("a remembered key has another form than this version's".into());
        if key.is_empty() {
            self.over = value.map_or(Some((i64::MIN, [].as_slice())), time_of).ok_or_else(broken)?.0;
            return Ok(());
        }
        let (window, key) = time_of(key).ok_or_else(broken)?;
        match value {
            Some(value) => self.seen.entry(window).or_default().put(key, value),
            None => {
                if let Some(seen) = self.seen.get_mut(&window) {
                    seen.remove(key);
                    if seen.is_empty() {
                        self.seen.remove(&window);
                    }
                }
            }
        }
        Ok(())
    }

    fn size(&self) -> (usize, usize) {
        self.seen.values().fold((0, 0), |(rows, bytes), seen| (rows + seen.len(), bytes + seen.bytes()))
    }
}

impl Dedup {
    /// The end of each row's window, or its event time.
    fn times(&self, rows: &RecordBatch) -> Result<Vec<Option<i64>>, Broken> {
        let (place, plus) = match self.until {
            Until::Window { place, plus } => (place, plus),
            Until::Ttl { place, .. } => (place, 0),
            Until::Ever => return Ok(vec![None; rows.num_rows()]),
        };
        let times = rows.columns().get(place).and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        let times = times.ok_or_else(|| Broken("the time of a deduplication is no timestamp".into()))?;
        Ok(times.iter().map(|time| time.map(|time| time.saturating_add(plus))).collect())
    }

    fn given(&self, rows: &RecordBatch, passes: &BooleanArray) -> Result<Option<RecordBatch>, Broken> {
        let count = passes.true_count();
        if count == 0 {
            return Ok(None);
        }
        let rows = filter_record_batch(rows, passes)?;
        let mut columns: Vec<ArrayRef> = rows.columns().iter().take(self.width).cloned().collect();
        if self.numbered {
            columns.push(Arc::new(Int64Array::from(vec![1; count])));
        }
        columns.extend(rows.columns().last().cloned());
        let columns = columns.into_iter().zip(self.schema.fields()).map(|(column, field)| {
            if column.data_type() == field.data_type() { Ok(column) } else { cast(&column, field.data_type()) }
        });
        Ok(Some(batch_of(&self.schema, columns.collect::<Result<_, _>>()?, count)?))
    }
}

#[cfg(test)]
#[path = "dedup_tests.rs"]
mod tests;

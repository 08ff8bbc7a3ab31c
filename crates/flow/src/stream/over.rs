//! OVER: functions over what came before an event, for each event.
//!
//! In the order of arrival each event is answered at once. Its past is what this task consumed before it:
//! - ROWS counts consumed events of the key, UNBOUNDED PRECEDING is all of them; times do not matter.
//! - RANGE by an interval is those of them whose time is in the interval before the event's: one with a later time that was
//!   consumed earlier is not in it.
//! - LAG, FIRST_VALUE and their like follow the order of consumption.
//!
//! Late events are arrivals like others. What is older than the longest RANGE, and a [`SLACK_SHARE`] of it (at least
//! [`SLACK_MICROS_MIN`]), before the newest event of its key is gone: an event as late as that meets a shorter past. A key
//! whose newest event is as far behind the watermark is forgotten.
//!
//! In the order of event time events wait until the watermark has passed them; their past is what has an earlier time, or
//! the same and came before. RANGE and the frame without words include all events of the same time, as in a batch.
//!
//! With a time to live a key is forgotten when the newest event that came is so far behind its last one; what comes for it
//! then has no past. That follows from the events before, in their order, and not from when memory is given back.
//!
//! An event without a time is answered at once, as if nothing were in its frames; it is in nobody's frame.
//!
//! State: the key `group key, number, 0` has an event of the key's history; `group key, 1` has what unbounded frames have
//! added up, behind the time of the key's last event where it has a time to live; `time, number, 2` has an event that waits;
//! `3` has the newest time.

pub(crate) mod columns;
pub(crate) mod function;
mod held;
pub(crate) mod history;
mod keyed;
mod summary;
mod waiting;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod ttl_tests;

pub(crate) use history::Kind;

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use arrow_schema::{DataType, SchemaRef};
use arrow_select::filter::filter_record_batch;

use crate::ops::batch_of;
use crate::stream::groups::{Encoded, Keys};
use crate::stream::legend::{Legend, OverLegend};
use crate::stream::operator::{Blueprint, Broken, Operator, Out};
use crate::stream::over::columns::{Reader, Results, kind_of};
use crate::stream::over::function::{Frame, Function};
use crate::stream::over::history::Layout;
use crate::stream::over::keyed::{Keep, Keyed};
use crate::stream::over::waiting::Waiting;

/// How much longer than the longest RANGE events are kept, as a share of it: for those that come out of order.
const SLACK_SHARE: i64 = 8;
/// The least time that they are kept longer, in microseconds.
const SLACK_MICROS_MIN: i64 = 300_000_000;

/// The last byte of a key of the changelog says what it is of.
pub(crate) const EVENT: u8 = 0;
/// See [`EVENT`].
pub(crate) const RUNNING: u8 = 1;
/// See [`EVENT`].
pub(crate) const WAITS: u8 = 2;
/// See [`EVENT`].
pub(crate) const NEWEST: u8 = 3;

/// A planned OVER.
#[derive(Debug)]
pub(crate) struct OverPlan {
    /// Whether events wait for the watermark, to be answered in the order of their times.
    pub(crate) by_time: bool,
    /// How long a key is remembered behind its last event, in microseconds, where a frame does not bound that.
    pub(crate) ttl: Option<i64>,
    /// How many columns of the input are given out.
    pub(crate) through: usize,
    /// The place of the time in the input.
    pub(crate) time: usize,
    /// What is added to it to be the event time that watermarks speak of, in microseconds.
    pub(crate) plus: i64,
    /// The places and types of the key in the input.
    pub(crate) key: Vec<(usize, DataType)>,
    /// The places of the columns that are kept, and how.
    pub(crate) columns: Vec<(usize, Kind)>,
    pub(crate) functions: Vec<Function>,
    /// The types of their results.
    pub(crate) results: Vec<DataType>,
    /// The names of the functions, for a person to read.
    pub(crate) names: Vec<String>,
    /// The columns of the input and the system's.
    pub(crate) input: SchemaRef,
    /// The columns of the output and the system's.
    pub(crate) schema: SchemaRef,
}

impl OverPlan {
    /// How a column of a type is kept.
    pub(crate) fn kind(kind: &DataType) -> Kind {
        kind_of(kind)
    }

    /// A column that is only asked whether it is null.
    pub(crate) const MARK: Kind = Kind::Mark;

    /// What the frames need of a key's past.
    fn keep(&self) -> Keep {
        let mut keep = Keep { rows: 0, micros: None, slack: 0, ttl: None };
        let mut bounded = true;
        for function in &self.functions {
            match function.frame {
                Frame::Rows { from, .. } => {
                    keep.rows = keep.rows.max(from);
                    bounded = false;
                }
                Frame::Range { from, .. } => keep.micros = Some(keep.micros.map_or(from, |most: i64| most.max(from))),
                Frame::Running { .. } => bounded = false,
            }
        }
        if let (Some(micros), false) = (keep.micros, self.by_time) {
            keep.slack = SLACK_MICROS_MIN.max(micros / SLACK_SHARE);
        }
        // What a RANGE asks for is kept that long in any case.
        let least = keep.micros.unwrap_or(0).saturating_add(keep.slack);
        keep.ttl = self.ttl.filter(|_| !bounded).map(|ttl| ttl.max(least));
        keep
    }
}

impl Blueprint for OverPlan {
    fn open(&self) -> Result<Box<dyn Operator>, Broken> {
        let types: Vec<DataType> = self.key.iter().map(|(_, kind)| kind.clone()).collect();
        let layout = Layout::new(self.columns.iter().map(|(_, kind)| *kind).collect());
        Ok(Box::new(Over {
            through: self.through,
            time: self.time,
            plus: self.plus,
            key: self.key.iter().map(|(place, _)| *place).collect(),
            columns: self.columns.clone(),
            results: self.results.clone(),
            schema: Arc::clone(&self.schema),
            keys: Keys::new(&types)?,
            keyed: Keyed::new(layout, self.functions.clone(), self.keep(), self.by_time),
            waiting: if self.by_time { Some(Waiting::new(&self.input)?) } else { None },
        }))
    }

    fn timed(&self) -> bool {
        self.by_time
    }

    fn meanings(&self, _side: usize) -> Vec<usize> {
        let key = self.key.iter().map(|(place, _)| *place);
        key.chain([self.time]).chain(self.columns.iter().map(|(place, _)| *place)).collect()
    }

    fn signature(&self) -> String {
        let keys: Vec<&DataType> = self.key.iter().map(|(_, kind)| kind).collect();
        let running = |f: &&Function| matches!(f.frame, Frame::Running { .. });
        let running: Vec<&Function> = self.functions.iter().filter(running).collect();
        let waits = self.by_time.then_some(&self.input);
        let types: Vec<_> = waits.iter().flat_map(|schema| schema.fields()).map(|f| f.data_type()).collect();
        let Keep { rows, micros, ttl, .. } = self.keep();
        let ttl = if ttl.is_some() { " ttl" } else { "" };
        format!("over {keys:?} {:?} {running:?} {types:?}{ttl} back {rows} rows {micros:?} us", self.columns)
    }

    fn legend(&self) -> Result<Box<dyn Legend>, Broken> {
        Ok(Box::new(OverLegend::new(self)?))
    }

    fn describe(&self) -> String {
        let order = if self.by_time { "event time" } else { "arrival" };
        format!("over {} key columns in the order of {order}: {}", self.key.len(), self.names.join(", "))
    }
}

struct Over {
    through: usize,
    time: usize,
    plus: i64,
    key: Vec<usize>,
    columns: Vec<(usize, Kind)>,
    results: Vec<DataType>,
    schema: SchemaRef,
    keys: Keys,
    keyed: Keyed,
    waiting: Option<Waiting>,
}

/// A batch's columns as the histories need them.
pub(crate) struct Rows<'b> {
    pub(crate) keys: Encoded,
    pub(crate) times: &'b TimestampMicrosecondArray,
    pub(crate) columns: Vec<Reader>,
}

impl Operator for Over {
    fn push(&mut self, _side: usize, rows: &RecordBatch, out: &mut Out<'_>) -> Result<(), Broken> {
        let Some(waiting) = &mut self.waiting else {
            let answered = self.answer(rows, out)?;
            out.rows.push(answered);
            return Ok(());
        };
        let times = times_of(rows, self.time)?;
        if times.null_count() > 0 {
            let (known, unknown) = parted(rows, times)?;
            waiting.push(&known, self.time, out.changes)?;
            let answered = self.answer(&unknown, out)?;
            out.rows.push(answered);
            return Ok(());
        }
        waiting.push(rows, self.time, out.changes)
    }

    fn advance(&mut self, watermark: i64, out: &mut Out<'_>) -> Result<(), Broken> {
        let watermark = if watermark == i64::MAX { watermark } else { watermark.saturating_sub(self.plus) };
        while let Some(waiting) = &mut self.waiting {
            let Some(rows) = waiting.release(watermark, out.changes)? else { break };
            let answered = self.answer(&rows, out)?;
            out.rows.push(answered);
        }
        self.keyed.sweep(watermark, out.changes);
        Ok(())
    }

    fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Broken> {
        let broken = || Broken("an OVER's state has another form than this version's".into());
        match (key.split_last().ok_or_else(broken)?, &mut self.waiting) {
            ((&WAITS, key), Some(waiting)) => waiting.restore(key, value).ok_or_else(broken),
            ((&EVENT, key), _) => self.keyed.restore_event(key, value).ok_or_else(broken),
            ((&RUNNING, key), _) => self.keyed.restore_running(key, value).ok_or_else(broken),
            ((&NEWEST, []), _) => self.keyed.restore_newest(value).ok_or_else(broken),
            _ => Err(broken()),
        }
    }

    fn touch(&self, key: &[u8]) -> u8 {
        match key.split_last() {
            Some((&EVENT, key)) => self.keyed.touch_event(key),
            _ => 0,
        }
    }

    fn waits(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.size().0 > 0)
    }

    fn size(&self) -> (usize, usize) {
        let (rows, bytes) = self.keyed.size();
        let (more, larger) = self.waiting.as_ref().map_or((0, 0), Waiting::size);
        (rows + more, bytes + larger)
    }
}

fn times_of(rows: &RecordBatch, place: usize) -> Result<&TimestampMicrosecondArray, Broken> {
    let times = rows.columns().get(place).and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
    times.ok_or_else(|| Broken("the order of OVER is no timestamp".into()))
}

/// The rows with a time, and those without.
fn parted(rows: &RecordBatch, times: &TimestampMicrosecondArray) -> Result<(RecordBatch, RecordBatch), Broken> {
    let known: BooleanArray = (0..times.len()).map(|row| Some(times.is_valid(row))).collect();
    let unknown: BooleanArray = (0..times.len()).map(|row| Some(times.is_null(row))).collect();
    Ok((filter_record_batch(rows, &known)?, filter_record_batch(rows, &unknown)?))
}

impl Over {
    /// The rows with the functions' results behind.
    fn answer(&mut self, rows: &RecordBatch, out: &mut Out<'_>) -> Result<RecordBatch, Broken> {
        let count = rows.num_rows();
        let keys: Vec<ArrayRef> = self.key.iter().filter_map(|at| rows.columns().get(*at).cloned()).collect();
        let missing = || Broken("an argument of OVER has no column".into());
        let columns = self.columns.iter().map(|(place, kind)| {
            let column = rows.columns().get(*place).ok_or_else(missing)?;
            Reader::new(column, *kind)
        });
        let input = Rows {
            keys: self.keys.encode(&keys, count)?,
            times: times_of(rows, self.time)?,
            columns: columns.collect::<Result<_, _>>()?,
        };
        let mut results: Vec<Results> = self.results.iter().map(|kind| Results::new(kind, count)).collect();
        self.keyed.answer(&input, &mut results, out.changes);
        let mut columns: Vec<ArrayRef> = rows.columns().iter().take(self.through).map(Arc::clone).collect();
        for result in results {
            columns.push(result.finish()?);
        }
        columns.extend(rows.columns().last().map(Arc::clone));
        Ok(batch_of(&self.schema, columns, count)?)
    }
}

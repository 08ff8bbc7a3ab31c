//! Puts events into windows.
//!
//! First each row gets the start and end of its pane; where windows are sessions, of the session that it would be alone.
//! Whoever needs the windows themselves spreads the rows: one copy for each window that the pane belongs to. An aggregate
//! does not need to.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{ArrayRef, TimestampMicrosecondArray, UInt32Array};
use arrow_schema::{ArrowError, SchemaRef};

use crate::expr::EvalError;
use crate::ops::{Frame, batch_of};
use crate::sql::time_windows::Kind;
use crate::stream::Windows;

/// Adds the start and the end of each row's pane behind the columns.
#[derive(Debug)]
pub(crate) struct Panes {
    pub(crate) kind: Kind,
    /// The place of the event time.
    pub(crate) time: usize,
    /// What is added to it, in microseconds.
    pub(crate) plus_us: i64,
    /// The columns with the two new ones, and the system's.
    pub(crate) schema: SchemaRef,
}

/// Copies each row into the windows of its pane.
#[derive(Debug)]
pub(crate) struct Spread {
    pub(crate) windows: Windows,
    /// The place of the start of the pane, if it is kept: it becomes the start of the window.
    pub(crate) start: Option<usize>,
    /// The place of the end of the pane, if it is kept.
    pub(crate) end: Option<usize>,
}

type Times = arrow_array::PrimitiveArray<TimestampMicrosecondType>;

fn times(frame: &Frame, place: usize) -> Result<&Times, EvalError> {
    let column = frame.batch.columns().get(place).and_then(|c| c.as_primitive_opt());
    column.ok_or_else(|| EvalError::internal("windows", &ArrowError::SchemaError("no timestamp".to_owned())))
}

fn column(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    let times: TimestampMicrosecondArray = values.collect();
    Arc::new(times.with_timezone("+00:00"))
}

impl Panes {
    pub(crate) fn apply(&self, frame: Frame) -> Result<Frame, EvalError> {
        let length = match self.kind {
            Kind::Fixed(windows) => windows.pane(),
            Kind::Session { gap } => gap,
        };
        let end = |time: Option<i64>| match (self.kind, time?.checked_add(self.plus_us)?) {
            (Kind::Fixed(windows), time) => windows.pane_end(time),
            (Kind::Session { gap }, time) => time.checked_add(gap),
        };
        let ends = column(times(&frame, self.time)?.iter().map(end));
        let starts = column(times(&frame, self.time)?.iter().map(|time| Some(end(time)? - length)));
        let mut columns = frame.batch.columns().to_vec();
        let system = columns.pop();
        columns.extend([starts, ends]);
        columns.extend(system);
        let batch = batch_of(&self.schema, columns, frame.batch.num_rows());
        Ok(Frame { batch: batch.map_err(|e| EvalError::internal("windows", &e))?, ..frame })
    }

    pub(crate) fn describe(&self) -> String {
        match self.kind {
            Kind::Fixed(windows) => format!("put into {}", windows.describe()),
            Kind::Session { gap } => format!("put into sessions with a gap of {} s", gap as f64 / 1e6),
        }
    }
}

impl Spread {
    pub(crate) fn apply(&self, frame: Frame) -> Result<Frame, EvalError> {
        let pane = self.windows.pane();
        let (place, behind) = match (self.end, self.start) {
            (Some(end), _) => (end, 0),
            (None, Some(start)) => (start, pane),
            (None, None) => return Ok(frame),
        };
        let mut rows: Vec<u32> = Vec::new();
        let mut ends: Vec<Option<i64>> = Vec::new();
        for (row, time) in (0_u32..).zip(times(&frame, place)?.iter()) {
            let Some(pane_end) = time.map(|time| time + behind) else {
                rows.push(row);
                ends.push(None);
                continue;
            };
            let last = self.windows.last_end(pane_end);
            let mut end = self.windows.first_end(pane_end);
            while end <= last {
                rows.push(row);
                ends.push(Some(end));
                end = self.windows.next_end(end);
            }
        }
        let failed = |e: ArrowError| EvalError::internal("windows", &e);
        let frame = frame.take(&UInt32Array::from(rows)).map_err(failed)?;
        let count = frame.batch.num_rows();
        let mut columns = frame.batch.columns().to_vec();
        if let Some(start) = self.start.and_then(|place| columns.get_mut(place)) {
            *start = column(ends.iter().map(|end| end.map(|end| self.windows.start(end))));
        }
        if let Some(end) = self.end.and_then(|place| columns.get_mut(place)) {
            *end = column(ends.into_iter());
        }
        let batch = batch_of(frame.batch.schema_ref(), columns, count).map_err(failed)?;
        Ok(Frame { batch, ..frame })
    }

    pub(crate) fn describe(&self) -> String {
        format!("copy into each window of {}", self.windows.describe())
    }
}

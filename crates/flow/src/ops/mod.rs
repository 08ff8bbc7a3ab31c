//! Operators: what a lowered plan does to a batch, one after another.
//!
//! Every batch inside has the columns of its operator's schema and then the system column, so that `now()` can be read
//! anywhere. An operator either works on the whole batch or fails; isolating the row at fault is [`crate::isolate`]'s.

pub(crate) mod filter;
pub(crate) mod lookup_join;
pub(crate) mod project;
pub(crate) mod unnest;
pub(crate) mod windows;

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow_schema::{ArrowError, SchemaRef};
use arrow_select::take::take;

use crate::expr::EvalError;
use crate::lookup::LookupTable;
use crate::outcome::Origin;

/// Rows between two operators.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) batch: RecordBatch,
    pub(crate) origin: Origin,
    /// Rows dropped by each inner lookup join.
    pub(crate) dropped: Vec<u64>,
}

/// One step of a plan.
#[derive(Debug)]
pub(crate) enum Op {
    /// Keeps some columns, in this order.
    Select(project::Select),
    /// Keeps the rows for which a condition is true.
    Filter(filter::Filter),
    /// Computes columns.
    Project(project::Project),
    /// Adds a lookup's columns.
    LookupJoin(lookup_join::LookupJoin),
    /// One row per element of a list.
    Unnest(unnest::Unnest),
    /// Adds the pane of each row.
    Panes(windows::Panes),
    /// One row per window of its pane.
    Spread(windows::Spread),
}

impl Op {
    pub(crate) fn apply(&self, frame: Frame, lookups: &[Arc<LookupTable>]) -> Result<Frame, EvalError> {
        match self {
            Self::Select(op) => op.apply(frame),
            Self::Filter(op) => op.apply(frame),
            Self::Project(op) => op.apply(frame),
            Self::LookupJoin(op) => op.apply(frame, lookups),
            Self::Unnest(op) => op.apply(frame),
            Self::Panes(op) => op.apply(frame),
            Self::Spread(op) => op.apply(frame),
        }
    }

    /// One line for `explain`.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Select(op) => op.describe(),
            Self::Filter(op) => op.describe(),
            Self::Project(op) => op.describe(),
            Self::LookupJoin(op) => op.describe(),
            Self::Unnest(op) => op.describe(),
            Self::Panes(op) => op.describe(),
            Self::Spread(op) => op.describe(),
        }
    }
}

/// Runs all steps.
pub(crate) fn run(ops: &[Op], frame: Frame, lookups: &[Arc<LookupTable>]) -> Result<Frame, EvalError> {
    let mut frame = frame;
    for op in ops {
        // A batch that a filter or join emptied is done.
        if frame.batch.num_rows() == 0 {
            break;
        }
        frame = op.apply(frame, lookups)?;
    }
    Ok(frame)
}

/// A batch of columns that may be none.
pub(crate) fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

/// The chosen rows of every column.
pub(crate) fn take_all(columns: &[ArrayRef], rows: &UInt32Array) -> Result<Vec<ArrayRef>, ArrowError> {
    columns.iter().map(|c| take(c, rows, None)).collect()
}

impl Frame {
    /// The rows `kept`, in that order.
    pub(crate) fn take(self, kept: &UInt32Array) -> Result<Self, ArrowError> {
        let columns = take_all(self.batch.columns(), kept)?;
        let batch = batch_of(self.batch.schema_ref(), columns, kept.len())?;
        Ok(Self { batch, origin: self.origin.take(kept), dropped: self.dropped })
    }
}

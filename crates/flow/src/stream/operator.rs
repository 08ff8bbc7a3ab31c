//! The contract of an operator with state.
//!
//! 1. It is pushed batches of rows, each side in the order of its input. The columns are evaluated already: an operator
//!    cannot fail on an event. What it returns as [`Broken`] is a fault of ours or of its stored state.
//! 2. What it gives out depends only on the rows and watermarks it was given, in their order, never on how rows are cut
//!    into batches.
//! 3. Whatever changes in its state it tells [`Changes`] in the same call. A new operator that is given these changes, in
//!    order, through [`Operator::restore`], goes on exactly where this one stands.
//! 4. A batch that it is pushed or gives out has the system column last.

use arrow_array::RecordBatch;

use crate::stream::changes::Changes;
use crate::stream::legend::{Legend, Unread};
use crate::stream::running::Derived;

/// Why an operator cannot go on: stored state that it does not understand, or a fault of its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub String);

impl Broken {
    /// From an error of the machinery.
    pub(crate) fn of(error: &dyn std::fmt::Display) -> Self {
        let text = error.to_string();
        Self(text.lines().next().unwrap_or_default().to_owned())
    }
}

impl From<arrow_schema::ArrowError> for Broken {
    fn from(error: arrow_schema::ArrowError) -> Self {
        Self::of(&error)
    }
}

impl From<datafusion_common::DataFusionError> for Broken {
    fn from(error: datafusion_common::DataFusionError) -> Self {
        Self::of(&error)
    }
}

/// What an operator gives out in one call.
pub(crate) struct Out<'a> {
    /// Rows with the operator's output columns, in order.
    pub(crate) rows: Vec<RecordBatch>,
    /// Rows of the pushed batch that came too late although nothing marked them: their producer went back behind what it
    /// had promised (it was opened again). They changed no state.
    pub(crate) late: Vec<u32>,
    /// Rows that it could not give out, because a result of theirs does not fit; the state that they come from stands.
    pub(crate) failed: Vec<Derived>,
    /// Changes of its state.
    pub(crate) changes: &'a mut Changes,
}

/// A step with state.
pub(crate) trait Operator: Send {
    /// Takes rows of a side (0 where there is one only).
    fn push(&mut self, side: usize, rows: &RecordBatch, out: &mut Out<'_>) -> Result<(), Broken>;

    /// No row with an earlier event time than `watermark`, in microseconds since 1970 UTC, will be pushed any more,
    /// except late ones. It may stop on its way where it gives out more than it holds: then it says so ([`Self::due`]).
    fn advance(&mut self, watermark: i64, out: &mut Out<'_>) -> Result<(), Broken>;

    /// Takes one change that it told before; `None`: the key is gone.
    fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Broken>;

    /// Reads what [`Operator::restore`] of a key will need, to no other end than that it is near then: of keys in any order
    /// memory answers many at a time, if nothing is done in between.
    fn touch(&self, _key: &[u8]) -> u8 {
        0
    }

    /// By how many microseconds the event time of what it will still give out may be behind its watermark.
    fn holds_back(&self) -> i64 {
        0
    }

    /// Whether it holds rows that it gives out when event time goes on: they are still expected of it, also while nobody
    /// sends it more.
    fn waits(&self) -> bool {
        false
    }

    /// The least watermark at which it gives out more, where an advance may stop on its way: one that came as far as that has
    /// stopped, and is to be called again. What is given out then happened a microsecond before that, or later.
    fn due(&self) -> Option<i64> {
        None
    }

    /// How many keyed rows it holds, and about how many bytes they take.
    fn size(&self) -> (usize, usize);
}

/// What an operator is built from: planned once, opened by each task.
pub(crate) trait Blueprint: std::fmt::Debug + Send + Sync {
    /// A new operator without state.
    fn open(&self) -> Result<Box<dyn Operator>, Broken>;

    /// Whether it needs event time: late rows are not pushed to it.
    fn timed(&self) -> bool;

    /// Whether late rows are pushed to it all the same, although it needs event time: they update what it gave out.
    fn takes_late(&self) -> bool {
        false
    }

    /// Whether rows of a side go on with their own stamps: late ones are then no rows for a timed step behind.
    fn passes(&self, _side: usize) -> bool {
        true
    }

    /// Whether it may give out rows when it is pushed some. If it does not, the order of its sides does not matter.
    fn gives_on_push(&self) -> bool {
        true
    }

    /// Whether rows that it gives out may be such, marked as deleted, that take back earlier ones.
    fn updates(&self) -> bool {
        false
    }

    /// Whether it can be pushed rows that take back earlier ones.
    fn takes_updates(&self) -> bool {
        false
    }

    /// What decides the form of its state: an operator with another one cannot go on with it.
    fn signature(&self) -> String;

    /// The places of the columns of a side that decide what its state means: keys, times, orders. What is computed there is
    /// a part of the query's signature.
    fn meanings(&self, _side: usize) -> Vec<usize> {
        Vec::new()
    }

    /// Reads the rows of its state for a person.
    fn legend(&self) -> Result<Box<dyn Legend>, Broken> {
        Ok(Box::new(Unread))
    }

    /// One line for `explain`.
    fn describe(&self) -> String;
}

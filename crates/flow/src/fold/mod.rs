//! `fold`: a state machine for each key, in SQL expressions.
//!
//! For decisions that depend on earlier decisions: stock, limits, sessions. Each key has a row of *state columns*. An event
//! is given to the first case whose `when` is true; the case gives state columns new values (`set`) and gives out rows
//! (`emit`).
//!
//! - `state.x` is the state column `x` of the event's key, `x` is the event's column. In `when` and in `set` it is the value
//!   before the event, whatever else the case sets; in `emit` it is the value after `set`.
//! - A key without state has the initial values, NULL where none is given. A key whose state is back at its initial values
//!   is forgotten; `forget` in a case takes it there, after its rows are given out.
//! - An event is decided whole or not at all: where an expression fails, or a state column that is never null would become
//!   NULL, the event fails, the state stays as it was and the key's next events go on from there.
//! - Events of a key are taken in the order of their arrival. Late events too, unless there is a timer.
//! - A *timer* is a state column with a time. When event time reaches it (an event of the key at or after it, or the
//!   watermark), the timer's cases run once, on the key's columns and its state; then the column is NULL, unless the case
//!   has set a later time. An event without event time fails then, because nobody knows whether it was before the timer,
//!   and late events are not taken.
//!
//! What it gives out for a key depends on the key's events alone, and is in their order; rows of different keys are in the
//! order of arrival, timers behind the events that were pushed before the watermark.
//!
//! How it runs: [`run`].

mod given;
mod legend;
mod plan;
mod program;
mod rounds;
mod run;
mod running;
mod scope;
mod spec;
mod state;
#[cfg(test)]
mod tests;
mod types;

pub use plan::plan_fold;
pub use running::Folding;
pub use spec::{
    FOLD_UNMATCHED, FoldAction, FoldBlock, FoldCase, FoldError, FoldOtherwise, FoldPart, FoldPlace, FoldSpec, FoldTimer,
};

use std::sync::Arc;

use arrow_schema::DataType;
use millstream_event::{Name, Schema};

use crate::fold::program::Program;
use crate::fold::state::StatePlan;
use crate::stream::Broken;

/// A planned fold.
#[derive(Debug)]
pub struct Fold {
    inputs: Vec<Name>,
    input: Schema,
    schema: Schema,
    /// The key's names, places in the input, and types.
    key: Vec<String>,
    places: Vec<usize>,
    kinds: Vec<DataType>,
    state: StatePlan,
    events: Program,
    timer: Option<Timer>,
    lines: Vec<String>,
}

/// A planned timer.
#[derive(Debug)]
struct Timer {
    /// The state column.
    column: usize,
    /// The place of the event time in the input.
    time: usize,
    /// What is added to it.
    plus_us: i64,
    program: Program,
    /// The output column with the time of what is given out, where every row has it: an event's or the timer's.
    passed: Option<String>,
}

impl Fold {
    /// The topics it reads.
    pub fn inputs(&self) -> &[Name] {
        &self.inputs
    }

    /// The columns of its input.
    pub fn input_schema(&self) -> &Schema {
        &self.input
    }

    /// The columns of what it gives out.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The columns by which it folds: rows in which they are equal must meet in one task.
    pub fn key(&self, input: &Name) -> Option<&[String]> {
        self.inputs.contains(input).then_some(self.key.as_slice())
    }

    /// The first output column that is the input's column in every row that an event gives out and, where it is a column
    /// of the key, in every row that a timer gives out.
    pub fn passes_through(&self, input_column: &str) -> Option<String> {
        let (place, _) = self.input.column(input_column)?;
        let events = self.events.passed(place);
        let kept = |column: &usize| {
            let Some(timer) = &self.timer else { return true };
            let by_key = self.places.iter().position(|p| *p == place);
            timer.program.is_silent() || by_key.is_some_and(|k| timer.program.passed(k).contains(column))
        };
        let column = events.into_iter().find(kept)?;
        self.schema.columns().get(column).map(|c| c.name.clone())
    }

    /// Whether in each row that comes out the column `output` is the input's column `input` of `topic`.
    pub fn carries(&self, topic: &Name, input: &str, output: &str) -> bool {
        self.inputs.contains(topic) && self.passes_through(input).as_deref() == Some(output)
    }

    /// The event time of what comes out, given the column with the input's: a column, and how many microseconds are added
    /// to it. In a row that a timer gives out it must be the timer's column.
    pub fn event_time(&self, input_column: &str) -> Option<(String, i64)> {
        let timed = self.timer.as_ref().and_then(|timer| timer.passed.clone());
        timed.or_else(|| self.passes_through(input_column)).map(|column| (column, 0))
    }

    /// Whether it needs event time.
    pub fn is_timed(&self) -> bool {
        self.timer.is_some()
    }

    /// What decides the form of its state: stored state of another signature does not fit.
    pub fn state_signature(&self) -> String {
        let key = self.key.iter().zip(&self.kinds).map(|(name, kind)| format!("{name}: {kind}"));
        format!("fold by {} of {}", key.collect::<Vec<_>>().join(", "), self.state.describe())
    }

    /// The fold at work on one partition, without state.
    pub fn open(self: &Arc<Self>) -> Result<Folding, Broken> {
        Folding::new(Arc::clone(self))
    }

    /// What it does, one line for each part, for a person to read.
    pub fn explain(&self) -> String {
        self.lines.join("\n")
    }
}

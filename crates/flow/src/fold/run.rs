//! How a fold runs on a batch.
//!
//! Two ways give the same result, which a property test holds them to:
//!
//! - *By row*, where every expression that reads state has a form that is computed on single rows ([`crate::expr::row`]):
//!   events are taken one after the other, whatever their keys. Parts of expressions that depend on the event alone are
//!   computed before, for the whole batch. So it does not matter whether half of all events have one key.
//! - *In rounds* ([`crate::fold::rounds`]) otherwise: round r has the r-th event of each key, and each expression is
//!   evaluated once for a round. Rounds of few rows are taken row by row, with batches of one row for those expressions
//!   that need it.
//!
//! Either way the state rows of the batch's keys are read once, kept as values, and written back once.

use crate::expr::EvalError;
use crate::expr::value::Val;
use crate::fold::given::Given;
use crate::fold::program::{Case, Frame, Input, Rest};
use crate::fold::spec::FOLD_UNMATCHED;
use crate::fold::state::StatePlan;

/// What became of a row.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// A case took it.
    Done,
    /// It is left out.
    Dropped,
    /// It failed.
    Failed(EvalError),
}

/// The verdict on a row that no case takes.
pub(crate) fn unmatched(rest: Rest) -> Verdict {
    match rest {
        Rest::Drop => Verdict::Dropped,
        Rest::DeadLetter => {
            Verdict::Failed(EvalError { code: FOLD_UNMATCHED, reason: "no case of the fold is true for it".to_owned() })
        }
    }
}

/// A state column that is never null would become so.
pub(crate) fn null_state(state: &StatePlan, column: usize, text: &str) -> EvalError {
    let name = state.columns.get(column).map_or("?", |c| c.name.as_str());
    EvalError { code: "state-null", reason: format!("state.{name} is never null and would become NULL by {text}") }
}

/// Runs a program on one row of a frame and its key's state.
pub(crate) fn one(
    frame: &Frame<'_>,
    row: usize,
    plan: &StatePlan,
    state: &mut [Val<'static>],
    stamp: i64,
    place: u32,
    given: &mut Given,
) -> Verdict {
    let program = frame.program;
    let decided = {
        let before = frame.input(row, state);
        decide(&program.cases, &before).and_then(|case| match case {
            Some(case) => Ok(Some((case, new_values(case, plan, &before)?))),
            None => Ok(None),
        })
    };
    let (case, mut values) = match decided {
        Ok(Some(found)) => found,
        Ok(None) => return unmatched(program.rest),
        Err(error) => return Verdict::Failed(error),
    };
    exchange(state, &mut values);
    if let Err(error) = emit(case, &frame.input(row, state), stamp, place, given) {
        exchange(state, &mut values);
        return Verdict::Failed(error);
    }
    if case.forget {
        state.clone_from_slice(&plan.initial);
    }
    Verdict::Done
}

/// The first case that is true.
fn decide<'p: 'r, 'r>(cases: &'p [Case], row: &Input<'r>) -> Result<Option<&'p Case>, EvalError> {
    for case in cases {
        match &case.when {
            Some(when) if !when.is_true(row)? => {}
            _ => return Ok(Some(case)),
        }
    }
    Ok(None)
}

fn new_values<'r>(case: &'r Case, plan: &StatePlan, row: &Input<'r>) -> Result<Vec<(usize, Val<'static>)>, EvalError> {
    let mut values = Vec::with_capacity(case.set.len());
    for (column, expr) in &case.set {
        let value = expr.value(row)?.into_owned();
        if value.is_null() && plan.columns.get(*column).is_some_and(|c| !c.nullable) {
            return Err(null_state(plan, *column, expr.compiled.text()));
        }
        values.push((*column, value));
    }
    Ok(values)
}

/// Puts values into a row and takes out those that were there.
fn exchange(state: &mut [Val<'static>], values: &mut [(usize, Val<'static>)]) {
    for (column, value) in values {
        if let Some(old) = state.get_mut(*column) {
            std::mem::swap(old, value);
        }
    }
}

fn emit<'r>(case: &'r Case, row: &Input<'r>, stamp: i64, place: u32, given: &mut Given) -> Result<(), EvalError> {
    let mut values = Vec::with_capacity(case.emit.iter().map(Vec::len).sum());
    for expr in case.emit.iter().flatten() {
        values.push(expr.value(row)?);
    }
    let mut values = values.iter();
    for emitted in &case.emit {
        given.row(values.by_ref().take(emitted.len()), stamp, place);
    }
    Ok(())
}

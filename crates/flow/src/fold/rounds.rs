//! One round: rows of different keys, whose expressions are evaluated together.

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow_select::take::{take, take_record_batch};

use crate::expr::EvalError;
use crate::expr::value::{Reader, Sink};
use crate::fold::given::Given;
use crate::fold::program::{Case, Frame, Program};
use crate::fold::run::{Verdict, null_state, unmatched};
use crate::fold::state::{Slots, StatePlan};
use crate::isolate::isolate;
use crate::ops::batch_of;
use crate::stream::Broken;

/// A row of a round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    /// Its row in the frame.
    pub(crate) row: u32,
    /// The number of its key.
    pub(crate) key: usize,
    /// The place of what it gives out.
    pub(crate) place: u32,
}

/// What a case makes of rows.
struct Made {
    set: Vec<ArrayRef>,
    emit: Vec<Vec<ArrayRef>>,
}

/// Runs a program on rows of different keys; tells the verdict on each.
pub(crate) fn round(
    frame: &Frame<'_>,
    members: &[Member],
    plan: &StatePlan,
    slots: &mut Slots,
    given: &mut Given,
    mut verdict: impl FnMut(&Member, Verdict),
) -> Result<(), Broken> {
    let program = frame.program;
    let batch = with_state(frame, members, slots)?;
    let mut open: Vec<u32> = (0..members.len() as u32).collect();
    for case in &program.cases {
        if open.is_empty() {
            break;
        }
        let part = rows_of(&batch, &open)?;
        let hits = hits(case, &part, &mut open, |at, error| {
            if let Some(member) = members.get(at as usize) {
                verdict(member, Verdict::Failed(error));
            }
        });
        if hits.is_empty() {
            continue;
        }
        let part = rows_of(&batch, &hits)?;
        let made = isolate(hits.len(), |first, count| case.make(program, plan, &part.slice(first, count)));
        let member = |at: usize| hits.get(at).and_then(|at| members.get(*at as usize));
        for failed in made.failed {
            if let Some(member) = member(failed.row as usize) {
                verdict(member, Verdict::Failed(EvalError { code: failed.code, reason: failed.reason }));
            }
        }
        for (first, made) in made.parts {
            let count = made.set.iter().chain(made.emit.iter().flatten()).map(|c| c.len()).next();
            let first = first as usize;
            let count = count.unwrap_or(hits.len() - first);
            let these: Vec<&Member> = (first..first + count).filter_map(member).collect();
            keep(case, plan, &made.set, &these, slots);
            let stamps = part.columns().last().map(|c| c.slice(first, count));
            for (columns, stamps) in made.emit.into_iter().zip(std::iter::repeat(stamps)) {
                let stamps = stamps.ok_or_else(|| Broken("a batch has no columns".into()))?;
                given.columns(columns, stamps, these.iter().map(|m| m.place))?;
            }
            these.into_iter().for_each(|member| verdict(member, Verdict::Done));
        }
    }
    open.iter().filter_map(|at| members.get(*at as usize)).for_each(|m| verdict(m, unmatched(program.rest)));
    Ok(())
}

/// The open rows for which a case is true, which are open no more, as those on which it fails.
fn hits(case: &Case, part: &RecordBatch, open: &mut Vec<u32>, mut fail: impl FnMut(u32, EvalError)) -> Vec<u32> {
    let Some(when) = &case.when else { return std::mem::take(open) };
    let parts = isolate(open.len(), |first, count| when.truths(&part.slice(first, count)));
    let mut decided: Vec<Option<bool>> = vec![None; open.len()];
    for failed in parts.failed {
        if let (Some(at), Some(slot)) = (open.get(failed.row as usize), decided.get_mut(failed.row as usize)) {
            fail(*at, EvalError { code: failed.code, reason: failed.reason });
            *slot = Some(false);
        }
    }
    for (first, truths) in parts.parts {
        let slots = decided.iter_mut().skip(first as usize);
        slots.zip(&truths).filter(|(_, truth)| *truth == Some(true)).for_each(|(slot, _)| *slot = Some(true));
    }
    let with = |wanted: Option<bool>| {
        let rows = open.iter().zip(&decided).filter(move |(_, decided)| **decided == wanted);
        rows.map(|(at, _)| *at).collect::<Vec<u32>>()
    };
    let (hits, rest) = (with(Some(true)), with(None));
    *open = rest;
    hits
}

fn rows_of(batch: &RecordBatch, rows: &[u32]) -> Result<RecordBatch, Broken> {
    if rows.len() == batch.num_rows() {
        return Ok(batch.clone());
    }
    Ok(take_record_batch(batch, &UInt32Array::from(rows.to_vec()))?)
}

/// The rows with the states of their keys.
fn with_state(frame: &Frame<'_>, members: &[Member], slots: &Slots) -> Result<RecordBatch, Broken> {
    let program = frame.program;
    let rows: UInt32Array = members.iter().map(|m| m.row).collect();
    let own = frame.batch.columns();
    let mut columns = own.iter().take(program.events).map(|c| take(c, &rows, None)).collect::<Result<Vec<_>, _>>()?;
    let last = program.schema.fields().len().saturating_sub(1);
    for (column, field) in program.schema.fields().iter().take(last).skip(program.events).enumerate() {
        let mut sink = Sink::new(field.data_type());
        members.iter().filter_map(|m| slots.row(m.key).get(column)).for_each(|value| sink.push(value));
        columns.push(sink.finish()?);
    }
    if let Some(system) = own.last() {
        columns.push(take(system, &rows, None)?);
    }
    Ok(batch_of(&program.schema, columns, members.len())?)
}

/// The new state of the keys.
fn keep(case: &Case, plan: &StatePlan, set: &[ArrayRef], these: &[&Member], slots: &mut Slots) {
    for ((column, _), values) in case.set.iter().zip(set) {
        let values = Reader::new(values);
        for (row, member) in these.iter().enumerate() {
            if let Some(slot) = slots.change(member.key).get_mut(*column) {
                *slot = values.get(row).into_owned();
            }
        }
    }
    if case.forget {
        these.iter().for_each(|member| slots.change(member.key).clone_from_slice(&plan.initial));
    }
}

impl Case {
    /// The new state and the rows given out, for rows that the case takes.
    fn make(&self, program: &Program, plan: &StatePlan, batch: &RecordBatch) -> Result<Made, EvalError> {
        let mut set = Vec::with_capacity(self.set.len());
        for (column, expr) in &self.set {
            let values = expr.column(batch)?;
            if values.null_count() > 0 && plan.columns.get(*column).is_some_and(|c| !c.nullable) {
                return Err(null_state(plan, *column, expr.compiled.text()));
            }
            set.push(values);
        }
        let mut columns = batch.columns().to_vec();
        for ((column, _), values) in self.set.iter().zip(&set) {
            if let Some(old) = columns.get_mut(program.events + column) {
                *old = ArrayRef::clone(values);
            }
        }
        let after = batch_of(&program.schema, columns, batch.num_rows());
        let after = after.map_err(|e| EvalError::internal("fold", &e))?;
        let emit = |row: &Vec<crate::fold::program::RowExpr>| row.iter().map(|expr| expr.column(&after)).collect();
        Ok(Made { set, emit: self.emit.iter().map(emit).collect::<Result<_, _>>()? })
    }
}

/// The stamps of a batch's rows: its last column.
pub(crate) fn stamps(batch: &RecordBatch) -> Result<&[i64], Broken> {
    let last = batch.columns().last().and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
    last.map(|stamps| stamps.values().as_ref()).ok_or_else(|| Broken("a batch has no system column".into()))
}

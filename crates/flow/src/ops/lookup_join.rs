//! Adds a lookup's columns to each row, found by the lookup's whole key.
//!
//! At most one lookup row matches, so an inner join only drops rows and a left join keeps all: order and origin stay
//! simple. What the query asks of the lookup's rows (a subquery's filter and columns, further conditions of ON) is
//! evaluated on the matched rows only.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, UInt32Array, new_null_array};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_ord::cmp::not_distinct;
use arrow_schema::{ArrowError, DataType, SchemaRef};
use arrow_select::take::take;

use crate::expr::{Compiled, EvalError};
use crate::lookup::LookupTable;
use crate::ops::{Frame, Op, batch_of, run, take_all};
use crate::outcome::Origin;

/// What finds one key column's value.
#[derive(Debug)]
pub(crate) struct Key {
    /// The expression over the row.
    pub(crate) expr: Compiled,
    /// The type of the lookup's key column. Another type of the expression is cast to it and back: a value that does
    /// not survive equals no key.
    pub(crate) kind: DataType,
}

/// Joins rows with a lookup.
#[derive(Debug)]
pub(crate) struct LookupJoin {
    pub(crate) name: String,
    /// The lookup's place in the query's list.
    pub(crate) lookup: usize,
    /// One per key column, in the lookup's order.
    pub(crate) keys: Vec<Key>,
    /// Keep rows without match.
    pub(crate) left: bool,
    /// The columns gathered from the lookup's rows.
    pub(crate) gather: Vec<usize>,
    /// The gathered columns and the system column.
    pub(crate) side: SchemaRef,
    /// What a subquery does to the gathered columns; usually nothing.
    pub(crate) side_ops: Vec<Op>,
    /// The columns behind `side_ops`, without the system column.
    pub(crate) side_types: Vec<DataType>,
    /// The lookup's columns come behind the row's.
    pub(crate) row_first: bool,
    /// Further conditions, over the joined row.
    pub(crate) residual: Option<Compiled>,
    /// The joined columns, then the system column.
    pub(crate) schema: SchemaRef,
    /// The place of this join's count of dropped rows, if it is an inner join.
    pub(crate) dropped: Option<usize>,
}

const LENIENT: CastOptions<'static> =
    CastOptions { safe: true, format_options: arrow_cast::display::FormatOptions::new() };

impl LookupJoin {
    pub(crate) fn apply(&self, frame: Frame, lookups: &[Arc<LookupTable>]) -> Result<Frame, EvalError> {
        let internal = |e: ArrowError| EvalError::internal("join", &e);
        let table = lookups.get(self.lookup).ok_or_else(|| EvalError::missing(&self.name))?;
        let count = frame.batch.num_rows();
        let keys = self.keys.iter().map(|k| k.evaluate(&frame)).collect::<Result<Vec<_>, _>>()?;
        let found = table.probe(&keys, count).map_err(internal)?;
        if self.side_ops.is_empty() && self.residual.is_none() {
            return if self.left {
                let rows = UInt32Array::from(found);
                self.joined(&frame, self.gathered(table, &rows).map_err(internal)?).map_err(internal)
            } else {
                self.inner(frame, table, &found).map_err(internal)
            };
        }
        self.conditional(frame, table, &found, lookups)
    }

    /// The usual inner join: rows without match drop out.
    fn inner(&self, mut frame: Frame, table: &LookupTable, found: &[Option<u32>]) -> Result<Frame, ArrowError> {
        let rows: UInt32Array = found.iter().flatten().copied().collect();
        if rows.len() < found.len() {
            let kept: UInt32Array = (0_u32..).zip(found).filter(|(_, f)| f.is_some()).map(|(i, _)| i).collect();
            self.count(&mut frame, found.len() - kept.len());
            frame = frame.take(&kept)?;
        }
        self.joined(&frame, self.gathered(table, &rows)?)
    }

    /// With conditions on the matched row: which matches stand is known only after they were evaluated.
    fn conditional(
        &self,
        mut frame: Frame,
        table: &LookupTable,
        found: &[Option<u32>],
        lookups: &[Arc<LookupTable>],
    ) -> Result<Frame, EvalError> {
        let internal = |e: ArrowError| EvalError::internal("join", &e);
        let total = found.len();
        let rows: UInt32Array = found.iter().flatten().copied().collect();
        let mut matched: UInt32Array = (0_u32..).zip(found).filter(|(_, f)| f.is_some()).map(|(i, _)| i).collect();
        let system = frame.batch.columns().last().map(Arc::clone).ok_or_else(|| EvalError::missing(&self.name))?;
        let mut side = self.gathered(table, &rows).map_err(internal)?;
        if !self.side_ops.is_empty() {
            side.push(take(&system, &matched, None).map_err(internal)?);
            let batch = batch_of(&self.side, side, matched.len()).map_err(internal)?;
            let input = Frame { batch, origin: Origin::Identity(matched.len()), dropped: Vec::new() };
            let output = run(&self.side_ops, input, lookups)?;
            matched = output.origin.iter().filter_map(|i| matched.values().get(i as usize).copied()).collect();
            side = output.batch.columns().iter().take(self.side_types.len()).cloned().collect();
        }
        if let Some(residual) = &self.residual {
            let joined = self.joined(&frame.clone().take(&matched).map_err(internal)?, side.clone());
            let mask: BooleanArray = residual.evaluate_bool(&joined.map_err(internal)?.batch)?;
            let standing: UInt32Array =
                (0_u32..).zip(&mask).filter(|(_, m)| *m == Some(true)).map(|(i, _)| i).collect();
            side = take_all(&side, &standing).map_err(internal)?;
            matched =
                take(&matched, &standing, None).map_err(internal)?.as_any().downcast_ref().cloned().unwrap_or(matched);
        }
        if self.left {
            let mut places: Vec<Option<u32>> = vec![None; total];
            for (i, row) in (0_u32..).zip(matched.values()) {
                if let Some(place) = places.get_mut(*row as usize) {
                    *place = Some(i);
                }
            }
            side = gather(&side, &self.side_types, &UInt32Array::from(places)).map_err(internal)?;
        } else {
            self.count(&mut frame, total - matched.len());
            frame = frame.take(&matched).map_err(internal)?;
        }
        self.joined(&frame, side).map_err(internal)
    }

    /// The lookup's columns at `rows`.
    fn gathered(&self, table: &LookupTable, rows: &UInt32Array) -> Result<Vec<ArrayRef>, ArrowError> {
        let types: Vec<DataType> = self.side.fields().iter().map(|f| f.data_type().clone()).collect();
        table.gather(&self.gather, &types, rows)
    }

    fn joined(&self, frame: &Frame, side: Vec<ArrayRef>) -> Result<Frame, ArrowError> {
        let all = frame.batch.columns();
        let user = all.len().saturating_sub(1);
        let (row, system) = (all.iter().take(user).cloned(), all.iter().skip(user).cloned());
        let columns: Vec<ArrayRef> = match self.row_first {
            true => row.chain(side).chain(system).collect(),
            false => side.into_iter().chain(row).chain(system).collect(),
        };
        let batch = batch_of(&self.schema, columns, frame.batch.num_rows())?;
        Ok(Frame { batch, origin: frame.origin.clone(), dropped: frame.dropped.clone() })
    }

    fn count(&self, frame: &mut Frame, rows: usize) {
        if let Some(count) = self.dropped.and_then(|at| frame.dropped.get_mut(at)) {
            *count += rows as u64;
        }
    }

    pub(crate) fn describe(&self) -> String {
        let keys: Vec<&str> = self.keys.iter().map(|k| k.expr.text()).collect();
        let kind = if self.left { "left" } else { "inner" };
        let residual = self.residual.as_ref().map(|r| format!(" if {}", r.text())).unwrap_or_default();
        format!("{kind} join with lookup {} by {}{residual}", self.name, keys.join(", "))
    }
}

impl Key {
    fn evaluate(&self, frame: &Frame) -> Result<ArrayRef, EvalError> {
        let value = self.expr.evaluate(&frame.batch)?;
        if value.data_type() == &self.kind {
            return Ok(value);
        }
        let exact = || {
            let key = cast_with_options(&value, &self.kind, &LENIENT)?;
            let back = cast_with_options(&key, value.data_type(), &LENIENT)?;
            let same = not_distinct(&back, &value)?;
            arrow_select::nullif::nullif(&key, &arrow_select_not(&same))
        };
        exact().map_err(|e: ArrowError| EvalError::arrow(&e, self.expr.text()))
    }
}

fn arrow_select_not(mask: &BooleanArray) -> BooleanArray {
    mask.iter().map(|m| m.map(|m| !m)).collect()
}

/// `columns` at `rows`; NULL where a row is NULL.
fn gather(columns: &[ArrayRef], types: &[DataType], rows: &UInt32Array) -> Result<Vec<ArrayRef>, ArrowError> {
    if rows.null_count() == rows.len() {
        return Ok(types.iter().take(columns.len()).map(|t| new_null_array(t, rows.len())).collect());
    }
    take_all(columns, rows)
}

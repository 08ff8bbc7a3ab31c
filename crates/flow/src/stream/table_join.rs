//! A stream joined with a table topic on its whole key, as of now: a row meets the newest row of its key that has come so
//! far. Tombstones remove.
//!
//! State: the key columns have the table's row of this key.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{ArrayRef, BooleanArray, RecordBatch};
use millstream_event::Stamp;

use crate::expr::Compiled;
use crate::stream::legend::{Legend, Sides, TableLegend};
use crate::stream::operator::{Blueprint, Broken, Operator, Out};
use crate::stream::paired::{Arrived, Paired, PairedPlan};
use crate::stream::row_table::RowTable;
use crate::stream::two::{Two, other};

/// A planned join with a table topic.
#[derive(Debug, Clone)]
pub(crate) struct TableJoinPlan {
    pub(crate) name: String,
    pub(crate) paired: PairedPlan,
    /// The side of the table.
    pub(crate) table: usize,
    /// Whether rows without a match are given out.
    pub(crate) keep: bool,
    /// What else a match must fulfil; it cannot fail.
    pub(crate) residual: Option<Compiled>,
}

impl Blueprint for TableJoinPlan {
    fn open(&self) -> Result<Box<dyn Operator>, Broken> {
        let paired = Paired::new(&self.paired)?;
        Ok(Box::new(TableJoin { plan: self.clone(), paired, rows: RowTable::default() }))
    }

    fn timed(&self) -> bool {
        false
    }

    fn passes(&self, side: usize) -> bool {
        side != self.table
    }

    fn meanings(&self, side: usize) -> Vec<usize> {
        self.paired.keys.of(side).clone()
    }

    fn signature(&self) -> String {
        format!("table join {} {}", self.table, self.paired.signature())
    }

    fn legend(&self) -> Result<Box<dyn Legend>, Broken> {
        Ok(Box::new(TableLegend { sides: Sides::new(&self.paired)?, table: self.table }))
    }

    fn describe(&self) -> String {
        let kind = if self.keep { "left" } else { "inner" };
        let residual = self.residual.as_ref().map(|r| format!(" if {}", r.text())).unwrap_or_default();
        format!("{kind} join with table topic {} as of now{residual}", self.name)
    }
}

struct TableJoin {
    plan: TableJoinPlan,
    paired: Paired,
    rows: RowTable,
}

/// Whether the table's row of this place is a tombstone.
pub(crate) fn deleted(rows: &RecordBatch) -> impl Fn(usize) -> bool {
    let stamps = rows.columns().last().and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>()).cloned();
    move |row| stamps.as_ref().is_some_and(|stamps| Stamp(stamps.value(row)).is_deleted())
}

impl Operator for TableJoin {
    fn push(&mut self, side: usize, rows: &RecordBatch, out: &mut Out<'_>) -> Result<(), Broken> {
        let arrived = self.paired.arrived(side, rows)?;
        match side == self.plan.table {
            true => self.update(rows, &arrived, out),
            false => self.meet(rows, &arrived, out)?,
        }
        Ok(())
    }

    fn advance(&mut self, _watermark: i64, _out: &mut Out<'_>) -> Result<(), Broken> {
        Ok(())
    }

    fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Broken> {
        self.rows.restore(key, value);
        Ok(())
    }

    fn size(&self) -> (usize, usize) {
        (self.rows.len(), self.rows.bytes())
    }
}

impl TableJoin {
    fn update(&mut self, rows: &RecordBatch, arrived: &Arrived, out: &mut Out<'_>) {
        let deleted = deleted(rows);
        for row in 0..rows.num_rows() {
            let Some(key) = arrived.key(row) else { continue };
            if !deleted(row) {
                self.rows.put(key, arrived.row(row));
                out.changes.put(&[key], arrived.row(row));
            } else if self.rows.remove(key) {
                out.changes.delete(&[key]);
            }
        }
    }

    fn meet(&self, rows: &RecordBatch, arrived: &Arrived, out: &mut Out<'_>) -> Result<(), Broken> {
        let find = |row: usize| arrived.key(row).and_then(|key| self.rows.get(key));
        let mut picked: Vec<u32> = Vec::with_capacity(rows.num_rows());
        let mut found: Vec<Option<&[u8]>> = Vec::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            let match_of = find(row);
            if match_of.is_some() || self.plan.keep {
                picked.push(row as u32);
                found.push(match_of);
            }
        }
        let own = self.paired.pick(other(self.plan.table), rows, &picked)?;
        out.rows.extend(matched(&self.paired, self.plan.table, self.plan.residual.as_ref(), own, found)?);
        Ok(())
    }
}

/// Rows with what they found in the table. A match that does not fulfil the condition is none.
pub(crate) fn matched(
    paired: &Paired,
    table: usize,
    residual: Option<&Compiled>,
    own: Vec<ArrayRef>,
    mut found: Vec<Option<&[u8]>>,
) -> Result<Option<RecordBatch>, Broken> {
    if found.is_empty() {
        return Ok(None);
    }
    // The row keeps its stamp: what comes out is the event, with more columns.
    let stamps = own.last().cloned().ok_or_else(|| Broken("a row has no system column".into()))?;
    let batch = |found: &[Option<&[u8]>]| {
        let others = paired.decode(table, found)?;
        let columns = match table {
            0 => Two { left: others, right: own.clone() },
            _ => Two { left: own.clone(), right: others },
        };
        paired.stamped(columns, Arc::clone(&stamps), found.len())
    };
    let joined = batch(&found)?;
    let Some(residual) = residual else { return Ok(Some(joined)) };
    let holds: BooleanArray = residual.evaluate_bool(&joined).map_err(|e| Broken(e.reason))?;
    if holds.true_count() == found.len() {
        return Ok(Some(joined));
    }
    for (found, holds) in found.iter_mut().zip(&holds) {
        *found = found.filter(|_| holds == Some(true));
    }
    Ok(Some(batch(&found)?))
}

/// The event times of rows: a column, and what is added to it.
pub(crate) fn times_of(rows: &RecordBatch, place: usize, shift: i64) -> Result<Vec<Option<i64>>, Broken> {
    let column = rows.columns().get(place).and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
    let column = column.ok_or_else(|| Broken("the time of a join is no timestamp".into()))?;
    Ok(column.iter().map(|time| time.map(|time| time.saturating_add(shift))).collect())
}

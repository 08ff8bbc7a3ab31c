//! Event time goes on: operators conclude, one behind the other.
//!
//! An operator may stop on its way, so that what one step gives out is bounded. Then the stages behind it go on as far as
//! it came, what is promised of the output is no more than that, and the next step goes on there. Nothing has to be kept
//! for it: what an operator holds tells where it stopped, also after a restart ([`Running::resume`]).

use std::sync::Arc;

use arrow_array::RecordBatch;

use crate::lookup::LookupSet;
use crate::outcome::concat_batches;
use crate::stream::operator::Broken;
use crate::stream::running::{Chain, Running, Source, Step, latest};

/// Small batches that an operator gives out together go on as one of up to so many rows.
const ROWS_TOGETHER: usize = 65_536;

impl Running {
    /// No row that is not late will be pushed any more with an event time before `watermark` (microseconds since 1970
    /// UTC; `i64::MAX`: nothing more will be pushed, as far as is known). A watermark that goes back changes nothing. To be
    /// called again while it says [`Step::more`].
    pub fn advance(&mut self, watermark: i64, lookups: &LookupSet) -> Result<Step, Broken> {
        let mut step = Step::default();
        if watermark != i64::MAX {
            if watermark <= self.watermark && !self.more {
                return Ok(step);
            }
            self.watermark = self.watermark.max(watermark);
        }
        let watermark = if watermark == i64::MAX { watermark } else { self.watermark };
        let query = Arc::clone(&self.query);
        let tables = query.tables(lookups).map_err(|e| Broken(e.reason))?;
        let mut dropped = vec![0; query.inner().len()];
        let mut reached: Vec<i64> = Vec::with_capacity(self.operators.len());
        for at in 0..self.operators.len() {
            let own = query.stages().get(at).map_or(watermark, |stage| through(&stage.sides, &reached, watermark));
            let (rows, _) = self.operate(at, &mut step, |operator, out| operator.advance(own, out))?;
            let stopped = self.stopped(at, own);
            step.more |= stopped.is_some();
            reached.push(stopped.unwrap_or_else(|| self.behind(at, own)));
            self.flow(at, together(rows)?, &tables, &mut step, &mut dropped)?;
        }
        self.more = step.more;
        step.dropped = query.inner().iter().cloned().zip(dropped).filter(|(_, n)| *n > 0).collect();
        step.rows = latest(&query, step.rows)?;
        Ok(step)
    }

    /// Goes on from restored state where the inputs' watermark was `watermark`. Whether [`Self::advance`] had stopped on its
    /// way there.
    pub fn resume(&mut self, watermark: i64) -> bool {
        self.more = self.reached(watermark, true).1;
        self.more
    }

    /// What may still be expected of the output where the inputs' watermark is `watermark`.
    pub fn output_watermark(&self, watermark: i64) -> i64 {
        let (reached, _) = self.reached(watermark, self.more);
        match self.query.source() {
            Source::Stage(at) => reached.get(*at).copied().unwrap_or(watermark),
            _ => watermark,
        }
    }

    /// How far each stage's output is, and whether one has stopped on its way.
    fn reached(&self, watermark: i64, more: bool) -> (Vec<i64>, bool) {
        let (mut reached, mut any) = (Vec::with_capacity(self.operators.len()), false);
        for (at, stage) in self.query.stages().iter().enumerate() {
            let own = through(&stage.sides, &reached, watermark);
            let stopped = self.stopped(at, own).filter(|_| more);
            any |= stopped.is_some();
            reached.push(stopped.unwrap_or_else(|| self.behind(at, own)));
        }
        (reached, any)
    }

    /// How far the output of a stage is that has stopped before its inputs' watermark.
    fn stopped(&self, at: usize, own: i64) -> Option<i64> {
        let operator = self.operators.get(at)?;
        let due = operator.due().filter(|due| *due <= own)?;
        Some(due.saturating_sub(1).saturating_sub(operator.holds_back()))
    }

    /// How far the output of a stage is whose inputs are at `own`.
    fn behind(&self, at: usize, own: i64) -> i64 {
        let behind = self.operators.get(at).map_or(0, |operator| operator.holds_back());
        if own == i64::MAX { own } else { own.saturating_sub(behind) }
    }
}

/// The watermark behind the sides of a stage, where those of earlier stages stand at `reached`.
fn through(sides: &[Chain], reached: &[i64], watermark: i64) -> i64 {
    let of = |chain: &Chain| match chain.source {
        Source::Stage(at) => reached.get(at).copied().unwrap_or(watermark),
        _ => watermark,
    };
    sides.iter().map(of).min().unwrap_or(watermark)
}

/// Batches behind each other as few.
fn together(batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, Broken> {
    let (mut all, mut some, mut rows) = (Vec::new(), Vec::new(), 0);
    for batch in batches {
        if rows > 0 && rows + batch.num_rows() > ROWS_TOGETHER {
            all.push(concat_batches(&std::mem::take(&mut some))?);
            rows = 0;
        }
        rows += batch.num_rows();
        some.push(batch);
    }
    if !some.is_empty() {
        all.push(concat_batches(&some)?);
    }
    Ok(all)
}

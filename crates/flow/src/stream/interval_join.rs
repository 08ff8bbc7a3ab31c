//! Two streams joined by key within an interval of time: a left row at time `l` meets the right rows at times from
//! `l + least` to `l + most`. Windows are a case of it: rows of one window have the same end.
//!
//! A pair is given out when the second of the two has come. A row that nothing can meet any more, because the watermark has
//! passed the end of its interval, is let go; on a side that keeps its rows, it is given out then, if it has met none.
//!
//! State: the key `side, time, number` has a row (see [`Held`]); its flag says whether it has met another.

use arrow_array::{BooleanArray, RecordBatch};
use arrow_select::filter::filter_record_batch;

use crate::expr::Compiled;
use crate::stream::held::{Held, Slot};
use crate::stream::legend::{HeldLegend, Legend, Sides};
use crate::stream::operator::{Blueprint, Broken, Operator, Out};
use crate::stream::paired::{PAIRS_PER_BATCH, Paired, PairedPlan};
use crate::stream::table_join::times_of;
use crate::stream::two::{Two, other};

/// A planned join by interval.
#[derive(Debug, Clone)]
pub(crate) struct IntervalJoinPlan {
    pub(crate) paired: PairedPlan,
    /// The place of each side's time.
    pub(crate) time: Two<usize>,
    /// What is added to it: the end of a window is behind its last moment.
    pub(crate) shift: Two<i64>,
    /// The least of the right time minus the left one, in microseconds.
    pub(crate) least: i64,
    /// The most.
    pub(crate) most: i64,
    /// Whether a side's rows are given out even if they meet none.
    pub(crate) keep: Two<bool>,
    /// What else a pair must fulfil; it cannot fail.
    pub(crate) residual: Option<Compiled>,
}

impl Blueprint for IntervalJoinPlan {
    fn open(&self) -> Result<Box<dyn Operator>, Broken> {
        let paired = Paired::new(&self.paired)?;
        Ok(Box::new(IntervalJoin { plan: self.clone(), paired, held: Two::default() }))
    }

    fn timed(&self) -> bool {
        true
    }

    fn meanings(&self, side: usize) -> Vec<usize> {
        self.paired.keys.of(side).clone()
    }

    fn signature(&self) -> String {
        let keep = (self.keep.left, self.keep.right);
        let Self { least, most, time, .. } = self;
        format!("interval join {least}..{most} {keep:?} {time:?} {}", self.paired.signature())
    }

    fn legend(&self) -> Result<Box<dyn Legend>, Broken> {
        let kinds = [(0, "left row"), (1, "right row")];
        let flagged = ["has met another", "has met another"];
        Ok(Box::new(HeldLegend { sides: Sides::new(&self.paired)?, kinds, flagged }))
    }

    fn describe(&self) -> String {
        let kind = kind_of(self.keep);
        let seconds = |micros: i64| micros as f64 / 1e6;
        let residual = self.residual.as_ref().map(|r| format!(" if {}", r.text())).unwrap_or_default();
        let (least, most) = (seconds(self.least), seconds(self.most));
        format!("{kind} join of streams, the right one {least} to {most} s behind the left one{residual}")
    }
}

/// The name of a join that keeps these sides.
pub(crate) fn kind_of(keep: Two<bool>) -> &'static str {
    match (keep.left, keep.right) {
        (false, false) => "inner",
        (true, false) => "left",
        (false, true) => "right",
        (true, true) => "full",
    }
}

struct IntervalJoin {
    plan: IntervalJoinPlan,
    paired: Paired,
    held: Two<Held>,
}

/// The flag of a row that has met another.
const MET: u8 = 1;

/// Pairs of a row that has come and a held one of the other side, if there is one.
#[derive(Default)]
struct Pairs {
    rows: Vec<u32>,
    held: Vec<Option<u32>>,
}

impl Operator for IntervalJoin {
    fn push(&mut self, side: usize, rows: &RecordBatch, out: &mut Out<'_>) -> Result<(), Broken> {
        let arrived = self.paired.arrived(side, rows)?;
        let times = times_of(rows, *self.plan.time.of(side), *self.plan.shift.of(side))?;
        let place = |row: usize| Some((times.get(row).copied().flatten()?, arrived.key(row)?));
        let keeps = *self.plan.keep.of(side);
        let mut pairs = Pairs::default();
        let mut met = vec![false; rows.num_rows()];
        for row in 0..rows.num_rows() {
            let number = row as u32;
            match place(row) {
                Some((time, key)) => {
                    let (from, to) = self.reach(side, time);
                    let found = self.held.of(other(side)).find(key, from, to);
                    found.for_each(|held| pairs.add(number, Some(held)));
                }
                // A row without key or time meets none.
                None if keeps => pairs.add(number, None),
                None => {}
            }
            if pairs.rows.len() >= PAIRS_PER_BATCH {
                self.give_out(side, rows, std::mem::take(&mut pairs), &mut met, out)?;
            }
        }
        self.give_out(side, rows, pairs, &mut met, out)?;
        let held = self.held.of_mut(side);
        for (row, met) in met.into_iter().enumerate() {
            if let Some((time, key)) = place(row) {
                let flag = if met { MET } else { 0 };
                held.insert(time, flag, key, arrived.row(row), side as u8, out.changes);
            }
        }
        Ok(())
    }

    fn advance(&mut self, watermark: i64, out: &mut Out<'_>) -> Result<(), Broken> {
        let mut alone: Vec<(usize, Slot)> = Vec::new();
        // By the end of the interval, so that the order does not depend on how far the watermark goes at once.
        loop {
            let due = |side: usize| {
                let (time, at) = self.held.of(side).first()?;
                Some((self.reach(side, time).1, side, at))
            };
            let Some((end, side, at)) = [due(0), due(1)].into_iter().flatten().min() else { break };
            if end >= watermark && watermark != i64::MAX {
                break;
            }
            let held = self.held.of_mut(side);
            let wanted = *self.plan.keep.of(side) && held.flag(at) != MET;
            let slot = held.remove(at, side as u8, out.changes);
            alone.extend(slot.filter(|_| wanted).map(|slot| (side, slot)));
            if alone.len() >= PAIRS_PER_BATCH {
                out.rows.push(self.alone(&alone)?);
                alone.clear();
            }
        }
        if !alone.is_empty() {
            out.rows.push(self.alone(&alone)?);
        }
        Ok(())
    }

    fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Broken> {
        match key.split_first() {
            Some((side @ (0 | 1), key)) => self.held.of_mut(usize::from(*side)).restore(key, value),
            _ => Err(Broken("a join's state has another form than this version's".into())),
        }
    }

    fn waits(&self) -> bool {
        // A row of a side that is kept goes out alone when none can match any more.
        self.plan.keep.left && self.held.left.size().0 > 0 || self.plan.keep.right && self.held.right.size().0 > 0
    }

    fn holds_back(&self) -> i64 {
        self.plan.most.max(self.plan.least.saturating_neg()).max(0)
    }

    fn size(&self) -> (usize, usize) {
        let (left, right) = (self.held.left.size(), self.held.right.size());
        (left.0 + right.0, left.1 + right.1)
    }
}

impl Pairs {
    fn add(&mut self, row: u32, held: Option<u32>) {
        self.rows.push(row);
        self.held.push(held);
    }

    /// Those for which the mask is true.
    fn retain(&mut self, mask: &[bool]) {
        let mut stands = mask.iter().copied();
        self.rows.retain(|_| stands.next().unwrap_or(false));
        let mut stands = mask.iter().copied();
        self.held.retain(|_| stands.next().unwrap_or(false));
    }
}

impl IntervalJoin {
    /// From when to when the other side's rows are met by a row of this one.
    fn reach(&self, side: usize, time: i64) -> (i64, i64) {
        let IntervalJoinPlan { least, most, .. } = self.plan;
        match side {
            0 => (time.saturating_add(least), time.saturating_add(most)),
            _ => (time.saturating_sub(most), time.saturating_sub(least)),
        }
    }

    /// Gives out the pairs that fulfil the condition, and marks who has met another.
    fn give_out(
        &mut self,
        side: usize,
        rows: &RecordBatch,
        mut pairs: Pairs,
        met: &mut [bool],
        out: &mut Out<'_>,
    ) -> Result<(), Broken> {
        if pairs.rows.is_empty() {
            return Ok(());
        }
        let held = self.held.of(other(side));
        let bytes: Vec<Option<&[u8]>> = pairs.held.iter().map(|at| at.map(|at| held.row(at))).collect();
        let own = self.paired.pick(side, rows, &pairs.rows)?;
        let others = self.paired.decode(other(side), &bytes)?;
        let columns = if side == 0 { Two { left: own, right: others } } else { Two { left: others, right: own } };
        let mut batch = self.paired.batch(columns, pairs.rows.len())?;
        if let Some(residual) = &self.plan.residual {
            let holds = residual.evaluate_bool(&batch).map_err(|e| Broken(e.reason))?;
            let stands = |(held, holds): (&Option<u32>, Option<bool>)| held.is_none() || holds == Some(true);
            let mask: Vec<bool> = pairs.held.iter().zip(&holds).map(stands).collect();
            pairs.retain(&mask);
            batch = filter_record_batch(&batch, &BooleanArray::from(mask))?;
        }
        let keeps = *self.plan.keep.of(other(side));
        for (row, at) in pairs.rows.iter().zip(&pairs.held) {
            let Some(at) = at else { continue };
            if let Some(met) = met.get_mut(*row as usize) {
                *met = true;
            }
            if keeps {
                self.held.of_mut(other(side)).mark(*at, MET, other(side) as u8, out.changes);
            }
        }
        if batch.num_rows() > 0 {
            out.rows.push(batch);
        }
        Ok(())
    }

    /// Rows that met none.
    fn alone(&self, rows: &[(usize, Slot)]) -> Result<RecordBatch, Broken> {
        let of = |side: usize| {
            let own = rows.iter().map(|(of, slot)| (*of == side).then(|| slot.row()));
            self.paired.decode(side, &own.collect::<Vec<_>>())
        };
        self.paired.batch(Two { left: of(0)?, right: of(1)? }, rows.len())
    }
}

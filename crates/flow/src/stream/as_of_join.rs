//! A stream joined with a table topic on its whole key, as of the event's time: a row meets the last version of its key
//! whose time is not behind its own. Tombstones are versions that say there is none.
//!
//! A row waits until the watermark has passed its time, for a version of its time may still come; rows are given out by
//! time. Of a key's versions that are older than the watermark only the last is kept.
//!
//! State: the keys `0, time, number` are waiting rows, `1, time, number` versions (see [`Held`]).

use arrow_array::RecordBatch;

use crate::expr::Compiled;
use crate::stream::held::{Held, Slot};
use crate::stream::legend::{HeldLegend, Legend, Sides};
use crate::stream::operator::{Blueprint, Broken, Operator, Out};
use crate::stream::paired::{PAIRS_PER_BATCH, Paired, PairedPlan};
use crate::stream::table_join::{deleted, matched, times_of};
use crate::stream::two::{Two, other};

/// A planned join with the versions of a table topic.
#[derive(Debug, Clone)]
pub(crate) struct AsOfJoinPlan {
    pub(crate) name: String,
    pub(crate) paired: PairedPlan,
    /// The place of each side's time.
    pub(crate) time: Two<usize>,
    /// What is added to it.
    pub(crate) shift: Two<i64>,
    /// The side of the table.
    pub(crate) table: usize,
    /// Whether rows without a match are given out.
    pub(crate) keep: bool,
    /// What else a match must fulfil; it cannot fail.
    pub(crate) residual: Option<Compiled>,
}

impl Blueprint for AsOfJoinPlan {
    fn open(&self) -> Result<Box<dyn Operator>, Broken> {
        let paired = Paired::new(&self.paired)?;
        let (waiting, versions) = (Held::default(), Held::default());
        Ok(Box::new(AsOfJoin { plan: self.clone(), paired, waiting, versions, settled: i64::MIN }))
    }

    fn timed(&self) -> bool {
        true
    }

    fn gives_on_push(&self) -> bool {
        self.keep
    }

    fn meanings(&self, side: usize) -> Vec<usize> {
        self.paired.keys.of(side).clone()
    }

    fn signature(&self) -> String {
        format!("as of join {} {:?} {}", self.table, self.time, self.paired.signature())
    }

    fn legend(&self) -> Result<Box<dyn Legend>, Broken> {
        let kinds = [(other(self.table), "waiting row"), (self.table, "version")];
        let flagged = ["has no key", "says that there is none from then on"];
        Ok(Box::new(HeldLegend { sides: Sides::new(&self.paired)?, kinds, flagged }))
    }

    fn describe(&self) -> String {
        let kind = if self.keep { "left" } else { "inner" };
        let residual = self.residual.as_ref().map(|r| format!(" if {}", r.text())).unwrap_or_default();
        format!("{kind} join with table topic {} as of the event's time{residual}", self.name)
    }
}

struct AsOfJoin {
    plan: AsOfJoinPlan,
    paired: Paired,
    waiting: Held,
    versions: Held,
    /// Up to this time the versions that no row needs are gone.
    settled: i64,
}

const WAITING: u8 = 0;
const VERSIONS: u8 = 1;
/// The flag of a waiting row without key and of a version that says there is none.
const NONE: u8 = 1;

impl Operator for AsOfJoin {
    fn push(&mut self, side: usize, rows: &RecordBatch, out: &mut Out<'_>) -> Result<(), Broken> {
        let arrived = self.paired.arrived(side, rows)?;
        let times = times_of(rows, *self.plan.time.of(side), *self.plan.shift.of(side))?;
        if side == self.plan.table {
            let deleted = deleted(rows);
            for (row, time) in times.into_iter().enumerate() {
                if let (Some(time), Some(key)) = (time, arrived.key(row)) {
                    let flag = if deleted(row) { NONE } else { 0 };
                    self.versions.insert(time, flag, key, arrived.row(row), VERSIONS, out.changes);
                    // A version may come at a time that is settled already, and then it is the last one there.
                    self.settled = self.settled.min(time.saturating_sub(1));
                }
            }
            return Ok(());
        }
        let mut timeless: Vec<u32> = Vec::new();
        for (row, time) in times.into_iter().enumerate() {
            match (time, arrived.key(row)) {
                (Some(time), Some(key)) => {
                    self.waiting.insert(time, 0, key, arrived.row(row), WAITING, out.changes);
                }
                (Some(time), None) if self.plan.keep => {
                    self.waiting.insert(time, NONE, &[], arrived.row(row), WAITING, out.changes);
                }
                // There is nothing to wait for.
                (None, _) if self.plan.keep => timeless.push(row as u32),
                _ => {}
            }
        }
        let own = self.paired.pick(side, rows, &timeless)?;
        out.rows.extend(matched(&self.paired, self.plan.table, None, own, vec![None; timeless.len()])?);
        Ok(())
    }

    fn advance(&mut self, watermark: i64, out: &mut Out<'_>) -> Result<(), Broken> {
        let mut due: Vec<Slot> = Vec::new();
        while let Some((time, at)) = self.waiting.first() {
            if time >= watermark && watermark != i64::MAX {
                break;
            }
            due.extend(self.waiting.remove(at, WAITING, out.changes));
            if due.len() >= PAIRS_PER_BATCH {
                self.give_out(&due, out)?;
                due.clear();
            }
        }
        self.give_out(&due, out)?;
        self.settle(watermark, out);
        Ok(())
    }

    fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Broken> {
        match key.split_first() {
            Some((&WAITING, key)) => self.waiting.restore(key, value),
            Some((&VERSIONS, key)) => self.versions.restore(key, value),
            _ => Err(Broken("a join's state has another form than this version's".into())),
        }
    }

    fn waits(&self) -> bool {
        self.waiting.size().0 > 0
    }

    fn size(&self) -> (usize, usize) {
        let (waiting, versions) = (self.waiting.size(), self.versions.size());
        (waiting.0 + versions.0, waiting.1 + versions.1)
    }
}

impl AsOfJoin {
    /// Rows whose time the watermark has passed, with their versions.
    fn give_out(&self, due: &[Slot], out: &mut Out<'_>) -> Result<(), Broken> {
        let find = |slot: &Slot| {
            let at = self.versions.last(slot.key(), slot.time()).filter(|_| slot.flag() != NONE)?;
            (self.versions.flag(at) != NONE).then(|| self.versions.row(at))
        };
        let (mut rows, mut found) = (Vec::with_capacity(due.len()), Vec::with_capacity(due.len()));
        for slot in due {
            let version = find(slot);
            if version.is_some() || self.plan.keep {
                rows.push(Some(slot.row()));
                found.push(version);
            }
        }
        let own = self.paired.decode(other(self.plan.table), &rows)?;
        out.rows.extend(matched(&self.paired, self.plan.table, self.plan.residual.as_ref(), own, found)?);
        Ok(())
    }

    /// Lets go of the versions that a later one of the same key has replaced before the watermark.
    fn settle(&mut self, watermark: i64, out: &mut Out<'_>) {
        if watermark == i64::MAX {
            // The end of time says nothing about when what begins again goes on.
            return;
        }
        for at in self.versions.between(self.settled, watermark) {
            let earlier: Vec<u32> = {
                let of_key = self.versions.find(self.versions.key(at), i64::MIN, self.versions.time(at));
                of_key.take_while(|one| *one != at).collect()
            };
            for one in earlier {
                self.versions.remove(one, VERSIONS, out.changes);
            }
            if self.versions.flag(at) == NONE {
                self.versions.remove(at, VERSIONS, out.changes);
            }
        }
        self.settled = self.settled.max(watermark);
    }
}

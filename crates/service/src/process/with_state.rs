//! What a service with state does: check, then push into the query or fold; what it gives out is placed.
//!
//! Here an event fails only before the first step with state: nothing of it is kept. A row that was derived from state and
//! then fails becomes a letter of its own, without an origin, and the state stands.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::RecordBatch;
use millstream_event::{Name, PartitionId};
use millstream_flow::{Derived, LookupSet, Step};

use super::{Broken, Failure, Map, Plan, Staged, Way, put, stage, without};
use crate::def::Late;
use crate::letters::Letter;
use crate::piece::Piece;
use crate::program::Program;

impl Plan {
    /// Processes a piece of the input that the program knows as `topic`.
    pub(crate) fn push(
        &self,
        piece: &Piece,
        topic: &Name,
        from: PartitionId,
        lookups: &LookupSet,
        program: &mut Program,
        staged: &mut Staged,
    ) -> Result<(), Broken> {
        let mut way = Way { rows: piece.rows.clone(), map: Map::Same, dropped: Vec::new(), failed: BTreeMap::new() };
        let mut aside = None;
        if let Some(check) = &self.def.check {
            aside = self.check(check, &mut way, staged)?;
        }
        let mut step = program.push(topic, &way.rows, lookups).map_err(|e| e.to_string())?;
        for failed in std::mem::take(&mut step.failed) {
            let failure = Failure { code: failed.code.to_owned(), reason: failed.reason, rules: Vec::new() };
            way.failed.insert(way.map.of(failed.row), failure);
        }
        staged.tally.dropped_by_fold += step.unmatched.len() as u64;
        match self.def.late {
            Late::Drop => staged.tally.dropped_late += step.late.len() as u64,
            late @ (Late::DeadLetter | Late::Update) => {
                let reason = match late {
                    Late::Update => "its window is not kept any more (state: {ttl})",
                    _ => "it came later than its source had promised (max_out_of_orderness)",
                };
                for row in &step.late {
                    let failure = Failure { code: "late".to_owned(), reason: reason.to_owned(), rules: Vec::new() };
                    way.failed.insert(way.map.of(*row), failure);
                }
            }
        }
        if let (Some(outlet), Some((rows, map))) = (&self.aside, aside) {
            for (placed, map) in put(outlet, &rows, None, from, &map, &mut way.failed)? {
                let rows = without(placed, &map, &BTreeSet::new())?;
                staged.tally.out(&outlet.info.spec.name, rows.1.num_rows() as u64);
                staged.appends.push((outlet.info.spec.name.clone(), outlet.info.schema_version, rows.0, rows.1));
            }
        }
        for (row, failure) in way.failed {
            staged.letters.push(self.letter(piece, row as usize, failure));
        }
        self.give_out(step, from, staged)
    }

    /// Places what the program gave out.
    pub(crate) fn give_out(&self, step: Step, from: PartitionId, staged: &mut Staged) -> Result<(), Broken> {
        staged.tally.dropped_by_lookup.extend(step.dropped);
        staged.letters.extend(step.derived.into_iter().map(letter_of));
        for rows in step.rows {
            self.place_derived(rows, from, staged)?;
        }
        Ok(())
    }

    fn place_derived(&self, rows: RecordBatch, from: PartitionId, staged: &mut Staged) -> Result<(), Broken> {
        let mut way = Way { rows: rows.clone(), map: Map::Same, dropped: Vec::new(), failed: BTreeMap::new() };
        let parts = self.place(&mut way, from)?;
        stage(parts, &way, staged)?;
        for (row, failure) in way.failed {
            staged.letters.push(Letter {
                code: failure.code,
                reason: format!("{} (a row that the service derived)", failure.reason),
                rules: failure.rules,
                event: self.made.encode_row(&rows, row as usize).ok(),
                ..Letter::default()
            });
        }
        Ok(())
    }
}

fn letter_of(derived: Derived) -> Letter {
    let reason = format!("{} (a row that the service derived: {})", derived.reason, derived.row);
    Letter { code: derived.code.to_owned(), reason, ..Letter::default() }
}

//! Keeping the events apart in which a panic hides, so that only they become dead letters.

use std::panic::{AssertUnwindSafe, catch_unwind};

use millstream_event::PartitionId;
use millstream_flow::LookupSet;

use super::Running;
use crate::piece::Piece;
use crate::process::Staged;
use crate::supervise::message_of;

impl Running<'_> {
    pub(super) fn process(
        &mut self,
        piece: &Piece,
        suspicious: bool,
        lookups: &LookupSet,
        staged: &mut Staged,
    ) -> Result<(), String> {
        if piece.rows.num_rows() == 0 {
            return Ok(());
        }
        let from = self.context.task.id.partition;
        if self.state.is_some() {
            return if suspicious { self.push_each(piece, lookups, staged) } else { self.push(piece, lookups, staged) };
        }
        if suspicious {
            self.isolate(piece, from, lookups, staged)
        } else {
            self.plan.process(piece, from, lookups, staged)
        }
    }

    fn push(&mut self, piece: &Piece, lookups: &LookupSet, staged: &mut Staged) -> Result<(), String> {
        let (Some(state), Some(input)) = (&mut self.state, self.service.def.inputs.get(piece.input)) else {
            return Ok(());
        };
        let topic = self.service.def.aliases.get(input).unwrap_or(input);
        let from = self.context.task.id.partition;
        self.plan.push(piece, topic, from, lookups, &mut state.program, staged)
    }

    /// Pushes events one by one, because one of them kills. State that a panic left half changed is of no use, so the task
    /// starts again; then it knows which events did so, and those become dead letters.
    fn push_each(&mut self, piece: &Piece, lookups: &LookupSet, staged: &mut Staged) -> Result<(), String> {
        for row in 0..piece.rows.num_rows() {
            let one = piece.slice(row, 1);
            let origin = one.origins.of(0);
            let shared = &self.context.shared;
            if origin.as_ref().is_some_and(|origin| shared.isolation.lock().is_killer(origin)) {
                let reason = "the service panicked on this event".to_owned();
                staged.letters.push(self.plan.panic_letter(&one, reason));
                continue;
            }
            shared.isolation.lock().take_alone(origin);
            self.push(&one, lookups, staged)?;
            self.context.shared.isolation.lock().take_alone(None);
        }
        Ok(())
    }

    /// Processes a piece in which an event kills: halves it until that event is alone, which becomes a dead letter.
    fn isolate(
        &self,
        piece: &Piece,
        from: PartitionId,
        lookups: &LookupSet,
        staged: &mut Staged,
    ) -> Result<(), String> {
        let attempt = catch_unwind(AssertUnwindSafe(|| {
            let mut staged = Staged::default();
            self.plan.process(piece, from, lookups, &mut staged).map(|()| staged)
        }));
        let rows = piece.rows.num_rows();
        match attempt {
            Ok(done) => {
                let done = done?;
                staged.appends.extend(done.appends);
                staged.letters.extend(done.letters);
                staged.tally.add(done.tally);
            }
            Err(payload) if rows == 1 => {
                let reason = format!("the service panicked on this event: {}", message_of(payload.as_ref()));
                staged.letters.push(self.plan.panic_letter(piece, reason));
            }
            Err(_) => {
                let half = rows / 2;
                self.isolate(&piece.slice(0, half), from, lookups, staged)?;
                self.isolate(&piece.slice(half, rows - half), from, lookups, staged)?;
            }
        }
        Ok(())
    }
}

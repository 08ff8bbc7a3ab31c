//! What a task concludes from the watermark, and what it promises in turn.

use std::sync::atomic::Ordering;

use millstream_event::Watermark;
use millstream_flow::LookupSet;

use super::Running;
use crate::process::Staged;

impl Running<'_> {
    /// From here on it listens to what is said in this run.
    pub(super) fn begin_time(&mut self) {
        if let Some(time) = &mut self.time {
            time.begin(|input| self.inputs.position(input));
        }
    }

    /// What the task promises of all that it will still append; `None`: its topics have no event time.
    pub(super) fn output_watermark(&self) -> Option<Watermark> {
        let time = self.time.as_ref()?;
        // While it reads again, it says what it had said.
        if self.again.is_some() {
            return Some(self.stored.floor());
        }
        let promise = match &self.state {
            None => time.promise(),
            Some(state) => {
                // Whose inputs are idle is not waited for, unless it holds rows that are still to come of it.
                let promise = match time.promise() {
                    Watermark::IDLE if state.program.waits() => time.watermark(),
                    promise => promise,
                };
                match promise.time() {
                    Some(time) => Watermark(state.program.output_watermark(time)),
                    // Rows are still to come of what it has not concluded, also when nothing more is read.
                    None if self.more => Watermark(state.program.output_watermark(time.watermark().0)),
                    // Who says nothing, or that there is nothing, has no time to hold back.
                    None => promise,
                }
            }
        };
        Some(promise.max(self.stored.floor()))
    }

    /// Whether a partition must be told a promise although there are no events for it.
    pub(super) fn must_promise(&self) -> bool {
        self.time.as_ref().zip(self.output_watermark()).is_some_and(|(time, promise)| time.due(promise))
    }

    pub(super) fn show_time(&self) {
        if let Some(time) = &self.time {
            self.context.shared.set_time(time.status());
            let holds = self.state.as_ref().is_some_and(|state| state.program.waits());
            self.context.shared.holds.store(holds && time.watermark() != Watermark::CLOSED, Ordering::Release);
        }
    }

    /// Lets the query conclude what no event can change any more, or a part of it where that is much.
    pub(super) fn advance(&mut self, lookups: &LookupSet, staged: &mut Staged) -> Result<(), String> {
        let (Some(state), Some(time)) = (&mut self.state, &self.time) else { return Ok(()) };
        let step = state.program.advance(time.watermark().0, lookups).map_err(|e| e.to_string())?;
        self.set_more(step.more);
        self.plan.give_out(step, self.context.task.id.partition, staged)
    }

    /// Who waits for the end is told at once that more is to come, and that none is only when all is in the log
    /// ([`Self::tell_concluded`]): until then the task may yet begin again before it.
    pub(super) fn set_more(&mut self, more: bool) {
        self.more = more;
        if more {
            self.context.shared.concluding.store(true, Ordering::Release);
        }
    }

    pub(super) fn tell_concluded(&self) {
        if !self.more && self.flight.is_empty() {
            self.context.shared.concluding.store(false, Ordering::Release);
            let promise = self.time.as_ref().zip(self.output_watermark());
            let told = promise.is_none_or(|(time, promise)| time.wait(promise).is_none());
            if told && self.context.shared.owes.swap(false, Ordering::AcqRel) {
                self.context.progress.notify_waiters();
            }
        }
    }
}

//! Reading again what was read before: to build state anew in memory, or because the service was rewound.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use millstream_flow::LookupSet;

use super::Running;
use crate::again::{Again, Kind, Outputs};
use crate::process::Staged;
use crate::task::Fault;
use crate::task_time::TaskTime;

impl Running<'_> {
    /// Begins to read again what is to be read again, if anything is.
    pub(super) fn begin_again(&mut self, rebuild: bool) -> Result<(), Fault> {
        if rebuild {
            let former_time = self.time.as_mut().map(TaskTime::forget);
            self.again = Some(Again { kind: Kind::Rebuild, former_time });
            self.context.shared.again.store(true, Ordering::Release);
            let gone: Vec<String> =
                self.inputs.trimmed().map(|(topic, first)| format!("`{topic}` from offset {first}")).collect();
            if !gone.is_empty() {
                let task = &self.context.task.id;
                let note = format!(
                    "partition {}: its state is kept in memory, and was built from what is kept of its inputs: {}",
                    task.partition,
                    gone.join(", ")
                );
                tracing::warn!(%task, "{note}");
                self.context.shared.set_note(Some(note));
            }
            return Ok(());
        }
        let Some((order, _)) = self.stored.order.as_ref().filter(|_| self.stored.is_under_way()) else { return Ok(()) };
        let to = match &order.outputs {
            Outputs::Topic(topic) => {
                let gone = || Fault::Failed(format!("there is no topic `{topic}`, to which the service was rewound"));
                Some(self.context.log.topic(topic).ok_or_else(gone)?)
            }
            _ => None,
        };
        self.inputs.bar(&order.until);
        let kind = Kind::Rewound { outputs: order.outputs.clone(), to };
        self.again = Some(Again { kind, former_time: self.stored.former_time() });
        self.context.shared.again.store(true, Ordering::Release);
        self.tell_again();
        Ok(())
    }

    /// Whether it reads again and nothing is committed.
    pub(super) fn is_silent(&self) -> bool {
        self.again.as_ref().is_some_and(Again::is_silent)
    }

    /// All inputs are where they were: what was known of time is known again, and the task goes on.
    pub(super) fn conclude_again(&mut self, lookups: &LookupSet) -> Result<(), Fault> {
        if let (Some(time), Some(heard)) = (&mut self.time, self.again.as_ref().and_then(|a| a.former_time.clone())) {
            time.recall(&heard)?;
        }
        let mut staged = Staged::default();
        let shared = Arc::clone(&self.context.shared);
        shared.isolation.lock().conclude();
        self.advance(lookups, &mut staged).map_err(Fault::Failed)?;
        if self.more {
            return self.finish(staged);
        }
        shared.isolation.lock().rest();
        self.divert(&mut staged);
        let changes = self.state.as_mut().and_then(|state| state.program.changes());
        self.inputs.lift();
        let Some(again) = self.again.take() else { return Ok(()) };
        self.past = None;
        self.begin_time();
        if again.is_silent() {
            self.begin_again(false)?;
            self.release()?;
        } else {
            self.held.consumed.extend(self.stored.concluded()?);
            self.stored = self.stored.over();
            let appends = self.appends(staged)?;
            self.send(appends, changes)?;
            self.context.shared.set_note(None);
        }
        self.context.shared.again.store(self.again.is_some(), Ordering::Release);
        self.show_time();
        Ok(())
    }

    pub(super) fn divert(&self, staged: &mut Staged) {
        if let Some(again) = &self.again {
            again.divert(staged, self.service.def.time.as_ref(), self.stored.floor());
        }
    }

    /// Says how far reading again has come.
    pub(super) fn tell_again(&self) {
        let Some(Again { kind: Kind::Rewound { outputs, .. }, .. }) = &self.again else { return };
        let results = match outputs {
            Outputs::Suppress => "its results are suppressed until then".to_owned(),
            Outputs::Append => "its results are given out again".to_owned(),
            Outputs::Topic(topic) => format!("its results go to `{topic}` until then"),
        };
        let (partition, left) = (self.context.task.id.partition, self.inputs.left());
        let note = format!("partition {partition} was rewound and is up to {left} events from where it was; {results}");
        self.context.shared.set_note(Some(note));
    }

    /// The lookups for the next events, and how late these may have come in to meet them. Those that are read again meet
    /// tables of topics as these were.
    pub(super) async fn as_it_was(&mut self, lookups: LookupSet) -> Result<(LookupSet, i64), Fault> {
        if self.again.is_none() || !self.lookups.has_tables() {
            return Ok((lookups, i64::MAX));
        }
        let first = self.inputs.first_again().await?;
        let mut past = match self.past.take() {
            Some(past) => past,
            None if first.is_none() => return Ok((lookups, i64::MAX)),
            None => self.lookups.past(self.context.log.as_ref()).await?,
        };
        // Behind the last event all that the task had met is in.
        past.advance(first.unwrap_or(i64::MAX)).await?;
        let until = past.next().await?.unwrap_or(i64::MAX);
        let lookups = past.instead(&lookups);
        self.past = Some(past);
        Ok((lookups, until))
    }
}

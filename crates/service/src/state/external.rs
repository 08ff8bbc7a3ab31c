//! State that is kept outside of the log (see [`crate::store`]): opening a task's state, and the queue of its commits to
//! whoever hands them over.

use std::collections::HashMap;
use std::sync::Arc;

use millstream_event::Name;
use millstream_flow::ChangeRows;
use millstream_log::{AbortReason, Commit, Log, Outcome, Pending};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::memory::{self, Elsewhere};
use super::outbox::{Kept, Outbox, Who, emptied, fault};
use crate::flight::{commit_of, judge};
use crate::program::Program;
use crate::store::{StateChanges, StateStore, StoredState};
use crate::task::{Context, Fault};

/// Commits that wait although as many as may be are on their way: the last ones of a task that is about to leave.
const MORE_COMMITS: usize = 2;

/// The state of a task outside of the log: the queue to whoever hands its commits over.
pub(super) struct External {
    jobs: mpsc::Sender<Job>,
    fault: Arc<Mutex<Option<Fault>>>,
}

/// A commit on its way.
struct Job {
    commit: Commit,
    changes: Option<ChangeRows>,
    answer: oneshot::Sender<Outcome>,
}

impl External {
    /// Takes the task's state over, brings the log in step with it and reads it back. The log's positions are right after
    /// this, not before. `inputs`: what the task reads.
    pub(super) async fn open(
        store: &dyn StateStore,
        program: &mut Program,
        signature: &str,
        inputs: &[Name],
        context: &Context,
    ) -> Result<Self, Fault> {
        let (log, task) = (context.log.as_ref(), &context.task);
        let who = Who { log, task, clock: context.clock.as_ref(), inputs, voids: false };
        let mut outbox = Outbox::take_over(store, who).await?;
        let found = restore(outbox.state.as_mut(), program, signature, &outbox.place, context).await?;
        let elsewhere = memory::elsewhere(context).await?;
        if matches!(elsewhere, Some(Elsewhere::Nowhere)) {
            memory::refuse(context).await?;
        }
        let lost = found == Found::Nothing && outbox.has_begun();
        if lost || elsewhere.is_some() {
            return Err(Fault::Failed(emptied(&task.id, &outbox.place)));
        }
        let (jobs, queue) = mpsc::channel(context.commits_in_flight + MORE_COMMITS);
        let fault = Arc::default();
        let keeper = Keeper {
            outbox,
            log: Arc::clone(&context.log),
            signature: (found != Found::State).then(|| signature.to_owned()),
            opened: false,
            fault: Arc::clone(&fault),
        };
        drop(tokio::spawn(keeper.run(queue)));
        let external = Self { jobs, fault };
        // The owner is known to the log, too, before anything depends on it.
        let opening = judge(external.commit(commit_of(context), None).await, log);
        opening.map_err(|fault| external.fault().unwrap_or(fault))?;
        Ok(external)
    }

    /// Hands a commit over, behind those that were handed over before.
    pub(super) fn commit(&self, commit: Commit, changes: Option<ChangeRows>) -> Pending {
        let (answer, pending) = Pending::new();
        match self.jobs.try_send(Job { commit, changes, answer }) {
            Ok(()) => pending,
            Err(_) => Pending::ready(Outcome::Aborted(AbortReason::Predecessor)),
        }
    }

    /// Why a commit did not succeed, where that was the store's doing.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault.lock().clone()
    }
}

/// Hands commits over, one after the other.
struct Keeper {
    outbox: Outbox,
    log: Arc<dyn Log>,
    /// The form of the state, where the store does not know it yet.
    signature: Option<String>,
    /// Whether the first commit of this owner is made.
    opened: bool,
    fault: Arc<Mutex<Option<Fault>>>,
}

impl Keeper {
    /// Until nobody hands over any more; after a commit that did not succeed no other one does.
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut failed = false;
        while let Some(Job { commit, changes, answer }) = queue.recv().await {
            let outcome = match failed {
                false => self.commit(commit, changes.as_ref()).await,
                true => Outcome::Aborted(AbortReason::Predecessor),
            };
            failed |= !matches!(outcome, Outcome::Committed(_));
            // A task that is gone does not wait for it.
            drop(answer.send(outcome));
        }
    }

    async fn commit(&mut self, commit: Commit, changes: Option<&ChangeRows>) -> Outcome {
        // What only moves positions and promises concerns the log alone, and is lost with it alone.
        let plain = changes.is_none() && commit.appends.iter().all(|append| append.rows.num_rows() == 0);
        if plain && self.opened {
            return self.log.commit(commit).await;
        }
        let mut changes = changes.map(newest).unwrap_or_default();
        if let Some(signature) = &self.signature {
            changes.keys.push(&[]);
            changes.values.push(signature.as_bytes());
        }
        match self.outbox.hand_over(self.log.as_ref(), commit, Kept::Changes(changes)).await {
            Ok(outcome) => {
                self.signature = None;
                self.opened |= matches!(outcome, Outcome::Committed(_));
                outcome
            }
            Err(fault) => {
                *self.fault.lock() = Some(fault);
                Outcome::Aborted(AbortReason::Refused("the state was not kept".into()))
            }
        }
    }
}

/// What a store has of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Nothing, not even that there is none.
    Nothing,
    /// That it was emptied on purpose.
    Void,
    /// Its form, and its rows.
    State,
}

/// Reads the state into a program.
async fn restore(
    state: &mut dyn StoredState,
    program: &mut Program,
    signature: &str,
    place: &str,
    context: &Context,
) -> Result<Found, Fault> {
    let mut found = Found::Nothing;
    loop {
        let rows = state.rows().await.map_err(|e| fault(place, e))?;
        if rows.is_empty() {
            return Ok(found);
        }
        for (key, value) in rows {
            if !key.is_empty() {
                program.restore(&key, Some(&value)).map_err(|e| Fault::Failed(e.to_string()))?;
            } else if value.is_empty() {
                found = Found::Void;
            } else if value == signature.as_bytes() {
                found = Found::State;
            } else {
                return Err(Fault::Failed(other_form(&context.task.id.service, place)));
            }
        }
        tokio::task::yield_now().await;
    }
}

/// The last change of each key.
fn newest(rows: &ChangeRows) -> StateChanges<'_> {
    let mut last: HashMap<&[u8], Option<&[u8]>> = HashMap::with_capacity(rows.len());
    last.extend(rows.iter());
    let mut changes = StateChanges::default();
    for (key, value) in last {
        match value {
            Some(value) => {
                changes.keys.push(key);
                changes.values.push(value);
            }
            None => changes.gone.push(key),
        }
    }
    changes
}

fn other_form(service: &Name, place: &str) -> String {
    format!(
        "service `{service}` has stored state of another form in {place}: what it keeps was changed in its SQL or fold. \
         Bring back what wrote it, or build it anew from what its inputs keep: `millstream services rewind {service} --to \
         start --outputs suppress` (or `append`, or a topic: whether results are given out again)"
    )
}

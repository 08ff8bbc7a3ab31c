//! State that is kept outside of the log (see [`crate::store`]): opening a task's state, and handing commits over in two
//! steps, the store's and the log's.
//!
//! Which of the log's commits a staged one is, says a position of the task: its input [`OUTBOX_INPUT`] is moved by each
//! commit that goes through the store, to a number that grows and the token of the owner who made it. So a log and a
//! store that are of different times, or that went on without each other, are told apart.
//!
//! The first commit of an owner changes nothing but that position: after it, an owner before it, on another copy of the
//! log, can neither commit nor take over.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use millstream_event::Name;
use millstream_flow::ChangeRows;
use millstream_log::{AbortReason, Commit, Consumed, Log, Outcome, Pending, Position, TaskId};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::memory;
use super::staged::{self, Staged};
use crate::flight::{commit_of, judge};
use crate::program::Program;
use crate::store::{Owner, StateChanges, StateStore, StoreError, StoredState};
use crate::task::{Context, Fault};

/// The input under which a task's state is committed that is kept outside. No topic has this name (`__` is reserved).
pub(super) const OUTBOX_INPUT: &str = "__outbox";

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

/// Where the log stands, seen from the staged commit.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// Neither has anything.
    Begin,
    /// The log has not got it.
    Before,
    /// The log has it.
    Behind,
    /// The store is empty, and the log is not.
    Emptied,
    /// They are of different times.
    Apart,
}

/// `staged`: from where to where the staged commit moves the state's position. `begun`: the log has any position of the
/// task.
fn standing(staged: Option<(Option<&Position>, &Position)>, log: Option<&Position>, begun: bool) -> Standing {
    match staged {
        None if log.is_none() && !begun => Standing::Begin,
        None => Standing::Emptied,
        Some((_, to)) if log == Some(to) => Standing::Behind,
        Some((from, _)) if log == from => Standing::Before,
        Some(_) => Standing::Apart,
    }
}

pub(crate) fn outbox_input() -> Result<Name, Fault> {
    Name::new(OUTBOX_INPUT).map_err(|e| Fault::Failed(e.to_string()))
}

/// What there is to do before a task can go on.
enum Meeting {
    /// Nothing: the log stands here.
    InStep(Option<Position>),
    /// The staged commit is handed over again.
    Again(Staged),
}

impl Meeting {
    async fn of(staged: Option<Bytes>, inputs: &[Name], place: &str, context: &Context) -> Result<Self, Fault> {
        let (log, task, input) = (context.log.as_ref(), &context.task.id, outbox_input()?);
        let unreadable = |why: String| Fault::Failed(format!("the commit staged in {place} cannot be read: {why}"));
        let topic = |name: &Name| log.topic(name);
        let staged = staged.map(|bytes| staged::decode(&bytes, &topic)).transpose().map_err(unreadable)?;
        let at = log.position(task, &input).await.map_err(|e| Fault::log(&e))?;
        let mut begun = false;
        for name in inputs {
            begun |= log.position(task, name).await.map_err(|e| Fault::log(&e))?.is_some();
        }
        let moves = staged.as_ref().and_then(|staged| moves(staged, &input));
        match (standing(moves, at.as_ref(), begun), staged) {
            (Standing::Begin | Standing::Behind, _) => Ok(Self::InStep(at)),
            (Standing::Before, Some(staged)) => Ok(Self::Again(staged)),
            (Standing::Emptied, _) => Err(Fault::Failed(emptied(task, place))),
            (Standing::Apart | Standing::Before, _) => Err(Fault::Failed(apart(task, place))),
        }
    }
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
        let input = outbox_input()?;
        let (log, task) = (context.log.as_ref(), &context.task.id);
        let place = store.place();
        let owner = token(context);
        if memory::is_noted(context).await? {
            return Err(Fault::Failed(emptied(task, &place)));
        }
        let mut state = store.connect(task).await.map_err(|e| fault(&place, e))?;
        let staged = state.staged().await.map_err(|e| fault(&place, e))?;
        Meeting::of(staged, inputs, &place, context).await?;
        let staged = state.own(owner).await.map_err(|e| fault(&place, e))?;
        let from = match Meeting::of(staged, inputs, &place, context).await? {
            Meeting::InStep(at) => at,
            Meeting::Again(staged) => {
                tracing::info!(%task, "a commit that the database has and the log has not is handed over again");
                let to = moves(&staged, &input).map(|(_, to)| to.clone());
                let commit = Commit { consumed: staged.consumed, appends: staged.appends, ..commit_of(context) };
                judge(log.commit(commit).await, log)?;
                to
            }
        };
        let named = restore(state.as_mut(), program, signature, &place, context).await?;
        if !named && from.is_some() {
            return Err(Fault::Failed(emptied(task, &place)));
        }
        let (jobs, queue) = mpsc::channel(context.commits_in_flight + MORE_COMMITS);
        let fault = Arc::default();
        let keeper = Keeper {
            state,
            place,
            log: Arc::clone(&context.log),
            input,
            owner,
            number: number(from.as_ref()),
            position: from,
            signature: (!named).then(|| signature.to_owned()),
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
    state: Box<dyn StoredState>,
    place: String,
    log: Arc<dyn Log>,
    input: Name,
    owner: Owner,
    /// The number in the position behind the last commit.
    number: u64,
    position: Option<Position>,
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

    async fn commit(&mut self, mut commit: Commit, changes: Option<&ChangeRows>) -> Outcome {
        // What only moves positions and promises concerns the log alone, and is lost with it alone.
        let plain = changes.is_none() && commit.appends.iter().all(|append| append.rows.num_rows() == 0);
        if plain && self.opened {
            return self.log.commit(commit).await;
        }
        let to = Position::Opaque(position(self.number + 1, &self.owner));
        commit.consumed.push(Consumed { input: self.input.clone(), from: self.position.clone(), to: to.clone() });
        if let Err(fault) = self.store(&commit, changes).await {
            *self.fault.lock() = Some(fault);
            return Outcome::Aborted(AbortReason::Refused("the state was not kept".into()));
        }
        let outcome = self.log.commit(commit).await;
        if matches!(outcome, Outcome::Committed(_)) {
            self.number += 1;
            self.position = Some(to);
            self.opened = true;
        }
        outcome
    }

    async fn store(&mut self, commit: &Commit, changes: Option<&ChangeRows>) -> Result<(), Fault> {
        let staged = staged::encode(commit).map_err(Fault::Failed)?;
        let mut changes = changes.map(newest).unwrap_or_default();
        if let Some(signature) = &self.signature {
            changes.keys.push(&[]);
            changes.values.push(signature.as_bytes());
        }
        self.state.store(&changes, &staged).await.map_err(|e| fault(&self.place, e))?;
        self.signature = None;
        Ok(())
    }
}

/// Reads the state into a program. Answers whether its form was kept with it.
async fn restore(
    state: &mut dyn StoredState,
    program: &mut Program,
    signature: &str,
    place: &str,
    context: &Context,
) -> Result<bool, Fault> {
    let mut named = false;
    loop {
        let rows = state.rows().await.map_err(|e| fault(place, e))?;
        if rows.is_empty() {
            return Ok(named);
        }
        for (key, value) in rows {
            if key.is_empty() {
                named = true;
                if value != signature.as_bytes() {
                    return Err(Fault::Failed(other_form(&context.task.id.service, place)));
                }
            } else {
                program.restore(&key, Some(&value)).map_err(|e| Fault::Failed(e.to_string()))?;
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

fn moves<'a>(staged: &'a Staged, input: &Name) -> Option<(Option<&'a Position>, &'a Position)> {
    let consumed = staged.consumed.iter().find(|c| c.input == *input)?;
    Some((consumed.from.as_ref(), &consumed.to))
}

fn position(number: u64, owner: &Owner) -> Bytes {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend(owner);
    bytes.into()
}

fn number(position: Option<&Position>) -> u64 {
    let Some(Position::Opaque(bytes)) = position else { return 0 };
    bytes.first_chunk().map_or(0, |number| u64::from_be_bytes(*number))
}

/// Bits that no other owner has: `RandomState` has fresh random keys for each.
fn token(context: &Context) -> Owner {
    let draw = |salt: i64| {
        let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
        hasher.write_i64(salt);
        hasher.finish().to_le_bytes()
    };
    let mut owner = Owner::default();
    let (first, second) = owner.split_at_mut(8);
    first.copy_from_slice(&draw(context.clock.now_us()));
    second.copy_from_slice(&draw(0));
    owner
}

/// What an error of a store means for the task.
fn fault(place: &str, error: StoreError) -> Fault {
    match error {
        StoreError::Connect(error) => Fault::outside(&error),
        StoreError::Taken => Fault::Failed(format!(
            "another node has taken over the state of this task in {place}; two must not count the same. Stop one of them, \
             then resume the service on the other"
        )),
    }
}

fn other_form(service: &Name, place: &str) -> String {
    format!(
        "service `{service}` has stored state of another form in {place}: what it keeps was changed in its SQL or fold. \
         Bring back what wrote it, or give the service another name to begin anew"
    )
}

fn emptied(task: &TaskId, place: &str) -> String {
    format!(
        "task {task} has read events before, and {place} has no state of it: it was emptied, or the service kept its \
         state elsewhere. Restore the database, or bring the former `state` setting back, or give the service another \
         name to begin anew"
    )
}

fn apart(task: &TaskId, place: &str) -> String {
    format!(
        "the state of task {task} in {place} and the log do not belong together: one of them is older than the other, or \
         another node went on with the state. Restore both to the same time, or run the node that went on"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staged_commit_is_handed_over_again_only_where_the_log_stands_right_before_it() {
        let at = |number| Position::Opaque(position(number, &[7; 16]));
        let (four, five, six) = (at(4), at(5), at(6));
        let other = Position::Opaque(position(5, &[8; 16]));
        let staged = Some((Some(&four), &five));
        assert_eq!(standing(staged, Some(&four), true), Standing::Before);
        assert_eq!(standing(staged, Some(&five), true), Standing::Behind);
        for apart in [None, Some(&six), Some(&other)] {
            assert_eq!(standing(staged, apart, true), Standing::Apart);
        }
        let first = Some((None, &four));
        assert_eq!(standing(first, None, false), Standing::Before);
        assert_eq!(standing(None, None, false), Standing::Begin);
        assert_eq!(standing(None, None, true), Standing::Emptied);
        assert_eq!(standing(None, Some(&four), true), Standing::Emptied);
        assert_eq!((number(None), number(Some(&six))), (0, 6));
    }
}

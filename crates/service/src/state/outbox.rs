//! A task's state in a store and its log, in step (see [`crate::store`]): taking both over, and handing commits over in two
//! steps, the store's and the log's.
//!
//! Which of the log's commits a staged one is, says a position of the task: its input [`OUTBOX_INPUT`] is moved by each
//! commit that goes through the store, to a number that grows and the token of the owner who made it. So a log and a
//! store that are of different times, or that went on without each other, are told apart.
//!
//! The first commit of an owner changes nothing but that position: after it, an owner before it, on another copy of the
//! log, can neither commit nor take over. So what an owner does after it is handed over again into this log alone, and never
//! into another node's.

use std::hash::{BuildHasher, Hasher};

use bytes::Bytes;
use millstream_event::Name;
use millstream_log::{Clock, Commit, Consumed, Log, Outcome, Position, Task, TaskId};

use super::staged::{self, Staged};
use crate::flight::{commit_for, judge};
use crate::store::{Owner, StateChanges, StateStore, StoreError, StoredState};
use crate::task::Fault;

/// The input under which a task's state is committed that is kept outside. No topic has this name (`__` is reserved).
const OUTBOX_INPUT: &str = "__outbox";

/// Who takes a state over, and in which log.
#[derive(Clone, Copy)]
pub(crate) struct Who<'a> {
    pub(crate) log: &'a dyn Log,
    pub(crate) task: &'a Task,
    pub(crate) clock: &'a dyn Clock,
    /// What the task reads.
    pub(crate) inputs: &'a [Name],
    /// Whether the state is about to be emptied: then it is no fault that the store has none.
    pub(crate) voids: bool,
}

/// What a commit means for the rows of the state.
pub(crate) enum Kept<'a> {
    /// These change.
    Changes(StateChanges<'a>),
    /// All go.
    Void,
}

/// The state of a task that was taken over.
pub(crate) struct Outbox {
    pub(super) state: Box<dyn StoredState>,
    pub(super) place: String,
    input: Name,
    owner: Owner,
    /// The number in the position behind the last commit.
    number: u64,
    position: Option<Position>,
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
    async fn of(staged: Option<Bytes>, place: &str, who: Who<'_>) -> Result<Self, Fault> {
        let (log, task, input) = (who.log, &who.task.id, outbox_input()?);
        let unreadable = |why: String| Fault::Failed(format!("the commit staged in {place} cannot be read: {why}"));
        let topic = |name: &Name| log.topic(name);
        let staged = staged.map(|bytes| staged::decode(&bytes, &topic)).transpose().map_err(unreadable)?;
        let at = log.position(task, &input).await.map_err(|e| Fault::log(&e))?;
        let mut begun = false;
        for name in who.inputs {
            begun |= log.position(task, name).await.map_err(|e| Fault::log(&e))?.is_some();
        }
        let moves = staged.as_ref().and_then(|staged| moves(staged, &input));
        match (standing(moves, at.as_ref(), begun), staged) {
            (Standing::Begin | Standing::Behind, _) => Ok(Self::InStep(at)),
            (Standing::Before, Some(staged)) => Ok(Self::Again(staged)),
            (Standing::Emptied, _) if who.voids => Ok(Self::InStep(at)),
            (Standing::Emptied, _) => Err(Fault::Failed(emptied(task, place))),
            (Standing::Apart | Standing::Before, _) => Err(Fault::Failed(apart(task, place))),
        }
    }
}

impl Outbox {
    /// Takes a task's state over and brings the log in step with it. The log's positions are right after this, not before.
    pub(crate) async fn take_over(store: &dyn StateStore, who: Who<'_>) -> Result<Self, Fault> {
        let (place, input, owner) = (store.place(), outbox_input()?, token(who.clock));
        let mut state = store.connect(&who.task.id).await.map_err(|e| fault(&place, e))?;
        let staged = state.staged().await.map_err(|e| fault(&place, e))?;
        Meeting::of(staged, &place, who).await?;
        let staged = state.own(owner).await.map_err(|e| fault(&place, e))?;
        let position = match Meeting::of(staged, &place, who).await? {
            Meeting::InStep(at) => at,
            Meeting::Again(staged) => {
                let task = &who.task.id;
                tracing::info!(%task, "a commit that the database has and the log has not is handed over again");
                let to = moves(&staged, &input).map(|(_, to)| to.clone());
                let commit = Commit { consumed: staged.consumed, appends: staged.appends, ..commit_for(who.task) };
                judge(who.log.commit(commit).await, who.log)?;
                to
            }
        };
        Ok(Self { state, place, input, owner, number: number(position.as_ref()), position })
    }

    /// Whether any commit of the task has gone through the store.
    pub(super) fn has_begun(&self) -> bool {
        self.position.is_some()
    }

    /// Hands a commit over: to the store, and where that has it, to the log.
    pub(crate) async fn hand_over(
        &mut self,
        log: &dyn Log,
        mut commit: Commit,
        kept: Kept<'_>,
    ) -> Result<Outcome, Fault> {
        let to = Position::Opaque(position(self.number + 1, &self.owner));
        commit.consumed.push(Consumed { input: self.input.clone(), from: self.position.clone(), to: to.clone() });
        let staged = staged::encode(&commit).map_err(Fault::Failed)?;
        let stored = match kept {
            Kept::Changes(changes) => self.state.store(&changes, &staged).await,
            Kept::Void => self.state.void(&staged).await,
        };
        stored.map_err(|e| fault(&self.place, e))?;
        let outcome = log.commit(commit).await;
        if matches!(outcome, Outcome::Committed(_)) {
            self.number += 1;
            self.position = Some(to);
        }
        Ok(outcome)
    }
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
fn token(clock: &dyn Clock) -> Owner {
    let draw = |salt: i64| {
        let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
        hasher.write_i64(salt);
        hasher.finish().to_le_bytes()
    };
    let mut owner = Owner::default();
    let (first, second) = owner.split_at_mut(8);
    first.copy_from_slice(&draw(clock.now_us()));
    second.copy_from_slice(&draw(0));
    owner
}

/// What an error of a store means for the task.
pub(super) fn fault(place: &str, error: StoreError) -> Fault {
    match error {
        StoreError::Connect(error) => Fault::outside(&error),
        StoreError::Taken => Fault::Failed(format!(
            "another node has taken over the state of this task in {place}; two must not count the same. Stop one of them, \
             then resume the service on the other"
        )),
    }
}

pub(super) fn emptied(task: &TaskId, place: &str) -> String {
    format!(
        "task {task} has read events before, and {place} has no state of it: it was emptied, or the service kept its \
         state elsewhere. Restore the database, or bring the former `state` setting back, or build it anew from what its \
         inputs keep: `millstream services rewind {} --to start --outputs suppress` (or `append`, or a topic)",
        task.service
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

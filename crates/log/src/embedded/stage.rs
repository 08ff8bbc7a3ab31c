//! The stage: commits that were handed over and are not decided yet, and what each task may do next.
//!
//! A commit's life: admitted (its epoch and positions agree with what was handed over before) -> taken into a group by
//! the committer -> settled. Under one lock, so that the order of calls is the order of effects.

use std::collections::{HashMap, HashSet, VecDeque};

use millstream_event::Name;
use tokio::sync::oneshot;

use super::frame::{CommitHead, Content, Frame};
use crate::positions::positions_after;
use crate::{AbortReason, Class, Epoch, Outcome, Position, TaskId};

/// The most frames that may wait.
const WAITING_MAX: usize = 65_536;
/// The most bytes that may wait.
const WAITING_BYTES_MAX: usize = 256 << 20;

/// A frame waiting to be written.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) frame: Frame,
    pub(super) answer: oneshot::Sender<Outcome>,
    /// Whether its positions must be looked at again when it is written: a former owner's commits were still on their
    /// way when it was admitted.
    pub(super) recheck: bool,
}

impl Waiting {
    /// Whether it stays where sources wait: new events, and whatever their task has handed over behind them, because that it
    /// promises something about time must not be seen before the events that it promises it behind. `sources`: the tasks of
    /// which something stays.
    fn stays(&self, sources: &mut HashSet<TaskId>) -> bool {
        let Content::Commit(head) = &self.frame.content else { return false };
        if head.class == Class::Intake && !sources.contains(&head.task) {
            sources.insert(head.task.clone());
        }
        sources.contains(&head.task)
    }
}

/// What is known of a task.
#[derive(Debug, Default)]
pub(super) struct TaskState {
    epoch: Epoch,
    /// The epoch of which nothing more is accepted.
    failed: Option<Epoch>,
    /// The epoch of which nothing more is written: a commit that had been accepted did not succeed.
    broken: Option<Epoch>,
    /// Durable positions.
    pub(super) durable: HashMap<Name, Position>,
    /// Positions of commits that were admitted and are not settled, in the current epoch.
    staged: HashMap<Name, Position>,
    /// What a former owner had on its way counts up to here.
    foreign: u64,
    /// How many commits were ever admitted, and settled.
    admitted: u64,
    settled: u64,
    /// Who waits until so many are settled.
    waiters: Vec<(u64, oneshot::Sender<()>)>,
}

#[derive(Debug, Default)]
pub(super) struct Stage {
    pub(super) tasks: HashMap<TaskId, TaskState>,
    pub(super) queue: VecDeque<Waiting>,
    queue_bytes: usize,
    /// Why nothing is accepted any more.
    pub(super) stopped: Option<String>,
    /// Set by `close` and by dropping the log.
    pub(super) closing: Option<Closing>,
}

/// How the log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    /// With a last group that says that all is durable.
    Orderly,
    /// As it stands, after what waits.
    Dropped,
}

impl Stage {
    /// Puts a frame in the queue, or says at once what becomes of it. `current` is whether the epoch is the task's.
    pub(super) fn admit(&mut self, commit: Result<Frame, (TaskId, Epoch, AbortReason)>, current: bool) -> Admission {
        if let Some(why) = &self.stopped {
            return Admission::No(Outcome::Aborted(AbortReason::Stopped(why.clone())));
        }
        if !current {
            return Admission::No(Outcome::Fenced);
        }
        let frame = match commit {
            Ok(frame) => frame,
            Err((task, epoch, reason)) => {
                let state = self.tasks.entry(task).or_default();
                return Admission::No(state.refuse(epoch, reason));
            }
        };
        let Content::Commit(head) = &frame.content else { return self.push(frame, false) };
        // What sources have may stay for a while; it leaves room for the others.
        let part = if head.class == Class::Intake { 2 } else { 1 };
        let bytes = self.queue_bytes + frame.body.len();
        let full = self.queue.len() >= WAITING_MAX / part || bytes > WAITING_BYTES_MAX / part;
        if !self.tasks.contains_key(&head.task) {
            self.tasks.insert(head.task.clone(), TaskState::default());
        }
        let Some(state) = self.tasks.get_mut(&head.task) else { return self.push(frame, true) };
        match state.admit(head, full && !self.queue.is_empty()) {
            Ok(recheck) => self.push(frame, recheck),
            Err(reason) => Admission::No(state.refuse(head.epoch, reason)),
        }
    }

    fn push(&mut self, frame: Frame, recheck: bool) -> Admission {
        let (answer, pending) = crate::Pending::new();
        self.queue_bytes += frame.body.len();
        self.queue.push_back(Waiting { frame, answer, recheck });
        Admission::Yes(pending)
    }

    /// Whether there is something to write; without `intake`, beside what sources have.
    pub(super) fn has_work(&self, intake: bool) -> bool {
        let mut sources = HashSet::new();
        self.queue.iter().any(|waiting| intake || !waiting.stays(&mut sources))
    }

    /// Takes frames for one group, of at most `bytes` if they are several; without `intake`, what sources have stays.
    pub(super) fn take(&mut self, bytes: usize, intake: bool) -> Vec<Waiting> {
        let (mut taken, mut left, mut sources) = (Vec::new(), VecDeque::new(), HashSet::new());
        let mut sum = 0;
        while let Some(next) = self.queue.pop_front() {
            if !intake && next.stays(&mut sources) {
                left.push_back(next);
                continue;
            }
            let size = next.frame.body.len() + next.frame.head.len();
            if !taken.is_empty() && sum + size > bytes {
                self.queue.push_front(next);
                break;
            }
            sum += size;
            self.queue_bytes -= next.frame.body.len();
            taken.push(next);
        }
        while let Some(waiting) = left.pop_back() {
            self.queue.push_front(waiting);
        }
        taken
    }

    /// Whether a taken commit may be written now; `current` as for [`Stage::admit`].
    pub(super) fn recheck(&self, waiting: &Waiting, current: bool) -> Result<(), Outcome> {
        let Content::Commit(head) = &waiting.frame.content else { return Ok(()) };
        if !current {
            return Err(Outcome::Fenced);
        }
        let Some(state) = self.tasks.get(&head.task) else { return Ok(()) };
        if state.broken == Some(head.epoch) {
            return Err(Outcome::Aborted(AbortReason::Predecessor));
        }
        if waiting.recheck {
            follow(head, |input| state.durable.get(input)).map_err(Outcome::Aborted)?;
        }
        Ok(())
    }

    /// A commit's fate is known: its positions take effect, or its successors are refused.
    pub(super) fn settle(&mut self, content: &Content, outcome: &Outcome) {
        let Content::Commit(head) = content else { return };
        let Some(state) = self.tasks.get_mut(&head.task) else { return };
        state.settled += 1;
        match outcome {
            Outcome::Committed(_) => {
                for (input, _, to) in &head.consumed {
                    state.durable.insert(input.clone(), to.clone());
                }
            }
            _ => {
                state.failed = state.failed.max(Some(head.epoch));
                state.broken = state.broken.max(Some(head.epoch));
            }
        }
        if state.settled == state.admitted {
            state.staged.clear();
        }
        let settled = state.settled;
        state.waiters.retain_mut(|(ticket, _)| *ticket > settled);
    }

    /// Accepts nothing more of this task and epoch.
    pub(super) fn refuse_from_now(&mut self, task: &crate::Task) {
        let state = self.tasks.entry(task.id.clone()).or_default();
        state.failed = state.failed.max(Some(task.epoch));
    }

    /// Something to wait for until all that was admitted for a task is settled; `None` where it is already, or where it
    /// never will be because the log has stopped.
    pub(super) fn wait_settled(&mut self, task: &TaskId) -> Option<oneshot::Receiver<()>> {
        if self.stopped.is_some() {
            return None;
        }
        let state = self.tasks.get_mut(task).filter(|state| state.settled < state.admitted)?;
        let (sender, receiver) = oneshot::channel();
        state.waiters.push((state.admitted, sender));
        Some(receiver)
    }

    /// Nothing is accepted any more: what waits is answered.
    pub(super) fn stop(&mut self, why: &str) -> Vec<Waiting> {
        self.stopped.get_or_insert_with(|| why.to_owned());
        self.queue_bytes = 0;
        let left: Vec<Waiting> = self.queue.drain(..).collect();
        self.tasks.values_mut().for_each(|state| state.waiters.clear());
        left
    }
}

/// Whether a frame was put in the queue.
pub(super) enum Admission {
    Yes(crate::Pending),
    No(Outcome),
}

impl TaskState {
    /// Whether the commit follows what was admitted before, and whether that must be looked at again.
    fn admit(&mut self, head: &CommitHead, full: bool) -> Result<bool, AbortReason> {
        if self.failed == Some(head.epoch) {
            return Err(AbortReason::Predecessor);
        }
        if full {
            return Err(AbortReason::DiskFull("too much waits to be written already".into()));
        }
        if self.epoch != head.epoch {
            self.epoch = head.epoch;
            self.staged.clear();
            self.foreign = self.admitted;
        }
        // Commits of a former owner that are on their way may still succeed; then this one must not.
        let recheck = self.settled < self.foreign;
        follow(head, |input| self.staged.get(input).or_else(|| self.durable.get(input)))?;
        for (input, _, to) in &head.consumed {
            self.staged.insert(input.clone(), to.clone());
        }
        self.admitted += 1;
        Ok(recheck)
    }

    fn refuse(&mut self, epoch: Epoch, reason: AbortReason) -> Outcome {
        if self.failed == Some(epoch) {
            return Outcome::Aborted(AbortReason::Predecessor);
        }
        self.failed = self.failed.max(Some(epoch));
        Outcome::Aborted(reason)
    }
}

/// Each input goes on where it was left.
fn follow<'a>(head: &'a CommitHead, left: impl Fn(&Name) -> Option<&'a Position>) -> Result<(), AbortReason> {
    let consumed = head.consumed.iter().map(|(input, from, to)| (input, from.as_ref(), to));
    positions_after(&head.task, consumed, left).map(drop)
}

#[cfg(test)]
mod tests {
    use millstream_event::Offset;

    use super::*;

    fn commit(task: &TaskId, from: Option<u64>, to: u64) -> Frame {
        of_class(task, from, to, Class::Processing)
    }

    fn of_class(task: &TaskId, from: Option<u64>, to: u64, class: Class) -> Frame {
        let at = |offset| Position::Offset(Offset(offset));
        let consumed = vec![(Name::new("in").unwrap(), from.map(at), at(to))];
        let (epoch, appends) = (Epoch(1), Vec::new());
        Frame::of_content(Content::Commit(CommitHead { task: task.clone(), epoch, class, consumed, appends })).unwrap()
    }

    #[test]
    fn nobody_waits_for_what_a_stopped_log_will_never_settle() {
        let task = TaskId::new(Name::new("s").unwrap(), 0);
        let mut stage = Stage::default();
        assert!(matches!(stage.admit(Ok(commit(&task, None, 1)), true), Admission::Yes(_)));
        let before = stage.wait_settled(&task);
        assert_eq!(stage.stop("the disk is gone").len(), 1);
        assert!(before.unwrap().try_recv().is_err_and(|e| e == oneshot::error::TryRecvError::Closed));
        assert!(stage.wait_settled(&task).is_none());
    }

    #[test]
    fn what_sources_have_waits_in_its_place_while_the_rest_goes_on() {
        let task = |name: &str| TaskId::new(Name::new(name).unwrap(), 0);
        let (source, service) = (task("source"), task("service"));
        let mut stage = Stage::default();
        for n in 0..3u64 {
            let from = n.checked_sub(1).map(|n| n + 1);
            for (task, class) in [(&source, Class::Intake), (&service, Class::Processing)] {
                let admitted = stage.admit(Ok(of_class(task, from, n + 1, class)), true);
                assert!(matches!(admitted, Admission::Yes(_)));
            }
        }
        // A promise alone is of another class; it follows the events of its task all the same.
        assert!(matches!(stage.admit(Ok(of_class(&source, Some(3), 4, Class::Processing)), true), Admission::Yes(_)));
        let of = |taken: Vec<Waiting>| -> Vec<(bool, Position)> {
            let heads = taken.iter().map(|waiting| match &waiting.frame.content {
                Content::Commit(head) => (head.task == source, head.consumed.first().unwrap().2.clone()),
                _ => unreachable!("only commits were admitted"),
            });
            heads.collect()
        };
        let at = |n| Position::Offset(Offset(n));
        assert_eq!(of(stage.take(1, false)), [(false, at(1))]);
        assert_eq!(of(stage.take(usize::MAX, false)), [(false, at(2)), (false, at(3))]);
        assert!(!stage.has_work(false) && stage.has_work(true));
        assert!(stage.take(usize::MAX, false).is_empty());
        assert_eq!(of(stage.take(usize::MAX, true)), [(true, at(1)), (true, at(2)), (true, at(3)), (true, at(4))]);
        assert!(!stage.has_work(true));
    }
}

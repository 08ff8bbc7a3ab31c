//! What every task has in common: who it is, what it may use, how it ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use futures::future::BoxFuture;
use millstream_log::{AbortReason, Clock, Log, Pending, Task};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::ConnectError;
use crate::begun::Begun;
use crate::control::Control;
use crate::isolation::Isolation;
use crate::meters::Meters;
use crate::status::{State, TimeStatus};

/// How many reasons of failures are remembered as told.
const REASONS_TOLD_MAX: usize = 16;

/// The work of a component's tasks.
pub(crate) trait Job: Send + Sync + 'static {
    /// Works until told to leave, from the task's last commit on.
    fn run(self: Arc<Self>, context: Context) -> BoxFuture<'static, Result<End, Fault>>;
}

/// How a task ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It was told to leave and nothing is on its way.
    Left,
    /// There will be nothing more to do.
    Finished,
}

/// How a task ended otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Something outside is missing or full: wait, then go on from the last commit.
    Wait(String),
    /// The log has no room: wait, but not long, then go on from the last commit.
    Space(String),
    /// The log refused a commit, or what was known is stale: go on from the last commit.
    Again(String),
    /// The work panicked.
    Panic(String),
    /// Something outside must be mended: it has failed, and tries again by itself.
    Refused(String),
    /// Somebody must mend it.
    Failed(String),
    /// Somebody else owns the task.
    Fenced,
}

impl Fault {
    /// What an aborted commit means for its task.
    pub(crate) fn aborted(reason: &AbortReason) -> Self {
        match reason {
            reason if reason.retryable() => Self::Space(reason.to_string()),
            AbortReason::Stopped(_) => Self::Failed(reason.to_string()),
            // It would be as large the next time.
            AbortReason::TooLarge(_) => Self::Failed(format!(
                "{reason}; what is made of a batch, or concluded at one moment of event time, is one commit: give its \
                 input more partitions, or windows that end together fewer keys, or set `batch_max` of the service lower, \
                 then resume it"
            )),
            reason => Self::Again(reason.to_string()),
        }
    }

    /// What an error of something outside means for a task.
    pub(crate) fn outside(error: &ConnectError) -> Self {
        match error {
            error if error.retryable() => Self::Wait(error.to_string()),
            error if error.may_be_mended() => Self::Refused(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }

    /// What an error of the log means for a task.
    pub(crate) fn log(error: &millstream_log::Error) -> Self {
        match error {
            // Retention was faster than the reader: opening again goes on at what is left, and says so.
            millstream_log::Error::OutOfRange { .. } => Self::Again(error.to_string()),
            error if error.retryable() => Self::Wait(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}

/// What a task has and may use.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) task: Task,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) control: Control,
    pub(crate) meters: Arc<Meters>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) commits_in_flight: usize,
    pub(crate) shared: Arc<Shared>,
    /// Told after each commit of any task of the pipeline.
    pub(crate) progress: Arc<Notify>,
    /// What was told of the component's tasks.
    pub(crate) told: Arc<Told>,
    /// Where the topics ended when this run began.
    pub(crate) begun: Arc<Begun>,
    /// Injected panics that no task has taken yet.
    pub(crate) injected: Arc<AtomicU32>,
}

/// What was told of the failures of a component's tasks, so that each is told once and not by every task at every attempt.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<VecDeque<String>>);

impl Told {
    /// Whether this is news, and worth a line.
    pub(crate) fn is_news(&self, reason: &str) -> bool {
        let mut told = self.0.lock();
        if told.iter().any(|before| before == reason) {
            return false;
        }
        if told.len() >= REASONS_TOLD_MAX {
            told.pop_front();
        }
        told.push_back(reason.to_owned());
        true
    }

    /// It works again: what comes from here on is news.
    pub(crate) fn forget(&self) {
        self.0.lock().clear();
    }
}

/// What survives a task's failure.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// How far it is in event time.
    time: Mutex<Option<TimeStatus>>,
    /// Whether a commit succeeded since the last start.
    pub(crate) progressed: AtomicBool,
    /// Commits that a panicking task left on their way.
    pub(crate) leftovers: Mutex<Vec<Pending>>,
    /// Which events kill it.
    pub(crate) isolation: Mutex<Isolation>,
    /// What there is to know about a task that works.
    note: Mutex<Option<String>>,
    /// Whether it reads again what it has read before.
    pub(crate) again: AtomicBool,
    /// Whether it has not concluded yet all that its inputs' watermark allows.
    pub(crate) concluding: AtomicBool,
    /// Whether somebody is still to be told of what it promises.
    pub(crate) owes: AtomicBool,
    /// Whether it holds results that come out when time goes on.
    pub(crate) holds: AtomicBool,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State::Starting),
            time: Mutex::new(None),
            progressed: AtomicBool::new(false),
            leftovers: Mutex::new(Vec::new()),
            isolation: Mutex::default(),
            note: Mutex::new(None),
            again: AtomicBool::new(false),
            concluding: AtomicBool::new(false),
            owes: AtomicBool::new(false),
            holds: AtomicBool::new(false),
        }
    }

    pub(crate) fn note(&self) -> Option<String> {
        self.note.lock().clone()
    }

    pub(crate) fn set_note(&self, note: Option<String>) {
        *self.note.lock() = note;
    }

    pub(crate) fn state(&self) -> State {
        self.state.lock().clone()
    }

    pub(crate) fn time(&self) -> Option<TimeStatus> {
        self.time.lock().clone()
    }

    pub(crate) fn set_time(&self, time: TimeStatus) {
        *self.time.lock() = Some(time);
    }

    pub(crate) fn set(&self, state: State) {
        let mut now = self.state.lock();
        if *now != state {
            *now = state;
        }
    }
}

impl Context {
    /// Panics if a fault was injected and this task is the first to see it.
    pub(crate) fn meet_injected_fault(&self) {
        let taken = self.injected.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
        if taken.is_ok() {
            inject();
        }
    }

    /// Shows that the task pauses, until something else is asked.
    pub(crate) async fn pause(&mut self) {
        self.shared.set(State::Paused);
        self.control.changed().await;
        if !self.control.paused() {
            self.shared.set(State::Running);
        }
    }

    /// A commit of this task is durable.
    pub(crate) fn committed(&self) {
        self.shared.progressed.store(true, Ordering::Release);
        self.progress.notify_waiters();
    }
}

#[expect(clippy::panic, reason = "this is the fault that an operator asked for")]
fn inject() {
    panic!("a fault was injected by the operator");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_is_too_large_is_not_tried_for_ever() {
        let fault = Fault::aborted(&AbortReason::TooLarge("70000 appends or inputs, at most 65536 fit".into()));
        assert!(matches!(&fault, Fault::Failed(why) if why.contains("70000 appends") && why.contains("batch_max")));
        assert!(matches!(Fault::aborted(&AbortReason::Refused("x".into())), Fault::Again(_)));
    }
}

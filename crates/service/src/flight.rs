//! Commits on their way, oldest first. While they are being made durable, the task works on.
//!
//! What is still on its way when a task panics is handed to its supervisor, who waits for it: the position that the next
//! run reads is then the last one.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Instant;

use futures::FutureExt;
use millstream_log::{Commit, Committed, Log, Outcome, Pending, Task};

use crate::meters::{Tally, add, sub};
use crate::task::{Context, Fault};

/// Commits on their way, each with what its task wants to remember of it.
pub(crate) struct Flight<T> {
    context: Context,
    queue: VecDeque<Entry<T>>,
}

struct Entry<T> {
    pending: Pending,
    tally: Tally,
    since: Instant,
    note: T,
}

impl<T> Flight<T> {
    pub(crate) fn new(context: &Context) -> Self {
        Self { context: context.clone(), queue: VecDeque::new() }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() >= self.context.commits_in_flight
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Hands a commit to the log.
    pub(crate) fn send(&mut self, commit: Commit, tally: Tally, note: T) {
        let pending = self.context.log.commit(commit);
        self.put(pending, tally, note);
    }

    /// Takes a commit that was handed over, in the order of the calls.
    pub(crate) fn put(&mut self, pending: Pending, tally: Tally, note: T) {
        let since = Instant::now();
        add(&self.context.meters.in_flight, 1);
        self.queue.push_back(Entry { pending, tally, since, note });
    }

    /// The outcome of the oldest commit; waits for ever where none is on its way. Cancel safe.
    pub(crate) async fn next(&mut self) -> (Outcome, T) {
        let outcome = poll_fn(|cx| match self.queue.front_mut() {
            Some(entry) => Pin::new(&mut entry.pending).poll(cx),
            None => Poll::Pending,
        })
        .await;
        match self.queue.pop_front() {
            Some(entry) => {
                self.count(&outcome, &entry.tally, entry.since);
                (outcome, entry.note)
            }
            None => std::future::pending().await,
        }
    }

    /// Waits for the oldest commit, as [`Flight::next`], and judges it.
    pub(crate) async fn settle_one(&mut self) -> Result<(Committed, T), Fault> {
        let (outcome, note) = self.next().await;
        judge(outcome, self.context.log.as_ref()).map(|committed| (committed, note))
    }

    /// Judges those that are answered, without waiting, so that their latency is counted when they are done.
    pub(crate) fn settle_ready(&mut self) -> Result<(), Fault> {
        while let Some(settled) = self.settle_one().now_or_never() {
            settled?;
        }
        Ok(())
    }

    /// Waits for all; the first failure is the answer, for those behind it fail because of it.
    pub(crate) async fn drain(&mut self) -> Result<(), Fault> {
        let mut first = Ok(());
        while !self.is_empty() {
            let settled = self.settle_one().await.map(|_| ());
            first = first.and(settled);
        }
        first
    }

    fn count(&self, outcome: &Outcome, tally: &Tally, since: Instant) {
        match outcome {
            Outcome::Committed(_) => {
                self.context.meters.committed(tally, since.elapsed());
                self.context.shared.progressed.store(true, Ordering::Release);
            }
            _ => add(&self.context.meters.commits_failed, 1),
        }
        sub(&self.context.meters.in_flight, 1);
        self.context.progress.notify_waiters();
    }
}

impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        if !self.queue.is_empty() {
            sub(&self.context.meters.in_flight, self.queue.len() as u64);
            let pending = self.queue.drain(..).map(|entry| entry.pending);
            self.context.shared.leftovers.lock().extend(pending);
        }
    }
}

/// What an outcome means for its task.
pub(crate) fn judge(outcome: Outcome, log: &dyn Log) -> Result<Committed, Fault> {
    match outcome {
        Outcome::Committed(committed) => Ok(committed),
        Outcome::Fenced => Err(Fault::Fenced),
        Outcome::Aborted(reason) => Err(Fault::aborted(&reason)),
        Outcome::Unknown(reason) => Err(match log.stopped() {
            // The position tells what happened, once the log is open again.
            Some(why) => Fault::Failed(format!("nobody knows whether the last commit happened: {why}")),
            None => Fault::Again(format!("nobody knows whether the last commit happened ({reason})")),
        }),
    }
}

/// A commit of the context's task.
pub(crate) fn commit_of(context: &Context) -> Commit {
    commit_for(&context.task)
}

/// A commit of a task that does nothing yet.
pub(crate) fn commit_for(task: &Task) -> Commit {
    Commit {
        task: task.id.clone(),
        epoch: task.epoch,
        class: millstream_log::Class::Processing,
        consumed: Vec::new(),
        appends: Vec::new(),
    }
}

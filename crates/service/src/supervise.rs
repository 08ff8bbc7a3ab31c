//! Looking after one task: it runs in a tokio task of its own, so that its failure is nobody else's, and starts again
//! from its last commit.
//!
//! The life of a task: assigned -> run -> (failed -> settle what is on its way -> pause -> new epoch -> run)* -> left.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millstream_log::Task;
use tokio::runtime::Handle as Runtime;

use crate::clock::Backoff;
use crate::control::Control;
use crate::meters::add;
use crate::status::State;
use crate::task::{Context, End, Fault, Job};

/// The longest pause while the log has no room.
const SPACE_PAUSE_MAX: Duration = Duration::from_millis(500);

/// The shortest pause while something outside refuses.
const REFUSED_PAUSE_MIN: Duration = Duration::from_secs(1);

/// Runs a task until it is told to leave.
pub(crate) async fn supervise(job: Arc<dyn Job>, mut context: Context, compute: Runtime) {
    let mut backoff = Backoff::new();
    loop {
        let run = compute.spawn(Arc::clone(&job).run(context.clone()));
        let fault = match run.await {
            Ok(Ok(End::Left)) => return context.shared.set(State::Stopped),
            Ok(Ok(End::Finished)) => {
                context.shared.set(State::Finished);
                context.progress.notify_waiters();
                return context.control.left().await;
            }
            Ok(Err(fault)) => fault,
            Err(error) => Fault::Panic(panic_message(error)),
        };
        settle(&context).await;
        if context.control.leaving() {
            return context.shared.set(State::Stopped);
        }
        if context.shared.progressed.swap(false, Ordering::AcqRel) {
            backoff.reset();
            context.told.forget();
        }
        let fault = match fault {
            Fault::Panic(reason) => died(&context, reason),
            fault => fault,
        };
        if !wait(&mut context, &fault, &mut backoff).await {
            return context.shared.set(State::Stopped);
        }
        match context.log.restart(&context.task).await {
            Ok(Some(task)) => again(&mut context, task),
            Ok(None) => return lost(&mut context).await,
            Err(error) => {
                context.shared.set(State::Failed { reason: error.to_string() });
                return context.control.left().await;
            }
        }
    }
}

/// What a panic means: that the task starts again, or that it would panic for ever.
fn died(context: &Context, reason: String) -> Fault {
    add(&context.meters.panics, 1);
    match context.shared.isolation.lock().died() {
        None => Fault::Panic(reason),
        Some(times) => Fault::Failed(format!(
            "the task panicked {times} times over the same events, and none of them is to blame alone: it does so where \
             windows or timers are concluded, or state is put down ({reason}); change what the service does there, then \
             resume it"
        )),
    }
}

fn again(context: &mut Context, task: Task) {
    add(&context.meters.restarts, 1);
    context.task = task;
}

/// The task has another owner; there is nothing to do but to wait for the news.
async fn lost(context: &mut Context) {
    context.shared.set(State::Waiting { reason: "another instance owns the task".into() });
    context.control.left().await;
}

/// Waits for the commits that a panicking task left on their way, so that the position read next is the last one.
async fn settle(context: &Context) {
    let pending = std::mem::take(&mut *context.shared.leftovers.lock());
    for commit in pending {
        // Its outcome shows in the position.
        drop(commit.await);
    }
}

/// Shows the fault and waits as it demands. False: the task should leave.
async fn wait(context: &mut Context, fault: &Fault, backoff: &mut Backoff) -> bool {
    let task = &context.task.id;
    let state = match fault {
        Fault::Wait(reason) | Fault::Space(reason) => {
            match context.told.is_news(reason) {
                true => tracing::warn!(%task, %reason, "waiting"),
                false => tracing::debug!(%task, %reason, "waiting"),
            }
            State::Waiting { reason: reason.clone() }
        }
        Fault::Again(reason) => {
            tracing::warn!(%task, %reason, "starting again from the last commit");
            State::Restarting { reason: reason.clone() }
        }
        Fault::Panic(reason) => {
            tracing::error!(%task, %reason, "the task panicked and starts again from its last commit");
            State::Restarting { reason: format!("panic: {reason}") }
        }
        Fault::Refused(reason) => {
            match context.told.is_news(reason) {
                true => tracing::error!(%task, %reason, "it cannot work; mend the cause, it tries again by itself"),
                false => tracing::debug!(%task, %reason, "it still cannot work"),
            }
            State::Failed { reason: format!("{reason} (tried again, at least every {} s)", Backoff::CAP.as_secs()) }
        }
        Fault::Failed(reason) => {
            tracing::error!(%task, %reason, "the task stopped; mend the cause and resume");
            State::Failed { reason: reason.clone() }
        }
        // Whether the task is really somebody else's, the new epoch tells.
        Fault::Fenced => State::Restarting { reason: "the log refused the task's epoch".into() },
    };
    context.shared.set(state);
    if matches!(fault, Fault::Failed(_)) {
        return resumed(&mut context.control).await;
    }
    let mut pause = backoff.pause();
    if matches!(fault, Fault::Space(_)) {
        // Callers of a source wait meanwhile, and asking the log costs nothing.
        pause = pause.min(SPACE_PAUSE_MAX);
    }
    if matches!(fault, Fault::Refused(_)) {
        // Nobody mends anything sooner, and many attempts with a wrong password lock people out.
        pause = pause.max(REFUSED_PAUSE_MIN);
    }
    let pause = tokio::time::sleep(pause);
    let before = context.control.resumes();
    let control = &mut context.control;
    let told = async {
        while !control.leaving() && control.resumes() == before {
            control.changed().await;
        }
    };
    tokio::select! {
        () = pause => {}
        () = told => {}
    }
    !context.control.leaving()
}

/// Waits for `resume`. False: the task should leave.
async fn resumed(control: &mut Control) -> bool {
    let before = control.resumes();
    while !control.leaving() {
        if control.resumes() != before && !control.paused() {
            return true;
        }
        control.changed().await;
    }
    false
}

fn panic_message(error: tokio::task::JoinError) -> String {
    match error.try_into_panic() {
        Ok(payload) => message_of(payload.as_ref()),
        Err(error) => error.to_string(),
    }
}

/// The words of a panic, at most 200 characters.
pub(crate) fn message_of(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().map(str::to_owned);
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".to_owned()).chars().take(200).collect()
}

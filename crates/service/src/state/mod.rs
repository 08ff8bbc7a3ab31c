//! The state of a service's task: a query or fold at work, and where what it keeps is kept.
//!
//! 1. A task opens its program without state and reads back, row by row, what was kept.
//! 2. What a batch changes is kept together with that batch's position and results: all of it is durable or nothing.
//! 3. After anything but a committed commit the task starts again at 1: memory never runs ahead of what will be durable.
//!
//! With the rows the form of the state is kept. A program that keeps its state in another form does not go on with it.

mod changelog;
mod external;
pub(crate) mod memory;
pub(crate) mod outbox;
mod staged;

use millstream_event::Name;
use millstream_flow::ChangeRows;
use millstream_log::{Commit, Pending};

pub(crate) use self::changelog::{Rows, void};
pub use self::changelog::{schema, topic, topic_name};
pub(crate) use self::outbox::outbox_input;

use self::changelog::Changelog;
use self::external::External;
use crate::def::Keep;
use crate::program::{Program, Stateful};
use crate::task::{Context, Fault};

/// A program at work, and where its state is kept.
pub(crate) struct State {
    pub(crate) program: Program,
    keeper: Keeper,
}

/// Where the state of a task is kept.
enum Keeper {
    Changelog(Changelog),
    External(External),
    /// Nowhere: it is built anew from the inputs (see [`memory`]).
    Memory,
}

impl State {
    /// Reads the state back, and before that brings the log in step with it: positions are right after this, not before.
    /// Nothing of the task may be on its way. `inputs`: what the task reads.
    pub(crate) async fn open(
        work: Stateful<'_>,
        keep: &Keep,
        inputs: &[Name],
        context: &Context,
    ) -> Result<Self, Fault> {
        let mut program = work.open().map_err(|e| Fault::Failed(e.to_string()))?;
        let signature = work.signature();
        let keeper = match keep {
            Keep::Log => {
                // Whoever asks for a position waits for what is on its way.
                let outside = context.log.position(&context.task.id, &outbox_input()?).await;
                if outside.map_err(|e| Fault::log(&e))?.is_some() {
                    return Err(kept_outside(&context.task.id.service));
                }
                memory::refuse(context).await?;
                Keeper::Changelog(Changelog::open(work, &mut program, signature, context).await?)
            }
            Keep::Memory => Keeper::Memory,
            Keep::External(store) => {
                let open = External::open(store.as_ref(), &mut program, &signature, inputs, context);
                Keeper::External(open.await?)
            }
        };
        Ok(Self { program, keeper })
    }

    /// Hands over a commit with what has changed in the state, if anything has.
    pub(crate) fn commit(
        &mut self,
        mut commit: Commit,
        changes: Option<ChangeRows>,
        context: &Context,
    ) -> Result<Pending, Fault> {
        match &mut self.keeper {
            Keeper::Changelog(changelog) => {
                let append = changes.map(|changes| changelog.append(&changes, context)).transpose()?;
                commit.appends.extend(append);
                Ok(context.log.commit(commit))
            }
            Keeper::External(external) => Ok(external.commit(commit, changes)),
            Keeper::Memory => Ok(context.log.commit(commit)),
        }
    }

    /// Why a commit did not succeed, where that was not the log's doing.
    pub(crate) fn fault(&self) -> Option<Fault> {
        match &self.keeper {
            Keeper::Changelog(_) | Keeper::Memory => None,
            Keeper::External(external) => external.fault(),
        }
    }
}

fn kept_outside(service: &Name) -> Fault {
    Fault::Failed(format!(
        "service `{service}` has kept its state in a database, and is to keep it in the log now. Bring its `state` setting \
         back, or give the service another name to begin anew"
    ))
}

/// What a task says that finds state of another form than its own.
fn other_form(service: &Name) -> Fault {
    Fault::Failed(format!(
        "service `{service}` has stored state of another form: what it keeps was changed in its SQL or fold. Bring back \
         what wrote it, or build it anew from what its inputs keep: `millstream services rewind {service} --to start \
         --outputs suppress` (or `append`, or a topic: whether results are given out again)"
    ))
}

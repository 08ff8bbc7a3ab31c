//! The state of a service's task: a query or fold at work, and where what it keeps is kept.
//!
//! 1. A task opens its program without state and reads back, row by row, what was kept.
//! 2. What a batch changes is kept together with that batch's position and results: all of it is durable or nothing.
//! 3. After anything but a committed commit the task starts again at 1: memory never runs ahead of what will be durable.
//!
//! With the rows the form of the state is kept. A program that keeps its state in another form does not go on with it.

mod changelog;
pub(crate) mod memory;

use millstream_event::Name;
use millstream_log::Append;

pub(crate) use self::changelog::void;
pub use self::changelog::{schema, topic, topic_name};

use self::changelog::Changelog;
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
    /// Nowhere: it is built anew from the inputs (see [`memory`]).
    Memory,
}

impl State {
    /// Reads the state back. Nothing of the task may be on its way.
    pub(crate) async fn open(work: Stateful<'_>, keep: &Keep, context: &Context) -> Result<Self, Fault> {
        let mut program = work.open().map_err(|e| Fault::Failed(e.to_string()))?;
        let keeper = match keep {
            Keep::Log => {
                memory::refuse(context).await?;
                Keeper::Changelog(Changelog::open(work, &mut program, work.signature(), context).await?)
            }
            Keep::Memory => Keeper::Memory,
        };
        Ok(Self { program, keeper })
    }

    /// What has changed since the last call, for the next commit.
    pub(crate) fn append(&mut self, context: &Context) -> Result<Option<Append>, Fault> {
        let Some(changes) = self.program.changes() else { return Ok(None) };
        match &mut self.keeper {
            Keeper::Changelog(changelog) => changelog.append(&changes, context).map(Some),
            Keeper::Memory => Ok(None),
        }
    }
}

/// What a task says that finds state of another form than its own.
fn other_form(service: &Name) -> Fault {
    Fault::Failed(format!(
        "service `{service}` has stored state of another form: what it keeps was changed in its SQL or fold. Bring back \
         what wrote it, or build it anew from what its inputs keep: `millstream services rewind {service} --to start \
         --outputs suppress` (or `append`, or a topic: whether results are given out again)"
    ))
}

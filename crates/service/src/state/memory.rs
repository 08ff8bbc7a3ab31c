//! State that is kept in memory alone: at every start a task reads its inputs from the start of what they keep up to where
//! it had come, gives nothing out meanwhile and commits nothing; then it goes on (see [`crate::again`]).
//!
//! The first commit of such a task notes, under [`KEPT_INPUT`], that no other place has its state. So does a task whose
//! work keeps no state any more, where a changelog, or rows in a database, were left behind. Who keeps it in the log from then on must build it first:
//! going on with an old changelog, which knows nothing of the events since, would be silently wrong.

use bytes::Bytes;
use millstream_event::{Name, TopicPartition};
use millstream_log::{Consumed, Position};

use super::{outbox_input, topic_name};
use crate::task::{Context, Fault};

/// The input under which it is noted where the state is. No topic has this name (`__` is reserved).
pub(crate) const KEPT_INPUT: &str = "__kept";

const IN_MEMORY: &[u8] = b"memory";
const NOWHERE: &[u8] = b"nowhere";

fn input() -> Result<Name, Fault> {
    Name::new(KEPT_INPUT).map_err(|e| Fault::Failed(e.to_string()))
}

/// What notes that the state is in memory; `None` where that is known.
pub(crate) async fn note(context: &Context) -> Result<Option<Consumed>, Fault> {
    noted(context, IN_MEMORY).await
}

/// What notes that events pass without the state in the changelog or a database; `None` where that is known, or there is no such state.
pub(crate) async fn note_nowhere(context: &Context) -> Result<Option<Consumed>, Fault> {
    match left_behind(context).await? {
        true => noted(context, NOWHERE).await,
        false => Ok(None),
    }
}

/// Whether there is state of the task, from before its service was changed.
async fn left_behind(context: &Context) -> Result<bool, Fault> {
    let id = &context.task.id;
    let outside = context.log.position(id, &outbox_input()?).await.map_err(|e| Fault::log(&e))?;
    if outside.is_some() {
        return Ok(true);
    }
    let name = topic_name(&id.service).map_err(|e| Fault::Failed(e.to_string()))?;
    let topic = context.log.topic(&name).filter(|topic| id.partition.0 < topic.spec.partitions);
    if topic.is_none() {
        return Ok(false);
    }
    let at = TopicPartition { topic: name, partition: id.partition };
    Ok(context.log.end(&at).await.map_err(|e| Fault::log(&e))?.0 > 0)
}

async fn noted(context: &Context, kept: &'static [u8]) -> Result<Option<Consumed>, Fault> {
    let input = input()?;
    let from = context.log.position(&context.task.id, &input).await.map_err(|e| Fault::log(&e))?;
    let to = Position::Opaque(Bytes::from_static(kept));
    Ok((from.as_ref() != Some(&to)).then_some(Consumed { input, from, to }))
}

/// Where the state was when the task last committed, if not where it is meant to be.
pub(super) enum Elsewhere {
    Memory,
    /// Events passed without it.
    Nowhere,
}

/// What is noted of the task's state.
pub(super) async fn elsewhere(context: &Context) -> Result<Option<Elsewhere>, Fault> {
    let noted = context.log.position(&context.task.id, &input()?).await.map_err(|e| Fault::log(&e))?;
    Ok(match noted {
        Some(Position::Opaque(bytes)) if bytes == IN_MEMORY => Some(Elsewhere::Memory),
        Some(Position::Opaque(bytes)) if bytes == NOWHERE => Some(Elsewhere::Nowhere),
        _ => None,
    })
}

/// Refuses to go on without the state that was in memory, or with one that knows nothing of the events since.
pub(crate) async fn refuse(context: &Context) -> Result<(), Fault> {
    let service = &context.task.id.service;
    match elsewhere(context).await? {
        Some(Elsewhere::Memory) => Err(Fault::Failed(format!(
            "service `{service}` kept its state in memory before, so its state topic has not got it. Build it from what \
             its inputs keep: `millstream services rewind {service} --to start --outputs suppress`; or bring back \
             `state: {{keep: memory}}`"
        ))),
        Some(Elsewhere::Nowhere) => Err(Fault::Failed(format!(
            "service `{service}` has read events without keeping state since its stored state was written, which knows \
             nothing of them. Build it from what its inputs keep: `millstream services rewind {service} --to start \
             --outputs suppress` (or `append`, or a topic: whether results are given out again)"
        ))),
        None => Ok(()),
    }
}

//! State that is kept in memory alone: at every start a task reads its inputs from the start of what they keep up to where
//! it had come, gives nothing out meanwhile and commits nothing; then it goes on (see [`crate::again`]).
//!
//! The first commit of such a task notes, under [`KEPT_INPUT`], that no other place has its state. Who keeps it in the log
//! from then on must build it first: going on with an old changelog, or none, would be silently wrong.

use bytes::Bytes;
use millstream_event::Name;
use millstream_log::{Consumed, Position};

use crate::task::{Context, Fault};

/// The input under which it is noted where the state is. No topic has this name (`__` is reserved).
pub(crate) const KEPT_INPUT: &str = "__kept";

const IN_MEMORY: &[u8] = b"memory";

fn input() -> Result<Name, Fault> {
    Name::new(KEPT_INPUT).map_err(|e| Fault::Failed(e.to_string()))
}

/// What notes that the state is in memory; `None` where that is known.
pub(crate) async fn note(context: &Context) -> Result<Option<Consumed>, Fault> {
    let input = input()?;
    let from = context.log.position(&context.task.id, &input).await.map_err(|e| Fault::log(&e))?;
    let to = Position::Opaque(Bytes::from_static(IN_MEMORY));
    Ok((from.as_ref() != Some(&to)).then_some(Consumed { input, from, to }))
}

/// Whether the state was in memory when the task last committed.
pub(super) async fn is_noted(context: &Context) -> Result<bool, Fault> {
    let noted = context.log.position(&context.task.id, &input()?).await.map_err(|e| Fault::log(&e))?;
    Ok(matches!(noted, Some(Position::Opaque(bytes)) if bytes == IN_MEMORY))
}

/// Refuses to go on without the state that was in memory.
pub(crate) async fn refuse(context: &Context) -> Result<(), Fault> {
    let service = &context.task.id.service;
    if !is_noted(context).await? {
        return Ok(());
    }
    Err(Fault::Failed(format!(
        "service `{service}` kept its state in memory before, so its state topic has not got it. Build it from what \
         its inputs keep: `millstream services rewind {service} --to start --outputs suppress`; or bring back \
         `state: {{keep: memory}}`"
    )))
}

//! One task: what it has promised, its state taken over, and the commit that sets it back.

use std::collections::BTreeMap;

use bytes::Bytes;
use millstream_event::{Name, Offset, PartitionId, TopicPartition};
use millstream_log::{Append, Clock, Commit, Consumed, Log, Outcome, Position, Read, Task};

use super::{Rewind, fault};
use crate::Error;
use crate::again::{FORMER_TIME_INPUT, Order, REWIND_INPUT, Stored};
use crate::dead_letter::Topics;
use crate::entry::TIME_INPUT;
use crate::flight::{commit_for, judge};
use crate::state::memory::KEPT_INPUT;
use crate::state::outbox::{Kept, Outbox, Who};
use crate::state::{topic_name, void};
use crate::store::StateChanges;
use crate::task::Fault;
use crate::watermarks;

/// The times that the service's tasks have promised in their output topics, by task.
pub(super) async fn promised(log: &dyn Log, order: &Rewind) -> Result<BTreeMap<u32, i64>, Error> {
    let mut promised: BTreeMap<u32, i64> = BTreeMap::new();
    for info in order.outputs.iter().filter_map(|output| log.topic(output)) {
        for partition in 0..info.spec.partitions {
            let at = TopicPartition::new(info.spec.name.clone(), partition);
            let mut reader = log.read(&at, log.end(&at).await?)?;
            let Read::Batch(batch) = reader.next().await? else { continue };
            for mark in batch.marks.iter().filter(|mark| mark.producer.name == order.service) {
                if let Some(time) = mark.watermark.time() {
                    let known = promised.entry(mark.producer.partition.0).or_insert(time);
                    *known = (*known).max(time);
                }
            }
        }
    }
    Ok(promised)
}

/// Takes the state of a task over that is in a store; `None`: it is in the log.
pub(super) async fn take_over(
    log: &dyn Log,
    clock: &dyn Clock,
    order: &Rewind,
    task: &Task,
) -> Result<Option<Outbox>, Fault> {
    let Some(store) = &order.store else { return Ok(None) };
    let own = Topics::of(&order.service).map_err(|e| Fault::Failed(e.to_string()))?.replay;
    let inputs: Vec<Name> = order.inputs.iter().cloned().chain([own]).collect();
    let mut outbox = Outbox::take_over(store.as_ref(), Who { log, task, clock, inputs: &inputs, voids: true }).await?;
    let opening = outbox.hand_over(log, commit_for(task), Kept::Changes(StateChanges::default())).await?;
    judge(opening, log)?;
    Ok(Some(outbox))
}

/// The one commit that sets a task back.
pub(super) async fn set_back(
    log: &dyn Log,
    clock: &dyn Clock,
    order: &Rewind,
    (task, outbox): (Task, Option<Outbox>),
    promised: Option<i64>,
) -> Result<(), Error> {
    let name = |text: &str| Name::new(text).map_err(|e| order.refused(&e.to_string()));
    let partition = task.id.partition;
    let course = order.course(log, partition.0).await?;
    if !order.stateful && !course.moves() {
        return Ok(());
    }
    let stored = Stored::read(log, &task.id).await.map_err(|e| fault(&order.service, &e))?;
    let before = stored.order.as_ref().map(|(order, _)| order);
    // A task that was set back and is not where it was yet was further once.
    let mut until: BTreeMap<Name, u64> = before.map(|order| order.until.clone()).unwrap_or_default();
    for input in
        order.inputs.iter().chain([&Topics::of(&order.service).map_err(|e| order.refused(&e.to_string()))?.replay])
    {
        if let Some(Position::Offset(Offset(at))) = log.position(&task.id, input).await? {
            let known = until.entry(input.clone()).or_insert(at);
            *known = (*known).max(at);
        }
    }
    let mut consumed: Vec<Consumed> = Vec::new();
    for target in course.targets.iter().filter(|target| target.to < target.from) {
        let (from, to) = (Some(Position::Offset(target.from)), Position::Offset(target.to));
        consumed.push(Consumed { input: target.input.clone(), from, to });
    }
    let time = log.position(&task.id, &name(TIME_INPUT)?).await?;
    let reached = match &time {
        Some(Position::Opaque(state)) => watermarks::reached_in(state),
        _ => None,
    };
    let known = before.and_then(|order| order.floor);
    let floor = promised.or(reached.and_then(|reached| reached.time())).max(known);
    let told = Order::new(order.how.clone(), until, floor);
    let to = told.position().map_err(|e| order.refused(&e))?;
    consumed.push(Consumed { input: name(REWIND_INPUT)?, from: stored.order.as_ref().map(|(_, at)| at.clone()), to });
    if let Some(Position::Opaque(heard)) = &time {
        // While it is under way, what it had heard at first counts.
        if !(stored.is_under_way() && stored.former_time().is_some()) {
            let to = Position::Opaque(heard.clone());
            consumed.push(Consumed { input: name(FORMER_TIME_INPUT)?, from: stored.former.clone(), to });
        }
        let fresh = Position::Opaque(watermarks::fresh());
        consumed.push(Consumed { input: name(TIME_INPUT)?, from: time.clone(), to: fresh });
    }
    let kept = log.position(&task.id, &name(KEPT_INPUT)?).await?;
    if let Some(from) = kept.filter(|kept| *kept != Position::Opaque(Bytes::new())) {
        consumed.push(Consumed { input: name(KEPT_INPUT)?, from: Some(from), to: Position::Opaque(Bytes::new()) });
    }
    consumed.retain(|moved| moved.from.as_ref() != Some(&moved.to));
    let (appends, changelog) = voided(log, clock, order, partition)?;
    let commit = Commit { consumed, appends, ..commit_for(&task) };
    let outcome = match outbox {
        Some(mut outbox) => outbox.hand_over(log, commit, Kept::Void).await.map_err(|e| fault(&order.service, &e))?,
        None => log.commit(commit).await,
    };
    let Outcome::Committed(committed) = outcome else {
        let why = match outcome {
            Outcome::Aborted(reason) => reason.to_string(),
            Outcome::Unknown(reason) => format!("nobody knows whether it happened ({reason}); say it again"),
            _ => "another instance owns the task".to_owned(),
        };
        return Err(order.refused(&why));
    };
    if let (Some(at), Some(Some(begun))) = (changelog, committed.offsets.first()) {
        // What stays behind is let go of when the task opens.
        if let Err(error) = log.trim(&at, *begun).await {
            tracing::warn!(service = %order.service, %error, "state that is void stays in the changelog for now");
        }
    }
    Ok(())
}

/// The row that voids the state in the changelog, where there is one.
fn voided(
    log: &dyn Log,
    clock: &dyn Clock,
    order: &Rewind,
    partition: PartitionId,
) -> Result<(Vec<Append>, Option<TopicPartition>), Error> {
    let topic = topic_name(&order.service).map_err(|e| order.refused(&e.to_string()))?;
    let Some(info) = log.topic(&topic).filter(|info| partition.0 < info.spec.partitions) else {
        return Ok((Vec::new(), None));
    };
    let rows = void(clock.now_us()).map_err(|e| order.refused(&e.to_string()))?;
    let append = Append { topic: topic.clone(), partition, schema_version: info.schema_version, rows, watermark: None };
    Ok((vec![append], Some(TopicPartition { topic, partition })))
}

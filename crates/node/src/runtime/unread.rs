//! What a change means for events that are there: what comes is read from the start, what goes leaves some unread.

use millstream_service::event::Name;
use millstream_service::lag_of;
use millstream_service::log::Log;

use super::service_error;
use crate::api::{ApiError, Change, ChangeKind, PartKind, Plan};
use crate::plan::Pipeline;

/// Says for every service and sink that comes where it begins to read, and for every one that goes what it leaves.
pub(crate) async fn tell(log: &dyn Log, plan: &mut Plan, before: &Pipeline, after: &Pipeline) -> Result<(), ApiError> {
    let renamed: Vec<Option<String>> = plan.changes.iter().map(|c| former(c, &plan.changes)).collect();
    for (change, former) in plan.changes.iter_mut().zip(renamed) {
        let pipeline = match change.change {
            ChangeKind::Added => after,
            ChangeKind::Removed => before,
            ChangeKind::Changed | ChangeKind::Refused | ChangeKind::Restart => continue,
        };
        let Some((name, inputs)) = inputs(pipeline, change) else { continue };
        for topic in inputs {
            let (unread, begun) = unread(log, name, topic).await?;
            let events = if unread == 1 { "1 event".to_owned() } else { format!("{unread} events") };
            change.details.push(match (change.change, begun) {
                (ChangeKind::Removed, _) if unread == 0 => format!("has read all of `{topic}`"),
                (ChangeKind::Removed, _) => format!("leaves {events} of `{topic}` unread"),
                (_, true) => format!("goes on with `{topic}` where a `{name}` before it stopped ({events})"),
                (_, false) => format!("reads `{topic}` from its beginning ({events})"),
            });
        }
        if let Some(former) = former {
            change.details.push(format!("does what `{former}` did, which goes: what that has written comes again"));
        }
    }
    Ok(())
}

/// The part that goes and did the same under another name.
fn former(change: &Change, all: &[Change]) -> Option<String> {
    let same = |c: &&Change| c.part == change.part && c.change == ChangeKind::Removed && c.before == change.after;
    let reads = matches!(change.part, PartKind::Service | PartKind::Sink);
    all.iter().find(|c| reads && change.change == ChangeKind::Added && same(c)).map(|c| c.name.clone())
}

fn inputs<'a>(pipeline: &'a Pipeline, change: &Change) -> Option<(&'a Name, &'a [Name])> {
    match change.part {
        PartKind::Service => {
            pipeline.services.iter().map(|s| (&s.name, &*s.inputs)).find(|(n, _)| n.as_str() == change.name)
        }
        PartKind::Sink => pipeline.sinks.iter().map(|s| (&s.name, &*s.inputs)).find(|(n, _)| n.as_str() == change.name),
        PartKind::Topic | PartKind::Lookup | PartKind::Source | PartKind::Setting => None,
    }
}

/// How many events of a topic a component has not read, and whether one of its name has read any.
async fn unread(log: &dyn Log, name: &Name, topic: &Name) -> Result<(u64, bool), ApiError> {
    let partitions = log.topic(topic).map_or(0, |info| info.spec.partitions);
    let (mut unread, mut begun) = (0, false);
    for partition in 0..partitions {
        let lag = lag_of(log, name, topic, partition).await.map_err(service_error)?;
        unread += lag.lag;
        begun |= lag.position.is_some();
    }
    Ok((unread, begun))
}

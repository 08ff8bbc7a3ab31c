//! Setting a service back: its tasks read again what they have read, with empty state.
//!
//! For each task one commit moves its positions back, makes its state void and notes where it was (see [`crate::again`]).
//! Nobody else may own its tasks meanwhile: a running service is stopped at a commit boundary and started again behind it.
//! Tasks are set back one after the other; after a crash between two of them, the same order again does the rest.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use bytes::Bytes;
use millstream_event::{Name, Offset, PartitionId, Stamp, TopicPartition};
use millstream_log::{
    Append, Change, Class, Clock, Commit, Consumed, Join, Lead, Log, Outcome, Position, Read, Task, TaskId, TopicInfo,
    TopicSpec,
};

use crate::Error;
pub use crate::again::Outputs;
use crate::again::{FORMER_TIME_INPUT, Order, REWIND_INPUT, Stored};
use crate::dead_letter::Topics;
use crate::entry::TIME_INPUT;
use crate::state::memory::KEPT_INPUT;
use crate::state::{outbox_input, topic_name, void};
use crate::task::Fault;
use crate::watermarks;

/// How long it may take until all tasks of a service that does not run are owned.
const OWNED_WITHIN: Duration = Duration::from_secs(30);

/// Where to go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// The first event that is kept.
    Start,
    /// This offset, in each partition that is behind it.
    Offset(u64),
    /// The first event that came in at this time or later, in microseconds since 1970 UTC.
    Time(i64),
}

/// An order to set a service back.
#[derive(Debug, Clone)]
pub struct Rewind {
    /// The service.
    pub service: Name,
    /// The topics that it reads.
    pub inputs: Vec<Name>,
    /// The topics that it writes.
    pub outputs: Vec<Name>,
    /// Whether it keeps state.
    pub stateful: bool,
    /// Where to.
    pub to: To,
    /// What becomes of what it makes of the events again.
    pub how: Outputs,
}

/// What an order means for one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputPlan {
    /// The topic.
    pub topic: Name,
    /// How many of its partitions are read again.
    pub partitions: u32,
    /// How many events at most are read again: offsets between the two places.
    pub events: u64,
    /// The earliest place from which a partition is read.
    pub from: u64,
    /// Whether events before that place are gone, though they were read once.
    pub trimmed: bool,
}

/// What an order means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// By input; the last is the service's own replay topic, where that is read again.
    pub inputs: Vec<InputPlan>,
    /// How many tasks it has, and how many of them are set back.
    pub tasks: u32,
    /// See above.
    pub rewound: u32,
}

/// One input of one task.
struct Target {
    input: Name,
    from: Offset,
    to: Offset,
    start: Offset,
}

/// What a task is told.
struct Course {
    targets: Vec<Target>,
}

impl Course {
    /// Whether anything is to be done.
    fn moves(&self, order: &Rewind) -> bool {
        // State of another form has to go also where nothing was read.
        self.targets.iter().any(|t| t.to < t.from) || (order.to == To::Start && order.stateful)
    }
}

fn fault(service: &Name, fault: &Fault) -> Error {
    let why = match fault {
        Fault::Wait(why) | Fault::Space(why) | Fault::Again(why) => why.clone(),
        Fault::Panic(why) | Fault::Refused(why) | Fault::Failed(why) => why.clone(),
        Fault::Fenced => "another instance owns the task".to_owned(),
    };
    Error::Refused(format!("`{service}` cannot be rewound: {why}"))
}

impl Rewind {
    fn refused(&self, why: &str) -> Error {
        Error::Refused(format!("`{}` cannot be rewound: {why}", self.service))
    }

    fn partitions(&self, log: &dyn Log) -> Result<u32, Error> {
        let lead = self.inputs.first().and_then(|input| log.topic(input));
        Ok(lead.ok_or_else(|| self.refused("it has not run yet"))?.spec.partitions)
    }

    /// The inputs that go back, the service's own replay topic with them: an offset means nothing there.
    fn topics(&self, log: &dyn Log) -> Result<Vec<Name>, Error> {
        let own = Topics::of(&self.service).map_err(|e| self.refused(&e.to_string()))?.replay;
        let own = (!matches!(self.to, To::Offset(_)) && log.topic(&own).is_some()).then_some(own);
        Ok(self.inputs.iter().cloned().chain(own).collect())
    }

    async fn course(&self, log: &dyn Log, partition: u32) -> Result<Course, Error> {
        let task = TaskId::new(self.service.clone(), partition);
        let mut targets = Vec::new();
        for input in self.topics(log)? {
            let Some(Position::Offset(from)) = log.position(&task, &input).await? else { continue };
            let at = TopicPartition::new(input.clone(), partition);
            let start = log.start(&at).await?;
            let to = match self.to {
                To::Start => start,
                To::Offset(offset) => Offset(offset).max(start),
                To::Time(time) => first_since(log, &at, start, from, time).await?,
            };
            targets.push(Target { input, from, to: to.min(from), start });
        }
        Ok(Course { targets })
    }

    /// The topic that results go to, made if it is not there.
    async fn target(&self, log: &dyn Log, make: bool) -> Result<Option<TopicInfo>, Error> {
        let Outputs::Topic(name) = &self.how else { return Ok(None) };
        if self.outputs.contains(name) {
            return Err(self.refused(&format!("it writes `{name}` anyway: say `append`, or name another topic")));
        }
        let outputs: Vec<TopicInfo> = self.outputs.iter().filter_map(|output| log.topic(output)).collect();
        let lead = outputs.first().ok_or_else(|| self.refused("it has not run yet"))?;
        let same =
            |info: &TopicInfo| info.spec.schema == lead.spec.schema && info.spec.partitions == lead.spec.partitions;
        if let Some(other) = outputs.iter().find(|info| !same(info)) {
            let (one, other) = (&lead.spec.name, &other.spec.name);
            return Err(self.refused(&format!(
                "`{one}` and `{other}` have different columns or partitions, so one topic cannot take both"
            )));
        }
        match log.topic(name) {
            Some(info) if same(&info) => Ok(Some(info)),
            Some(_) => Err(self.refused(&format!(
                "topic `{name}` has other columns or another number of partitions than `{}`",
                lead.spec.name
            ))),
            None if make => {
                let spec = TopicSpec { name: name.clone(), consumers: Vec::new(), ..lead.spec.clone() };
                Ok(Some(log.create_topic(spec).await?))
            }
            None => Ok(None),
        }
    }
}

/// The first offset from `start` on, before `end`, of an event that came in at `time` or later.
async fn first_since(
    log: &dyn Log,
    at: &TopicPartition,
    start: Offset,
    end: Offset,
    time: i64,
) -> Result<Offset, Error> {
    let mut reader = log.read(at, start)?;
    while let Read::Batch(batch) = reader.next().await? {
        if batch.base >= end {
            break;
        }
        let stamps = batch.rows.columns().last().and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        let found = stamps.and_then(|stamps| stamps.values().iter().position(|s| Stamp(*s).micros() >= time));
        if let Some(row) = found {
            return Ok(batch.offset(row).min(end));
        }
        tokio::task::yield_now().await;
    }
    Ok(end)
}

/// What an order would do. Changes nothing.
pub async fn preview(log: &dyn Log, order: &Rewind) -> Result<Plan, Error> {
    order.target(log, false).await?;
    let tasks = order.partitions(log)?;
    let mut inputs: BTreeMap<Name, InputPlan> = BTreeMap::new();
    let mut rewound = 0;
    for partition in 0..tasks {
        let outbox = outbox_input().map_err(|e| fault(&order.service, &e))?;
        if log.position(&TaskId::new(order.service.clone(), partition), &outbox).await?.is_some() {
            // Its rows would have to go in the same step as its positions.
            return Err(order.refused("it keeps its state in a database; give the service another name to begin anew"));
        }
        let course = order.course(log, partition).await?;
        rewound += u32::from(course.moves(order));
        for target in course.targets.iter().filter(|t| t.to < t.from || t.start > Offset(0)) {
            let plan = inputs.entry(target.input.clone()).or_insert_with(|| InputPlan {
                topic: target.input.clone(),
                partitions: 0,
                events: 0,
                from: u64::MAX,
                trimmed: false,
            });
            plan.partitions += u32::from(target.to < target.from);
            plan.events += target.from.0 - target.to.0;
            plan.from = plan.from.min(target.to.0);
            plan.trimmed |= target.to == target.start && target.start > Offset(0);
        }
    }
    if rewound == 0 {
        return Err(order.refused("it has not read anything from there on"));
    }
    Ok(Plan { inputs: inputs.into_values().collect(), tasks, rewound })
}

/// Sets a service back that does not run, or whose tasks nobody owns at the moment.
pub async fn carry_out(log: &dyn Log, clock: &dyn Clock, order: &Rewind) -> Result<Plan, Error> {
    let plan = preview(log, order).await?;
    order.target(log, true).await?;
    let promised = promised(log, order).await?;
    let lead = order.inputs.first().cloned().ok_or_else(|| order.refused("it has no input"))?;
    let join = Join { service: order.service.clone(), instance: 0, lead: Lead::Topic(lead) };
    let mut membership = log.join(join)?;
    let mut owned: Vec<Task> = Vec::new();
    let all = async {
        while owned.len() < plan.tasks as usize {
            match membership.next().await {
                Change::Assigned(tasks) => owned.extend(tasks),
                Change::Revoke(ids) => membership.release(&ids),
                Change::Lost(_) => {}
            }
        }
    };
    let in_time = tokio::time::timeout(OWNED_WITHIN, all).await;
    in_time.map_err(|_| order.refused("other instances own its tasks; stop them first"))?;
    for task in owned {
        let floor = promised.get(&task.id.partition.0).copied();
        set_back(log, clock, order, task, floor).await?;
    }
    Ok(plan)
}

/// The times that the service's tasks have promised in their output topics, by task.
async fn promised(log: &dyn Log, order: &Rewind) -> Result<BTreeMap<u32, i64>, Error> {
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

/// The one commit that sets a task back.
async fn set_back(
    log: &dyn Log,
    clock: &dyn Clock,
    order: &Rewind,
    task: Task,
    promised: Option<i64>,
) -> Result<(), Error> {
    let name = |text: &str| Name::new(text).map_err(|e| order.refused(&e.to_string()));
    let partition = task.id.partition;
    let course = order.course(log, partition.0).await?;
    if !course.moves(order) {
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
    let commit = Commit { task: task.id.clone(), epoch: task.epoch, class: Class::Processing, consumed, appends };
    let outcome = log.commit(commit).await;
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

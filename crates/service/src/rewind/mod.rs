//! Setting a service back: its tasks read again what they have read, with empty state.
//!
//! For each task one commit moves its positions back, makes its state void and notes where it was (see [`crate::again`]).
//! Where the service keeps state and any of its tasks goes back, the state of all becomes void: one that stayed would count
//! from another moment on than the others. Nobody else may own its tasks meanwhile: a running service is stopped at a
//! commit boundary and started again behind it.
//! Tasks are set back one after the other; after a crash between two of them, the same order again does the rest.
//!
//! Where the state is in a store, that commit goes through it as any other does (see [`crate::store`]): the transaction that
//! stages it lets go of the rows. Once that has happened the task *is* set back, and whoever opens it next hands the commit
//! over to the log. Before it the new owner has made a commit of its own that changes nothing, so only this log, and no copy
//! of it from before, can be the one that gets it.

mod set_back;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use millstream_event::{Name, Offset, Stamp, TopicPartition};
use millstream_log::{Change, Clock, Join, Lead, Log, Position, Read, Task, TaskId, TopicInfo, TopicSpec};

use crate::Error;
pub use crate::again::Outputs;
use crate::dead_letter::Topics;
use crate::state::outbox_input;
use crate::store::StateStore;
use crate::task::Fault;

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
    /// Where its state is, if not in the log.
    pub store: Option<Arc<dyn StateStore>>,
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
    /// Whether anything is read again.
    fn moves(&self) -> bool {
        self.targets.iter().any(|t| t.to < t.from)
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
        let outside = log.position(&TaskId::new(order.service.clone(), partition), &outbox).await?.is_some();
        if outside && order.store.is_none() {
            // Its rows would have to go in the same step as its positions.
            return Err(order.refused(
                "it has kept its state in a database, which this pipeline does not name; bring its `state` setting back",
            ));
        }
        let course = order.course(log, partition).await?;
        rewound += u32::from(course.moves());
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
    // State of another form has to go also where nothing was read.
    if order.stateful && (rewound > 0 || order.to == To::Start) {
        rewound = tasks;
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
    // What has to be handed over to the log first moves positions and promises, so all that follows looks behind it.
    let mut taken = Vec::new();
    for task in owned {
        let outbox = set_back::take_over(log, clock, order, &task).await.map_err(|e| fault(&order.service, &e))?;
        taken.push((task, outbox));
    }
    let promised = set_back::promised(log, order).await?;
    // Those that only lose their state come first: a crash behind them leaves something to be read again, so that the same
    // order does the rest.
    let mut staying = Vec::new();
    let partitions: Vec<u32> = taken.iter().map(|(task, _)| task.id.partition.0).collect();
    for partition in partitions {
        staying.push(!order.course(log, partition).await?.moves());
    }
    let (first, then): (Vec<_>, Vec<_>) = taken.into_iter().zip(staying).partition(|(_, stays)| *stays);
    for ((task, outbox), _) in first.into_iter().chain(then) {
        let floor = promised.get(&task.id.partition.0).copied();
        set_back::set_back(log, clock, order, (task, outbox), floor).await?;
    }
    Ok(plan)
}

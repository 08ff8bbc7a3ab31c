//! A running service, source or sink: its instances, which own its tasks, and what can be asked of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use millstream_event::{Name, Offset, PartitionId, TopicPartition};
use millstream_log::{Change, Clock, Join, Lead, Log, Membership, Position, Task, TaskId};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::Error;
use crate::begun::Begun;
use crate::control::{Control, Leave, Mode};
use crate::meters::Meters;
use crate::runner::Options;
use crate::status::{InputLag, Kind, State, Status, TaskStatus, TimeStatus};
use crate::supervise::supervise;
use crate::task::{Context, Job, Shared, Told};

/// The most instances of one component.
pub const INSTANCES_MAX: u32 = 256;

/// What a component is made of.
pub(crate) struct Parts {
    pub(crate) name: Name,
    pub(crate) version: String,
    pub(crate) kind: Kind,
    pub(crate) lead: Lead,
    /// How many tasks there are.
    pub(crate) tasks: u32,
    /// The topics read, with their partition counts.
    pub(crate) inputs: Vec<(Name, u32)>,
    pub(crate) job: Arc<dyn Job>,
    pub(crate) instances: u32,
}

/// A running component.
pub(crate) struct Component {
    parts: Parts,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) clock: Arc<dyn Clock>,
    options: Options,
    pub(crate) meters: Arc<Meters>,
    mode: watch::Sender<Mode>,
    progress: Arc<Notify>,
    injected: Arc<AtomicU32>,
    told: Arc<Told>,
    stopped: AtomicBool,
    tasks: Mutex<BTreeMap<u32, (u32, Arc<Shared>)>>,
    begun: Arc<Begun>,
    /// Held while the number of instances changes.
    instances: tokio::sync::Mutex<Vec<Instance>>,
    instance_count: AtomicU32,
}

struct Instance {
    leave: watch::Sender<Leave>,
    work: JoinHandle<()>,
}

impl Component {
    /// Starts it. `paused`: nothing is read before [`Component::resume`].
    pub(crate) async fn start(
        parts: Parts,
        log: Arc<dyn Log>,
        options: Options,
        progress: Arc<Notify>,
        begun: Arc<Begun>,
        paused: bool,
    ) -> Result<Arc<Self>, Error> {
        let instances = parts.instances;
        let component = Arc::new(Self {
            parts,
            log,
            clock: Arc::clone(&options.clock),
            options,
            meters: Arc::default(),
            mode: watch::Sender::new(Mode { paused, ..Mode::default() }),
            progress,
            injected: Arc::default(),
            told: Arc::default(),
            stopped: AtomicBool::new(false),
            tasks: Mutex::default(),
            begun,
            instances: tokio::sync::Mutex::default(),
            instance_count: AtomicU32::new(0),
        });
        if let Err(error) = component.scale(instances).await {
            component.stop(Leave::Boundary).await;
            return Err(error);
        }
        Ok(component)
    }

    pub(crate) fn name(&self) -> &Name {
        &self.parts.name
    }

    pub(crate) fn version(&self) -> &str {
        &self.parts.version
    }

    pub(crate) fn kind(&self) -> Kind {
        self.parts.kind
    }

    pub(crate) fn instances(&self) -> u32 {
        self.instance_count.load(Ordering::Acquire)
    }

    pub(crate) fn paused(&self) -> bool {
        self.mode.borrow().paused
    }

    pub(crate) fn pause(&self) {
        self.mode.send_modify(|mode| mode.paused = true);
    }

    pub(crate) fn resume(&self) {
        self.mode.send_modify(|mode| {
            mode.paused = false;
            mode.resumes += 1;
        });
    }

    pub(crate) fn inject_panic(&self) {
        self.injected.fetch_add(1, Ordering::AcqRel);
        self.mode.send_modify(|mode| mode.wakes += 1);
    }

    /// Starts or stops instances. Tasks move at commit boundaries.
    pub(crate) async fn scale(self: &Arc<Self>, count: u32) -> Result<(), Error> {
        if !(1..=INSTANCES_MAX).contains(&count) {
            let name = self.name();
            return Err(Error::Refused(format!("`{name}` can have 1 to {INSTANCES_MAX} instances, not {count}")));
        }
        let mut instances = self.instances.lock().await;
        if self.stopped.load(Ordering::Acquire) {
            return Err(Error::Refused(format!("`{}` has stopped", self.name())));
        }
        while instances.len() < count as usize {
            let number = instances.len() as u32;
            instances.push(self.start_instance(number)?);
        }
        self.instance_count.store(count, Ordering::Release);
        let leaving = instances.split_off(count as usize);
        leave(leaving, Leave::Boundary).await;
        Ok(())
    }

    /// Does something while no instance runs; then as many start again as there were.
    pub(crate) async fn between<T>(self: &Arc<Self>, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut instances = self.instances.lock().await;
        if self.stopped.load(Ordering::Acquire) {
            return Err(Error::Refused(format!("`{}` has stopped", self.name())));
        }
        let count = instances.len() as u32;
        leave(std::mem::take(&mut *instances), Leave::Boundary).await;
        let done = work.await;
        for number in 0..count {
            instances.push(self.start_instance(number)?);
        }
        done
    }

    /// Stops all instances at a commit boundary.
    pub(crate) async fn stop(&self, how: Leave) {
        let mut instances = self.instances.lock().await;
        leave(std::mem::take(&mut *instances), how).await;
        self.stopped.store(true, Ordering::Release);
        self.progress.notify_waiters();
    }

    fn start_instance(self: &Arc<Self>, number: u32) -> Result<Instance, Error> {
        let join = Join { service: self.name().clone(), instance: number, lead: self.parts.lead.clone() };
        let membership = self.log.join(join)?;
        let (leave, left) = watch::channel(Leave::Stay);
        let work = self.options.compute.spawn(Arc::clone(self).instance(number, membership, left));
        Ok(Instance { leave, work })
    }

    async fn instance(
        self: Arc<Self>,
        number: u32,
        mut membership: Box<dyn Membership>,
        mut left: watch::Receiver<Leave>,
    ) {
        let mut owned: BTreeMap<TaskId, Instance> = BTreeMap::new();
        loop {
            let change = tokio::select! {
                change = membership.next() => change,
                changed = left.changed() => {
                    let how = if changed.is_ok() { *left.borrow() } else { Leave::Boundary };
                    if how == Leave::Stay {
                        continue;
                    }
                    self.end(owned, how).await;
                    return;
                }
            };
            match change {
                Change::Assigned(tasks) => {
                    for task in tasks {
                        // A task that comes back was lost before; the old run ends by itself.
                        if let Some(before) = owned.insert(task.id.clone(), self.start_task(number, task)) {
                            leave(vec![before], Leave::Now).await;
                        }
                    }
                }
                Change::Revoke(ids) => {
                    let leaving = ids.iter().filter_map(|id| owned.remove_entry(id)).collect();
                    self.end(leaving, Leave::Boundary).await;
                    membership.release(&ids);
                }
                Change::Lost(ids) => {
                    let leaving = ids.iter().filter_map(|id| owned.remove_entry(id)).collect();
                    self.end(leaving, Leave::Now).await;
                }
            }
        }
    }

    fn start_task(self: &Arc<Self>, instance: u32, task: Task) -> Instance {
        let (leave, left) = watch::channel(Leave::Stay);
        let shared = Arc::new(Shared::new());
        self.tasks.lock().insert(task.id.partition.0, (instance, Arc::clone(&shared)));
        let context = Context {
            task,
            log: Arc::clone(&self.log),
            control: Control::new(self.mode.subscribe(), left),
            meters: Arc::clone(&self.meters),
            clock: Arc::clone(&self.clock),
            commits_in_flight: self.options.commits_in_flight.max(1),
            shared: Arc::clone(&shared),
            progress: Arc::clone(&self.progress),
            injected: Arc::clone(&self.injected),
            told: Arc::clone(&self.told),
            begun: Arc::clone(&self.begun),
        };
        let (me, partition) = (Arc::clone(self), context.task.id.partition.0);
        let compute = self.options.compute.clone();
        let work = self.options.compute.spawn(async move {
            supervise(Arc::clone(&me.parts.job), context, compute).await;
            let mut tasks = me.tasks.lock();
            if tasks.get(&partition).is_some_and(|(_, current)| Arc::ptr_eq(current, &shared)) {
                tasks.remove(&partition);
            }
        });
        Instance { leave, work }
    }

    async fn end(&self, tasks: BTreeMap<TaskId, Instance>, how: Leave) {
        leave(tasks.into_values().collect(), how).await;
    }

    /// Whether every task has finished. A stopped component has.
    pub(crate) fn finished(&self) -> bool {
        if self.stopped.load(Ordering::Acquire) {
            return true;
        }
        let tasks = self.tasks.lock();
        tasks.len() as u32 == self.parts.tasks && tasks.values().all(|(_, t)| t.state() == State::Finished)
    }

    /// Whether no task will go on by itself: each has finished, or waits for somebody to mend what it failed of.
    pub(crate) fn ended(&self) -> bool {
        let over = |state: State| matches!(state, State::Finished | State::Failed { .. });
        let tasks = self.tasks.lock();
        self.stopped.load(Ordering::Acquire)
            || tasks.len() as u32 == self.parts.tasks && tasks.values().all(|(_, t)| over(t.state()))
    }

    /// Whether every task that goes on by itself has read all there is, and told everybody what it promises of that: a
    /// promise may be what somebody behind it waits for.
    pub(crate) async fn caught_up(&self) -> Result<bool, Error> {
        let lags = self.lags().await?;
        let tasks = self.tasks.lock();
        let failed = |partition: u32| {
            tasks.get(&partition).is_some_and(|(_, task)| matches!(task.state(), State::Failed { .. }))
        };
        let set = |flag: &AtomicBool| flag.load(Ordering::Acquire);
        let at_work = |task: &Shared| set(&task.again) || set(&task.concluding) || set(&task.owes);
        let at_work = tasks.iter().any(|(partition, (_, task))| at_work(task) && !failed(*partition));
        Ok(!at_work && lags.iter().all(|l| l.lag == 0 || failed(l.partition)))
    }

    /// Whether every task has an owner and has opened what it works with, or has found that it cannot.
    pub(crate) fn opened(&self) -> bool {
        let tasks = self.tasks.lock();
        tasks.len() as u32 == self.parts.tasks && tasks.values().all(|(_, t)| t.state() != State::Starting)
    }

    pub(crate) fn state(&self) -> State {
        if self.stopped.load(Ordering::Acquire) {
            return State::Stopped;
        }
        let tasks = self.tasks.lock();
        let worst = tasks.values().map(|(_, task)| task.state()).max();
        let paused = self.paused();
        match worst {
            Some(State::Failed { reason }) => State::Failed { reason },
            Some(State::Finished) => State::Finished,
            _ if paused => State::Paused,
            Some(state) => state,
            None => State::Starting,
        }
    }

    pub(crate) async fn lags(&self) -> Result<Vec<InputLag>, Error> {
        let mut lags = Vec::new();
        for (topic, partitions) in &self.parts.inputs {
            for partition in 0..*partitions {
                lags.push(self.lag(topic, partition).await?);
            }
        }
        Ok(lags)
    }

    async fn lag(&self, topic: &Name, partition: u32) -> Result<InputLag, Error> {
        lag_of(self.log.as_ref(), self.name(), topic, partition).await
    }

    fn task_states(&self) -> Vec<TaskStatus> {
        let tasks = self.tasks.lock();
        let status = tasks.iter().map(|(partition, (instance, shared))| TaskStatus {
            partition: *partition,
            instance: *instance,
            state: shared.state(),
            time: shared.time(),
            note: shared.note(),
            holds: shared.holds.load(Ordering::Acquire),
        });
        status.collect()
    }

    pub(crate) async fn status(&self) -> Result<Status, Error> {
        let inputs = self.lags().await?;
        let tasks = self.task_states();
        Ok(Status {
            name: self.name().clone(),
            kind: self.kind(),
            version: self.version().to_owned(),
            state: self.state(),
            instances: self.instances(),
            time: TimeStatus::least(tasks.iter().filter_map(|t| t.time.clone()))
                .filter(|_| tasks.len() as u32 == self.parts.tasks),
            tasks,
            lag: inputs.iter().map(|i| i.lag).sum(),
            inputs,
            counts: self.meters.counts(),
        })
    }
}

/// How far `consumer` is behind in a partition of `topic`, from the log alone.
pub async fn lag_of(log: &dyn Log, consumer: &Name, topic: &Name, partition: u32) -> Result<InputLag, Error> {
    let task = TaskId { service: consumer.clone(), partition: PartitionId(partition) };
    let at = TopicPartition::new(topic.clone(), partition);
    let position = log.position(&task, topic).await?.as_ref().and_then(Position::offset);
    // The end is read behind the position, so that the lag is never understated.
    let end = log.end(&at).await?;
    let from = match position {
        Some(position) => position,
        None => log.start(&at).await?,
    };
    let position = position.map(|Offset(o)| o);
    Ok(InputLag { topic: topic.clone(), partition, position, end: end.0, lag: end.0.saturating_sub(from.0) })
}

/// Tells all to leave, then waits for all.
async fn leave(instances: Vec<Instance>, how: Leave) {
    for instance in &instances {
        instance.leave.send_replace(how);
    }
    for instance in instances {
        // A panic of the supervising task itself would be a bug; its task is gone either way.
        if let Err(error) = instance.work.await {
            tracing::error!(%error, "an instance ended badly");
        }
    }
}

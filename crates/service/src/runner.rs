//! The runner: starts, changes and stops the components of a pipeline over one log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use millstream_event::{Name, Schema};
use millstream_log::{Clock, Lead, Log, SystemClock, TopicInfo};
use parking_lot::Mutex;
use tokio::sync::{Notify, OnceCell};

use crate::Error;
use crate::begun::Begun;
use crate::component::{Component, Parts};
use crate::control::Leave;
use crate::dead_letter;
use crate::dead_letters::{self, Action, Answer, LetterView, Select};
use crate::def::{Keep, ServiceDef, SinkDef, SourceDef};
use crate::meters::Counts;
use crate::rewind::{self, Rewind};
use crate::state;
use crate::status::{Kind, State, Status};
use crate::task::Job;

/// How often conditions that nobody announces are looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What the runner's components share.
#[derive(Clone)]
pub struct Options {
    /// The runtime that tasks run on, apart from the one that serves I/O. It needs tokio's time and I/O drivers.
    pub compute: tokio::runtime::Handle,
    /// How many commits of one task may be on their way.
    pub commits_in_flight: usize,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
}

impl Options {
    /// The usual options on this runtime.
    pub fn new(compute: tokio::runtime::Handle) -> Self {
        Self { compute, commits_in_flight: 4, clock: Arc::new(SystemClock) }
    }
}

/// Runs the components of one pipeline. Cheap to clone: clones share.
#[derive(Clone)]
pub struct Runner {
    log: Arc<dyn Log>,
    options: Options,
    progress: Arc<Notify>,
    handles: Arc<Mutex<BTreeMap<Name, Handle>>>,
    /// Who is paused when it is first started.
    paused_at_start: Arc<Mutex<BTreeSet<Name>>>,
    /// Where the topics ended before the first component started.
    begun: Arc<OnceCell<Arc<Begun>>>,
}

/// A running source, service or sink. Cheap to clone; dropping it does not stop anything.
#[derive(Clone)]
pub struct Handle {
    pub(crate) component: Arc<Component>,
    /// The task that replays dead letters, where there is one.
    replayer: Option<Arc<Component>>,
}

/// A fault that an operator or a test asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injected {
    /// One task panics at its next look.
    Panic,
}

impl Runner {
    /// A runner without components.
    pub fn new(log: Arc<dyn Log>, options: Options) -> Self {
        Self {
            log,
            options,
            progress: Arc::default(),
            handles: Arc::default(),
            paused_at_start: Arc::default(),
            begun: Arc::default(),
        }
    }

    /// Lets components of these names begin paused.
    pub fn pause_at_start(&self, names: BTreeSet<Name>) {
        *self.paused_at_start.lock() = names;
    }

    /// The log.
    pub fn log(&self) -> &Arc<dyn Log> {
        &self.log
    }

    /// Starts a service at its committed position, and its own topics with it.
    pub async fn start_service(&self, def: ServiceDef) -> Result<Handle, Error> {
        let name = def.name.clone();
        self.vacant(&name)?;
        let inputs = self.infos(&name, &def.inputs, &|topic| def.columns.get(topic))?;
        let lead = inputs.first().ok_or_else(|| wrong(&name, "it has no input"))?;
        let partitions = lead.spec.partitions;
        if let Some(other) = inputs.iter().find(|i| i.spec.partitions != partitions) {
            let why = format!(
                "its inputs `{}` and `{}` have {partitions} and {} partitions; they must have the same number",
                lead.spec.name, other.spec.name, other.spec.partitions
            );
            return Err(Error::Definition { name, why });
        }
        let own = dead_letter::service_topics(&name, partitions).map_err(|e| wrong(&name, &e.to_string()))?;
        for spec in own {
            self.log.create_topic(spec).await?;
        }
        if def.stateful().is_some() && matches!(def.keep, Keep::Log) {
            let changelog = state::topic(&name, partitions).map_err(|e| wrong(&name, &e.to_string()))?;
            self.log.create_topic(changelog).await?;
        }
        let topics = dead_letter::Topics::of(&name).map_err(|e| wrong(&name, &e.to_string()))?;
        let mut read: Vec<(Name, u32)> = def.inputs.iter().map(|i| (i.clone(), partitions)).collect();
        read.push((topics.replay.clone(), partitions));
        let replayer = owner_of(&topics, &def.version, crate::replay::of_service(topics.clone()));
        let parts = Parts {
            name: name.clone(),
            version: def.version.clone(),
            kind: Kind::Service,
            lead: Lead::Topic(lead.spec.name.clone()),
            tasks: partitions,
            inputs: read,
            instances: def.instances.max(1),
            job: crate::service::job(def, inputs)?,
        };
        self.start(parts, Some(replayer)).await
    }

    /// Starts a source at its committed positions.
    pub async fn start_source(&self, def: SourceDef) -> Result<Handle, Error> {
        let name = def.name.clone();
        self.vacant(&name)?;
        let to = self.infos(&name, std::slice::from_ref(&def.to), &|_| def.columns.as_ref())?;
        let to_info = to.first().ok_or_else(|| wrong(&name, "it fills no topic"))?;
        let tasks = def.source.tasks().max(1);
        let own = dead_letter::source_topics(&name, tasks).map_err(|e| wrong(&name, &e.to_string()))?;
        for spec in own.into_iter().chain(def.source.internal_topics()) {
            self.log.create_topic(spec).await?;
        }
        let topics = dead_letter::Topics::of(&name).map_err(|e| wrong(&name, &e.to_string()))?;
        let job = crate::replay::of_source(topics.clone(), def.clone(), to_info);
        let replayer = owner_of(&topics, &def.version, job);
        let parts = Parts {
            name: name.clone(),
            version: def.version.clone(),
            kind: Kind::Source,
            lead: Lead::Tasks(tasks),
            tasks,
            inputs: Vec::new(),
            instances: 1,
            job: crate::intake::job(def, to_info)?,
        };
        self.start(parts, Some(replayer)).await
    }

    /// Starts a sink at its committed positions.
    pub async fn start_sink(&self, def: SinkDef) -> Result<Handle, Error> {
        let name = def.name.clone();
        self.vacant(&name)?;
        let inputs = self.infos(&name, &def.inputs, &|topic| def.columns.get(topic))?;
        let lead = inputs.iter().max_by_key(|i| i.spec.partitions).ok_or_else(|| wrong(&name, "it has no input"))?;
        let parts = Parts {
            name: name.clone(),
            version: def.version.clone(),
            kind: Kind::Sink,
            lead: Lead::Topic(lead.spec.name.clone()),
            tasks: lead.spec.partitions,
            inputs: inputs.iter().map(|i| (i.spec.name.clone(), i.spec.partitions)).collect(),
            instances: def.instances.max(1),
            job: crate::outlet::job(def, inputs.clone()).map_err(|e| wrong(&name, &e.to_string()))?,
        };
        self.start(parts, None).await
    }

    /// Begins the run: that producers have closed, or are idle, counts if they say so from here on. Without it the run
    /// begins with the first component that is started.
    pub async fn begin(&self) -> Result<(), Error> {
        self.begun().await.map(drop)
    }

    async fn begun(&self) -> Result<&Arc<Begun>, Error> {
        let begun = async || Ok::<_, Error>(Arc::new(Begun::now(self.log.as_ref()).await?));
        self.begun.get_or_try_init(begun).await
    }

    async fn start(&self, parts: Parts, replayer: Option<Parts>) -> Result<Handle, Error> {
        let name = parts.name.clone();
        let begun = self.begun().await?;
        let start = |parts, paused| {
            let (log, options, progress) = (Arc::clone(&self.log), self.options.clone(), Arc::clone(&self.progress));
            Component::start(parts, log, options, progress, Arc::clone(begun), paused)
        };
        // Who paused it meant whatever has this name.
        let before = self.handle(&name).map(|before| before.component.paused());
        let paused = before.unwrap_or_else(|| self.paused_at_start.lock().remove(&name));
        let component = start(parts, paused).await?;
        let replayer = match replayer {
            Some(parts) => Some(start(parts, false).await),
            None => None,
        };
        let replayer = match replayer.transpose() {
            Ok(replayer) => replayer,
            Err(error) => {
                component.stop(Leave::Boundary).await;
                return Err(error);
            }
        };
        let handle = Handle { component, replayer };
        self.handles.lock().insert(name, handle.clone());
        Ok(handle)
    }

    fn vacant(&self, name: &Name) -> Result<(), Error> {
        match self.handle(name) {
            Some(handle) if handle.state() != State::Stopped => Err(Error::Running(name.clone())),
            _ => Ok(()),
        }
    }

    /// The topics of the component `name`, with the columns that it was planned for.
    fn infos<'a>(
        &self,
        name: &Name,
        topics: &[Name],
        planned: &dyn Fn(&Name) -> Option<&'a Schema>,
    ) -> Result<Vec<TopicInfo>, Error> {
        let find = |topic: &Name| {
            let info = self.log.topic(topic);
            let info = info.ok_or_else(|| wrong(name, &format!("there is no topic `{topic}` in the log")))?;
            as_planned(info, planned(topic)).map_err(|why| wrong(name, &why))
        };
        topics.iter().map(find).collect()
    }

    /// A component by name, also one that has stopped.
    pub fn handle(&self, name: &Name) -> Option<Handle> {
        self.handles.lock().get(name).cloned()
    }

    /// All components, by name, also those that have stopped.
    pub fn handles(&self) -> Vec<Handle> {
        self.handles.lock().values().cloned().collect()
    }

    /// Forgets a stopped component.
    pub fn forget(&self, name: &Name) {
        let mut handles = self.handles.lock();
        if handles.get(name).is_some_and(|h| h.state() == State::Stopped) {
            handles.remove(name);
        }
    }

    /// Waits until every source has finished or stopped and every event that came in has been read, through the whole
    /// pipeline, by every service and sink that runs. Does not return while a source is endless, or while a component
    /// that is paused has events to read. A task that has failed in a way that somebody must mend is not waited for:
    /// [`Handle::state`] tells, and the next run goes on where it stopped.
    pub async fn drained(&self) {
        loop {
            let told = self.progress.notified();
            let before = self.commits();
            if self.at_rest().await && self.commits() == before {
                return;
            }
            // Most changes are announced; another process's commits, on a shared log, are not.
            tokio::select! {
                () = told => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Whether all sources have finished and nothing is unread right now.
    async fn at_rest(&self) -> bool {
        let handles = self.handles();
        if handles.iter().any(|h| h.kind() == Kind::Source && !h.component.ended()) {
            return false;
        }
        for handle in handles.iter().filter(|h| h.kind() != Kind::Source && h.state() != State::Stopped) {
            if !handle.component.caught_up().await.unwrap_or(false) {
                return false;
            }
        }
        // A commit is visible in the log a moment before it is counted; who drains wants to see both.
        handles.iter().all(|h| h.component.meters.in_flight.load(std::sync::atomic::Ordering::Acquire) == 0)
    }

    fn commits(&self) -> u64 {
        self.handles().iter().map(|h| h.counts().commits).sum()
    }

    /// Stops everything at commit boundaries: sources first, then services, then sinks. `finish`: sinks complete what
    /// they have open.
    pub async fn stop_all(&self, finish: bool) {
        for kind in [Kind::Source, Kind::Service, Kind::Sink] {
            let handles = self.handles().into_iter().filter(|h| h.kind() == kind);
            let stops = handles.map(|h| async move { if finish { h.finish().await } else { h.stop().await } });
            futures::future::join_all(stops).await;
        }
    }
}

/// The one task that owns a component's dead letters.
fn owner_of(topics: &dead_letter::Topics, version: &str, job: Arc<dyn Job>) -> Parts {
    Parts {
        name: topics.letters.clone(),
        version: version.to_owned(),
        kind: Kind::Service,
        lead: Lead::Tasks(1),
        tasks: 1,
        inputs: vec![(topics.commands.clone(), 1)],
        job,
        instances: 1,
    }
}

/// A topic as a component sees that was planned for some of its columns.
fn as_planned(mut info: TopicInfo, planned: Option<&Schema>) -> Result<TopicInfo, String> {
    // The log's own are compared faster with what it hands out.
    let Some(planned) = planned.filter(|planned| **planned != info.spec.schema) else { return Ok(info) };
    let has = &info.spec.schema;
    if let Some(column) = planned.columns().iter().find(|c| has.column(&c.name).is_none_or(|(_, had)| had != *c)) {
        let topic = &info.spec.name;
        return Err(format!("it was planned for `{column}` of topic `{topic}`, which has the columns ({has})"));
    }
    info.spec.schema = planned.clone();
    Ok(info)
}

fn wrong(name: &Name, why: &str) -> Error {
    Error::Definition { name: name.clone(), why: why.to_owned() }
}

impl Handle {
    /// The component's name.
    pub fn name(&self) -> &Name {
        self.component.name()
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.component.kind()
    }

    /// The version of its definition.
    pub fn version(&self) -> &str {
        self.component.version()
    }

    /// How it stands as a whole.
    pub fn state(&self) -> State {
        self.component.state()
    }

    /// Whether every task has opened what it works with, or has found that it cannot (see [`Handle::state`]).
    pub fn opened(&self) -> bool {
        self.component.opened()
    }

    /// How many instances share its tasks.
    pub fn instances(&self) -> u32 {
        self.component.instances()
    }

    /// Whether all its tasks have finished (bounded sources) or it was stopped.
    pub fn finished(&self) -> bool {
        self.component.finished()
    }

    /// Whether it will not go on by itself: all its tasks have finished, or have failed in a way that somebody must mend.
    pub fn ended(&self) -> bool {
        self.component.ended()
    }

    /// Its counters, without looking at the log.
    pub fn counts(&self) -> Counts {
        self.component.meters.counts()
    }

    /// All about it.
    pub async fn status(&self) -> Result<Status, Error> {
        self.component.status().await
    }

    /// Whether it was paused and not resumed.
    pub fn paused(&self) -> bool {
        self.component.paused()
    }

    /// Stops reading at the next commit boundary, until [`Handle::resume`].
    pub fn pause(&self) {
        self.component.pause();
    }

    /// Goes on after a pause; a failed task tries again, a waiting one at once.
    pub fn resume(&self) {
        self.component.resume();
    }

    /// Changes the number of instances; returns when those that leave have left. Tasks move at commit boundaries.
    pub async fn scale(&self, instances: u32) -> Result<(), Error> {
        self.component.scale(instances).await
    }

    /// Stops at a commit boundary, with nothing on its way. The same name can be started again after it.
    pub async fn stop(&self) {
        self.leave(Leave::Boundary).await;
    }

    /// Like [`Handle::stop`], and a sink completes what it has open.
    pub async fn finish(&self) {
        self.leave(Leave::Finish).await;
    }

    async fn leave(&self, how: Leave) {
        if let Some(replayer) = &self.replayer {
            replayer.stop(Leave::Boundary).await;
        }
        self.component.stop(how).await;
    }

    /// Sets it back: it reads again what it has read, with empty state (see [`rewind`]). It is stopped for a moment.
    pub async fn rewind(&self, order: &Rewind) -> Result<rewind::Plan, Error> {
        let component = &self.component;
        let work = rewind::carry_out(component.log.as_ref(), component.clock.as_ref(), order);
        component.between(work).await
    }

    /// Its dead letters, see [`dead_letters::list`].
    pub async fn dead_letters(&self, select: &Select, limit: usize) -> Result<Vec<LetterView>, Error> {
        dead_letters::list(self.component.log.as_ref(), self.name(), select, limit).await
    }

    /// Sends the events of dead letters the same way again: into this component and no other. Each letter at most once,
    /// whoever asks; the answer counts those refused, with reasons. Order per key is not kept.
    pub async fn replay(&self, select: &Select) -> Result<Answer, Error> {
        self.command(Action::Replay, select).await
    }

    /// Puts dead letters away.
    pub async fn discard(&self, select: &Select) -> Result<Answer, Error> {
        self.command(Action::Discard, select).await
    }

    async fn command(&self, action: Action, select: &Select) -> Result<Answer, Error> {
        let component = &self.component;
        if self.replayer.is_none() || component.state() == State::Stopped {
            return Err(Error::Refused(format!("`{}` does not run, so nobody can carry this out", self.name())));
        }
        let log = component.log.as_ref();
        dead_letters::command(log, component.clock.as_ref(), self.name(), action, select).await
    }

    /// Makes a fault happen, to prove that nobody else notices.
    pub fn inject(&self, fault: Injected) {
        match fault {
            Injected::Panic => self.component.inject_panic(),
        }
    }
}

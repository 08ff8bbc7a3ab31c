//! How a running pipeline becomes another one.
//!
//! 1. Prepare: the new file is planned, its lookups are loaded, its components built and checked, its text written. What
//!    fails here has changed nothing.
//! 2. Switch: topics are made, what differs stops at a commit boundary, then its successors start: sinks, services,
//!    sources, each when those before it have come up.
//! 3. Either the new parts are what runs, or, when one of them does not come up, all of them stop and what was stopped
//!    starts again where it left off.
//!
//! What does not differ is not touched, and neither posts to it nor a status wait for any of this.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use millstream_service::event::Name;
use millstream_service::log::{Log, spec_change};
use millstream_service::{Handle, State};

use super::change::{diff, only_instances, refusals, stops, wrong};
use super::parts::{Component, Lookups, READERS_FIRST, WRITERS_FIRST, asked, components, handles};
use super::stored::{self, Fresh};
use super::{Node, Parts, build, service_error, tell_unread};
use crate::api::{ApiError, Applied, Change, ChangeKind, PartKind, PipelineText, Plan, codes};
use crate::config::Loaded;
use crate::plan::{Pipeline, plan};

/// How long a new lookup may take to load.
const LOOKUP_WITHIN: Duration = Duration::from_secs(60);
/// How long to watch whether a new component comes up; one that takes longer is left to itself.
const UP_WITHIN: Duration = Duration::from_secs(10);
/// How often to look.
const UP_LOOK: Duration = Duration::from_millis(2);

/// Everything that a change needs, ready before anything stops.
struct Next {
    loaded: Arc<Loaded>,
    pipeline: Arc<Pipeline>,
    /// New ones and those that are others now.
    lookups: Lookups,
    lookups_gone: Vec<Name>,
    /// What stops, whether or not something of its name follows, with its number of instances.
    stops: Vec<(Name, u32)>,
    starts: BTreeMap<Name, Component>,
    /// Services that only get another number of instances: before and after.
    scales: Vec<(Name, u32, u32)>,
    kept: Fresh,
}

impl Node {
    /// Reads and plans a pipeline that was sent, as if it lay where the running one does.
    fn read(&self, text: PipelineText) -> Result<(Loaded, Pipeline), ApiError> {
        let path = self.inner.view().loaded.path.clone();
        let path = std::path::absolute(&path).unwrap_or(path);
        let name = Path::new(&text.file).file_name().map_or_else(|| path.clone(), |n| path.with_file_name(n));
        let loaded = stored::parse(&name, text).map_err(wrong)?;
        let pipeline = plan(&loaded).map_err(wrong)?;
        Ok((loaded, pipeline))
    }

    /// What [`Node::apply`] would change.
    pub async fn plan(&self, text: PipelineText) -> Result<Plan, ApiError> {
        let (loaded, pipeline) = self.read(text)?;
        let view = self.inner.view();
        let mut plan = self.compare((&view.loaded, &view.pipeline), (&loaded, &pipeline));
        tell_unread(&*self.inner.log, &mut plan, &view.pipeline, &pipeline).await?;
        Ok(plan)
    }

    /// What differs, and what of it the log refuses: it may have had more of a topic than the file that runs.
    fn compare(&self, old: (&Loaded, &Pipeline), new: (&Loaded, &Pipeline)) -> Plan {
        let mut plan = diff(old, new);
        let log = &*self.inner.log;
        for change in plan.changes.iter_mut().filter(|c| c.part == PartKind::Topic) {
            let topic = Name::new(&change.name).ok().and_then(|name| new.1.topics.get(&name));
            let Some(topic) = topic.filter(|_| change.change != ChangeKind::Refused) else { continue };
            let refused = log.topic(&topic.spec.name).map(|now| spec_change(&now.spec, &asked(&topic.spec, log)));
            if let Some(Err(why)) = refused {
                (change.change, change.reason) = (ChangeKind::Refused, Some(why.to_string()));
            }
        }
        plan
    }

    /// Makes the running pipeline the one that was sent. Only what differs stops, at a commit boundary. When that cannot
    /// be done, everything runs as before, and the error says why.
    pub async fn apply(&self, text: PipelineText) -> Result<Applied, ApiError> {
        let begun = Instant::now();
        let mut parts = self.inner.parts.lock().await;
        self.goes_on()?;
        let (loaded, pipeline) = self.read(text)?;
        let mut plan = self.compare((&parts.loaded, &parts.pipeline), (&loaded, &pipeline));
        tell_unread(&*self.inner.log, &mut plan, &parts.pipeline, &pipeline).await?;
        let next = self.prepare(&parts, &plan, loaded, pipeline).await.map_err(unchanged)?;
        if let Err(error) = Parts::topics(&next.pipeline, &*self.inner.log).await {
            self.restore_topics(&parts.pipeline, &next.pipeline).await;
            return Err(unchanged(error));
        }
        let stopped = Instant::now();
        self.stop(&parts, &next.stops).await;
        // Whoever ends the node waits for this change; what runs again would only be stopped.
        self.goes_on()?;
        if let Err(error) = self.switch(&next).await {
            return Err(self.take_back(&parts, &next, error).await);
        }
        let longest_stop_ms = if next.stops.is_empty() { 0.0 } else { stopped.elapsed().as_secs_f64() * 1e3 };
        self.release_topics(&parts.pipeline, &next.pipeline).await;
        parts.become_next(next);
        for name in plan.changes.iter().filter(|c| c.change == ChangeKind::Removed).filter_map(component_name) {
            self.inner.runner.forget(&name);
        }
        *self.inner.view.write() = Arc::new(parts.view());
        Ok(Applied { plan, longest_stop_ms, elapsed_ms: begun.elapsed().as_secs_f64() * 1e3 })
    }

    fn goes_on(&self) -> Result<(), ApiError> {
        if self.inner.stopping() {
            return Err(ApiError::new(codes::STOPPING, "the node is about to end; it starts next time as it ran last"));
        }
        Ok(())
    }

    /// Whatever can fail without anything having been touched.
    async fn prepare(&self, parts: &Parts, plan: &Plan, loaded: Loaded, pipeline: Pipeline) -> Result<Next, ApiError> {
        if plan.refused() {
            return Err(ApiError::new(codes::CHANGE_REFUSED, refusals(plan)));
        }
        let lookups = load_lookups(plan, &pipeline, self.inner.runner.log()).await?;
        let lookups_gone: Vec<Name> = names(plan, |c| c.part == PartKind::Lookup && stops(c));
        let mut seen = handles(&parts.lookups);
        seen.retain(|name, _| !lookups_gone.contains(name));
        seen.extend(handles(&lookups));
        let wanted: BTreeSet<Name> = names(plan, starts).into_iter().collect();
        let starts = components(&pipeline, &|name| wanted.contains(name), &seen, self.inner.runner.log())?;
        let instances = |name: &Name| self.inner.runner.handle(name).map_or(1, |handle| handle.instances());
        let with_instances = |name: Name| {
            let instances = instances(&name);
            (name, instances)
        };
        let scaling = pipeline.services.iter().filter(|s| names(plan, scales).contains(&s.name));
        let scaling = scaling.map(|s| (s.name.clone(), instances(&s.name), s.instances));
        let kept = Fresh::write(&parts.loaded.config.log.embedded.dir, &loaded)?;
        for (name, component) in &starts {
            component.check().await.map_err(|e| no_start(name, &e.to_string()))?;
        }
        Ok(Next {
            lookups,
            lookups_gone,
            stops: names(plan, |c| component_name(c).is_some() && stops(c)).into_iter().map(with_instances).collect(),
            starts,
            scales: scaling.collect(),
            kept,
            loaded: Arc::new(loaded),
            pipeline: Arc::new(pipeline),
        })
    }

    /// Stops components, writers first.
    async fn stop(&self, parts: &Parts, names: &[(Name, u32)]) {
        for kind in WRITERS_FIRST {
            let stops = names.iter().filter_map(|(name, _)| {
                let component = parts.components.get(name).filter(|c| c.kind() == kind)?;
                Some((component, self.inner.runner.handle(name)?))
            });
            join_all(stops.map(async |(component, handle)| component.stop(&handle).await)).await;
        }
    }

    /// Starts what is new, readers first, each kind when the one before has come up.
    async fn switch(&self, next: &Next) -> Result<(), ApiError> {
        for (name, _, instances) in &next.scales {
            if let Some(handle) = self.inner.runner.handle(name) {
                handle.scale(*instances).await.map_err(service_error)?;
            }
        }
        for kind in READERS_FIRST {
            let mut started = Vec::new();
            for (name, component) in next.starts.iter().filter(|(_, c)| c.kind() == kind) {
                let handle = component.start(&self.inner.runner).await;
                started.push(handle.map_err(|e| no_start(name, &e.message))?);
            }
            for handle in &started {
                comes_up(handle).await?;
            }
        }
        next.kept.keep()
    }

    /// Stops what is new and starts what ran before. Answers why.
    async fn take_back(&self, parts: &Parts, next: &Next, why: ApiError) -> ApiError {
        let runner = &self.inner.runner;
        tracing::warn!(error = %why, "the change is taken back");
        for kind in WRITERS_FIRST {
            for (name, component) in next.starts.iter().filter(|(_, c)| c.kind() == kind) {
                if let Some(handle) = runner.handle(name).filter(|h| h.state() != State::Stopped) {
                    component.stop(&handle).await;
                }
                if !parts.components.contains_key(name) {
                    runner.forget(name);
                }
            }
        }
        self.restore_topics(&parts.pipeline, &next.pipeline).await;
        let mut faults = Vec::new();
        for (name, instances, _) in &next.scales {
            let Some(handle) = runner.handle(name) else { continue };
            faults.extend(handle.scale(*instances).await.err().map(|e| e.to_string()));
        }
        for kind in READERS_FIRST {
            for (name, instances) in &next.stops {
                let Some(component) = parts.components.get(name).filter(|c| c.kind() == kind) else { continue };
                match component.start(runner).await {
                    Ok(handle) if handle.instances() != *instances => {
                        faults.extend(handle.scale(*instances).await.err().map(|e| e.to_string()));
                    }
                    Ok(_) => {}
                    Err(error) => faults.push(error.message),
                }
            }
        }
        if faults.is_empty() {
            return why.help("the change was taken back: everything runs as before");
        }
        let faults = faults.join("; ");
        ApiError::new(codes::APPLY_FAILED, format!("{why}; and not everything could be started again: {faults}"))
            .help("start the node again, or apply a file that works")
    }

    /// Topics that no part names any more wait for nobody: their events go by age.
    async fn release_topics(&self, before: &Pipeline, after: &Pipeline) {
        for (name, topic) in before.topics.iter().filter(|(name, _)| !after.topics.contains_key(*name)) {
            let mut spec = topic.spec.clone();
            spec.consumers.clear();
            self.set_topic(name, spec).await;
        }
    }

    /// Gives topics the settings back that they had before a change. Columns that were added stay: who was planned without
    /// them does not see them.
    async fn restore_topics(&self, before: &Pipeline, tried: &Pipeline) {
        self.release_topics(tried, before).await;
        for (name, topic) in &before.topics {
            let Some(now) = self.inner.log.topic(name).filter(|now| now.spec != topic.spec) else { continue };
            let mut spec = topic.spec.clone();
            spec.schema = now.spec.schema;
            self.set_topic(name, spec).await;
        }
    }

    async fn set_topic(&self, name: &Name, spec: millstream_service::log::TopicSpec) {
        // A topic that was never made needs no settings.
        if self.inner.log.topic(name).is_none() {
            return;
        }
        if let Err(error) = self.inner.log.create_topic(spec).await {
            tracing::warn!(topic = %name, %error, "a topic keeps the settings that it should not have any more");
        }
    }
}

impl Parts {
    fn become_next(&mut self, next: Next) {
        self.lookups.retain(|name, _| !next.lookups_gone.contains(name));
        self.lookups.extend(next.lookups);
        self.components.retain(|name, _| !next.stops.iter().any(|(stopped, _)| stopped == name));
        self.components.extend(next.starts);
        for (name, _, instances) in &next.scales {
            if let Some(Component::Service(def)) = self.components.get_mut(name) {
                def.instances = *instances;
            }
        }
        (self.loaded, self.pipeline) = (next.loaded, next.pipeline);
    }
}

/// Loads the lookups that are new or others now, all at once.
async fn load_lookups(plan: &Plan, pipeline: &Pipeline, log: &Arc<dyn Log>) -> Result<Lookups, ApiError> {
    let wanted = names(plan, |c| c.part == PartKind::Lookup && c.change != ChangeKind::Removed);
    let wanted = pipeline.lookups.iter().filter(|l| wanted.contains(&l.name));
    let lookups: Lookups = wanted.filter_map(|l| Some((l.name.clone(), build::lookup(l, log)?))).collect();
    let loads = lookups.iter().map(async |(name, (_, handle))| {
        let tried = tokio::time::timeout(LOOKUP_WITHIN, handle.tried()).await;
        let tried = tried.unwrap_or_else(|_| Err(format!("it was not read within {} s", LOOKUP_WITHIN.as_secs())));
        tried.map_err(|why| ApiError::new(codes::APPLY_FAILED, format!("lookup `{name}` cannot be loaded: {why}")))
    });
    join_all(loads).await.into_iter().collect::<Result<(), ApiError>>()?;
    Ok(lookups)
}

/// Waits until a component works, or waits for something by itself.
pub(super) async fn comes_up(handle: &Handle) -> Result<(), ApiError> {
    let until = Instant::now() + UP_WITHIN;
    loop {
        if let State::Failed { reason } = handle.state() {
            return Err(no_start(handle.name(), &reason));
        }
        if handle.opened() || Instant::now() >= until {
            return Ok(());
        }
        tokio::time::sleep(UP_LOOK).await;
    }
}

fn no_start(name: &Name, why: &str) -> ApiError {
    ApiError::new(codes::APPLY_FAILED, format!("`{name}` cannot start: {why}"))
}

fn unchanged(error: ApiError) -> ApiError {
    let help = error.help.clone().map_or_else(String::new, |help| format!("{help}; "));
    error.help(format!("{help}nothing was changed"))
}

/// The name of the service, source or sink that a change is about.
fn component_name(change: &Change) -> Option<Name> {
    match change.part {
        PartKind::Source | PartKind::Service | PartKind::Sink => Name::new(&change.name).ok(),
        PartKind::Topic | PartKind::Lookup | PartKind::Setting => None,
    }
}

fn names(plan: &Plan, of: impl Fn(&Change) -> bool) -> Vec<Name> {
    plan.changes.iter().filter(|c| of(c)).filter_map(|c| Name::new(&c.name).ok()).collect()
}

/// Whether something of this name is built and started.
fn starts(change: &Change) -> bool {
    component_name(change).is_some() && change.change != ChangeKind::Removed && !scales(change)
}

fn scales(change: &Change) -> bool {
    change.change == ChangeKind::Changed && only_instances(change)
}

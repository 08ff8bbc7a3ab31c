//! What runs now: the file, the plan, the lookups, and each component as it can be started again. Only who changes the
//! pipeline has it; everybody else reads the [`View`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millstream_connect::HttpSource;
use millstream_service::event::Name;
use millstream_service::log::{Log, TopicSpec, keeping};
use millstream_service::{
    ConnectError, Handle, Kind, LookupHandle, Runner, ServiceDef, SinkDef, SourceDef, dead_letter,
};

use super::apply::comes_up;
use super::view::View;
use super::{build, log_error, service_error};
use crate::api::ApiError;
use crate::config::Loaded;
use crate::plan::{Lookup, Pipeline, Source};

/// The order in which components start: nobody writes before its reader can read.
pub(crate) const READERS_FIRST: [Kind; 3] = [Kind::Sink, Kind::Service, Kind::Source];
/// The order in which they stop.
pub(crate) const WRITERS_FIRST: [Kind; 3] = [Kind::Source, Kind::Service, Kind::Sink];

/// Lookups with what keeps them fresh: dropping one stops its reloading.
pub(crate) type Lookups = BTreeMap<Name, (build::LookupKeeper, LookupHandle)>;

/// The running pipeline's parts, apart from what the runner knows.
pub(crate) struct Parts {
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) lookups: Lookups,
    pub(crate) components: BTreeMap<Name, Component>,
}

/// A service, sink or source, built and ready to be started, as often as need be.
#[derive(Clone)]
pub(crate) enum Component {
    Service(ServiceDef),
    Sink(SinkDef),
    /// An HTTP source also brings the routes that the node answers.
    Source(SourceDef, Option<HttpSource>),
}

impl Component {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::Sink(_) => Kind::Sink,
            Self::Source(..) => Kind::Source,
        }
    }

    /// Looks whether it could work, while another of its name may still run.
    pub(crate) async fn check(&self) -> Result<(), ConnectError> {
        match self {
            Self::Sink(def) => def.sink.check().await,
            Self::Service(_) | Self::Source(..) => Ok(()),
        }
    }

    pub(crate) async fn start(&self, runner: &Runner) -> Result<Handle, ApiError> {
        let started = match self {
            Self::Service(def) => runner.start_service(def.clone()).await,
            Self::Sink(def) => runner.start_sink(def.clone()).await,
            Self::Source(def, http) => {
                http.iter().for_each(HttpSource::accept);
                runner.start_source(def.clone()).await
            }
        };
        started.map_err(service_error)
    }

    /// Stops at a commit boundary. A sink completes its files: its successor may write others.
    pub(crate) async fn stop(&self, handle: &Handle) {
        match self {
            Self::Sink(_) => handle.finish().await,
            Self::Service(_) | Self::Source(_, None) => handle.stop().await,
            Self::Source(_, Some(http)) => {
                http.drain();
                handle.stop().await;
            }
        }
    }
}

impl Parts {
    pub(crate) fn new(loaded: Loaded, pipeline: Pipeline) -> Self {
        let (loaded, pipeline) = (Arc::new(loaded), Arc::new(pipeline));
        Self { loaded, pipeline, lookups: BTreeMap::new(), components: BTreeMap::new() }
    }

    /// Makes the topics of a pipeline, the dead letters of its components with them, or changes them where they may.
    /// Columns that a topic has besides stay.
    pub(crate) async fn topics(pipeline: &Pipeline, log: &dyn Log) -> Result<(), ApiError> {
        for topic in pipeline.topics.values() {
            log.create_topic(asked(&topic.spec, log)).await.map_err(log_error)?;
        }
        for spec in letters_read(pipeline) {
            log.create_topic(spec).await.map_err(log_error)?;
        }
        Ok(())
    }

    /// What everybody may look at.
    pub(crate) fn view(&self) -> View {
        let http = self.components.values().filter_map(|component| match component {
            Component::Source(_, http) => http.clone(),
            Component::Service(_) | Component::Sink(_) => None,
        });
        View::new(Arc::clone(&self.loaded), Arc::clone(&self.pipeline), handles(&self.lookups), http.collect())
    }

    /// Starts everything, readers before writers.
    pub(crate) async fn start(&mut self, runner: &Runner) -> Result<(), ApiError> {
        let pipeline = Arc::clone(&self.pipeline);
        let built = |l: &Lookup| Some((l.name.clone(), build::lookup(l, runner.log())?));
        self.lookups = pipeline.lookups.iter().filter_map(built).collect();
        self.components = components(&pipeline, &|_| true, &handles(&self.lookups), runner.log())?;
        let mut sources = Vec::new();
        for kind in READERS_FIRST {
            for component in self.components.values().filter(|c| c.kind() == kind) {
                let handle = component.start(runner).await?;
                sources.extend(Some(handle).filter(|_| kind == Kind::Source));
            }
        }
        // Whoever posts as soon as the address answers is not to be refused.
        for source in &sources {
            if let Err(error) = comes_up(source).await {
                tracing::debug!(%error, "its status says so, too");
            }
        }
        Ok(())
    }
}

/// What a log is asked for to have a topic.
pub(crate) fn asked(spec: &TopicSpec, log: &dyn Log) -> TopicSpec {
    match log.topic(&spec.name) {
        Some(now) => keeping(&now.spec, spec.clone()),
        None => spec.clone(),
    }
}

/// The dead letters that somebody reads: a reader may start before the component that writes them.
fn letters_read(pipeline: &Pipeline) -> Vec<TopicSpec> {
    let mut letters: Vec<TopicSpec> = Vec::new();
    for source in &pipeline.sources {
        letters.extend(dead_letter::source_topics(&source.name, 1).into_iter().flatten());
    }
    // Each service stands behind those whose letters it reads.
    for service in &pipeline.services {
        let lead = service.inputs.first();
        let known = lead.and_then(|lead| pipeline.topics.get(lead)).map(|topic| topic.spec.partitions);
        let known = known.or_else(|| letters.iter().find(|s| lead == Some(&s.name)).map(|s| s.partitions));
        letters.extend(dead_letter::service_topics(&service.name, known.unwrap_or(1)).into_iter().flatten());
    }
    let inputs = pipeline.services.iter().flat_map(|s| &s.inputs).chain(pipeline.sinks.iter().flat_map(|s| &s.inputs));
    let read: BTreeSet<&Name> = inputs.collect();
    letters.retain(|spec| read.contains(&spec.name));
    letters
}

/// What services see of lookups.
pub(crate) fn handles(lookups: &Lookups) -> BTreeMap<Name, LookupHandle> {
    lookups.iter().map(|(name, (_, handle))| (name.clone(), handle.clone())).collect()
}

/// Builds the components of a pipeline whose names are wanted.
pub(crate) fn components(
    pipeline: &Pipeline,
    wanted: &dyn Fn(&Name) -> bool,
    lookups: &BTreeMap<Name, LookupHandle>,
    log: &Arc<dyn Log>,
) -> Result<BTreeMap<Name, Component>, ApiError> {
    let mut built = BTreeMap::new();
    for service in pipeline.services.iter().filter(|s| wanted(&s.name)) {
        built.insert(service.name.clone(), Component::Service(build::service(pipeline, service, lookups)));
    }
    for sink in pipeline.sinks.iter().filter(|s| wanted(&s.name)) {
        built.insert(sink.name.clone(), Component::Sink(build::sink(pipeline, sink)));
    }
    for source in pipeline.sources.iter().filter(|s| wanted(&s.name)) {
        built.insert(source.name.clone(), source_component(pipeline, source, log)?);
    }
    Ok(built)
}

fn source_component(pipeline: &Pipeline, source: &Source, log: &Arc<dyn Log>) -> Result<Component, ApiError> {
    let Some(settings) = &source.settings.http else { return Ok(Component::Source(build::source(source)?, None)) };
    let refusals = pipeline.services.iter().filter_map(|s| Some(dead_letter::Topics::of(&s.name).ok()?.letters));
    let http = build::http_source(source, settings, refusals.collect(), log)?;
    Ok(Component::Source(build::source_def(source, Arc::new(http.clone())), Some(http)))
}

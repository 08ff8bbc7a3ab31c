//! What runs now: the file, the plan, the lookups and the routes of HTTP sources.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use millstream_connect::{FileLookup, HttpSource};
use millstream_service::event::Name;
use millstream_service::log::Log;
use millstream_service::{LookupHandle, Runner, SourceDef, dead_letter};

use super::{build, log_error, service_error};
use crate::api::ApiError;
use crate::config::Loaded;
use crate::plan::{Pipeline, Service, Sink, Source};

/// The running pipeline's parts, apart from what the runner knows.
pub(crate) struct Parts {
    pub(crate) loaded: Loaded,
    pub(crate) pipeline: Pipeline,
    /// Dropping one stops its reloading.
    lookups: BTreeMap<Name, (FileLookup, LookupHandle)>,
    http: BTreeMap<Name, HttpSource>,
}

impl Parts {
    pub(crate) fn new(loaded: Loaded, pipeline: Pipeline) -> Self {
        Self { loaded, pipeline, lookups: BTreeMap::new(), http: BTreeMap::new() }
    }

    /// Makes the topics of a pipeline, the dead letters of its components with them, or changes them where they may.
    pub(crate) async fn topics(pipeline: &Pipeline, log: &dyn Log) -> Result<(), ApiError> {
        for topic in pipeline.topics.values() {
            log.create_topic(topic.spec.clone()).await.map_err(log_error)?;
        }
        let read: Vec<&Name> = pipeline
            .services
            .iter()
            .flat_map(|s| &s.inputs)
            .chain(pipeline.sinks.iter().flat_map(|s| &s.inputs))
            .collect();
        // A reader of dead letters may start before the component that writes them.
        let mut letters = Vec::new();
        for source in &pipeline.sources {
            letters.extend(dead_letter::source_topics(&source.name, 1).into_iter().flatten());
        }
        letters.retain(|spec| read.contains(&&spec.name));
        for spec in letters {
            log.create_topic(spec).await.map_err(log_error)?;
        }
        Ok(())
    }

    pub(crate) fn lookup_handles(&self) -> BTreeMap<Name, LookupHandle> {
        self.lookups.iter().map(|(name, (_, handle))| (name.clone(), handle.clone())).collect()
    }

    pub(crate) fn start_lookup(&mut self, name: &Name) {
        if let Some(lookup) = self.pipeline.lookups.iter().find(|l| l.name == *name) {
            self.lookups.insert(name.clone(), build::lookup(lookup));
        }
    }

    pub(crate) fn drop_lookup(&mut self, name: &Name) {
        self.lookups.remove(name);
    }

    pub(crate) async fn start_service(&self, runner: &Runner, service: &Service) -> Result<(), ApiError> {
        let def = build::service(service, &self.lookup_handles());
        runner.start_service(def).await.map(|_| ()).map_err(service_error)
    }

    pub(crate) async fn start_sink(&self, runner: &Runner, sink: &Sink) -> Result<(), ApiError> {
        runner.start_sink(build::sink(sink)).await.map(|_| ()).map_err(service_error)
    }

    pub(crate) async fn start_source(&mut self, runner: &Runner, source: &Source) -> Result<(), ApiError> {
        let def = self.source_def(runner, source)?;
        runner.start_source(def).await.map(|_| ()).map_err(service_error)
    }

    /// An HTTP source also brings the routes that the node answers.
    fn source_def(&mut self, runner: &Runner, source: &Source) -> Result<SourceDef, ApiError> {
        let Some(settings) = &source.settings.http else { return build::source(source) };
        let refusals =
            self.pipeline.services.iter().filter_map(|s| Some(dead_letter::Topics::of(&s.name).ok()?.letters));
        let running = build::http_source(source, settings, refusals.collect(), runner.log())?;
        self.http.insert(source.name.clone(), running.clone());
        Ok(build::source_def(source, Arc::new(running)))
    }

    /// Lets HTTP sources answer what they have taken and take nothing more.
    pub(crate) fn drain(&self) {
        self.http.values().for_each(HttpSource::drain);
    }

    pub(crate) fn drop_source(&mut self, name: &Name) {
        if let Some(source) = self.http.remove(name) {
            source.drain();
        }
    }

    /// The routes of all HTTP sources.
    pub(crate) fn routers(&self) -> Vec<Router> {
        self.http.values().map(HttpSource::router).collect()
    }

    /// Starts everything, readers before writers.
    pub(crate) async fn start(&mut self, runner: &Runner) -> Result<(), ApiError> {
        let pipeline = Arc::new(self.pipeline.clone());
        for lookup in &pipeline.lookups {
            self.start_lookup(&lookup.name);
        }
        for service in &pipeline.services {
            self.start_service(runner, service).await?;
        }
        for sink in &pipeline.sinks {
            self.start_sink(runner, sink).await?;
        }
        for source in &pipeline.sources {
            self.start_source(runner, source).await?;
        }
        Ok(())
    }
}

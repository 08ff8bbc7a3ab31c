//! From settings to a planned pipeline: the graph of topics, with every column, key and event time known. Pure.
//!
//! 1. Names are gathered: who writes which topic, who reads it.
//! 2. Services are ordered so that each comes behind those whose output it reads or looks rows up in; a cycle is refused.
//! 3. In that order each service's rules, SQL and route are planned against its input's columns, which gives the columns
//!    of its outputs.
//! 4. What is written and never read, and what is declared and never used, becomes a warning.
//!
//! A fault makes the topics behind it unknown; whoever reads those is passed over, so that one mistake is one error.

mod check;
mod define;
mod fold;
mod graph;
mod lookups;
mod meet;
mod pipeline;
mod services;
mod show;
mod times;
mod topics;
mod version;

pub use pipeline::{EventTime, Lookup, Pipeline, Service, Sink, Source, Topic};
pub use version::Definition;

use std::collections::BTreeMap;

use millstream_service::event::Name;
use millstream_service::flow::Catalog;

use crate::config::{Config, Loaded, Span};
use crate::diagnostic::{Diagnostic, Diagnostics};

/// Plans a pipeline, or says everything that is wrong with it.
pub fn plan(loaded: &Loaded) -> Result<Pipeline, Diagnostics> {
    let mut planner = Planner::new(loaded);
    planner.names();
    planner.lookups();
    planner.written();
    let order = planner.order();
    planner.declared_topics();
    for place in order {
        planner.service(place);
    }
    planner.table_lookups();
    planner.sources();
    planner.times();
    planner.sinks();
    planner.leftovers();
    planner.tests();
    planner.finish()
}

/// What is wrong with a pipeline that could be read in part only: everything but what may follow from what is missing.
pub(crate) fn plan_partly(loaded: &Loaded) -> Vec<Diagnostic> {
    let found = plan(loaded).err().unwrap_or_default();
    found.0.into_iter().filter(|d| d.is_error() && !FOLLOWS.contains(&d.code.as_ref())).collect()
}

/// Errors that may be none once every line of the file can be read.
const FOLLOWS: [&str; 7] = [
    "topic-unknown",
    "topic-columns",
    "columns-differ",
    "not-co-partitioned",
    "from-differs",
    "route-targets",
    "sql-unknown-table",
];

/// What is known while planning.
pub(crate) struct Planner<'a> {
    loaded: &'a Loaded,
    config: &'a Config,
    found: Diagnostics,
    /// Who writes a topic, and where that is said.
    writers: BTreeMap<Name, Vec<(Name, Span)>>,
    /// Topics that a writer exists for, but whose columns cannot be known because of a fault.
    unknown: std::collections::BTreeSet<Name>,
    topics: BTreeMap<Name, Topic>,
    catalog: Catalog,
    lookups: Vec<Lookup>,
    sources: Vec<Source>,
    services: Vec<Service>,
    sinks: Vec<Sink>,
}

impl<'a> Planner<'a> {
    fn new(loaded: &'a Loaded) -> Self {
        Self {
            loaded,
            config: &loaded.config,
            found: Diagnostics::default(),
            writers: BTreeMap::new(),
            unknown: std::collections::BTreeSet::new(),
            topics: BTreeMap::new(),
            catalog: Catalog::default(),
            lookups: Vec::new(),
            sources: Vec::new(),
            services: Vec::new(),
            sinks: Vec::new(),
        }
    }

    fn report(&mut self, span: Span, diagnostic: Diagnostic) {
        let place = self.loaded.sources.place(span);
        self.found.0.push(self.loaded.secrets.mask(diagnostic.at(place)));
    }

    fn finish(self) -> Result<Pipeline, Diagnostics> {
        let mut found = self.found.sorted();
        if found.errors() > 0 {
            // Warnings would only hide what must be mended first.
            found.0.retain(Diagnostic::is_error);
            return Err(found);
        }
        Ok(Pipeline {
            name: self.config.pipeline.value.clone(),
            dir: self.loaded.dir.clone(),
            topics: self.topics,
            lookups: self.lookups,
            sources: self.sources,
            services: self.services,
            sinks: self.sinks,
            warnings: found,
        })
    }

    /// Components share one space of names: the log knows their positions by it.
    fn names(&mut self) {
        let config = self.config;
        let sources = config.sources.iter().map(|(n, _)| ("source", n));
        let services = config.services.iter().map(|(n, _)| ("service", n));
        let sinks = config.sinks.iter().map(|(n, _)| ("sink", n));
        let mut seen: BTreeMap<&Name, (&str, Span)> = BTreeMap::new();
        for (kind, name) in sources.chain(services).chain(sinks) {
            if let Some((other, span)) = seen.get(&name.value) {
                let first = self.loaded.sources.place(*span);
                let message = format!("{kind} and {other} are both named `{}`", name.value);
                let diagnostic = Diagnostic::error("name-twice", message).related(first, "first here");
                self.report(name.span, diagnostic.label("choose another name"));
            } else {
                seen.insert(&name.value, (kind, name.span));
            }
        }
    }
}

//! A planned pipeline: everything known that can be known without running it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream_connect::PostgresState;
use millstream_service::event::{Name, Schema};
use millstream_service::flow::{Fold, LookupSchema, Query, Rules};
use millstream_service::log::TopicSpec;
use millstream_service::{Else, Late, Output, ServiceTime};

use super::version::Definition;
use crate::config::{EventTimeSettings, FutureSettings, LookupSettings, SinkSettings, SourceSettings};
use crate::diagnostic::Diagnostics;

/// A pipeline that can run.
#[derive(Clone)]
pub struct Pipeline {
    /// Its name.
    pub name: Name,
    /// The pipeline file's directory.
    pub dir: std::path::PathBuf,
    /// All topics that sources, services and sinks name, by name.
    pub topics: BTreeMap<Name, Topic>,
    /// Lookups in the order of the file.
    pub lookups: Vec<Lookup>,
    /// Sources in the order of the file.
    pub sources: Vec<Source>,
    /// Services, each behind those whose output it reads.
    pub services: Vec<Service>,
    /// Sinks in the order of the file.
    pub sinks: Vec<Sink>,
    /// What is probably not meant.
    pub warnings: Diagnostics,
}

/// A topic.
#[derive(Debug, Clone)]
pub struct Topic {
    /// As the log needs it.
    pub spec: TopicSpec,
    /// The column with the event time.
    pub event_time: Option<EventTime>,
    /// Sources and services that write it.
    pub writers: Vec<Name>,
    /// Services and sinks that read it.
    pub readers: Vec<Name>,
}

/// The time at which events happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventTime {
    /// The column.
    pub column: String,
    /// How much later than its successors an event may come.
    pub max_out_of_orderness: Duration,
    /// What is added to the column's value, in microseconds: the time of a window's row is the last of the window.
    pub plus_us: i64,
    /// How far ahead of its arrival an event may be; `None`: as its source has it.
    pub future: Option<FutureSettings>,
    /// After so long without an event nobody waits for a source.
    pub idle: Option<Duration>,
}

impl From<&EventTimeSettings> for EventTime {
    fn from(settings: &EventTimeSettings) -> Self {
        Self {
            column: settings.column.value.clone(),
            max_out_of_orderness: settings.max_out_of_orderness.unwrap_or(Duration::ZERO),
            plus_us: 0,
            future: settings.future,
            idle: settings.idle,
        }
    }
}

/// A lookup.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// Its name.
    pub name: Name,
    /// Its columns and key.
    pub schema: LookupSchema,
    /// The table topic whose rows it has; `None`: a file.
    pub topic: Option<Name>,
    /// Where it comes from.
    pub settings: LookupSettings,
    /// What decides what it holds.
    pub definition: Definition,
}

/// A source.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name.
    pub name: Name,
    /// Its settings.
    pub settings: SourceSettings,
    /// The columns of its topic.
    pub schema: Schema,
    /// The event time of its topic.
    pub event_time: Option<EventTime>,
    /// What decides what it does.
    pub definition: Definition,
}

/// What a service does with time and place on the way to one of its topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) topic: Name,
    /// The column with the event time of what it writes, where it follows from its inputs.
    pub(crate) time: Option<String>,
    /// Whether each of its tasks writes only the partition with its own number.
    pub(crate) in_place: bool,
}

/// A service.
#[derive(Clone)]
pub struct Service {
    /// Its name.
    pub name: Name,
    /// The topics it reads.
    pub inputs: Vec<Name>,
    /// The names that its SQL has for inputs that are repartitioned.
    pub aliases: BTreeMap<Name, Name>,
    /// What happens to events that come too late for its windows.
    pub late: Late,
    /// Whether its state is in memory alone.
    pub in_memory: bool,
    /// The rules and what happens to events that break them.
    pub check: Option<(Arc<Rules>, Else)>,
    /// The rules' names and texts.
    pub rules: Vec<(String, String)>,
    /// The query.
    pub query: Option<Arc<Query>>,
    /// The fold, instead of a query.
    pub fold: Option<Arc<Fold>>,
    /// Where its events go.
    pub output: Output,
    /// The topics they go to, dead letters apart.
    pub outputs: Vec<Name>,
    /// The cases of its route: condition and target, `otherwise` last.
    pub cases: Vec<(String, String)>,
    /// The columns of its output.
    pub schema: Schema,
    /// The lookups it joins.
    pub lookups: Vec<Name>,
    /// How many workers.
    pub instances: u32,
    /// The most rows per batch.
    pub batch_max: Option<u32>,
    /// The database that keeps its state, where that is not the log.
    pub store: Option<PostgresState>,
    /// The event time of what it reads and writes; `None`: its inputs have none that it could wait for.
    pub time: Option<ServiceTime>,
    /// By output topic.
    pub(crate) ways: Vec<Way>,
    /// What decides what it does.
    pub definition: Definition,
}

/// A sink.
#[derive(Debug, Clone)]
pub struct Sink {
    /// Its name.
    pub name: Name,
    /// Its settings.
    pub settings: SinkSettings,
    /// The topics it reads.
    pub inputs: Vec<Name>,
    /// What decides what it does.
    pub definition: Definition,
}

impl Source {
    /// How many tasks it has: what runs says the same (see `millstream_service::Source::tasks`).
    pub(crate) fn tasks(&self) -> u32 {
        1
    }
}

impl Pipeline {
    /// What becomes of events that break a rule, by service, where that is no dead letter.
    pub(crate) fn broken(&self) -> BTreeMap<String, String> {
        let became = |service: &Service| match &service.check.as_ref()?.1 {
            Else::DeadLetter => None,
            Else::Drop => Some("dropped".to_owned()),
            Else::Tag => Some("sent on with the rules' names".to_owned()),
            Else::Topic(topic) => Some(format!("events of `{topic}`")),
        };
        self.services.iter().filter_map(|s| Some((s.name.to_string(), became(s)?))).collect()
    }
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pipeline({})", self.name)
    }
}

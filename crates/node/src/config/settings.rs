//! The settings of a pipeline: the YAML file as typed values, each with its place. The JSON Schema of the file is
//! generated from these types.

use std::path::PathBuf;
use std::time::Duration;

use millstream_service::event::Name;
use schemars::JsonSchema;

use super::source_text::{Span, Spanned};
use super::state::PipelineStateSettings;

mod fold;
mod services;
mod sinks;
mod sources;
mod topics;

pub use fold::*;
pub use services::*;
pub use sinks::*;
pub use sources::*;
pub use topics::*;

/// Named things in the order of the file.
pub type Named<T> = Vec<(Spanned<Name>, T)>;

/// A pipeline file.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Config {
    /// The version of this language: 1.
    pub version: u32,
    /// The pipeline's name.
    #[schemars(with = "String")]
    pub pipeline: Spanned<Name>,
    /// Where events are kept.
    #[schemars(default)]
    pub log: LogSettings,
    /// The HTTP interface.
    #[schemars(default)]
    pub server: ServerSettings,
    /// What becomes of what the pipeline knows.
    #[schemars(default)]
    pub state: PipelineStateSettings,
    /// What topics are like unless said otherwise.
    #[schemars(default)]
    pub defaults: Defaults,
    /// Topics that services cannot be asked about: what enters, and exceptions from the defaults.
    #[schemars(with = "std::collections::BTreeMap<String, TopicSettings>", default)]
    pub topics: Named<TopicSettings>,
    /// Reference data that SQL joins by key.
    #[schemars(with = "std::collections::BTreeMap<String, LookupSettings>", default)]
    pub lookups: Named<LookupSettings>,
    /// Where events come from.
    #[schemars(with = "std::collections::BTreeMap<String, SourceSettings>", default)]
    pub sources: Named<SourceSettings>,
    /// The steps of the pipeline.
    #[schemars(with = "std::collections::BTreeMap<String, ServiceSettings>", default)]
    pub services: Named<ServiceSettings>,
    /// Where events go.
    #[schemars(with = "std::collections::BTreeMap<String, SinkSettings>", default)]
    pub sinks: Named<SinkSettings>,
    /// Examples of what the pipeline does, run by `millstream test`.
    #[schemars(default)]
    pub tests: Vec<TestSettings>,
}

/// Where events are kept.
#[derive(Debug, Clone, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct LogSettings {
    /// The log inside this process.
    #[schemars(default)]
    pub embedded: EmbeddedSettings,
}

/// The log inside this process.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct EmbeddedSettings {
    /// The directory, relative to this file. Default `data`.
    #[schemars(default)]
    pub dir: PathBuf,
    /// The size of a journal segment. Default `32MiB`.
    #[schemars(with = "Option<String>")]
    pub segment: Option<u64>,
    /// When a commit counts as durable.
    #[schemars(default)]
    pub sync: Sync,
    /// The most bytes that the log may take on disk, e.g. `100GiB`; sources wait when it is reached.
    #[schemars(with = "Option<String>")]
    pub max_bytes: Option<u64>,
}

impl Default for EmbeddedSettings {
    fn default() -> Self {
        Self { dir: PathBuf::from("data"), segment: None, sync: Sync::default(), max_bytes: None }
    }
}

/// When a commit counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// After a sync to disk that it shares with the other commits waiting.
    #[default]
    Group,
    /// At once; a sync follows at this interval, and what was written since the last one may be lost with the machine.
    Interval(#[schemars(with = "String")] Duration),
    /// At once; the operating system writes when it likes.
    Never,
}

/// The HTTP interface.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ServerSettings {
    /// Address and port. Default `127.0.0.1:7070`.
    #[schemars(with = "String", default = "listen_text")]
    pub listen: std::net::SocketAddr,
    /// Where it stands in the file.
    #[schemars(skip)]
    pub listen_span: Option<Span>,
}

/// The address when the file names none.
pub const LISTEN: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7070);

fn listen_text() -> String {
    LISTEN.to_string()
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self { listen: LISTEN, listen_span: None }
    }
}

/// What things are like unless said otherwise.
#[derive(Debug, Clone, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Defaults {
    /// For topics.
    #[schemars(default)]
    pub topic: TopicDefaults,
}

/// What topics are like unless said otherwise.
#[derive(Debug, Clone, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TopicDefaults {
    /// The number of partitions. Default 1.
    #[schemars(with = "Option<u32>")]
    pub partitions: Option<Spanned<u64>>,
    /// The columns whose values choose an event's partition.
    #[schemars(with = "Option<Vec<String>>")]
    pub key: Option<Vec<Spanned<String>>>,
    /// How long events are kept.
    pub retention: Option<RetentionSettings>,
}

/// An example of what the pipeline does.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TestSettings {
    /// What it shows, as a sentence.
    #[schemars(with = "String")]
    pub name: Spanned<String>,
    /// The events given, by topic.
    #[schemars(with = "std::collections::BTreeMap<String, Vec<serde_json::Value>>")]
    pub given: Vec<TestRows>,
    /// The events expected, by topic (also `<service>.dlq`); only the columns named are compared.
    #[schemars(with = "std::collections::BTreeMap<String, Vec<serde_json::Value>>")]
    pub expect: Vec<TestRows>,
}

/// Rows of one topic in a test.
#[derive(Debug, Clone)]
pub struct TestRows {
    /// The topic.
    pub topic: Spanned<Name>,
    /// Each row as the text of a JSON object (numbers exactly as written), with its place.
    pub rows: Vec<Spanned<String>>,
}

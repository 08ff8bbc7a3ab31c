//! The settings of a pipeline: the YAML file as typed values, each with its place. The JSON Schema of the file is
//! generated from these types.

use std::path::PathBuf;
use std::time::Duration;

use millstream_service::event::{Column, Name};
use schemars::JsonSchema;

use super::source_text::{Span, Spanned};
use super::sql_text::Sql;
use super::state::PipelineStateSettings;

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

/// A topic.
#[derive(Debug, Clone, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TopicSettings {
    /// Whether the topic keeps all events (`stream`, the default) or the newest of each key (`table`).
    #[schemars(with = "Option<TopicKindSettings>")]
    pub kind: Option<Spanned<TopicKindSettings>>,
    /// The time at which an event happened.
    pub event_time: Option<EventTimeSettings>,
    /// The columns and their types, `!` for not null. Needed where a source writes the topic.
    #[schemars(with = "Option<std::collections::BTreeMap<String, String>>")]
    pub columns: Option<Spanned<Vec<(Column, Span)>>>,
    /// The columns whose values choose an event's partition; `[]` for none.
    #[schemars(with = "Option<Vec<String>>")]
    pub key: Option<Vec<Spanned<String>>>,
    /// The number of partitions.
    #[schemars(with = "Option<u32>")]
    pub partitions: Option<Spanned<u64>>,
    /// How long events are kept.
    pub retention: Option<RetentionSettings>,
}

/// What a topic keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TopicKindSettings {
    /// All events, as long as its retention says.
    Stream,
    /// The newest event of each key; a tombstone ends its key.
    Table,
}

/// The time at which an event happened.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct EventTimeSettings {
    /// The column with the time.
    #[schemars(with = "String")]
    pub column: Spanned<String>,
    /// How much later than its successors an event may come. Default 0s.
    #[schemars(with = "Option<String>")]
    pub max_out_of_orderness: Option<Duration>,
    /// How far ahead of its arrival an event may be before it becomes a dead letter, or `off`. Default `1h` for `http` and
    /// `stdin`, `off` for `file` and `generate`.
    #[schemars(with = "Option<String>")]
    pub future: Option<FutureSettings>,
    /// After so long without an event nobody waits for a source any more, until its next event. Default: never.
    #[schemars(with = "Option<String>")]
    pub idle: Option<Duration>,
}

/// How far ahead of its arrival an event may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FutureSettings {
    /// As far as it likes.
    Off,
    /// So far.
    Within(Duration),
}

/// How long events are kept: an age such as `30d`, `forever`, or a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionSettings {
    /// The least age; `None`: for ever.
    pub age: Option<Duration>,
    /// Whether what a consumer has not read is kept whatever its age. Default true.
    pub until_read: bool,
    /// The most bytes of unread events before sources have to wait.
    pub max_bytes: Option<u64>,
}

impl JsonSchema for RetentionSettings {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RetentionSettings".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "How long events are kept after every consumer has read them",
            "anyOf": [
                {"type": "string", "description": "an age such as `30d`, or `forever`"},
                {"type": "object", "additionalProperties": false, "properties": {
                    "age": {"type": "string", "description": "the least age, or `forever`; default `1d`"},
                    "until_read": {"type": "boolean", "description": "keep what a consumer has not read; default true"},
                    "max_bytes": {"type": "string", "description": "sources wait when this much is unread"}
                }}
            ]
        })
    }
}

/// Reference data that SQL joins by key.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct LookupSettings {
    /// A file.
    pub file: LookupFileSettings,
    /// The columns that SQL joins on; no two rows have the same values.
    #[schemars(with = "Vec<String>")]
    pub key: Vec<Spanned<String>>,
    /// The columns and their types; other columns of the file are left out.
    #[schemars(with = "std::collections::BTreeMap<String, String>")]
    pub columns: Vec<(Column, Span)>,
}

/// A file with reference data.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct LookupFileSettings {
    /// The file, relative to the pipeline file.
    #[schemars(with = "String")]
    pub path: Spanned<PathBuf>,
    /// How rows are written. Default: by the file's name.
    pub format: Option<Format>,
    /// How bytes are packed. Default: by the file's name.
    pub compression: Option<Compression>,
    /// How often the file is looked at for changes. Default: never.
    #[schemars(with = "Option<String>")]
    pub refresh: Option<Duration>,
}

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object, a JSON array of objects, or one object per line (HTTP only).
    Json,
    /// One JSON object per line.
    Ndjson,
    /// Comma-separated values with a header line.
    Csv,
    /// Arrow IPC (file sources and file sinks only): files and streams are read, streams are written.
    Arrow,
}

/// How bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// As they are.
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// What becomes of fields that the topic has no column for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnknownFields {
    /// They are kept in the column `_extra`.
    Keep,
    /// They are left out.
    #[default]
    Drop,
    /// The event becomes a dead letter.
    Reject,
}

/// Where events come from: exactly one of `http`, `file`, `stdin`, `generate`.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SourceSettings {
    /// Events posted by HTTP.
    pub http: Option<HttpSourceSettings>,
    /// Events in files.
    pub file: Option<FileSourceSettings>,
    /// Events on the standard input.
    pub stdin: Option<StdinSettings>,
    /// Made-up events.
    pub generate: Option<GenerateSettings>,
    /// The topic that the events go to; it must be declared with its columns.
    #[schemars(with = "String")]
    pub to: Spanned<Name>,
    /// What becomes of fields that the topic has no column for. Default `drop`.
    #[schemars(default)]
    pub unknown: UnknownFields,
    /// All of it.
    #[schemars(skip)]
    pub span: Span,
}

/// Events posted by HTTP.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HttpSourceSettings {
    /// The path, e.g. `/transactions`.
    #[schemars(with = "String")]
    pub path: Spanned<String>,
    /// Only `json`: one event, an array, or one per line.
    pub format: Option<Format>,
    /// Answer with the decision instead of the offsets.
    pub reply: Option<ReplySettings>,
    /// Retried requests.
    pub idempotency: Option<IdempotencySettings>,
    /// The largest request. Default `10MiB`.
    #[schemars(with = "Option<String>")]
    pub max_body: Option<u64>,
    /// The largest event. Default `1MiB`.
    #[schemars(with = "Option<String>")]
    pub max_event: Option<u64>,
    /// The most requests at a time.
    pub max_requests: Option<u64>,
}

/// Answer with the decision instead of the offsets.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ReplySettings {
    /// The topics in which decisions appear.
    #[schemars(with = "Vec<String>")]
    pub from: Vec<Spanned<Name>>,
    /// The column that event and decision share.
    #[schemars(with = "String", rename = "match")]
    pub matching: Spanned<String>,
    /// How long to wait before the answer is a status address. Default `1s`.
    #[schemars(with = "Option<String>")]
    pub timeout: Option<Duration>,
}

/// Retried requests (header `Idempotency-Key`).
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct IdempotencySettings {
    /// How long a key is remembered. Default `24h`.
    #[schemars(with = "String")]
    pub ttl: Duration,
}

/// Events in files.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FileSourceSettings {
    /// A file or a glob, relative to the pipeline file.
    #[schemars(with = "String")]
    pub path: Spanned<PathBuf>,
    /// How events are written. Default: by the file's name.
    pub format: Option<Format>,
    /// How bytes are packed. Default: by the file's name.
    pub compression: Option<Compression>,
    /// Go on reading what is appended, and files that appear. Default false.
    #[schemars(default)]
    pub follow: bool,
}

/// Events on the standard input.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct StdinSettings {
    /// How events are written. Default `ndjson`.
    pub format: Option<Format>,
}

/// Made-up events.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct GenerateSettings {
    /// What is made up. Default `card_transactions`.
    pub kind: GenerateKind,
    /// Events per second. Default: as fast as possible.
    pub rate: Option<f64>,
    /// How many events. Default: without end.
    pub count: Option<u64>,
    /// Chooses the events. Default 1.
    pub seed: Option<u64>,
    /// The first day, e.g. `2026-01-01`.
    #[schemars(with = "Option<String>")]
    pub start: Option<Spanned<String>>,
    /// `card_transactions`: how many customers there are.
    pub customers: Option<u64>,
    /// `card_transactions`: how many merchants there are.
    pub merchants: Option<u64>,
    /// `card_transactions`: the share of events with something wrong, e.g. `1.5%`.
    #[schemars(with = "Option<String>")]
    pub bad: Option<f64>,
    /// `ticks` and `orders`: how many symbols are traded, up to 200. Default 50.
    pub symbols: Option<u64>,
    /// `orders`: how many accounts trade. Default 100.
    pub accounts: Option<u64>,
    /// `inventory`: how many SKUs there are. Default 1,000.
    pub skus: Option<u64>,
    /// `inventory`: how many warehouses there are, up to 100. Default 4.
    pub warehouses: Option<u64>,
}

/// What is made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GenerateKind {
    /// Card payments with customers, merchants and labelled fraud.
    CardTransactions,
    /// The persons of the Nexmark benchmark; `rate` and `count` are those of its three kinds together.
    NexmarkPersons,
    /// The auctions of the Nexmark benchmark.
    NexmarkAuctions,
    /// The bids of the Nexmark benchmark.
    NexmarkBids,
    /// Prices and volumes of a stock exchange.
    Ticks,
    /// Filled orders at it.
    Orders,
    /// Movements of stock from several sales channels.
    Inventory,
}

/// A step of the pipeline.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ServiceSettings {
    /// The topics that it reads: exactly those that its SQL names.
    #[schemars(with = "Vec<String>")]
    pub from: Vec<Spanned<Name>>,
    /// Rules by name; an event passes only when all are true.
    #[schemars(with = "std::collections::BTreeMap<String, String>", default)]
    pub check: Vec<(Spanned<String>, Sql)>,
    /// What becomes of an event that breaks a rule: `dead_letter` (default), `drop`, `tag`, or a topic.
    #[schemars(rename = "else", with = "Option<String>")]
    pub otherwise: Option<Spanned<Otherwise>>,
    /// One SELECT over the input.
    pub sql: Option<Sql>,
    /// The file that `sql` came from; give one of the two.
    #[schemars(with = "Option<String>")]
    pub sql_file: Option<Spanned<String>>,
    /// A state machine for each key, instead of `sql`.
    pub fold: Option<FoldSettings>,
    /// Where each event goes.
    pub route: Option<RouteSettings>,
    /// The topic that all events go to; `to` or `route`.
    #[schemars(with = "Option<String>")]
    pub to: Option<Spanned<Name>>,
    /// What becomes of an event that comes too late for a window: `dead_letter` (default), `drop` (counted), or `update`
    /// the result that went out.
    #[schemars(with = "Option<LateSettings>")]
    pub late: Option<Spanned<LateSettings>>,
    /// How its state is bounded.
    pub state: Option<StateSettings>,
    /// In which order OVER takes events: `arrival` (default), each answered at once from what came before it, or
    /// `event_time`, each answered when the watermark has passed it.
    pub order: Option<OrderSettings>,
    /// How many workers. Default 1.
    pub instances: Option<u32>,
    /// The most events computed at a time. Default 8192.
    pub batch_max: Option<u32>,
    /// All of it.
    #[schemars(skip)]
    pub span: Span,
}

/// In which order OVER takes events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderSettings {
    /// As they arrive.
    Arrival,
    /// By event time.
    EventTime,
}

/// What a service keeps.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct StateSettings {
    /// How long a key is remembered, by event time, where no window bounds it.
    #[schemars(with = "Option<String>")]
    pub ttl: Option<Duration>,
}

/// What becomes of an event that comes too late for a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LateSettings {
    /// It becomes a dead letter.
    DeadLetter,
    /// It is counted and forgotten.
    Drop,
    /// It changes the result that went out.
    Update,
}

/// Names with an expression for each, in the file's order.
pub type NamedSql = Vec<(Spanned<String>, Sql)>;

/// A state machine for each key: columns that are kept, and what an event does with them.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FoldSettings {
    /// The columns by which events belong together.
    #[schemars(with = "Vec<String>")]
    pub key: Vec<Spanned<String>>,
    /// What is kept for each key, by name: a type, and after `=` an initial value, as in `bigint! = 0`.
    #[schemars(with = "std::collections::BTreeMap<String, String>")]
    pub state: NamedSql,
    /// The cases; the first whose `when` is true takes the event.
    pub cases: Vec<FoldCaseSettings>,
    /// What becomes of events that no case takes: `drop`, `dead_letter`, or `set` and `emit` as in a case.
    pub otherwise: FoldOtherwiseSettings,
    /// What is done at a time that the state names.
    pub timer: Option<FoldTimerSettings>,
    /// All of it.
    #[schemars(skip)]
    pub span: Span,
}

/// One case of a fold.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FoldCaseSettings {
    /// The condition over the event's columns and `state.…`; none is always true.
    pub when: Option<Sql>,
    /// What is done.
    #[schemars(flatten)]
    pub action: FoldActionSettings,
}

/// What a fold does with an event.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FoldActionSettings {
    /// State columns and their new values; `state.…` is the value before.
    #[schemars(with = "std::collections::BTreeMap<String, String>", default)]
    pub set: NamedSql,
    /// A row that is given out, or a list of them: columns and their values; `state.…` is the value after `set`.
    #[schemars(with = "FoldEmit", default)]
    pub emit: Vec<Spanned<NamedSql>>,
    /// Whether the key's state is forgotten then.
    #[schemars(default)]
    pub forget: bool,
    /// All of it.
    #[schemars(skip)]
    pub span: Span,
}

/// A row or several, as they are written.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "it is the form in the JSON Schema only")]
enum FoldEmit {
    Row(std::collections::BTreeMap<String, String>),
    Rows(Vec<std::collections::BTreeMap<String, String>>),
}

/// What becomes of events that no case of a fold takes.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum FoldOtherwiseSettings {
    /// They are left out and counted.
    Drop,
    /// They become dead letters.
    DeadLetter,
    /// This.
    #[schemars(untagged)]
    Do(FoldActionSettings),
}

/// What a fold does at a time that its state names.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FoldTimerSettings {
    /// The state column with the time, a `timestamp`.
    #[schemars(with = "String")]
    pub at: Spanned<String>,
    /// The cases, which see the key's columns and the state.
    pub cases: Vec<FoldCaseSettings>,
}

/// What becomes of an event that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Otherwise {
    /// It becomes a dead letter.
    DeadLetter,
    /// It is counted and forgotten.
    Drop,
    /// It passes, with the rules that it broke.
    Tag,
    /// It goes to this topic.
    Topic(Name),
}

/// Where each event goes.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RouteSettings {
    /// The first case that matches takes the event.
    pub first: Option<Vec<CaseSettings>>,
    /// Every case that matches gets the event.
    pub all: Option<Vec<CaseSettings>>,
    /// Where events go that match no case: a topic, `drop` or `dead_letter`.
    #[schemars(with = "String")]
    pub otherwise: Spanned<String>,
    /// All topics that `to` may name, where it has a `{column}` in it.
    #[schemars(with = "Option<Vec<String>>")]
    pub targets: Option<Vec<Spanned<Name>>>,
    /// All of it.
    #[schemars(skip)]
    pub span: Span,
}

impl RouteSettings {
    /// The cases, whichever way they are taken.
    pub fn cases(&self) -> &[CaseSettings] {
        self.first.as_deref().or(self.all.as_deref()).unwrap_or_default()
    }

    /// The topic of events that match no case; `None` where they are dropped or become dead letters.
    pub fn otherwise_topic(&self) -> Option<&Spanned<String>> {
        Some(&self.otherwise).filter(|to| !matches!(to.value.as_str(), "drop" | "dead_letter"))
    }
}

/// One case of a route.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct CaseSettings {
    /// The condition; a NULL does not match.
    pub when: Sql,
    /// The topic, or a template such as `orders_{country}`.
    #[schemars(with = "String")]
    pub to: Spanned<String>,
}

/// Where events go: exactly one of `file`, `stdout`.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SinkSettings {
    /// The topics that it reads.
    #[schemars(with = "Vec<String>")]
    pub from: Vec<Spanned<Name>>,
    /// Files, exactly once.
    pub file: Option<FileSinkSettings>,
    /// The standard output, at least once.
    pub stdout: Option<StdoutSettings>,
    /// All of it.
    #[schemars(skip)]
    pub span: Span,
}

/// Files, exactly once.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FileSinkSettings {
    /// The directory, relative to the pipeline file.
    #[schemars(with = "String")]
    pub path: Spanned<PathBuf>,
    /// How events are written. Default `ndjson`.
    pub format: Option<Format>,
    /// When a file is closed and the next one begun.
    pub roll: Option<RollSettings>,
}

/// When a file is closed and the next one begun.
#[derive(Debug, Clone, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RollSettings {
    /// At this size. Default `256MiB`.
    #[schemars(with = "Option<String>")]
    pub bytes: Option<u64>,
    /// At this age. Default: never.
    #[schemars(with = "Option<String>")]
    pub every: Option<Duration>,
}

/// The standard output.
#[derive(Debug, Clone, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct StdoutSettings {
    /// How events are written. Default `ndjson`.
    pub format: Option<Format>,
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

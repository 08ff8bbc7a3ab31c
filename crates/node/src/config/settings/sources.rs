//! Sources and lookups.

use std::path::PathBuf;
use std::time::Duration;

use millstream_service::event::{Column, Name};
use schemars::JsonSchema;

use super::super::source_text::{Span, Spanned};
use super::*;

/// Reference data that SQL joins by key: exactly one of `file` and `topic`.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct LookupSettings {
    /// A file.
    pub file: Option<LookupFileSettings>,
    /// A topic with `kind: table`: its newest rows, whatever partition they are in.
    #[schemars(with = "Option<String>")]
    pub topic: Option<Spanned<Name>>,
    /// The columns that SQL joins on; no two rows have the same values. Of a topic they are its key, and need not be said.
    #[schemars(with = "Vec<String>", default)]
    pub key: Vec<Spanned<String>>,
    /// The columns and their types; other columns of the file are left out. Of a topic they are the topic's.
    #[schemars(with = "std::collections::BTreeMap<String, String>", default)]
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

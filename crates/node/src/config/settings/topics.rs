//! Topics: what they are like, and the formats of what enters and leaves.

use std::time::Duration;

use millstream_service::event::Column;
use schemars::JsonSchema;

use super::super::source_text::{Span, Spanned};

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

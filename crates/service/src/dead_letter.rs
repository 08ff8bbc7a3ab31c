//! Dead letters: events that a service or a source refused, with the reason and the exact origin, in `<name>.dlq`.
//!
//! A letter stands in the partition of its task and is part of the commit of the batch that refused it. Its id is
//! `<partition>-<offset>` of its place in the dead-letter topic. The other topics of this file carry the life of a letter
//! further: commands (what an operator asked for), status (what was done, letter by letter) and replay (events on their
//! second way into the service that refused them, and into no other).

use std::time::Duration;

use millstream_event::{Column, ColumnType, Name, NameError, Schema};
use millstream_log::{Retention, TopicKind, TopicSpec};

/// How long dead letters and what became of them are kept.
pub const RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

/// The longest reason in a letter, in bytes.
pub const REASON_BYTES_MAX: usize = 1000;

/// The most bytes of a refused event's text that a letter keeps.
pub const RAW_BYTES_MAX: usize = 1 << 20;

/// The names of the topics that belong to one service or source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// `<name>.dlq`: the letters.
    pub letters: Name,
    /// `<name>.dlq.commands`: what was asked for.
    pub commands: Name,
    /// `<name>.dlq.status`: what was done.
    pub status: Name,
    /// `<name>.replay`: events on their second way.
    pub replay: Name,
}

impl Topics {
    /// The topics of `name`; fails where the name is too long to take the suffixes.
    pub fn of(name: &Name) -> Result<Self, NameError> {
        let with = |suffix: &str| Name::new(format!("{name}{suffix}"));
        Ok(Self {
            letters: with(".dlq")?,
            commands: with(".dlq.commands")?,
            status: with(".dlq.status")?,
            replay: with(".replay")?,
        })
    }
}

/// The columns of `<name>.dlq`.
pub fn letter_schema() -> Schema {
    fixed(&[
        ("at", "timestamp!"),
        ("code", "string!"),
        ("reason", "string!"),
        ("rules", "array<string>"),
        ("service", "string!"),
        ("service_version", "string!"),
        ("topic", "string"),
        ("partition", "int"),
        ("offset", "bigint"),
        ("schema_version", "int"),
        ("place", "string"),
        ("attempts", "int!"),
        ("key", "string"),
        ("event", "json"),
        ("raw", "bytes"),
        ("ingested_at", "timestamp"),
        ("replayed_of", "string"),
    ])
}

/// The columns of `<name>.dlq.commands`.
pub fn command_schema() -> Schema {
    fixed(&[("id", "string!"), ("at", "timestamp!"), ("action", "string!"), ("selection", "json!")])
}

/// The columns of `<name>.dlq.status`.
pub fn status_schema() -> Schema {
    fixed(&[
        ("command", "string!"),
        ("at", "timestamp!"),
        ("partition", "int"),
        ("offset", "bigint"),
        ("outcome", "string!"),
        ("reason", "string"),
    ])
}

/// The columns of `<name>.replay`.
pub fn replay_schema() -> Schema {
    fixed(&[
        ("letter", "string!"),
        ("command", "string!"),
        ("topic", "string!"),
        ("partition", "int!"),
        ("offset", "bigint!"),
        ("schema_version", "int!"),
        ("attempts", "int!"),
        ("event", "json!"),
        ("ingested_at", "timestamp!"),
    ])
}

/// The definitions of a service's own topics, for inputs of `partitions` partitions.
pub fn service_topics(service: &Name, partitions: u32) -> Result<Vec<TopicSpec>, NameError> {
    let topics = Topics::of(service)?;
    let mut specs = source_topics(service, partitions)?;
    let mut replay = spec(topics.replay, partitions, replay_schema());
    replay.consumers = vec![service.clone()];
    replay.retention = Retention::default();
    specs.push(replay);
    Ok(specs)
}

/// The definitions of a source's own topics, for a source of `partitions` tasks.
pub fn source_topics(source: &Name, partitions: u32) -> Result<Vec<TopicSpec>, NameError> {
    let topics = Topics::of(source)?;
    let mut commands = spec(topics.commands.clone(), 1, command_schema());
    // The replayer is a task of the name of the letters' topic.
    commands.consumers = vec![topics.letters.clone()];
    Ok(vec![spec(topics.letters, partitions, letter_schema()), commands, spec(topics.status, 1, status_schema())])
}

fn spec(name: Name, partitions: u32, schema: Schema) -> TopicSpec {
    TopicSpec {
        name,
        partitions,
        key: Vec::new(),
        schema,
        kind: TopicKind::Stream,
        retention: Retention { until_read: true, age: Some(RETENTION), max_bytes: None },
        consumers: Vec::new(),
    }
}

/// A schema written in this file. The texts are constants, so the fallback is never taken; a test proves it.
fn fixed(columns: &[(&str, &str)]) -> Schema {
    let parsed = columns
        .iter()
        .map(|(name, kind)| Column::parse(*name, kind).unwrap_or_else(|_| Column::nullable(*name, ColumnType::String)));
    Schema::new(parsed.collect()).unwrap_or_else(|_| empty())
}

#[expect(clippy::expect_used, reason = "a schema without columns breaks no rule")]
fn empty() -> Schema {
    Schema::new(Vec::new()).expect("no column")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_schemas_are_as_written() {
        assert_eq!(letter_schema().columns().len(), 17);
        assert_eq!(letter_schema().column("rules").unwrap().1.kind.to_string(), "array<string>");
        assert_eq!(command_schema().to_string(), "id: string!, at: timestamp!, action: string!, selection: json!");
        assert_eq!(status_schema().columns().len(), 6);
        assert_eq!(replay_schema().column("event").unwrap().1.kind, ColumnType::Json);
    }

    #[test]
    fn a_long_name_is_refused_early() {
        assert!(Topics::of(&Name::new("x".repeat(115)).unwrap()).is_err());
    }
}

//! Topics and what they hold.

use std::collections::BTreeSet;

use millstream_service::event::{Name, TopicPartition};
use millstream_service::log::{Log, Retention, TopicInfo};

use super::log_error;
use crate::api::{ApiError, ColumnInfo, PartitionInfo, Topic, Topics, codes};
use crate::diagnostic::did_you_mean;
use crate::plan::Pipeline;

/// Endings of the names of topics that the system keeps for itself.
const INTERNAL: [&str; 4] = [".dlq.commands", ".dlq.status", ".replay", ".idempotency"];

/// All topics of the log: those of the pipeline in the order of the data, then the others by name.
pub async fn topics(log: &dyn Log, pipeline: &Pipeline) -> Result<Topics, ApiError> {
    let mut infos = log.topics();
    let order = order(pipeline);
    let rank = |info: &TopicInfo| {
        let base = info.spec.name.as_str();
        order.iter().position(|name| name.as_str() == base).unwrap_or(usize::MAX)
    };
    infos.sort_by_cached_key(|info| (rank(info), info.spec.name.clone()));
    let mut topics = Vec::with_capacity(infos.len());
    for info in &infos {
        topics.push(topic(log, pipeline, info).await?);
    }
    Ok(Topics { topics })
}

/// The refusal of a name that is no topic's, with the nearest one and the list.
pub fn topic_unknown(log: &dyn Log, name: &str) -> ApiError {
    let infos = log.topics();
    let known: Vec<&str> = infos.iter().map(|i| i.spec.name.as_str()).filter(|n| !internal(n)).collect();
    let mut help = did_you_mean(name, known.iter().copied()).map(|h| h + "\n").unwrap_or_default();
    match known.is_empty() {
        true => help.push_str("there are no topics yet"),
        false => help.push_str(&format!("the topics are: {}", known.join(", "))),
    }
    ApiError::new(codes::TOPIC_UNKNOWN, format!("there is no topic `{name}`")).help(help)
}

async fn topic(log: &dyn Log, pipeline: &Pipeline, info: &TopicInfo) -> Result<Topic, ApiError> {
    let spec = &info.spec;
    let mut partitions = Vec::new();
    for partition in 0..spec.partitions {
        let at = TopicPartition::new(spec.name.clone(), partition);
        let start = log.start(&at).await.map_err(|e| log_error(&e))?.0;
        let end = log.end(&at).await.map_err(|e| log_error(&e))?.0;
        partitions.push(PartitionInfo { partition, start, end });
    }
    let planned = pipeline.topics.get(&spec.name);
    let names = |names: &[Name]| names.iter().map(Name::to_string).collect::<Vec<_>>();
    let columns = spec
        .schema
        .columns()
        .iter()
        .map(|c| ColumnInfo { name: c.name.clone(), kind: format!("{}{}", c.kind, if c.nullable { "" } else { "!" }) });
    Ok(Topic {
        name: spec.name.to_string(),
        internal: internal(spec.name.as_str()),
        key: spec.key.clone(),
        event_time: planned.and_then(|p| p.event_time.as_ref()).map(|t| t.column.clone()),
        columns: columns.collect(),
        schema_version: info.schema_version,
        retention: retention(&spec.retention),
        events: partitions.iter().map(|p| p.end.saturating_sub(p.start)).sum(),
        bytes: None,
        writers: planned.map(|p| names(&p.writers)).unwrap_or_default(),
        readers: planned.map(|p| names(&p.readers)).unwrap_or_default(),
        partitions,
    })
}

/// Topics as events pass them.
fn order(pipeline: &Pipeline) -> Vec<Name> {
    let mut seen = BTreeSet::new();
    let sources = pipeline.sources.iter().map(|s| s.settings.to.value.clone());
    let services = pipeline.services.iter().flat_map(|s| s.outputs.iter().cloned());
    sources.chain(services).filter(|name| seen.insert(name.clone())).collect()
}

fn internal(name: &str) -> bool {
    INTERNAL.iter().any(|ending| name.ends_with(ending))
}

fn retention(retention: &Retention) -> String {
    let age = match retention.age.map(|age| age.as_secs()) {
        None => "for ever".to_owned(),
        Some(s) if s > 0 && s.is_multiple_of(86_400) => format!("{}d", s / 86_400),
        Some(s) if s > 0 && s.is_multiple_of(3600) => format!("{}h", s / 3600),
        Some(s) => format!("{s}s"),
    };
    match (retention.until_read, retention.age) {
        (true, Some(_)) => format!("until read, and {age}"),
        _ => age,
    }
}

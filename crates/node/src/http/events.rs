//! Watching a topic: one JSON line per event, as long as the caller listens.

use std::collections::BTreeMap;

use arrow_array::Array;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use millstream_service::event::json::{Decimals, Encoder};
use millstream_service::event::{Batch, Name, Offset, Partitioner, Schema, Stamp, TopicPartition};
use millstream_service::flow::{Predicate, plan_predicate};
use millstream_service::log::{Log, Read, Reader, TopicKind, upgrade};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::{Refused, handlers};
use crate::Node;
use crate::api::{ApiError, EventLine, EventsQuery, From as Begin, codes};
use crate::diagnostic::names_known;
use crate::runtime::{api_time, log_error};

/// How many events wait for a slow caller; the readers wait then.
const LINES_WAITING_MAX: usize = 256;
/// The most rows of a table that are shown: they are brought together in memory.
const TABLE_KEYS_MAX: usize = 1_000_000;
/// The most events of an answer that does not follow, where no limit is given.
const EVENTS_DEFAULT: u64 = 10_000;

pub(super) async fn events(
    State(node): State<Node>,
    Path(name): Path<String>,
    asked: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, Refused> {
    let asked = handlers::query(asked)?;
    let log = std::sync::Arc::clone(&node.inner.log);
    let watch = Watch::new(&*log, &name, &asked).await?;
    let (lines, received) = mpsc::channel(LINES_WAITING_MAX);
    tokio::spawn(async move { watch.run(lines, asked.follow).await });
    let stream = futures::stream::unfold(received, |mut received| async move {
        received.recv().await.map(|line: EventLine| (line, received))
    });
    let bytes = stream.map(|line| {
        let mut text = serde_json::to_string(&line).unwrap_or_default();
        text.push('\n');
        Ok::<_, std::convert::Infallible>(text)
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(bytes)).into_response())
}

/// The events of a topic that are there now.
pub(crate) async fn read_events(log: &dyn Log, name: &str, asked: &EventsQuery) -> Result<Vec<EventLine>, ApiError> {
    let watch = Watch::new(log, name, asked).await?;
    let (lines, mut received) = mpsc::channel(LINES_WAITING_MAX);
    let collect = async {
        let mut out = Vec::new();
        while let Some(line) = received.recv().await {
            out.push(line);
        }
        out
    };
    let ((), out) = tokio::join!(watch.run(lines, false), collect);
    Ok(out)
}

/// The readers of a topic's partitions and what is wanted of them.
struct Watch {
    readers: Vec<(u32, Box<dyn Reader>)>,
    schema: Schema,
    encoder: Encoder,
    filter: Option<Predicate>,
    /// How many lines are still to come.
    left: u64,
    /// The key by which only the newest rows are shown.
    table: Option<Partitioner>,
}

impl Watch {
    async fn new(log: &dyn Log, name: &str, asked: &EventsQuery) -> Result<Self, ApiError> {
        let info = Name::new(name).ok().and_then(|n| log.topic(&n));
        let spec = info.ok_or_else(|| unknown(log, name))?.spec;
        let filter = match &asked.filter {
            Some(sql) => Some(plan_predicate(sql, &spec.schema).map_err(|errors| {
                let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
                ApiError::new(codes::WHERE_WRONG, format!("`where` cannot be used: {}", all.join("; ")))
            })?),
            None => None,
        };
        let partitions: Vec<u32> = match asked.partition {
            Some(p) if p < spec.partitions => vec![p],
            Some(p) => {
                let message = format!("topic `{name}` has no partition {p}; it has {}", spec.partitions);
                return Err(ApiError::new(codes::REQUEST_WRONG, message));
            }
            None => (0..spec.partitions).collect(),
        };
        let share = partitions.len() as u64;
        let mut readers = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let at = TopicPartition::new(spec.name.clone(), partition);
            let start = log.start(&at).await.map_err(log_error)?;
            let end = log.end(&at).await.map_err(log_error)?;
            let from = match asked.from {
                Begin::Earliest => start,
                Begin::Latest => end,
                Begin::Offset(offset) => Offset(offset).max(start),
                // The last events are spread evenly over the partitions, as far as anybody can know cheaply.
                Begin::Last(events) => Offset(end.0.saturating_sub(events.div_ceil(share))).max(start),
            };
            readers.push((partition, log.read(&at, from).map_err(log_error)?));
        }
        let left = asked.limit.unwrap_or(if asked.follow { u64::MAX } else { EVENTS_DEFAULT });
        let left = match asked.from {
            Begin::Last(events) if !asked.follow => left.min(events),
            _ => left,
        };
        let encoder = Encoder::new(&spec.schema, Decimals::Numbers);
        let table = match asked.table {
            true if spec.kind == TopicKind::Table => {
                let key = Partitioner::new(&spec.schema, &spec.key, 1);
                Some(key.map_err(|e| ApiError::new(codes::REQUEST_WRONG, format!("topic `{name}`: {e}")))?)
            }
            true => {
                let message = format!("topic `{name}` is a stream: it has events, not a row for each key");
                return Err(ApiError::new(codes::REQUEST_WRONG, message).help("leave `table` away"));
            }
            false => None,
        };
        Ok(Self { readers, schema: spec.schema, encoder, filter, left, table })
    }

    /// Sends lines until there are no more, enough, or nobody listens.
    async fn run(mut self, lines: mpsc::Sender<EventLine>, follow: bool) {
        if let Some(key) = self.table.take() {
            let told = match self.newest(&key).await {
                Ok(newest) => newest,
                Err(error) => vec![EventLine::Error { error }],
            };
            for line in told.into_iter().take(usize::try_from(self.left).unwrap_or(usize::MAX)) {
                if lines.send(line).await.is_err() {
                    return;
                }
            }
            return;
        }
        while self.left > 0 {
            let found = match self.round(&lines).await {
                Ok(Some(found)) => found,
                Ok(None) => return,
                Err(error) => {
                    drop(lines.send(EventLine::Error { error }).await);
                    return;
                }
            };
            if found {
                continue;
            }
            if !follow {
                return;
            }
            let waits = self.readers.iter_mut().map(|(_, reader)| reader.changed());
            tokio::select! {
                _ = futures::future::select_all(waits) => {}
                () = lines.closed() => return,
            }
        }
    }

    /// The newest row of each key, by partition and key.
    async fn newest(&mut self, key: &Partitioner) -> Result<Vec<EventLine>, ApiError> {
        let failed = |e: &dyn std::fmt::Display| ApiError::new("event-unreadable", e.to_string());
        let mut newest: BTreeMap<(u32, Vec<u8>), EventLine> = BTreeMap::new();
        for (partition, reader) in &mut self.readers {
            while let Read::Batch(batch) = reader.next().await.map_err(log_error)? {
                let physical = upgrade(&batch.rows, &self.schema).map_err(|e| failed(&e))?;
                let all = events_of(*partition, &batch, &self.schema, &self.encoder, None)?;
                let mask = self.filter.as_ref().map(|f| f.run(&physical).0);
                for (row, line) in all.into_iter().enumerate() {
                    let Some(key) = key.key_bytes(&physical, row).map_err(|e| failed(&e))? else { continue };
                    let place = (*partition, key);
                    let shown = mask.as_ref().is_none_or(|m| m.is_valid(row) && m.value(row));
                    match line {
                        EventLine::Event { deleted: false, .. } if shown => newest.insert(place, line),
                        _ => newest.remove(&place),
                    };
                    if newest.len() > TABLE_KEYS_MAX {
                        let message = format!("the table has more than {TABLE_KEYS_MAX} rows");
                        return Err(ApiError::new(codes::REQUEST_WRONG, message).help("ask for some with `where`"));
                    }
                }
            }
        }
        Ok(newest.into_values().collect())
    }

    /// One batch of each partition; `None`: nobody listens any more.
    async fn round(&mut self, lines: &mpsc::Sender<EventLine>) -> Result<Option<bool>, ApiError> {
        let mut found = false;
        for (partition, reader) in &mut self.readers {
            let Read::Batch(batch) = reader.next().await.map_err(log_error)? else { continue };
            found = true;
            for line in events_of(*partition, &batch, &self.schema, &self.encoder, self.filter.as_ref())? {
                if self.left == 0 {
                    return Ok(None);
                }
                self.left -= 1;
                if lines.send(line).await.is_err() {
                    return Ok(None);
                }
            }
        }
        Ok(Some(found))
    }
}

fn events_of(
    partition: u32,
    batch: &Batch,
    schema: &Schema,
    encoder: &Encoder,
    filter: Option<&Predicate>,
) -> Result<Vec<EventLine>, ApiError> {
    let failed = |e: &dyn std::fmt::Display| ApiError::new("event-unreadable", e.to_string());
    // A topic may gain columns while it is watched.
    let physical = upgrade(&batch.rows, schema).map_err(|e| failed(&e))?;
    let mask = filter.map(|f| f.run(&physical).0);
    let times = Schema::ingested_at(&physical);
    let stamp = |row: usize| Stamp(times.map_or(0, |t| t.value(row)));
    let rows = schema.user_rows(&physical).map_err(|e| failed(&e))?;
    let mut out = Vec::new();
    for row in 0..rows.num_rows() {
        if mask.as_ref().is_some_and(|m| !(m.is_valid(row) && m.value(row))) {
            continue;
        }
        let text = encoder.encode_row(&rows, row).map_err(|e| failed(&e))?;
        out.push(EventLine::Event {
            partition,
            offset: batch.offset(row).0,
            ingested_at: api_time(stamp(row).micros()),
            deleted: stamp(row).is_deleted(),
            event: RawValue::from_string(text).map_err(|e| failed(&e))?,
        });
    }
    Ok(out)
}

fn unknown(log: &dyn Log, name: &str) -> ApiError {
    let topics = log.topics();
    let known = topics.iter().map(|t| t.spec.name.as_str()).filter(|n| !super::handlers::internal(n));
    let help = names_known(name, "topics", known);
    ApiError::new(codes::TOPIC_UNKNOWN, format!("there is no topic `{name}`")).help(help)
}

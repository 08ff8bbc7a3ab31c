//! The events of a topic, as lines.

use std::collections::VecDeque;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, RecordBatch};
use futures::future::select_all;
use millstream_service::event::json::{Decimals, Encoder};
use millstream_service::event::{Batch, ColumnType, INGESTED_AT, Name, Offset, Schema, TopicPartition};
use millstream_service::flow::{Predicate, plan_predicate};
use millstream_service::log::{Log, Read, Reader};
use serde_json::value::RawValue;

use super::{log_error, topic_unknown};
use crate::api::{ApiError, EventLine, EventsQuery, From, codes};

/// The most events that [`From::Last`] collects.
const LAST_MAX: u64 = 100_000;

/// Reads a topic's events as a query asks: partition by partition in turn, each in its order.
pub struct Events {
    parts: Vec<Part>,
    /// Which part is read next, so that no partition starves the others.
    turn: usize,
    encoder: Encoder,
    times: Encoder,
    predicate: Option<Predicate>,
    /// How many may still be shown.
    left: u64,
    follow: bool,
    ready: VecDeque<EventLine>,
}

struct Part {
    partition: u32,
    reader: Box<dyn Reader>,
    /// Where the topic ended when the query came; without `follow` nothing behind it is shown.
    end: u64,
    done: bool,
}

impl Events {
    /// Begins to read.
    pub async fn open(log: &dyn Log, topic: &str, query: &EventsQuery) -> Result<Self, ApiError> {
        let name = Name::new(topic).map_err(|_| topic_unknown(log, topic))?;
        let info = log.topic(&name).ok_or_else(|| topic_unknown(log, topic))?;
        let schema = &info.spec.schema;
        let predicate = query.filter.as_deref().map(|sql| predicate(sql, schema)).transpose()?;
        let partitions = match query.partition {
            Some(partition) if partition >= info.spec.partitions => {
                let has = format!("`{topic}` has no partition {partition}: it has {}", info.spec.partitions);
                return Err(ApiError::new(codes::REQUEST_WRONG, has).help("partitions count from 0"));
            }
            Some(partition) => partition..partition + 1,
            None => 0..info.spec.partitions,
        };
        let mut parts = Vec::new();
        for partition in partitions {
            let at = TopicPartition::new(name.clone(), partition);
            let start = log.start(&at).await.map_err(|e| log_error(&e))?.0;
            let end = log.end(&at).await.map_err(|e| log_error(&e))?.0;
            let from = match query.from {
                From::Earliest => start,
                From::Latest => end,
                From::Offset(offset) => offset.clamp(start, end.max(start)),
                From::Last(events) => end.saturating_sub(events.min(LAST_MAX)).max(start),
            };
            let reader = log.read(&at, Offset(from)).map_err(|e| log_error(&e))?;
            parts.push(Part { partition, reader, end, done: false });
        }
        let time = Schema::new(vec![millstream_service::event::Column::required("t", ColumnType::Timestamp)]);
        let mut events = Self {
            parts,
            turn: 0,
            encoder: Encoder::new(schema, Decimals::Numbers),
            times: Encoder::new(&time.map_err(|e| log_error(&e))?, Decimals::Numbers),
            predicate,
            left: query.limit.unwrap_or(u64::MAX),
            follow: query.follow,
            ready: VecDeque::new(),
        };
        if let From::Last(count) = query.from {
            events.keep_last(count.min(LAST_MAX)).await?;
        }
        Ok(events)
    }

    /// The next line; `None` at the end, which never comes with `follow` unless there is a limit. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<EventLine>, ApiError> {
        if self.left == 0 {
            return Ok(None);
        }
        loop {
            if let Some(line) = self.ready.pop_front() {
                self.left -= 1;
                return Ok(Some(line));
            }
            if self.step().await? {
                continue;
            }
            if !self.follow {
                return Ok(None);
            }
            select_all(self.parts.iter_mut().map(|part| part.reader.changed())).await;
        }
    }

    /// Reads one batch of one partition; false where no partition has more now.
    async fn step(&mut self) -> Result<bool, ApiError> {
        for _ in 0..self.parts.len() {
            let turn = self.turn % self.parts.len().max(1);
            self.turn = turn + 1;
            let Some(part) = self.parts.get_mut(turn).filter(|part| !part.done) else { continue };
            match part.reader.next().await.map_err(|e| log_error(&e))? {
                Read::AtEnd { .. } => part.done = !self.follow,
                Read::Batch(batch) => {
                    let (partition, end) = (part.partition, part.end);
                    if !self.follow && batch.next().0 >= end {
                        part.done = true;
                    }
                    let shown = if self.follow { u64::MAX } else { end };
                    self.take(partition, &batch, shown)?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn take(&mut self, partition: u32, batch: &Batch, end: u64) -> Result<(), ApiError> {
        let passes = self.predicate.as_ref().map(|p| p.run(&batch.rows).0);
        let ingested = times(&self.times, &batch.rows)?;
        for row in 0..batch.rows.num_rows() {
            let offset = batch.base.0 + row as u64;
            let passes = passes.as_ref().is_none_or(|p| p.is_valid(row) && p.value(row));
            if offset >= end || !passes {
                continue;
            }
            if self.ready.len() as u64 >= self.left {
                break;
            }
            let text = self.encoder.encode_row(&batch.rows, row).map_err(|e| log_error(&e))?;
            self.ready.push_back(EventLine::Event {
                partition,
                offset,
                ingested_at: ingested.get(row).cloned().unwrap_or_default(),
                event: RawValue::from_string(text).map_err(|e| log_error(&e))?,
            });
        }
        Ok(())
    }

    /// Reads to the end and keeps the last lines by their time, over all partitions.
    async fn keep_last(&mut self, count: u64) -> Result<(), ApiError> {
        let (follow, left) = (self.follow, self.left);
        (self.follow, self.left) = (false, u64::MAX);
        while self.step().await? {}
        (self.follow, self.left) = (follow, left);
        self.parts.iter_mut().for_each(|part| part.done = false);
        let lines = self.ready.make_contiguous();
        lines.sort_by(|a, b| time_of(a).cmp(time_of(b)));
        let surplus = self.ready.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
        self.ready.drain(..surplus);
        Ok(())
    }
}

fn time_of(line: &EventLine) -> &str {
    match line {
        EventLine::Event { ingested_at, .. } => ingested_at,
        EventLine::Error { .. } => "",
    }
}

fn predicate(sql: &str, schema: &Schema) -> Result<Predicate, ApiError> {
    plan_predicate(sql, schema).map_err(|errors| {
        let said: Vec<String> = errors.iter().map(|e| e.message.clone()).collect();
        let mut error = ApiError::new(codes::WHERE_WRONG, format!("`{sql}`: {}", said.join("; ")));
        let columns: Vec<&str> = schema.columns().iter().map(|c| c.name.as_str()).collect();
        let near = errors.iter().find_map(|e| e.help.clone());
        let near = near.map(|h| h + "\n").unwrap_or_default();
        error.help = Some(format!("{near}the columns are: {}", columns.join(", ")));
        error
    })
}

/// When each row came in, as RFC 3339.
fn times(encoder: &Encoder, rows: &RecordBatch) -> Result<Vec<String>, ApiError> {
    let Some(column) = rows.column_by_name(INGESTED_AT) else { return Ok(Vec::new()) };
    // The encoder writes times as the topic's JSON form has them; only the text between the quotes is needed.
    if column.as_primitive_opt::<TimestampMicrosecondType>().is_none() {
        return Ok(Vec::new());
    }
    let field = ColumnType::Timestamp.field("t", false);
    let schema = std::sync::Arc::new(arrow_schema::Schema::new(vec![field]));
    let one = RecordBatch::try_new(schema, vec![std::sync::Arc::clone(column)]).map_err(|e| log_error(&e))?;
    let mut text = Vec::new();
    encoder.encode(&one, &mut text).map_err(|e| log_error(&e))?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().map(|line| line.split('"').nth(3).unwrap_or_default().to_owned()).collect())
}

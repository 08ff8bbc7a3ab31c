//! Remembered `Idempotency-Key`s: a request that is sent again counts once.
//!
//! The key, a checksum of the body and the answer are appended to `<source>.idempotency` in the commit of the request's
//! events, so key and events are durable together or not at all. The map in memory is rebuilt from that topic whenever
//! the task is opened. The stored answer says what became of each event but not its offset, which is known only after the
//! commit; an answer given again by the process that made it has the offsets. Where requests are answered with decisions,
//! a repeated one is, too: with the one remembered here, or else with the one that the log has.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use axum::http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::Idempotency;
use super::answer::{Answer, Fault};
use crate::event::{Column, ColumnType, Name, Offset, PartitionId, Schema, TopicPartition};
use crate::service::ConnectError;
use crate::service::log::{Append, Log, Read, Retention, TopicKind, TopicSpec};

/// The longest key, in bytes.
pub(crate) const KEY_BYTES_MAX: usize = 255;
/// A longer answer is remembered without its list of events.
const ANSWER_BYTES_MAX: usize = 4096;
/// The most decisions remembered beside their keys.
const DECISIONS_MAX: usize = 10_000;
/// Keys are kept in the topic a little longer than they count.
const SLACK: Duration = Duration::from_secs(3600);

/// What a request gets.
pub(crate) type Done = Result<Answer, Fault>;

/// A request's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) text: String,
    /// Length and checksum of the body.
    pub(crate) body: String,
}

/// What a key means for a request that has come.
pub(crate) enum Begin {
    /// It is new: go on, and [`Keys::settle`].
    New,
    /// Its first request is on its way: this will be its answer.
    Wait(oneshot::Receiver<Done>),
    /// It was answered.
    Again(Answer),
    /// It came with another body.
    Other,
    /// Too many keys are remembered.
    Full,
}

enum Entry {
    OnItsWay { body: String, waiting: Vec<oneshot::Sender<Done>> },
    Done { body: String, answer: Arc<Answer> },
}

#[derive(Default)]
struct Map {
    entries: HashMap<String, Entry>,
    /// What was decided, by key: the newest ones, for the others are found in the log.
    decided: HashMap<String, Answer>,
    decided_order: VecDeque<String>,
    /// Settled keys with the time (microseconds since 1970) they were settled at, oldest first.
    ages: VecDeque<(i64, String)>,
}

/// The remembered keys of one source.
pub(crate) struct Keys {
    topic: Name,
    schema: Schema,
    settings: Idempotency,
    map: Mutex<Map>,
}

impl Keys {
    pub(crate) fn new(source: &Name, settings: Idempotency) -> Result<Self, ConnectError> {
        let fault = |e: &dyn std::fmt::Display| ConnectError::permanent(format!("remembering keys of `{source}`: {e}"));
        let topic = Name::new(format!("{source}.idempotency")).map_err(|e| fault(&e))?;
        let schema = Schema::new(vec![
            Column::required("key", ColumnType::String),
            Column::required("body", ColumnType::String),
            Column::required("at", ColumnType::Timestamp),
            Column::required("answer", ColumnType::Json),
        ]);
        Ok(Self { topic, schema: schema.map_err(|e| fault(&e))?, settings, map: Mutex::default() })
    }

    /// The topic that keeps them.
    pub(crate) fn topic(&self) -> TopicSpec {
        TopicSpec {
            name: self.topic.clone(),
            partitions: 1,
            key: Vec::new(),
            schema: self.schema.clone(),
            kind: TopicKind::Stream,
            retention: Retention { until_read: false, age: Some(self.settings.ttl + SLACK), max_bytes: None },
            consumers: Vec::new(),
        }
    }

    /// Looks a key up; a new one is noted as on its way.
    pub(crate) fn begin(&self, key: &Key) -> Begin {
        let mut map = self.map.lock();
        self.expire(&mut map);
        let full = map.entries.len() >= self.settings.keys_max;
        match map.entries.get_mut(&key.text) {
            Some(Entry::OnItsWay { body, .. } | Entry::Done { body, .. }) if *body != key.body => Begin::Other,
            Some(Entry::Done { answer, .. }) => Begin::Again(again(answer)),
            Some(Entry::OnItsWay { waiting, .. }) => {
                let (sender, receiver) = oneshot::channel();
                // A waiter is a request, and their number is limited.
                waiting.push(sender);
                Begin::Wait(receiver)
            }
            None if full => Begin::Full,
            None => {
                let entry = Entry::OnItsWay { body: key.body.clone(), waiting: Vec::new() };
                map.entries.insert(key.text.clone(), entry);
                Begin::New
            }
        }
    }

    /// The answer of a key that was committed by an earlier request of which nobody knew.
    pub(crate) fn committed(&self, key: &Key) -> Option<Done> {
        match self.map.lock().entries.get(&key.text) {
            Some(Entry::Done { body, answer }) if *body == key.body => Some(Ok(again(answer))),
            Some(Entry::Done { .. }) => Some(Err(other_body())),
            _ => None,
        }
    }

    /// Notes what became of a key's first request and tells those who wait for it.
    pub(crate) fn settle(&self, key: &Key, done: &Done) {
        let mut map = self.map.lock();
        let Some(Entry::OnItsWay { waiting, .. }) = map.entries.get_mut(&key.text) else { return };
        let waiting = std::mem::take(waiting);
        match done {
            Ok(answer) => self.remember(&mut map, key.clone(), now(), small(answer)),
            Err(_) => drop(map.entries.remove(&key.text)),
        }
        drop(map);
        for waiter in waiting {
            // One who went away needs no answer.
            drop(waiter.send(done.clone().map(|answer| again(&answer))));
        }
    }

    /// Notes the decision that a key's request was answered with.
    pub(crate) fn decide(&self, key: &str, answer: &Answer) {
        let mut map = self.map.lock();
        if map.decided.insert(key.to_owned(), answer.clone()).is_none() {
            map.decided_order.push_back(key.to_owned());
        }
        if map.decided_order.len() > DECISIONS_MAX
            && let Some(oldest) = map.decided_order.pop_front()
        {
            map.decided.remove(&oldest);
        }
    }

    /// The decision that a key's request was answered with, if it is among the newest.
    pub(crate) fn decision(&self, key: &str) -> Option<Answer> {
        self.map.lock().decided.get(key).map(again)
    }

    fn remember(&self, map: &mut Map, key: Key, at: i64, answer: Answer) {
        map.entries.insert(key.text.clone(), Entry::Done { body: key.body, answer: Arc::new(answer) });
        map.ages.push_back((at, key.text));
    }

    fn expire(&self, map: &mut Map) {
        let oldest = now() - i64::try_from(self.settings.ttl.as_micros()).unwrap_or(i64::MAX);
        while let Some((_, key)) = map.ages.pop_front_if(|(at, _)| *at < oldest) {
            if matches!(map.entries.get(&key), Some(Entry::Done { .. })) {
                // A later request with this key is another one. Its place in the order of decisions goes by itself.
                map.entries.remove(&key);
                map.decided.remove(&key);
            }
        }
    }

    /// The append that makes keys durable with their requests' events.
    pub(crate) fn append(&self, log: &dyn Log, keys: &[(Key, Answer)]) -> Result<Option<Append>, ConnectError> {
        if keys.is_empty() {
            return Ok(None);
        }
        let fault = |e: &dyn std::fmt::Display| ConnectError::permanent(format!("remembering keys: {e}"));
        let info = log.topic(&self.topic).ok_or_else(|| fault(&format!("there is no topic `{}`", self.topic)))?;
        let text = |of: &dyn Fn(&(Key, Answer)) -> String| -> ArrayRef {
            Arc::new(keys.iter().map(|k| Some(of(k))).collect::<StringArray>())
        };
        let at = TimestampMicrosecondArray::from(vec![now(); keys.len()]).with_timezone("+00:00");
        let stored = |answer: &Answer| json!({"status": answer.status.as_u16(), "body": answer.body}).to_string();
        let columns: Vec<ArrayRef> = vec![
            text(&|(key, _)| key.text.clone()),
            text(&|(key, _)| key.body.clone()),
            Arc::new(at),
            text(&|(_, answer)| stored(&small(answer))),
        ];
        let rows = RecordBatch::try_new(self.schema.arrow().clone(), columns).map_err(|e| fault(&e))?;
        let rows = self.schema.with_system(&rows, now()).map_err(|e| fault(&e))?;
        let topic = self.topic.clone();
        Ok(Some(Append {
            topic,
            partition: PartitionId(0),
            schema_version: info.schema_version,
            rows,
            watermark: None,
        }))
    }

    /// Reads the topic: every key that still counts is known after it.
    pub(crate) async fn load(&self, log: &dyn Log) -> Result<(), ConnectError> {
        let fault = |e: &dyn std::fmt::Display| ConnectError::temporary(format!("reading `{}`: {e}", self.topic));
        let at = TopicPartition::new(self.topic.clone(), 0);
        let start: Offset = log.start(&at).await.map_err(|e| fault(&e))?;
        let mut reader = log.read(&at, start).map_err(|e| fault(&e))?;
        let oldest = now() - i64::try_from(self.settings.ttl.as_micros()).unwrap_or(i64::MAX);
        while let Read::Batch(batch) = reader.next().await.map_err(|e| fault(&e))? {
            self.load_rows(&batch.rows, oldest);
        }
        Ok(())
    }

    fn load_rows(&self, rows: &RecordBatch, oldest: i64) {
        let text = |name: &str| rows.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
        let at = rows.column_by_name("at").and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        let (Some(keys), Some(bodies), Some(answers), Some(at)) = (text("key"), text("body"), text("answer"), at)
        else {
            return;
        };
        for row in 0..rows.num_rows() {
            if at.value(row) < oldest || keys.is_null(row) {
                continue;
            }
            let key = Key { text: keys.value(row).to_owned(), body: bodies.value(row).to_owned() };
            let mut map = self.map.lock();
            let waiting = match map.entries.get_mut(&key.text) {
                // Known with its offsets already.
                Some(Entry::Done { .. }) => continue,
                Some(Entry::OnItsWay { waiting, .. }) => std::mem::take(waiting),
                None => Vec::new(),
            };
            let answer = parse(answers.value(row));
            self.remember(&mut map, key, at.value(row), answer.clone());
            drop(map);
            for waiter in waiting {
                drop(waiter.send(Ok(again(&answer))));
            }
        }
    }
}

/// The answer for a key that came with another body.
pub(crate) fn other_body() -> Fault {
    Fault::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "idempotency-key-reused",
        "this Idempotency-Key was used with another body; use a new key for a new request",
    )
}

fn parse(stored: &str) -> Answer {
    let value: Value = serde_json::from_str(stored).unwrap_or_default();
    let status =
        value.get("status").and_then(Value::as_u64).and_then(|s| StatusCode::from_u16(u16::try_from(s).ok()?).ok());
    Answer {
        status: status.unwrap_or(StatusCode::OK),
        body: value.get("body").cloned().unwrap_or_default(),
        decision: None,
        again: false,
    }
}

fn again(answer: &Answer) -> Answer {
    Answer { again: true, ..answer.clone() }
}

/// An answer small enough to be remembered.
fn small(answer: &Answer) -> Answer {
    let mut answer = answer.clone();
    if answer.body.to_string().len() > ANSWER_BYTES_MAX
        && let Some(body) = answer.body.as_object_mut()
    {
        body.remove("events");
    }
    answer
}

fn now() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

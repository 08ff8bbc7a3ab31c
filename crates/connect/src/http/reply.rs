//! Answering with decisions: one tail reader per partition of the topics in which decisions appear, shared by all
//! requests.
//!
//! Readers start at the topics' ends before the source appends anything. A request watches its id before it is queued,
//! so its decision cannot be missed. A decision that comes after the time limit is kept for the status address, for
//! [`KEPT_TIME`] and at most [`KEPT_MAX`] of them; across a restart it is not.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use axum::http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::Reply;
use super::answer::{Answer, error};
use crate::encode::user_schema;
use crate::event::{Batch, Name, TopicPartition, json};
use crate::service::ConnectError;
use crate::service::log::{Log, Read};

/// How long the status of an event that was answered with 202 can be asked for.
pub(crate) const KEPT_TIME: Duration = Duration::from_secs(600);
/// The most events whose status can be asked for; the oldest go first.
pub(crate) const KEPT_MAX: usize = 100_000;

/// What the pipeline decided on an event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decision {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
    /// The event that decides, as JSON.
    pub(crate) event: Option<Arc<str>>,
}

impl Decision {
    pub(crate) fn answer(self) -> Answer {
        Answer { status: self.status, body: self.body, decision: self.event, again: false }
    }
}

type Watched = watch::Receiver<Option<Decision>>;

struct Entry {
    sender: watch::Sender<Option<Decision>>,
    /// Requests that watch it, and status addresses that may ask.
    users: usize,
}

#[derive(Default)]
struct Ids {
    ids: HashMap<String, Entry>,
    /// Status addresses and the ids behind them.
    places: HashMap<String, String>,
    kept: VecDeque<(Instant, String)>,
}

/// The ids that somebody waits for.
pub(crate) struct Replies {
    pub(crate) settings: Reply,
    ids: Mutex<Ids>,
    /// Who searches now.
    searches: Semaphore,
}

/// A request's watch on an id; ends when dropped.
pub(crate) struct Watch {
    replies: Arc<Replies>,
    id: String,
    watched: Watched,
}

impl Replies {
    pub(crate) fn new(settings: Reply, requests_max: usize) -> Self {
        let ids = Ids { ids: HashMap::with_capacity(requests_max.min(1024)), ..Ids::default() };
        Self { settings, ids: Mutex::new(ids), searches: Semaphore::new(1) }
    }

    /// Watches the id of the one row of a request; `None` where it has none.
    pub(crate) fn watch(self: &Arc<Self>, rows: &RecordBatch) -> Option<Watch> {
        let id = text(rows.column_by_name(&self.settings.matching)?, 0)?;
        let mut ids = self.ids.lock();
        let entry = ids.ids.entry(id.clone()).or_insert_with(|| Entry { sender: watch::Sender::new(None), users: 0 });
        entry.users += 1;
        let watched = entry.sender.subscribe();
        Some(Watch { replies: Arc::clone(self), id, watched })
    }

    /// What a status address knows: `None` nothing, `Some(None)` not yet decided.
    pub(crate) fn status(&self, place: &str) -> Option<Option<Decision>> {
        let mut ids = self.ids.lock();
        ids.expire();
        let id = ids.places.get(place)?;
        Some(ids.ids.get(id)?.sender.borrow().clone())
    }

    /// Takes the decisions of a batch, or of it only the one on the id `only`.
    fn seen(&self, topic: &Name, letters: bool, batch: &Batch, lines: &mut Lines, only: Option<&str>) {
        if self.ids.lock().ids.is_empty() {
            return;
        }
        let Some(column) = batch.rows.column_by_name(if letters { "event" } else { &self.settings.matching }) else {
            return;
        };
        for row in 0..batch.rows.num_rows() {
            let Some(id) = text(column, row) else { continue };
            let id = if letters { self.id_in(&id) } else { Some(id) };
            let asked = |id: &String| only.is_none_or(|only| only == id);
            let Some(id) = id.filter(|id| asked(id) && self.is_wanted(id)) else { continue };
            let decision =
                if letters { letter(topic, batch, row) } else { decision(topic, lines.line(&batch.rows, row)) };
            if let Some(entry) = self.ids.lock().ids.get(&id) {
                // The first decision counts.
                entry.sender.send_if_modified(|known| {
                    let first = known.is_none();
                    if first {
                        *known = Some(decision);
                    }
                    first
                });
            }
        }
    }

    /// Whether somebody waits for the decision on an id.
    fn is_wanted(&self, id: &str) -> bool {
        self.ids.lock().ids.get(id).is_some_and(|entry| entry.sender.borrow().is_none())
    }

    /// Looks for the decision on a watched id among those that came before it was watched, as long as somebody waits.
    /// One search at a time: each reads what the log keeps of the topics.
    async fn search(self: Arc<Self>, log: Arc<dyn Log>, id: String) {
        let Ok(_turn) = self.searches.acquire().await else { return };
        let decisions = self.settings.from.iter().map(|topic| (topic, false));
        let letters = self.settings.dead_letters.iter().map(|topic| (topic, true));
        for (topic, letters) in decisions.chain(letters) {
            for partition in 0..log.topic(topic).map_or(0, |info| info.spec.partitions) {
                if let Err(error) = self.search_partition(log.as_ref(), topic, partition, letters, &id).await {
                    // Whoever waits is answered at the time limit.
                    tracing::warn!(%topic, partition, %error, "looking for an earlier decision");
                }
            }
        }
    }

    async fn search_partition(
        &self,
        log: &dyn Log,
        topic: &Name,
        partition: u32,
        letters: bool,
        id: &str,
    ) -> Result<(), crate::service::log::Error> {
        let at = TopicPartition::new(topic.clone(), partition);
        let start = log.start(&at).await?;
        let mut reader = log.read(&at, start)?;
        let mut lines = Lines::default();
        while self.is_wanted(id)
            && let Read::Batch(batch) = reader.next().await?
        {
            self.seen(topic, letters, &batch, &mut lines, Some(id));
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// The id in a dead letter's event.
    fn id_in(&self, event: &str) -> Option<String> {
        match serde_json::from_str::<Value>(event).ok()?.get(&self.settings.matching)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }
}

impl Ids {
    fn leave(&mut self, id: &str) {
        if let Some(entry) = self.ids.get_mut(id) {
            entry.users -= 1;
            if entry.users == 0 {
                self.ids.remove(id);
            }
        }
    }

    fn expire(&mut self) {
        while self.kept.len() > KEPT_MAX || self.kept.front().is_some_and(|(since, _)| since.elapsed() > KEPT_TIME) {
            let Some((_, place)) = self.kept.pop_front() else { break };
            if let Some(id) = self.places.remove(&place) {
                self.leave(&id);
            }
        }
    }
}

impl Watch {
    /// Waits for the decision until a time.
    pub(crate) async fn decision(&mut self, until: tokio::time::Instant) -> Option<Decision> {
        let decided = self.watched.wait_for(Option::is_some);
        tokio::time::timeout_at(until, decided).await.ok()?.ok().and_then(|d| d.clone())
    }

    /// Looks for a decision that came before the watch began; [`Watch::decision`] then has it.
    pub(crate) fn look_back(&self, log: &Arc<dyn Log>) {
        if self.watched.borrow().is_none() {
            tokio::spawn(Arc::clone(&self.replies).search(Arc::clone(log), self.id.clone()));
        }
    }

    /// Keeps the id for a status address.
    pub(crate) fn keep(&self, place: String) {
        let mut ids = self.replies.ids.lock();
        ids.expire();
        if ids.places.insert(place.clone(), self.id.clone()).is_none() {
            ids.kept.push_back((Instant::now(), place));
            if let Some(entry) = ids.ids.get_mut(&self.id) {
                entry.users += 1;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.replies.ids.lock().leave(&self.id);
    }
}

/// The running tail readers; dropping it ends them.
pub(crate) struct Tails {
    _tasks: JoinSet<()>,
}

impl Tails {
    /// Starts a reader at the end of every partition.
    pub(crate) async fn start(replies: &Arc<Replies>, log: &Arc<dyn Log>) -> Result<Self, ConnectError> {
        let mut tasks = JoinSet::new();
        let decisions = replies.settings.from.iter().map(|topic| (topic, false));
        let letters = replies.settings.dead_letters.iter().map(|topic| (topic, true));
        for (topic, letters) in decisions.chain(letters) {
            let info = log.topic(topic);
            let info = info.ok_or_else(|| ConnectError::temporary(format!("`reply` waits for topic `{topic}`")))?;
            for partition in 0..info.spec.partitions {
                let at = TopicPartition::new(topic.clone(), partition);
                let fault = |e| ConnectError::temporary(format!("reading {at} for replies: {e}"));
                let end = log.end(&at).await.map_err(fault)?;
                let reader = log.read(&at, end).map_err(fault)?;
                tasks.spawn(tail(Arc::clone(replies), at.clone(), letters, reader));
            }
        }
        Ok(Self { _tasks: tasks })
    }
}

async fn tail(
    replies: Arc<Replies>,
    at: TopicPartition,
    letters: bool,
    mut reader: Box<dyn crate::service::log::Reader>,
) {
    let mut lines = Lines::default();
    loop {
        match reader.next().await {
            Ok(Read::Batch(batch)) => replies.seen(&at.topic, letters, &batch, &mut lines, None),
            Ok(Read::AtEnd { .. }) => reader.changed().await,
            Err(e) => {
                // Only a log that has stopped or lost its files says so; requests then end at their time limit.
                tracing::warn!(partition = %at, error = %e, "replies from this partition end");
                return;
            }
        }
    }
}

/// Writes events as JSON, with the encoder of the columns that it saw last.
#[derive(Default)]
struct Lines {
    known: Option<(SchemaRef, json::Encoder)>,
}

impl Lines {
    fn line(&mut self, rows: &RecordBatch, row: usize) -> Option<Arc<str>> {
        let columns = rows.schema_ref();
        if self.known.as_ref().is_none_or(|(known, _)| !Arc::ptr_eq(known, columns)) {
            let encoder = json::Encoder::new(&user_schema(columns).ok()?, json::Decimals::default());
            self.known = Some((Arc::clone(columns), encoder));
        }
        let (_, encoder) = self.known.as_ref()?;
        encoder.encode_row(rows, row).ok().map(Arc::from)
    }
}

fn decision(topic: &Name, event: Option<Arc<str>>) -> Decision {
    Decision { status: StatusCode::OK, body: json!({"topic": topic.as_str()}), event }
}

fn letter(topic: &Name, batch: &Batch, row: usize) -> Decision {
    let cell = |name: &str| batch.rows.column_by_name(name).and_then(|c| text(c, row)).unwrap_or_default();
    let rules = batch.rows.column_by_name("rules").and_then(|c| c.as_list_opt::<i32>()).filter(|r| r.is_valid(row));
    let rules: Vec<String> = rules.map_or_else(Vec::new, |rules| {
        let rules = rules.value(row);
        (0..rules.len()).filter_map(|i| text(&rules, i)).collect()
    });
    let body = json!({
        "error": error(&cell("code"), &cell("reason")),
        "rules": rules,
        "service": cell("service"),
        "dead_letter": topic.as_str(),
    });
    Decision { status: StatusCode::UNPROCESSABLE_ENTITY, body, event: None }
}

/// The value of a string or an integer column as text.
fn text(column: &ArrayRef, row: usize) -> Option<String> {
    if column.is_null(row) {
        return None;
    }
    if let Some(strings) = column.as_string_opt::<i32>() {
        return Some(strings.value(row).to_owned());
    }
    if let Some(numbers) = column.as_primitive_opt::<Int64Type>() {
        return Some(numbers.value(row).to_string());
    }
    column.as_primitive_opt::<Int32Type>().map(|numbers| numbers.value(row).to_string())
}

//! Looking after dead letters: list and show from the log alone, replay and discard through the one task that owns them.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use millstream_event::json::{Decimals, Encoder};
use millstream_event::{Batch, Name, Offset, Stamp, TopicPartition};
use millstream_log::{Append, Change, Class, Clock, Commit, Join, Lead, Log, Outcome, Read, Reader, Task};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Error;
use crate::clock::unique_id;
use crate::dead_letter::{Topics, command_schema};
pub use crate::open_letters::{OpenLetters, open_letters};

/// How long a command may take before its caller is told that it is still at work.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The most refusals that an answer lists.
const REFUSALS_MAX: usize = 1000;

/// The most letters that one [`list`] gives.
pub const LIST_MAX: usize = 10_000;

/// A letter's id: its place in the dead-letter topic, written `<partition>-<offset>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LetterId {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.partition, self.offset)
    }
}

impl FromStr for LetterId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts = text.split_once('-').and_then(|(p, o)| Some((p.parse().ok()?, o.parse().ok()?)));
        let wrong = || Error::Refused(format!("`{text}` is no letter's id; an id looks like 3-17, see `dlq list`"));
        parts.map(|(partition, offset)| Self { partition, offset }).ok_or_else(wrong)
    }
}

impl Serialize for LetterId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LetterId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Which letters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Select {
    /// These; empty: all that are there now, and for a replay or discard only those that are open.
    pub ids: Vec<LetterId>,
    /// Of these only those with this code.
    pub code: Option<String>,
    /// Of these only those that broke this rule.
    pub rule: Option<String>,
    /// Of these only those with this status (for [`list`]).
    pub status: Option<LetterStatus>,
}

/// What was done with a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LetterStatus {
    /// Nothing yet.
    Open,
    /// Its event went the same way again.
    Replayed,
    /// It was put away.
    Discarded,
}

/// What to do with letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Send the events the same way again, into the component that refused them and into no other.
    Replay,
    /// Put the letters away.
    Discard,
}

/// A letter, for people and for the node's HTTP API.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LetterView {
    /// Its id.
    pub id: LetterId,
    /// What was done with it.
    pub status: LetterStatus,
    /// All columns of the dead-letter topic, as a JSON object.
    pub letter: Box<RawValue>,
}

/// What became of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The command's id.
    pub command: String,
    /// How many letters were replayed or discarded.
    pub done: u64,
    /// How many were not.
    pub refused: u64,
    /// The first of these, each with the reason.
    pub refusals: Vec<(LetterId, String)>,
}

/// Letters of a service or a source, oldest first within each partition, at most `limit` (and [`LIST_MAX`]). Reads the
/// log only, so it works on a running node and on the opened log of a stopped one.
pub async fn list(log: &dyn Log, name: &Name, select: &Select, limit: usize) -> Result<Vec<LetterView>, Error> {
    let topics = topics(name)?;
    let info = log.topic(&topics.letters).ok_or_else(|| none(name))?;
    let statuses = Statuses::read(log, &topics.status).await?;
    let encoder = Encoder::new(&info.spec.schema, Decimals::Numbers);
    let mut views = Vec::new();
    for range in ranges(log, &topics.letters, &select.ids).await? {
        let mut letters = Letters::open(log, &topics.letters, range).await?;
        while let Some(batch) = letters.next().await? {
            let rows = &batch.rows;
            for row in 0..rows.num_rows() {
                let id = LetterId { partition: range.partition, offset: batch.offset(row).0 };
                let status = statuses.of(id);
                if !matches(rows, row, select) || select.status.is_some_and(|wanted| wanted != status) {
                    continue;
                }
                if views.len() >= limit.min(LIST_MAX) {
                    return Ok(views);
                }
                let text = encoder.encode_row(rows, row).map_err(|e| Error::Refused(e.to_string()))?;
                let letter = RawValue::from_string(text).map_err(|e| Error::Refused(e.to_string()))?;
                views.push(LetterView { id, status, letter });
            }
        }
    }
    Ok(views)
}

/// One letter; `None` where there is none of this id (any more).
pub async fn show(log: &dyn Log, name: &Name, id: LetterId) -> Result<Option<LetterView>, Error> {
    let select = Select { ids: vec![id], ..Select::default() };
    Ok(list(log, name, &select, 1).await?.pop())
}

/// Appends a command for the letters' owner and waits for its answer.
pub(crate) async fn command(
    log: &dyn Log,
    clock: &dyn Clock,
    name: &Name,
    action: Action,
    select: &Select,
) -> Result<Answer, Error> {
    let topics = topics(name)?;
    let order = Order {
        action,
        ranges: ranges(log, &topics.letters, &select.ids).await?,
        exact: !select.ids.is_empty(),
        code: select.code.clone(),
        rule: select.rule.clone(),
    };
    let status = TopicPartition::new(topics.status.clone(), 0);
    let reader = log.read(&status, log.end(&status).await?)?;
    let id = unique_id(clock);
    let sent = tokio::time::timeout(ANSWER_WITHIN, send(log, clock, &topics, &id, &order)).await;
    sent.map_err(|_| Error::Timeout(format!("the log's `{}`", topics.commands)))??;
    let answered = tokio::time::timeout(ANSWER_WITHIN, answer(reader, &id)).await;
    answered.map_err(|_| Error::Timeout(format!("the owner of `{}`", topics.letters)))?
}

/// A command as it stands in the commands' topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) action: Action,
    pub(crate) ranges: Vec<Range>,
    /// The ranges are single letters; one that is not there is worth an answer.
    pub(crate) exact: bool,
    pub(crate) code: Option<String>,
    pub(crate) rule: Option<String>,
}

/// Offsets `from..to` of a partition of the letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Range {
    pub(crate) partition: u32,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

fn topics(name: &Name) -> Result<Topics, Error> {
    Topics::of(name).map_err(|e| Error::Refused(e.to_string()))
}

fn none(name: &Name) -> Error {
    Error::Refused(format!("`{name}` has no dead letters: no service or source of this name has run"))
}

pub(crate) async fn ranges(log: &dyn Log, letters: &Name, ids: &[LetterId]) -> Result<Vec<Range>, Error> {
    let single = |id: &LetterId| Range { partition: id.partition, from: id.offset, to: id.offset.saturating_add(1) };
    if !ids.is_empty() {
        return Ok(ids.iter().map(single).collect());
    }
    let info = log.topic(letters).ok_or_else(|| none(letters))?;
    let mut ranges = Vec::new();
    for partition in 0..info.spec.partitions {
        let at = TopicPartition::new(letters.clone(), partition);
        ranges.push(Range { partition, from: log.start(&at).await?.0, to: log.end(&at).await?.0 });
    }
    Ok(ranges)
}

async fn send(log: &dyn Log, clock: &dyn Clock, topics: &Topics, id: &str, order: &Order) -> Result<(), Error> {
    let text = serde_json::to_string(order).map_err(|e| Error::Refused(e.to_string()))?;
    let action = if order.action == Action::Replay { "replay" } else { "discard" };
    let time =
        |micros: i64| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(vec![micros]).with_timezone("+00:00")) };
    let now_us = clock.now_us();
    let one = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
    let columns: Vec<ArrayRef> = vec![one(id), time(now_us), one(action), one(&text), time(Stamp::at(now_us).0)];
    let rows = RecordBatch::try_new(Arc::clone(command_schema().physical()), columns);
    let rows = rows.map_err(|e| Error::Refused(e.to_string()))?;
    let info = log.topic(&topics.commands).ok_or_else(|| none(&topics.commands))?;
    let join = Join { service: topics.commands.clone(), instance: 0, lead: Lead::Tasks(1) };
    loop {
        let mut membership = log.join(join.clone())?;
        let Some(task) = assigned(membership.next().await) else { continue };
        let append = Append {
            topic: topics.commands.clone(),
            partition: millstream_event::PartitionId(0),
            schema_version: info.schema_version,
            rows: rows.clone(),
            watermark: None,
        };
        let (task, epoch) = (task.id, task.epoch);
        let commit = Commit { task, epoch, class: Class::Processing, consumed: vec![], appends: vec![append] };
        match log.commit(commit).await {
            Outcome::Committed(_) => return Ok(()),
            // Another operator joined at the same moment; commands are short, so it is our turn soon.
            Outcome::Fenced => tokio::task::yield_now().await,
            Outcome::Aborted(reason) => return Err(Error::Refused(reason.to_string())),
            Outcome::Unknown(reason) => return Err(Error::Refused(format!("it may have been taken: {reason}"))),
        }
    }
}

fn assigned(change: Change) -> Option<Task> {
    match change {
        Change::Assigned(tasks) => tasks.into_iter().next(),
        _ => None,
    }
}

/// Collects what is said about a command until it is done.
async fn answer(mut reader: Box<dyn Reader>, id: &str) -> Result<Answer, Error> {
    let mut answer = Answer { command: id.to_owned(), ..Answer::default() };
    loop {
        let batch = match reader.next().await? {
            Read::Batch(batch) => batch,
            Read::AtEnd { .. } => {
                reader.changed().await;
                continue;
            }
        };
        for said in said(&batch.rows).filter(|said| said.command == id) {
            match (said.letter, said.outcome) {
                (_, "done") => return Ok(answer),
                (Some(letter), "refused") => {
                    answer.refused += 1;
                    if answer.refusals.len() < REFUSALS_MAX {
                        answer.refusals.push((letter, said.reason.unwrap_or("").to_owned()));
                    }
                }
                _ => answer.done += 1,
            }
        }
    }
}

/// One row of a status topic.
struct Said<'a> {
    command: &'a str,
    letter: Option<LetterId>,
    outcome: &'a str,
    reason: Option<&'a str>,
}

fn said(rows: &RecordBatch) -> impl Iterator<Item = Said<'_>> {
    let text = |name| rows.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
    let partition = rows.column_by_name("partition").and_then(|c| c.as_primitive_opt::<Int32Type>());
    let offset = rows.column_by_name("offset").and_then(|c| c.as_primitive_opt::<Int64Type>());
    let (command, outcome, reason) = (text("command"), text("outcome"), text("reason"));
    (0..rows.num_rows()).filter_map(move |row| {
        let (partition, offset) = (partition?, offset?);
        let letter = (partition.is_valid(row) && offset.is_valid(row)).then(|| LetterId {
            partition: partition.value(row).unsigned_abs(),
            offset: offset.value(row).unsigned_abs(),
        });
        let reason = reason.filter(|r| r.is_valid(row)).map(|r| r.value(row));
        Some(Said { command: command?.value(row), letter, outcome: outcome?.value(row), reason })
    })
}

/// What was done with each letter, and by which command: the status topic read from its start. Takes about 50 bytes for
/// each letter replayed or discarded within their retention.
#[derive(Debug, Default)]
pub(crate) struct Statuses(HashMap<LetterId, (LetterStatus, Arc<str>)>);

impl Statuses {
    pub(crate) async fn read(log: &dyn Log, status: &Name) -> Result<Self, Error> {
        let at = TopicPartition::new(status.clone(), 0);
        let mut reader = log.read(&at, log.start(&at).await?)?;
        let mut statuses = Self::default();
        while let Read::Batch(batch) = reader.next().await? {
            for said in said(&batch.rows) {
                let status = match said.outcome {
                    "replayed" => LetterStatus::Replayed,
                    "discarded" => LetterStatus::Discarded,
                    _ => continue,
                };
                if let Some(letter) = said.letter {
                    statuses.0.insert(letter, (status, said.command.into()));
                }
            }
        }
        Ok(statuses)
    }

    pub(crate) fn of(&self, letter: LetterId) -> LetterStatus {
        self.0.get(&letter).map_or(LetterStatus::Open, |(status, _)| *status)
    }

    pub(crate) fn command(&self, letter: LetterId) -> Option<&str> {
        self.0.get(&letter).map(|(_, command)| &**command)
    }

    pub(crate) fn set(&mut self, letter: LetterId, status: LetterStatus, command: &str) {
        self.0.insert(letter, (status, command.into()));
    }
}

/// Reads letters of one range.
pub(crate) struct Letters {
    reader: Box<dyn Reader>,
    to: u64,
}

impl Letters {
    pub(crate) async fn open(log: &dyn Log, letters: &Name, range: Range) -> Result<Self, Error> {
        let at = TopicPartition::new(letters.clone(), range.partition);
        let start = log.start(&at).await?;
        // Letters that are gone are not found, and one behind the end is not waited for.
        let end = log.end(&at).await?;
        let from = Offset(range.from).clamp(start, end.max(start));
        let to = if range.from < start.0 { range.to.max(start.0) } else { range.to };
        Ok(Self { reader: log.read(&at, from)?, to: to.min(end.0) })
    }

    /// The next letters, at least one.
    pub(crate) async fn next(&mut self) -> Result<Option<Batch>, Error> {
        loop {
            let Read::Batch(batch) = self.reader.next().await? else { return Ok(None) };
            let batch = batch.before_offset(Offset(self.to));
            if batch.rows.num_rows() > 0 {
                return Ok(Some(batch));
            }
            if batch.base.0 >= self.to {
                return Ok(None);
            }
        }
    }
}

/// Whether a letter has the code and the rule asked for.
pub(crate) fn matches(rows: &RecordBatch, row: usize, select: &Select) -> bool {
    has(rows, row, select.code.as_deref(), select.rule.as_deref())
}

/// Whether a letter has this code and broke this rule.
pub(crate) fn has(rows: &RecordBatch, row: usize, code: Option<&str>, rule: Option<&str>) -> bool {
    let has_code = code.is_none_or(|code| text(rows, "code", row) == Some(code));
    has_code
        && rule.is_none_or(|rule| {
            let rules = rows.column_by_name("rules").and_then(|c| c.as_list_opt::<i32>());
            rules.filter(|list| list.is_valid(row)).is_some_and(|list| {
                list.value(row).as_string_opt::<i32>().is_some_and(|names| names.iter().flatten().any(|n| n == rule))
            })
        })
}

/// A text of a row.
pub(crate) fn text<'a>(rows: &'a RecordBatch, column: &str, row: usize) -> Option<&'a str> {
    let texts = rows.column_by_name(column)?.as_string_opt::<i32>()?;
    texts.is_valid(row).then(|| texts.value(row))
}

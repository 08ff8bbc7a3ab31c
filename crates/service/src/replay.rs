//! The one owner of a component's dead letters: carries out commands, each letter at most once.
//!
//! For a letter of a service, one commit says `replayed` and appends the event to `<service>.replay`, which that service
//! alone reads. For a letter of a source, the raw bytes are decoded again and the same commit appends the event to the
//! source's topic, or a new letter where it is refused again. After a crash the command is taken up where it was left:
//! letters marked by the same command are passed over.

use std::sync::Arc;

use arrow_array::builder::{Int32Builder, Int64Builder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use bytes::Bytes;
use futures::future::BoxFuture;
use millstream_event::json::Decoder;
use millstream_event::{Name, PartitionId, Stamp, Unknown};
use millstream_log::{Append, Consumed, Log, TaskId, TopicInfo};

use crate::Error;
use crate::control::Leave;
use crate::dead_letter::{Topics, replay_schema, status_schema};
use crate::dead_letters::{Action, LetterId, LetterStatus, Letters, Order, Statuses, has, text};
use crate::def::SourceDef;
use crate::entry;
use crate::flight::{commit_of, judge};
use crate::inputs::{Inputs, extend};
use crate::lateness::Lateness;
use crate::letters::{Letter, Sender};
use crate::meters::Tally;
use crate::placing::Outlet;
use crate::source::Refusal;
use crate::status::State;
use crate::task::{Context, End, Fault, Job};

/// How many letters one commit carries.
const LETTERS_PER_COMMIT: usize = 512;

/// The owner of a service's letters.
pub(crate) fn of_service(topics: Topics) -> Arc<dyn Job> {
    Arc::new(Owner { topics, source: None })
}

/// The owner of a source's letters.
pub(crate) fn of_source(topics: Topics, def: SourceDef, to: &TopicInfo) -> Arc<dyn Job> {
    let sender = Sender::new(&def.name, &def.version);
    Arc::new(Owner { topics, source: Some(OfSource { def, planned: to.clone(), sender }) })
}

struct Owner {
    topics: Topics,
    source: Option<OfSource>,
}

struct OfSource {
    def: SourceDef,
    planned: TopicInfo,
    sender: Sender,
}

impl OfSource {
    /// What the task has promised whose letters stand in a partition; `None`: there is no event time.
    async fn promised(&self, log: &dyn Log, partition: u32) -> Result<Option<Lateness>, Fault> {
        let Some(time) = &self.def.event_time else { return Ok(None) };
        let task = TaskId { service: self.def.name.clone(), partition: PartitionId(partition) };
        entry::stored(log, time, &task).await.map(|(lateness, _)| Some(lateness))
    }
}

impl Job for Owner {
    fn run(self: Arc<Self>, context: Context) -> BoxFuture<'static, Result<End, Fault>> {
        Box::pin(async move { Running::open(&self, context).await?.run().await })
    }
}

struct Running<'a> {
    owner: &'a Owner,
    context: Context,
    inputs: Inputs,
    statuses: Statuses,
}

/// What one commit will say and do.
#[derive(Default)]
struct Chunk {
    said: Vec<(Option<LetterId>, &'static str, Option<String>)>,
    marked: Vec<LetterId>,
    /// Events for the service's replay topic: the letter, its rows and the row.
    events: Vec<(LetterId, RecordBatch, usize)>,
    /// Appends to the source's topic.
    appends: Vec<Append>,
    /// New letters, by partition.
    letters: Vec<(u32, Letter)>,
}

fn trouble(error: &Error) -> Fault {
    match error {
        Error::Log(error) => Fault::log(error),
        error => Fault::Failed(error.to_string()),
    }
}

impl<'a> Running<'a> {
    async fn open(owner: &'a Owner, context: Context) -> Result<Self, Fault> {
        let log = context.log.as_ref();
        let statuses = Statuses::read(log, &owner.topics.status).await.map_err(|e| trouble(&e))?;
        let inputs = Inputs::open(log, &context.task.id, std::slice::from_ref(&owner.topics.commands)).await?;
        context.shared.set(State::Running);
        Ok(Self { owner, context, inputs, statuses })
    }

    async fn run(mut self) -> Result<End, Fault> {
        loop {
            if self.context.control.leave() != Leave::Stay {
                return Ok(End::Left);
            }
            let runs = self.inputs.gather(1).await?;
            if runs.is_empty() {
                tokio::select! {
                    () = self.inputs.changed() => {}
                    () = self.context.control.changed() => {}
                }
                continue;
            }
            for run in runs {
                let commands = run.batches.iter().flat_map(|b| (0..b.rows.num_rows()).map(|row| (&b.rows, row)));
                let commands: Vec<(String, Option<Order>)> = commands
                    .map(|(rows, row)| {
                        let order = text(rows, "selection", row).and_then(|text| serde_json::from_str(text).ok());
                        (text(rows, "id", row).unwrap_or("").to_owned(), order)
                    })
                    .collect();
                let mut consumed = Vec::new();
                extend(&mut consumed, run.consumed);
                let last = commands.len().saturating_sub(1);
                for (i, (id, order)) in commands.into_iter().enumerate() {
                    let consumed = if i == last { std::mem::take(&mut consumed) } else { Vec::new() };
                    self.carry_out(&id, order, consumed).await?;
                }
                // Only positions moved.
                if !consumed.is_empty() {
                    self.commit("", Chunk::default(), consumed).await?;
                }
            }
        }
    }

    async fn carry_out(&mut self, id: &str, order: Option<Order>, consumed: Vec<Consumed>) -> Result<(), Fault> {
        let mut chunk = Chunk::default();
        let Some(order) = order else {
            chunk.said.push((None, "done", Some("the command cannot be read".to_owned())));
            return self.commit(id, chunk, consumed).await;
        };
        for range in &order.ranges {
            let log = Arc::clone(&self.context.log);
            let mut found = false;
            let lateness = match &self.owner.source {
                Some(source) => source.promised(log.as_ref(), range.partition).await?,
                None => None,
            };
            let letters = Letters::open(log.as_ref(), &self.owner.topics.letters, *range).await;
            // A partition that the topic does not have has no letters.
            let mut letters = match letters {
                Ok(letters) => Some(letters),
                Err(Error::Log(millstream_log::Error::UnknownPartition(_))) => None,
                Err(error) => return Err(trouble(&error)),
            };
            while let Some(batch) = match &mut letters {
                Some(letters) => letters.next().await.map_err(|e| trouble(&e))?,
                None => None,
            } {
                let rows = &batch.rows;
                for row in 0..rows.num_rows() {
                    found = true;
                    let letter = LetterId { partition: range.partition, offset: batch.offset(row).0 };
                    // Of letters not asked for by name only the open ones are meant.
                    let meant = order.exact || self.statuses.of(letter) == LetterStatus::Open;
                    if meant && has(rows, row, order.code.as_deref(), order.rule.as_deref()) {
                        let letter = (letter, lateness.as_ref());
                        self.decide(id, order.action, letter, rows, row, &mut chunk);
                    }
                    if chunk.said.len() >= LETTERS_PER_COMMIT {
                        self.commit(id, std::mem::take(&mut chunk), Vec::new()).await?;
                    }
                }
            }
            if !found && order.exact {
                let letter = LetterId { partition: range.partition, offset: range.from };
                chunk.said.push((Some(letter), "refused", Some("there is no such letter (any more)".to_owned())));
            }
        }
        chunk.said.push((None, "done", None));
        self.commit(id, chunk, consumed).await
    }

    /// Adds to the chunk what becomes of one letter.
    fn decide(
        &self,
        command: &str,
        action: Action,
        (letter, lateness): (LetterId, Option<&Lateness>),
        rows: &RecordBatch,
        row: usize,
        chunk: &mut Chunk,
    ) {
        let refuse = |chunk: &mut Chunk, why: &str| chunk.said.push((Some(letter), "refused", Some(why.to_owned())));
        if self.statuses.command(letter) == Some(command) || chunk.marked.contains(&letter) {
            return;
        }
        match (self.statuses.of(letter), action) {
            (LetterStatus::Replayed, _) => return refuse(chunk, "it was replayed already"),
            // Whoever gave a letter up was told that this is for good.
            (LetterStatus::Discarded, _) => return refuse(chunk, "it was discarded already"),
            (LetterStatus::Open, _) => {}
        }
        if action == Action::Discard {
            chunk.said.push((Some(letter), "discarded", None));
            return chunk.marked.push(letter);
        }
        let done = match &self.owner.source {
            None if text(rows, "event", row).is_some() => {
                chunk.events.push((letter, rows.clone(), row));
                Ok(())
            }
            None => Err("it has no event that could be sent again".to_owned()),
            Some(source) => self.again(source, (letter, lateness), rows, row, chunk),
        };
        match done {
            Ok(()) => {
                chunk.said.push((Some(letter), "replayed", None));
                chunk.marked.push(letter);
            }
            Err(why) => refuse(chunk, &why),
        }
    }

    /// Sends a source's refused event into the source's topic again, or makes a new letter of it.
    fn again(
        &self,
        source: &OfSource,
        (letter, lateness): (LetterId, Option<&Lateness>),
        rows: &RecordBatch,
        row: usize,
        chunk: &mut Chunk,
    ) -> Result<(), String> {
        let schema = &source.planned.spec.schema;
        let raw = rows.column_by_name("raw").and_then(|c| c.as_binary_opt::<i32>()).filter(|c| c.is_valid(row));
        let raw = raw.map(|c| Bytes::copy_from_slice(c.value(row)));
        let event = text(rows, "event", row);
        let decoded: Result<RecordBatch, Refusal> = match (&raw, event) {
            (Some(raw), _) => source.def.source.redecode(raw).ok_or("this source cannot decode an event again")?,
            (None, Some(event)) => {
                let decoded = Decoder::new(schema, Unknown::Drop).decode_lines(event.as_bytes());
                let decoded = decoded.map_err(|e| e.to_string())?;
                match decoded.refused.into_iter().next() {
                    Some(refused) => Err(Refusal { code: refused.code.as_str(), reason: refused.reason }),
                    None => Ok(decoded.rows),
                }
            }
            (None, None) => return Err("it has no event that could be sent again".to_owned()),
        };
        let times = rows.column_by_name("ingested_at").and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        let now_us = self.context.clock.now_us();
        let time = times.filter(|t| t.is_valid(row)).map_or_else(|| Stamp::at(now_us).0, |t| t.value(row));
        let stamped = match decoded {
            Err(refusal) => Err(refusal),
            // An event that was ahead of its time may have been caught up with.
            Ok(decoded) => match (lateness, &source.def.event_time) {
                (Some(lateness), Some(def)) => entry::again(lateness, &def.column, &decoded, Stamp(time), now_us)?
                    .map(|stamp| (decoded, stamp))
                    .map_err(|(code, reason)| Refusal { code, reason }),
                _ => Ok((decoded, Stamp(time))),
            },
        };
        let refusal = match stamped {
            Err(refusal) => Some(refusal),
            Ok((decoded, stamp)) => {
                let info = self.context.log.topic(&source.def.to).ok_or("the source's topic is gone")?;
                let outlet = Outlet::new(info, schema, false)?;
                let physical = schema.with_system(&decoded, stamp.0).map_err(|e| e.to_string())?;
                let from = PartitionId(letter.partition);
                let placing = outlet.place(&physical, from).map_err(|e| e.to_string())?;
                let refused = placing.refused.into_iter().next();
                if refused.is_none() {
                    chunk.appends.extend(placing.placed.into_iter().map(|placed| Append {
                        topic: outlet.info.spec.name.clone(),
                        partition: placed.partition,
                        schema_version: outlet.info.schema_version,
                        rows: placed.rows,
                        watermark: None,
                    }));
                }
                refused.map(|(_, code, reason)| Refusal { code, reason })
            }
        };
        if let Some(refusal) = refusal {
            let attempts = rows.column_by_name("attempts").and_then(|c| c.as_primitive_opt::<Int32Type>());
            let attempts = attempts.map_or(1, |a| a.value(row).unsigned_abs());
            let new = Letter {
                code: refusal.code.to_owned(),
                reason: refusal.reason,
                place: text(rows, "place", row).map(str::to_owned),
                event: event.map(str::to_owned),
                raw,
                ingested_at: Some(time),
                attempts,
                replayed_of: Some(letter.to_string()),
                ..Letter::default()
            };
            chunk.letters.push((letter.partition, new));
        }
        Ok(())
    }

    async fn commit(&mut self, command: &str, chunk: Chunk, consumed: Vec<Consumed>) -> Result<(), Fault> {
        let mut commit = commit_of(&self.context);
        commit.consumed = consumed;
        let broken = |e: arrow_schema::ArrowError| Fault::Failed(e.to_string());
        let log = &self.context.log;
        let version = |topic: &Name| log.topic(topic).map_or(1, |info| info.schema_version);
        let append = |topic: &Name, partition: u32, rows: RecordBatch| Append {
            topic: topic.clone(),
            partition: PartitionId(partition),
            schema_version: version(topic),
            rows,
            watermark: None,
        };
        let now_us = self.context.clock.now_us();
        let topics = &self.owner.topics;
        if !chunk.said.is_empty() {
            let rows = status_rows(command, &chunk.said, now_us).map_err(broken)?;
            commit.appends.push(append(&topics.status, 0, rows));
        }
        for (letter, rows, row) in &chunk.events {
            let rows = replay_row(command, *letter, rows, *row, now_us).map_err(broken)?;
            commit.appends.push(append(&topics.replay, letter.partition, rows));
        }
        commit.appends.extend(chunk.appends);
        if let Some(source) = &self.owner.source {
            for (partition, letter) in chunk.letters {
                let rows = source.sender.rows(&[letter], now_us).map_err(broken)?;
                commit.appends.push(append(&topics.letters, partition, rows));
            }
        }
        if commit.consumed.is_empty() && commit.appends.is_empty() {
            return Ok(());
        }
        let action = chunk.said.iter().any(|(_, outcome, _)| *outcome == "discarded");
        let status = if action { LetterStatus::Discarded } else { LetterStatus::Replayed };
        let begun = std::time::Instant::now();
        judge(log.commit(commit).await, log.as_ref())?;
        self.context.meters.committed(&Tally::default(), begun.elapsed());
        self.context.committed();
        for letter in chunk.marked {
            self.statuses.set(letter, status, command);
        }
        Ok(())
    }
}

fn status_rows(
    command: &str,
    said: &[(Option<LetterId>, &'static str, Option<String>)],
    now_us: i64,
) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let mut partitions = Int32Builder::new();
    let mut offsets = Int64Builder::new();
    let mut outcomes = StringBuilder::new();
    let mut reasons = StringBuilder::new();
    for (letter, outcome, reason) in said {
        partitions.append_option(letter.and_then(|l| i32::try_from(l.partition).ok()));
        offsets.append_option(letter.and_then(|l| i64::try_from(l.offset).ok()));
        outcomes.append_value(outcome);
        reasons.append_option(reason.as_deref());
    }
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![now_us; said.len()]).with_timezone("+00:00"));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![command; said.len()])),
        Arc::clone(&times),
        Arc::new(partitions.finish()),
        Arc::new(offsets.finish()),
        Arc::new(outcomes.finish()),
        Arc::new(reasons.finish()),
        times,
    ];
    RecordBatch::try_new(Arc::clone(status_schema().physical()), columns)
}

/// A letter's event as a row of the replay topic, in the order of [`replay_schema`].
fn replay_row(
    command: &str,
    letter: LetterId,
    rows: &RecordBatch,
    row: usize,
    now_us: i64,
) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let int = |column: &str| {
        let values = rows.column_by_name(column).and_then(|c| c.as_primitive_opt::<Int32Type>());
        values.filter(|v| v.is_valid(row)).map_or(0, |v| v.value(row))
    };
    let offset = rows.column_by_name("offset").and_then(|c| c.as_primitive_opt::<Int64Type>());
    let offset = offset.filter(|v| v.is_valid(row)).map_or(0, |v| v.value(row));
    let time = rows.column_by_name("ingested_at").and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
    let time = time.filter(|v| v.is_valid(row)).map_or(now_us, |v| v.value(row));
    let one = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
    let number = |number: i32| -> ArrayRef { Arc::new(Int32Array::from(vec![number])) };
    let at = |time: i64| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(vec![time]).with_timezone("+00:00")) };
    let columns: Vec<ArrayRef> = vec![
        one(&letter.to_string()),
        one(command),
        one(text(rows, "topic", row).unwrap_or("")),
        number(int("partition")),
        Arc::new(Int64Array::from(vec![offset])),
        number(int("schema_version")),
        number(int("attempts")),
        one(text(rows, "event", row).unwrap_or("null")),
        at(time),
        at(now_us),
    ];
    RecordBatch::try_new(Arc::clone(replay_schema().physical()), columns)
}

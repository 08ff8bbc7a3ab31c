//! Short words for what the rules do: topics of numbers, owners, commits, reading to the end.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use millstream_event::{
    Batch, Column, ColumnType, Mark, Name, Offset, PartitionId, Producer, Schema, Stamp, TopicPartition, Watermark,
};

use crate::{
    AbortReason, Append, Change, Class, Commit, Consumed, Error, Join, Lead, Log, Membership, Outcome, Pending,
    Position, Read, Reader, Retention, Task, TopicKind, TopicSpec,
};

/// How long anything may take before a rule counts as broken.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Fails a rule that hangs.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("it never ended")
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn at(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition::new(name(topic), partition)
}

/// A number and a text.
pub fn schema() -> Schema {
    Schema::new(vec![Column::required("n", ColumnType::BigInt), Column::nullable("s", ColumnType::String)]).unwrap()
}

/// A topic of numbers that are kept for ever.
pub fn spec(topic: &str, partitions: u32) -> TopicSpec {
    TopicSpec {
        name: name(topic),
        partitions,
        key: Vec::new(),
        schema: schema(),
        kind: TopicKind::Stream,
        retention: Retention { until_read: true, age: None, max_bytes: None },
        consumers: Vec::new(),
    }
}

pub async fn topic(log: &Arc<dyn Log>, topic: &str, partitions: u32) {
    log.create_topic(spec(topic, partitions)).await.unwrap();
}

/// Events with these numbers.
pub fn rows(numbers: &[i64]) -> RecordBatch {
    let texts: StringArray = numbers.iter().map(|n| (n % 3 != 0).then(|| format!("text {n}"))).collect();
    RecordBatch::try_new(
        schema().physical().clone(),
        vec![
            Arc::new(Int64Array::from(numbers.to_vec())),
            Arc::new(texts),
            Arc::new(TimestampMicrosecondArray::from(numbers.to_vec()).with_timezone("+00:00")),
        ],
    )
    .unwrap()
}

/// The numbers of events, checked against their other columns.
pub fn numbers(rows: &RecordBatch) -> Vec<i64> {
    let column = rows.column_by_name("n").unwrap().as_primitive::<Int64Type>();
    let texts = rows.column_by_name("s").unwrap().as_string::<i32>();
    for (number, text) in column.values().iter().zip(texts) {
        assert_eq!(text, (number % 3 != 0).then(|| format!("text {number}")).as_deref(), "columns of one event agree");
    }
    column.values().to_vec()
}

/// The rows of a batch: each one's offset and number.
pub fn events(batch: &Batch) -> Vec<(u64, i64)> {
    let with_offset = |(row, number)| (batch.offset(row).0, number);
    numbers(&batch.rows).into_iter().enumerate().map(with_offset).collect()
}

/// A task's promise.
pub fn mark(task: &Task, watermark: i64) -> Mark {
    let producer = Producer { name: task.id.service.clone(), partition: task.id.partition };
    Mark { producer, watermark: Watermark(watermark) }
}

pub fn append(topic: &str, partition: u32, numbers: &[i64]) -> Append {
    let partition = PartitionId(partition);
    Append { topic: name(topic), partition, schema_version: 1, rows: rows(numbers), watermark: None }
}

/// A table of numbers by `n`, whose tombstones may go at once.
pub fn table(topic: &str, consumers: &[&str]) -> TopicSpec {
    TopicSpec {
        key: vec!["n".into()],
        kind: TopicKind::Table,
        retention: Retention { until_read: true, age: Some(Duration::ZERO), max_bytes: None },
        consumers: consumers.iter().map(|c| name(c)).collect(),
        ..spec(topic, 1)
    }
}

/// Rows of a table: a key's new text, or (`None`) that it is gone.
pub fn changes(topic: &str, changes: &[(i64, Option<String>)]) -> Append {
    let stamp = |text: &Option<String>| Stamp::at(1000).with(if text.is_none() { Stamp::DELETED } else { 0 }).0;
    let stamps: Vec<i64> = changes.iter().map(|(_, text)| stamp(text)).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(changes.iter().map(|(key, _)| *key))),
        Arc::new(changes.iter().map(|(_, text)| text.as_deref()).collect::<StringArray>()),
        Arc::new(TimestampMicrosecondArray::from(stamps).with_timezone("+00:00")),
    ];
    let rows = RecordBatch::try_new(schema().physical().clone(), columns).unwrap();
    Append { rows, ..append(topic, 0, &[]) }
}

/// What is in a table.
pub type Contents = BTreeMap<i64, String>;

/// Takes changes into account.
pub fn change(contents: &mut Contents, changes: impl IntoIterator<Item = (i64, Option<String>)>) {
    for (key, text) in changes {
        match text {
            Some(text) => drop(contents.insert(key, text)),
            None => drop(contents.remove(&key)),
        }
    }
}

/// The changes in a batch of a table, with their offsets.
pub fn changes_of(batch: &Batch) -> Vec<(u64, i64, Option<String>)> {
    let keys = batch.rows.column_by_name("n").unwrap().as_primitive::<Int64Type>();
    let texts = batch.rows.column_by_name("s").unwrap().as_string::<i32>();
    let stamps = Schema::ingested_at(&batch.rows).unwrap();
    let change = |row: usize| {
        let gone = Stamp(stamps.value(row)).is_deleted();
        (batch.offset(row).0, keys.value(row), (!gone).then(|| texts.value(row).to_owned()))
    };
    (0..batch.rows.num_rows()).map(change).collect()
}

/// Reads a table on to its end; how many rows were read. Checks that offsets grow.
pub async fn read_table(reader: &mut Box<dyn Reader>, contents: &mut Contents) -> Result<usize, Error> {
    let (mut rows, mut before) = (0, None);
    loop {
        match reader.next().await? {
            Read::Batch(batch) => {
                for (offset, key, text) in changes_of(&batch) {
                    assert!(before < Some(offset), "offsets grow");
                    before = Some(offset);
                    rows += 1;
                    change(contents, [(key, text)]);
                }
            }
            Read::AtEnd { next } => {
                assert!(before < Some(next.0));
                return Ok(rows);
            }
        }
    }
}

/// What a table holds for a reader that begins at its start, and how many rows it takes to say so.
pub async fn whole_table(log: &Arc<dyn Log>, topic: &str) -> Result<(Contents, usize), Error> {
    let start = log.start(&at(topic, 0)).await?;
    let mut reader = log.read(&at(topic, 0), start)?;
    let mut contents = Contents::new();
    let rows = read_table(&mut reader, &mut contents).await?;
    Ok((contents, rows))
}

pub fn consumed(input: &str, from: Option<u64>, to: u64) -> Consumed {
    let offset = |o| Position::Offset(Offset(o));
    Consumed { input: name(input), from: from.map(offset), to: offset(to) }
}

pub fn commit(task: &Task, consumed: Vec<Consumed>, appends: Vec<Append>) -> Commit {
    Commit { task: task.id.clone(), epoch: task.epoch, class: Class::Processing, consumed, appends }
}

/// Commits and expects success; the offsets of the appends.
pub async fn put(log: &Arc<dyn Log>, task: &Task, consumed: Vec<Consumed>, appends: Vec<Append>) -> Vec<Offset> {
    ok(log.commit(commit(task, consumed, appends))).await
}

pub async fn ok(pending: Pending) -> Vec<Offset> {
    match pending.await {
        Outcome::Committed(done) => done.offsets.into_iter().flatten().collect(),
        other => panic!("not committed: {other:?}"),
    }
}

pub async fn refused(pending: Pending) -> String {
    match pending.await {
        Outcome::Aborted(AbortReason::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

pub fn join(log: &Arc<dyn Log>, service: &str, instance: u32, tasks: u32) -> Box<dyn Membership> {
    log.join(Join { service: name(service), instance, lead: Lead::Tasks(tasks) }).unwrap()
}

pub async fn assigned(member: &mut Box<dyn Membership>) -> Vec<Task> {
    match member.next().await {
        Change::Assigned(tasks) => tasks,
        other => panic!("not assigned: {other:?}"),
    }
}

/// A service with one instance that owns all its tasks.
pub async fn service(log: &Arc<dyn Log>, service: &str, tasks: u32) -> (Box<dyn Membership>, Vec<Task>) {
    let mut member = join(log, service, 0, tasks);
    let mut tasks = assigned(&mut member).await;
    tasks.sort_by_key(|task| task.id.partition);
    (member, tasks)
}

/// A service with one task.
pub async fn one(log: &Arc<dyn Log>, name: &str) -> (Box<dyn Membership>, Task) {
    let (member, mut tasks) = service(log, name, 1).await;
    (member, tasks.remove(0))
}

pub async fn position(log: &Arc<dyn Log>, task: &Task, input: &str) -> Option<Position> {
    log.position(&task.id, &name(input)).await.unwrap()
}

pub async fn offset(log: &Arc<dyn Log>, task: &Task, input: &str) -> Option<u64> {
    position(log, task, input).await.and_then(|p| p.offset()).map(|o| o.0)
}

/// Reads until the end: numbers with their offsets, and where reading goes on. Checks that offsets grow.
pub async fn to_end(reader: &mut Box<dyn Reader>) -> Result<(Vec<(u64, i64)>, Offset), Error> {
    let mut seen = Vec::new();
    loop {
        match reader.next().await? {
            Read::Batch(batch) => {
                assert!(batch.rows.num_rows() > 0 || !batch.marks.is_empty(), "a batch has something in it");
                seen.extend(events(&batch));
            }
            Read::AtEnd { next } => {
                assert!(seen.windows(2).all(|w| w[0].0 < w[1].0), "offsets grow");
                assert!(seen.last().is_none_or(|(last, _)| *last < next.0), "the end is behind the last event");
                return Ok((seen, next));
            }
        }
    }
}

/// All events of a partition from `from` on, with offsets.
pub async fn all_from(log: &Arc<dyn Log>, topic: &str, partition: u32, from: u64) -> Vec<(u64, i64)> {
    let mut reader = log.read(&at(topic, partition), Offset(from)).unwrap();
    to_end(&mut reader).await.unwrap().0
}

/// All numbers of a partition that are kept.
pub async fn all(log: &Arc<dyn Log>, topic: &str, partition: u32) -> Vec<i64> {
    let start = log.start(&at(topic, partition)).await.unwrap();
    all_from(log, topic, partition, start.0).await.into_iter().map(|(_, n)| n).collect()
}

pub async fn end(log: &Arc<dyn Log>, topic: &str, partition: u32) -> u64 {
    log.end(&at(topic, partition)).await.unwrap().0
}

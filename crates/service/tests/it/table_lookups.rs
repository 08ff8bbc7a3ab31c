//! A table topic as a lookup: what a task met is part of its commits, and it never goes back behind that.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, RecordBatch};
use bytes::Bytes;
use millstream_service::event::json::Decoder;
use millstream_service::event::{Name, Offset, PartitionId, Partitioner, Schema, Stamp, TopicPartition, Unknown};
use millstream_service::flow::{Catalog, LookupSchema, plan_query};
use millstream_service::log::{
    Append, Change, Class, Commit, Consumed, Join, Lead, Outcome, Position, Read, Retention, TaskId, TopicKind,
    TopicSpec,
};
use millstream_service::rewind::{Outputs, Rewind, To};
use millstream_service::{Keep, LookupHandle, ServiceDef, State, TableLookup, Work, lookup_input};
use serde_json::{Value, json};

use crate::bed::{Bed, COLUMNS, FaultyLog, Numbers, name, pass, schema, until};

const LIMITS: &[(&str, &str)] = &[("k", "string!"), ("n", "bigint!")];

fn limits() -> LookupSchema {
    LookupSchema { schema: schema(LIMITS), key: vec!["k".to_owned()] }
}

/// The topics: events in two partitions, limits by `k` in three.
async fn topics(bed: &Bed) {
    bed.topic("raw", COLUMNS, &["n"], 2).await;
    bed.topic("out", &[("k", "string"), ("n", "bigint!"), ("found", "bigint")], &["n"], 2).await;
    make_limits(bed).await;
}

async fn make_limits(bed: &Bed) {
    let spec = TopicSpec {
        name: name("limits"),
        partitions: 3,
        key: vec!["k".to_owned()],
        schema: schema(LIMITS),
        kind: TopicKind::Table,
        retention: Retention::default(),
        consumers: vec![],
    };
    bed.log.create_topic(spec).await.unwrap();
}

/// A service that finds each event's limit, and who keeps these.
fn look(bed: &Bed) -> (TableLookup, LookupHandle, ServiceDef) {
    let mut catalog = Catalog::default();
    catalog.topics.insert(name("raw"), schema(COLUMNS));
    catalog.lookups.insert(name("limits"), limits());
    let sql = "SELECT raw.k, raw.n, limits.n AS found FROM raw LEFT JOIN limits ON limits.k = raw.k";
    let (keeper, handle) = TableLookup::start(Arc::clone(&bed.log), name("limits"), name("limits"), limits());
    let mut def = pass("look", "raw", "out");
    def.work = Work::Query(Arc::new(plan_query(sql, &catalog).unwrap()));
    def.lookups = vec![handle.clone()];
    (keeper, handle, def)
}

/// Writes rows as a source would; a limit that is `None` is a tombstone.
async fn write(bed: &Bed, topic: &str, rows: &[(&str, Option<i64>)]) {
    write_at(bed, topic, 1_000, rows).await;
}

/// Writes rows that come in at this time, in microseconds.
async fn write_at(bed: &Bed, topic: &str, micros: i64, rows: &[(&str, Option<i64>)]) {
    let info = bed.log.topic(&name(topic)).unwrap();
    let lines: Vec<String> = rows.iter().map(|(k, n)| json!({"k": k, "n": n.unwrap_or(0)}).to_string()).collect();
    let decoded = Decoder::new(&info.spec.schema, Unknown::Drop).decode_lines(lines.join("\n").as_bytes()).unwrap();
    let mut appends = Vec::new();
    for (row, (_, n)) in rows.iter().enumerate() {
        let stamp = if n.is_some() { Stamp::at(micros) } else { Stamp::at(micros).with(Stamp::DELETED) };
        let one = info.spec.schema.with_system(&decoded.rows.slice(row, 1), stamp.0).unwrap();
        let split = Partitioner::new(&info.spec.schema, &info.spec.key, info.spec.partitions).unwrap().split(&one);
        appends.extend(split.unwrap().parts.into_iter().map(|part| append(topic, part.partition, part.rows)));
    }
    commit(bed, &name("writer"), Vec::new(), appends).await;
}

fn append(topic: &str, partition: PartitionId, rows: RecordBatch) -> Append {
    Append { topic: name(topic), partition, schema_version: 1, rows, watermark: None }
}

async fn commit(bed: &Bed, who: &Name, consumed: Vec<Consumed>, appends: Vec<Append>) {
    let join = Join { service: who.clone(), instance: 0, lead: Lead::Tasks(1) };
    let mut member = bed.log.join(join).unwrap();
    let Change::Assigned(tasks) = member.next().await else { panic!("no task") };
    let (task, epoch) = (tasks[0].id.clone(), tasks[0].epoch);
    let commit = Commit { task, epoch, class: Class::Processing, consumed, appends };
    assert!(matches!(bed.log.commit(commit).await, Outcome::Committed(_)));
}

/// What each number found.
async fn found(bed: &Bed) -> BTreeMap<i64, Value> {
    bed.rows("out").await.into_iter().map(|(_, _, row)| (row["n"].as_i64().unwrap(), row["found"].clone())).collect()
}

async fn holds(handle: &LookupHandle, rows: u64) {
    until("the lookup has its rows", async || handle.status().rows == Some(rows)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_new_misses_nothing_of_the_table_and_sees_it_change() {
    let bed = Bed::new();
    topics(&bed).await;
    let many: Vec<String> = (0..300).map(|i| format!("k{i}")).collect();
    let rows: Vec<(&str, Option<i64>)> = many.iter().map(|k| (k.as_str(), Some(1))).collect();
    write(&bed, "limits", &rows).await;
    write(&bed, "raw", &[("k7", Some(1)), ("k299", Some(2)), ("unknown", Some(3))]).await;
    let (_keeper, handle, def) = look(&bed);
    let service = bed.runner.start_service(def).await.unwrap();
    bed.drained().await;
    assert_eq!(found(&bed).await, BTreeMap::from([(1, json!(1)), (2, json!(1)), (3, Value::Null)]));
    assert_eq!(handle.status().rows, Some(300));
    assert!(handle.status().bytes.unwrap() > 300 * 8);

    write(&bed, "limits", &[("k7", None), ("k8", Some(2)), ("unknown", Some(5)), ("k8", Some(3))]).await;
    // One row less, one more.
    until("the change is read", async || handle.status().loads > 1).await;
    write(&bed, "limits", &[("last", Some(1))]).await;
    holds(&handle, 301).await;
    write(&bed, "raw", &[("k7", Some(4)), ("k8", Some(5)), ("unknown", Some(6)), ("k9", Some(7))]).await;
    bed.drained().await;
    let now = found(&bed).await;
    assert_eq!([&now[&4], &now[&5], &now[&6], &now[&7]], [&Value::Null, &json!(3), &json!(5), &json!(1)]);
    assert_eq!(service.counts().restarts, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_nobody_has_made_has_no_rows_until_it_has() {
    let bed = Bed::new();
    bed.topic("raw", COLUMNS, &["n"], 2).await;
    bed.topic("out", &[("k", "string"), ("n", "bigint!"), ("found", "bigint")], &["n"], 2).await;
    let (_keeper, handle, def) = look(&bed);
    bed.runner.start_service(def).await.unwrap();
    write(&bed, "raw", &[("a", Some(1))]).await;
    bed.drained().await;
    make_limits(&bed).await;
    write(&bed, "limits", &[("a", Some(9))]).await;
    holds(&handle, 1).await;
    write(&bed, "raw", &[("a", Some(2))]).await;
    bed.drained().await;
    assert_eq!(found(&bed).await, BTreeMap::from([(1, Value::Null), (2, json!(9))]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_goes_on_behind_a_restart_with_what_was_changed_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let mut position = None;
    for round in 0..4_i64 {
        let bed = Bed::embedded(dir.path());
        topics(&bed).await;
        if round == 0 {
            write(&bed, "limits", &[("a", Some(0)), ("b", Some(0)), ("c", Some(0))]).await;
        }
        let (keeper, _, def) = look(&bed);
        bed.runner.start_service(def).await.unwrap();
        write(&bed, "raw", &[("a", Some(10 * round)), ("b", Some(10 * round + 1))]).await;
        bed.drained().await;
        let now = found(&bed).await;
        let b = if round < 2 { json!(0) } else { Value::Null };
        assert_eq!((&now[&(10 * round)], &now[&(10 * round + 1)]), (&json!(round), &b), "round {round}");
        bed.runner.stop_all(true).await;
        // What the task has met stands in its position, and moves with the table only.
        let of = |task| (TaskId::new(name("look"), task), lookup_input(&name("limits")).unwrap());
        let mut now = Vec::new();
        for task in 0..2 {
            let (task, input) = of(task);
            now.push(bed.log.position(&task, &input).await.unwrap());
        }
        assert!(now.iter().any(Option::is_some) && position != Some(now.clone()), "round {round}: {now:?}");
        position = Some(now);
        // Nobody looks meanwhile.
        drop(keeper);
        write(&bed, "limits", &[("a", Some(round + 1)), ("b", (round == 0).then_some(0))]).await;
        bed.log.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_waits_until_the_table_is_read_as_far_as_it_was() {
    let bed = Bed::new();
    topics(&bed).await;
    write(&bed, "limits", &[("a", Some(1))]).await;
    // As if another machine had met three rows of each partition.
    let mut places = vec![1, 6];
    places.extend_from_slice(b"limits\x00\x00\x03");
    let met = Position::Opaque(Bytes::from(places));
    let input = lookup_input(&name("limits")).unwrap();
    let limits_of = |k: &str| {
        let info = bed.log.topic(&name("limits")).unwrap();
        let line = json!({"k": k, "n": 1}).to_string();
        let rows = Decoder::new(&info.spec.schema, Unknown::Drop).decode_lines(line.as_bytes()).unwrap().rows;
        let rows = info.spec.schema.with_system(&rows, 1_000).unwrap();
        let split = Partitioner::new(&info.spec.schema, &info.spec.key, 3).unwrap().split(&rows).unwrap();
        split.parts[0].partition
    };
    let key = (0..100).map(|i| format!("key{i}")).find(|key| limits_of(key) == PartitionId(2)).unwrap();
    commit(&bed, &name("look"), vec![Consumed { input, from: None, to: met }], Vec::new()).await;
    let (_keeper, _, def) = look(&bed);
    let service = bed.runner.start_service(def).await.unwrap();
    let waits = |state: &State| matches!(state, State::Waiting { reason } if reason.contains("up to where it was"));
    until("the task waits", async || service.status().await.unwrap().tasks.iter().any(|t| waits(&t.state))).await;
    write(&bed, "raw", &[(&key, Some(1)), (&key, Some(2)), (&key, Some(3)), (&key, Some(4))]).await;
    for n in 0..3 {
        write(&bed, "limits", &[(&key, Some(n))]).await;
    }
    bed.drained().await;
    assert_eq!(found(&bed).await.len(), 4);
    assert!(!service.status().await.unwrap().tasks.iter().any(|t| waits(&t.state)));
}

const SECOND: i64 = 1_000_000;

/// Limits and events in turn: each event finds the limit that was set last. Gives what they found.
async fn in_turn(bed: &Bed, handle: &LookupHandle) -> BTreeMap<i64, Value> {
    for n in 0..5_i64 {
        for limit in [("a", (n != 3).then_some(n)), ("b", Some(n))] {
            let loads = handle.status().loads;
            write_at(bed, "limits", n * SECOND, &[limit]).await;
            until("the limit is read", async || handle.status().loads > loads).await;
        }
        write_at(bed, "raw", n * SECOND + SECOND / 2, &[("a", Some(2 * n)), ("b", Some(2 * n + 1))]).await;
        bed.drained().await;
    }
    found(bed).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_are_read_again_find_what_they_found() {
    let bed = Bed::new();
    topics(&bed).await;
    bed.topic("again", &[("k", "string"), ("n", "bigint!"), ("found", "bigint")], &["n"], 2).await;
    let (_keeper, handle, def) = look(&bed);
    let service = bed.runner.start_service(def).await.unwrap();
    let first = in_turn(&bed, &handle).await;
    assert_eq!((&first[&2], &first[&6], &first[&7]), (&json!(1), &Value::Null, &json!(3)));
    // What has come since is not known to the past, and new events meet it.
    write_at(&bed, "limits", 9 * SECOND, &[("a", Some(9)), ("c", Some(9))]).await;
    holds(&handle, 3).await;
    let order = Rewind {
        service: name("look"),
        inputs: vec![name("raw")],
        outputs: vec![name("out")],
        stateful: false,
        to: To::Start,
        how: Outputs::Topic(name("again")),
        store: None,
    };
    service.rewind(&order).await.unwrap();
    bed.drained().await;
    let again = bed.rows("again").await;
    let again: BTreeMap<i64, Value> =
        again.into_iter().map(|(_, _, row)| (row["n"].as_i64().unwrap(), row["found"].clone())).collect();
    assert_eq!(again, first);
    assert_eq!(found(&bed).await, first, "what was given out stays as it was");
    write_at(&bed, "raw", 10 * SECOND, &[("a", Some(100)), ("c", Some(101))]).await;
    until("the new ones", async || found(&bed).await.len() == 12).await;
    let now = found(&bed).await;
    assert_eq!((&now[&100], &now[&101]), (&json!(9), &json!(9)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_in_memory_is_built_again_from_what_events_found() {
    let log = Bed::new().log;
    let mut last = BTreeMap::new();
    for round in 0..2 {
        let bed = Bed::on(Arc::clone(&log));
        topics(&bed).await;
        let mut catalog = Catalog::default();
        catalog.topics.insert(name("raw"), schema(COLUMNS));
        catalog.lookups.insert(name("limits"), limits());
        catalog.updating = true;
        let sql = "SELECT raw.k AS k, sum(limits.n) AS found FROM raw JOIN limits ON limits.k = raw.k GROUP BY raw.k";
        let (_keeper, handle) = TableLookup::start(Arc::clone(&bed.log), name("limits"), name("limits"), limits());
        let mut def = pass("look", "raw", "sums");
        def.work = Work::Query(Arc::new(plan_query(sql, &catalog).unwrap()));
        def.lookups = vec![handle.clone()];
        def.keep = Keep::Memory;
        bed.topic("sums", &[("k", "string"), ("found", "decimal(38,0)")], &["k"], 2).await;
        bed.runner.start_service(def).await.unwrap();
        if round == 0 {
            for n in 0..4_i64 {
                let loads = handle.status().loads;
                write_at(&bed, "limits", n * SECOND, &[("a", Some(n * n))]).await;
                until("the limit is read", async || handle.status().loads > loads).await;
                write_at(&bed, "raw", n * SECOND + SECOND / 2, &[("a", Some(7))]).await;
                bed.drained().await;
            }
        } else {
            write_at(&bed, "raw", 20 * SECOND, &[("a", Some(7))]).await;
            bed.drained().await;
        }
        last = bed.rows("sums").await.into_iter().map(|(_, at, row)| (at, row["found"].clone())).collect();
        bed.runner.stop_all(true).await;
    }
    // 0 + 1 + 4 + 9, and 9 more for the last event.
    assert_eq!(last.last_key_value().unwrap().1, &json!(23), "{last:?}");
}

/// The newest limit of each key where a topic was read so far.
async fn held_at(bed: &Bed, next: &[u64]) -> BTreeMap<String, i64> {
    let mut held = BTreeMap::new();
    for (partition, next) in (0_u32..).zip(next) {
        let mut reader = bed.log.read(&TopicPartition::new(name("limits"), partition), Offset(0)).unwrap();
        while let Read::Batch(batch) = reader.next().await.unwrap() {
            let (keys, numbers) = (batch.rows.column(0).as_string::<i32>(), batch.rows.column(1));
            let numbers = numbers.as_primitive::<Int64Type>();
            for row in (0..batch.rows.num_rows()).filter(|row| batch.offset(*row).0 < *next) {
                match Stamp(Schema::ingested_at(&batch.rows).unwrap().value(row)).is_deleted() {
                    true => held.remove(keys.value(row)),
                    false => held.insert(keys.value(row).to_owned(), numbers.value(row)),
                };
            }
        }
    }
    held
}

/// The offsets in a position, as [`lookup_input`] has them.
fn offsets(position: &Position) -> Vec<u64> {
    let Position::Opaque(bytes) = position else { panic!("{position:?}") };
    let mut offsets = vec![];
    let (mut value, mut shift) = (0, 0);
    for byte in &bytes[2 + usize::from(bytes[1])..] {
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            offsets.push(value);
            (value, shift) = (0, 0);
        }
    }
    offsets
}

/// While the table changes and commits fail in all ways, every row that came out found what the table held at the
/// places that were committed with it, and these only go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_each_event_found_is_what_the_table_held_where_its_commit_says() {
    let long = std::env::var("MILLSTREAM_LONG").is_ok();
    for seed in 0..(if long { 60 } else { 3 }) {
        let log = Arc::new(FaultyLog::new(seed, 60));
        let bed = Bed::on(log.clone());
        topics(&bed).await;
        let (_keeper, handle, def) = look(&bed);
        bed.runner.start_service(def).await.unwrap();
        let mut changes = Numbers::new(900).making(|n| json!({"k": format!("k{}", n % 5), "n": n}).to_string());
        changes.schema = schema(LIMITS);
        let mut changes = changes.def("limits");
        changes.name = name("changes");
        bed.runner.start_source(changes).await.unwrap();
        bed.runner.start_source(Numbers::new(1_500).def("raw")).await.unwrap();
        bed.drained().await;
        log.heal();
        until("all changes are read", async || handle.status().rows == Some(5)).await;
        assert_eq!(bed.numbers("out", "n").await, (0..1_500).collect::<Vec<_>>(), "seed {seed}");
        assert!(log.injected.load(std::sync::atomic::Ordering::Acquire) > 10, "seed {seed} injected too little");
        let commits = std::mem::take(&mut *log.committed.lock());
        let mut places: BTreeMap<TaskId, Vec<u64>> = BTreeMap::new();
        let (mut rows, mut versions) = (0, 0);
        for commit in commits.into_iter().filter(|commit| commit.task.service == name("look")) {
            let input = lookup_input(&name("limits")).unwrap();
            let before = places.entry(commit.task.clone()).or_default();
            for consumed in commit.consumed.iter().filter(|consumed| consumed.input == input) {
                let now = offsets(&consumed.to);
                assert!(before.iter().zip(&now).all(|(before, now)| before <= now), "seed {seed}: it went back");
                *before = now;
                versions += 1;
            }
            let out = commit.appends.iter().filter(|append| append.topic == name("out"));
            let out: Vec<RecordBatch> = out.map(|append| append.rows.clone()).collect();
            let held = if out.is_empty() { BTreeMap::new() } else { held_at(&bed, before).await };
            for batch in out {
                let (keys, numbers) = (batch.column(0).as_string::<i32>(), batch.column(2));
                let numbers = numbers.as_primitive::<Int64Type>();
                for row in 0..batch.num_rows() {
                    let found = numbers.is_valid(row).then(|| numbers.value(row));
                    assert_eq!(found, held.get(keys.value(row)).copied(), "seed {seed}, {}", commit.task);
                    rows += 1;
                }
            }
        }
        assert_eq!(rows, 1_500, "seed {seed}");
        assert!(versions > 2, "seed {seed}: the table has not changed meanwhile");
        bed.runner.stop_all(false).await;
    }
}

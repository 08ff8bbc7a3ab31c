//! Event time: lateness at the entry, watermarks through services, whoever is slow, idle, restarted or finished.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use millstream_service::dead_letters::Select;
use millstream_service::event::{Offset, Stamp, TopicPartition, Watermark};
use millstream_service::flow::{Catalog, TimeColumn, plan_query};
use millstream_service::log::{EmbeddedLog, EmbeddedOptions, Log, MemoryLog, Read, TaskId};
use millstream_service::{
    EventTimeDef, Handle, InputTime, Producers, ServiceDef, ServiceTime, SourceDef, TimeStatus, Work, time_of,
};
use serde_json::{Value, json};

use crate::bed::{Bed, FaultyLog, Numbers, name, pass, schema, until};

const TIMED: &[(&str, &str)] = &[("k", "string"), ("n", "bigint!"), ("at", "timestamp")];
pub(crate) const SECOND: i64 = 1_000_000;

/// So many seconds after the beginning of 1970, as an event has it.
pub(crate) fn at(seconds: u64) -> String {
    format!("1970-01-01T{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

pub(crate) fn event(n: u64, seconds: u64) -> String {
    json!({"k": format!("k{}", n % 13), "n": n, "at": at(seconds)}).to_string()
}

pub(crate) fn ten_seconds() -> EventTimeDef {
    let column = "at".to_owned();
    EventTimeDef { column, max_out_of_orderness_us: 10 * SECOND, future_us: None, idle: None }
}

/// A source of events `make(0)`, `make(1)` …
pub(crate) fn source(
    called: &str,
    numbers: Numbers,
    time: EventTimeDef,
    make: impl Fn(u64) -> String + Send + Sync + 'static,
) -> SourceDef {
    let numbers = Numbers { schema: schema(TIMED), ..numbers }.making(make);
    SourceDef { name: name(called), event_time: Some(time), ..numbers.def("raw") }
}

pub(crate) fn endless(count: u64) -> (Numbers, Arc<AtomicU64>) {
    let numbers = Numbers { endless: true, ..Numbers::new(count) };
    let count = Arc::clone(&numbers.count);
    (numbers, count)
}

pub(crate) fn input(topic: &str, producers: &[(&str, u32, bool)]) -> InputTime {
    let producers =
        producers.iter().map(|(n, tasks, in_place)| Producers { name: name(n), tasks: *tasks, in_place: *in_place });
    InputTime { topic: name(topic), producers: producers.collect() }
}

/// A service that passes events on, with their time.
pub(crate) fn timed(service: &str, from: InputTime, to: &str) -> ServiceDef {
    let time = ServiceTime { inputs: vec![from.clone()], outputs: vec![name(to)], columns: Default::default() };
    ServiceDef { time: Some(time), ..pass(service, from.topic.as_str(), to) }
}

pub(crate) async fn topics(bed: &Bed, topics: &[&str]) {
    for topic in topics {
        bed.topic(topic, TIMED, &["k"], 3).await;
    }
}

fn watermark(status: Option<TimeStatus>) -> Option<Watermark> {
    status.map(|time| time.watermark)
}

pub(crate) async fn reaches(handle: &Handle, wanted: Watermark) {
    let what = format!("`{}` reaching {wanted:?}", handle.name());
    until(&what, async || watermark(handle.status().await.unwrap().time) == Some(wanted)).await;
}

/// What stands in a topic: the numbers that are late, and what each producer said to each partition, in order.
#[derive(Default)]
pub(crate) struct Found {
    late: Vec<i64>,
    rows: u64,
    pub(crate) said: BTreeMap<(u32, String, u32), Vec<Watermark>>,
}

pub(crate) async fn found(log: &dyn Log, topic: &str) -> Found {
    let mut found = Found::default();
    for partition in 0..log.topic(&name(topic)).unwrap().spec.partitions {
        let mut reader = log.read(&TopicPartition::new(name(topic), partition), Offset(0)).unwrap();
        while let Read::Batch(batch) = reader.next().await.unwrap() {
            let numbers = batch.rows.column_by_name("n").unwrap().as_primitive::<Int64Type>();
            let stamps = batch.rows.columns().last().unwrap().as_primitive::<TimestampMicrosecondType>();
            let late = stamps.values().iter().zip(numbers.values()).filter(|(stamp, _)| Stamp(**stamp).is_late());
            found.late.extend(late.map(|(_, n)| *n));
            found.rows += batch.rows.num_rows() as u64;
            for mark in batch.marks.iter() {
                let who = (partition, mark.producer.name.to_string(), mark.producer.partition.0);
                found.said.entry(who).or_default().push(mark.watermark);
            }
        }
    }
    found.late.sort_unstable();
    found
}

fn grows(said: &[Watermark]) -> bool {
    said.windows(2).all(|two| two[0] <= two[1])
}

fn logs(dir: &std::path::Path) -> Vec<Arc<dyn Log>> {
    vec![Arc::new(MemoryLog::new()), Arc::new(EmbeddedLog::open(EmbeddedOptions::new(dir)).unwrap())]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_events_stay_late_through_services_and_everybody_closes_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    for log in logs(dir.path()) {
        let bed = Bed::on(log);
        topics(&bed, &["raw", "first"]).await;
        bed.topic("second", TIMED, &["n"], 2).await;
        let first = timed("first", input("raw", &[("numbers", 1, false)]), "first");
        let second = timed("second", input("first", &[("first", 3, true)]), "second");
        // From three partitions to two by another key: every task writes everywhere.
        let last = bed.runner.start_service(second).await.unwrap();
        bed.runner.start_service(first).await.unwrap();
        // Every tenth event is 9 s behind, every hundredth a minute.
        let seconds = |n: u64| {
            if n % 100 == 99 {
                n - 60
            } else if n % 10 == 9 {
                n - 9
            } else {
                n
            }
        };
        let made = move |n| event(n, seconds(n));
        let source = bed.runner.start_source(source("numbers", Numbers::new(3000), ten_seconds(), made)).await.unwrap();
        bed.drained().await;
        let late: Vec<i64> = (0..3000).filter(|n| n % 100 == 99).collect();
        assert_eq!(source.counts().late, 30);
        for (topic, producers) in [("raw", 1), ("first", 1), ("second", 3)] {
            let found = found(bed.log.as_ref(), topic).await;
            assert_eq!((found.rows, &found.late), (3000, &late), "{topic}");
            let partitions = bed.log.topic(&name(topic)).unwrap().spec.partitions;
            assert_eq!(found.said.len() as u32, partitions * producers, "{topic}: {:?}", found.said.keys());
            for (who, said) in &found.said {
                assert!(grows(said), "{topic} {who:?}: {said:?}");
                assert_eq!(said.last(), Some(&Watermark::CLOSED), "{topic} {who:?}");
            }
        }
        assert_eq!(watermark(last.status().await.unwrap().time), Some(Watermark::CLOSED));
        bed.runner.stop_all(true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_without_a_time_or_from_the_future_becomes_a_letter_and_moves_nothing() {
    let bed = Bed::new();
    topics(&bed, &["raw"]).await;
    let (numbers, _) = endless(30);
    let time = EventTimeDef { future_us: Some(3600 * SECOND), ..ten_seconds() };
    let made = |n: u64| match n % 3 {
        0 => event(n, 1000),
        1 => json!({"k": "k1", "n": n}).to_string(),
        _ => json!({"k": "k1", "n": n, "at": "2200-01-01T00:00:00Z"}).to_string(),
    };
    let source = bed.runner.start_source(source("numbers", numbers, time, made)).await.unwrap();
    until("all came in", async || source.counts().events_in == 30).await;
    assert_eq!(bed.rows("raw").await.len(), 10);
    let letters = source.counts().dead_letters;
    assert_eq!((letters["event-time-null"], letters["future"]), (10, 10));
    reaches(&source, Watermark(990 * SECOND)).await;
    // Sent again they are judged again.
    let all = Select { code: Some("future".into()), ..Select::default() };
    source.replay(&all).await.unwrap();
    until("they are refused again", async || bed.rows("numbers.dlq").await.len() == 30).await;
    let again: Vec<Value> = bed.rows("numbers.dlq").await.into_iter().map(|(_, _, row)| row).collect();
    assert!(again.iter().filter(|row| row["attempts"] == 2).all(|row| row["code"] == "future"));
    bed.runner.stop_all(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slowest_producer_holds_everybody_back_and_is_named() {
    let bed = Bed::new();
    topics(&bed, &["raw", "good"]).await;
    let from = input("raw", &[("fast", 1, false), ("slow", 1, false)]);
    let service = bed.runner.start_service(timed("pass", from, "good")).await.unwrap();
    let (fast, _) = endless(1000);
    bed.runner.start_source(source("fast", fast, ten_seconds(), |n| event(n, n))).await.unwrap();
    until("all were read", async || service.counts().events_in == 1000).await;
    let time = service.status().await.unwrap().time.unwrap();
    assert_eq!(time.watermark, Watermark::OPEN, "the slow one has not opened");
    let held = time.held_back.unwrap();
    assert_eq!((held.topic, held.producer, held.partition), (name("raw"), name("slow"), 0));

    let (slow, count) = endless(100);
    bed.runner.start_source(source("slow", slow, ten_seconds(), |n| event(n, n))).await.unwrap();
    reaches(&service, Watermark(89 * SECOND)).await;
    let time = service.status().await.unwrap().time.unwrap();
    assert_eq!((time.furthest, time.held_back.unwrap().producer), (Some(989 * SECOND), name("slow")));
    count.store(500, Ordering::Release);
    reaches(&service, Watermark(489 * SECOND)).await;
    count.store(2000, Ordering::Release);
    reaches(&service, Watermark(989 * SECOND)).await;
    assert_eq!(service.status().await.unwrap().time.unwrap().held_back.unwrap().producer, name("fast"));
    bed.runner.stop_all(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_producer_is_not_waited_for_until_it_comes_back() {
    let bed = Bed::new();
    topics(&bed, &["raw", "good"]).await;
    let from = input("raw", &[("fast", 1, false), ("idle", 1, false)]);
    let service = bed.runner.start_service(timed("pass", from, "good")).await.unwrap();
    let (fast, _) = endless(1000);
    bed.runner.start_source(source("fast", fast, ten_seconds(), |n| event(n, n))).await.unwrap();
    let (idle, count) = endless(100);
    let short = EventTimeDef { idle: Some(Duration::from_millis(50)), ..ten_seconds() };
    let idle = bed.runner.start_source(source("idle", idle, short, |n| event(n, n))).await.unwrap();
    reaches(&idle, Watermark::IDLE).await;
    reaches(&service, Watermark(989 * SECOND)).await;
    let before = idle.counts().idled;
    // It goes on where it was; nobody goes back with it.
    count.store(200, Ordering::Release);
    until("its events were read", async || service.counts().events_in == 1200).await;
    reaches(&idle, Watermark::IDLE).await;
    assert!(before >= 1 && idle.counts().idled > before);
    until("it has said so", async || {
        let said = found(bed.log.as_ref(), "raw").await.said;
        let said = &said[&(0, "idle".to_owned(), 0)];
        let woke = said.iter().skip_while(|w| **w != Watermark::IDLE).any(|w| w.time().is_some());
        woke && said.last() == Some(&Watermark::IDLE)
    })
    .await;
    for (who, said) in found(bed.log.as_ref(), "good").await.said {
        assert!(grows(&said), "{who:?}: {said:?}");
    }
    bed.runner.stop_all(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_goes_on_with_what_was_promised() {
    let dir = tempfile::tempdir().unwrap();
    let (numbers, count) = endless(500);
    let keep = || Numbers { endless: true, count: Arc::clone(&count), ..Numbers::new(0) };
    // The event behind the restart is 20 s behind the one before it.
    let made = |n: u64| event(n, if n == 500 { 480 } else { n });
    let start = async |numbers: Numbers| {
        let bed = Bed::embedded(dir.path());
        topics(&bed, &["raw", "good"]).await;
        let from = input("raw", &[("numbers", 1, false)]);
        let service = bed.runner.start_service(timed("pass", from, "good")).await.unwrap();
        bed.runner.start_source(source("numbers", numbers, ten_seconds(), made)).await.unwrap();
        (bed, service)
    };
    drop(numbers);
    let (bed, service) = start(keep()).await;
    reaches(&service, Watermark(489 * SECOND)).await;
    bed.runner.stop_all(true).await;
    bed.log.close().await.unwrap();
    drop(bed);

    let (bed, service) = start(keep()).await;
    reaches(&service, Watermark(489 * SECOND)).await;
    let time = ServiceTime {
        inputs: vec![input("raw", &[("numbers", 1, false)])],
        outputs: vec![name("good")],
        columns: Default::default(),
    };
    let stored = time_of(bed.log.as_ref(), &name("pass"), &time, 3).await.unwrap();
    assert_eq!(watermark(stored), Some(Watermark(489 * SECOND)), "the log alone tells it too");
    count.store(600, Ordering::Release);
    reaches(&service, Watermark(589 * SECOND)).await;
    bed.runner.stop_all(true).await;
    let found = found(bed.log.as_ref(), "good").await;
    assert_eq!((found.rows, found.late), (600, vec![500]));
    assert!(found.said.values().all(|said| grows(said)), "{:?}", found.said);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_inputs_the_least_counts_until_it_has_closed() {
    let bed = Bed::new();
    topics(&bed, &["raw", "other", "both"]).await;
    let (live, count) = endless(100);
    let mut bounded = source("bounded", Numbers::new(50), ten_seconds(), |n| event(n, n));
    bounded.to = name("other");
    let inputs = vec![input("raw", &[("live", 1, false)]), input("other", &[("bounded", 1, false)])];
    let mut both = timed("both", inputs[0].clone(), "both");
    both.inputs = vec![name("raw"), name("other")];
    both.time = Some(ServiceTime { inputs, outputs: vec![name("both")], columns: Default::default() });
    let both = bed.runner.start_service(both).await.unwrap();
    bed.runner.start_source(source("live", live, ten_seconds(), |n| event(n, n))).await.unwrap();
    until("all were read", async || both.counts().events_in == 100).await;
    assert_eq!(both.status().await.unwrap().time.unwrap().held_back.unwrap().topic, name("other"));
    bed.runner.start_source(bounded).await.unwrap();
    reaches(&both, Watermark(89 * SECOND)).await;
    count.store(200, Ordering::Release);
    reaches(&both, Watermark(189 * SECOND)).await;
    bed.runner.stop_all(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_without_events_learns_the_time_all_the_same() {
    let bed = Bed::new();
    topics(&bed, &["raw", "good"]).await;
    let from = input("raw", &[("numbers", 1, false)]);
    let service = bed.runner.start_service(timed("pass", from, "good")).await.unwrap();
    let (numbers, _) = endless(400);
    // One key: one of three partitions gets all events.
    let made = |n: u64| json!({"k": "same", "n": n, "at": at(n)}).to_string();
    bed.runner.start_source(source("numbers", numbers, ten_seconds(), made)).await.unwrap();
    reaches(&service, Watermark(389 * SECOND)).await;
    until("every partition of the output knows", async || {
        let said = found(bed.log.as_ref(), "good").await.said;
        said.len() == 3 && said.values().all(|said| said.last() == Some(&Watermark(389 * SECOND)))
    })
    .await;
    bed.runner.stop_all(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_event_time_nothing_more_is_written() {
    let bed = Bed::new();
    topics(&bed, &["raw", "good"]).await;
    bed.runner.start_service(pass("pass", "raw", "good")).await.unwrap();
    let made = |n: u64| event(n, n);
    let def = SourceDef { event_time: None, ..source("numbers", Numbers::new(500), ten_seconds(), made) };
    bed.runner.start_source(def).await.unwrap();
    bed.drained().await;
    for topic in ["raw", "good"] {
        let found = found(bed.log.as_ref(), topic).await;
        assert_eq!((found.rows, found.said.len()), (500, 0));
        let mut ends = 0;
        for partition in 0..3 {
            ends += bed.log.end(&TopicPartition::new(name(topic), partition)).await.unwrap().0;
        }
        assert_eq!(ends, 500, "every offset has an event");
    }
    for (task, partition) in [("numbers", 0), ("pass", 0), ("pass", 1), ("pass", 2)] {
        let position = bed.log.position(&TaskId::new(name(task), partition), &name("__time")).await.unwrap();
        assert_eq!(position, None, "{task}");
    }
    bed.runner.stop_all(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_producers_than_can_be_remembered_are_refused_at_the_start() {
    let bed = Bed::new();
    topics(&bed, &["raw", "good"]).await;
    let writers: Vec<String> = (0..6).map(|i| format!("w{i}")).collect();
    let producers: Vec<(&str, u32, bool)> = writers.iter().map(|w| (w.as_str(), 64, false)).collect();
    let refused = bed.runner.start_service(timed("pass", input("raw", &producers), "good")).await.err().unwrap();
    assert!(refused.to_string().contains("fewer partitions or fewer writers"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_holds_open_windows_is_waited_for_while_its_inputs_are_idle() {
    let bed = Bed::new();
    topics(&bed, &["raw"]).await;
    bed.topic("out", &[("k", "string"), ("window_end", "timestamp!"), ("n", "bigint!")], &["k"], 3).await;
    let mut catalog = Catalog::default();
    catalog.topics.insert(name("raw"), schema(TIMED));
    catalog.event_times.insert(name("raw"), TimeColumn { name: "at".to_owned(), plus_us: 0 });
    let sql = "SELECT k, window_end, count(*) AS n FROM tumble(raw, at, INTERVAL '1 minute') GROUP BY k, window_end";
    let query = plan_query(sql, &catalog).unwrap_or_else(|e| panic!("{e:?}"));
    let def = timed("minutes", input("raw", &[("numbers", 1, false)]), "out");
    let service = bed.runner.start_service(ServiceDef { work: Work::Query(Arc::new(query)), ..def }).await.unwrap();
    let (numbers, count) = endless(100);
    let short = EventTimeDef { idle: Some(Duration::from_millis(50)), ..ten_seconds() };
    bed.runner.start_source(source("numbers", numbers, short, |n| event(n, n))).await.unwrap();
    reaches(&service, Watermark::IDLE).await;
    for more in 101..105 {
        count.store(more, Ordering::Release);
        until("it was read", async || service.counts().events_in == more).await;
        reaches(&service, Watermark::IDLE).await;
    }
    until("all partitions know a time", async || {
        let said = found(bed.log.as_ref(), "out").await.said;
        said.len() == 3 && said.values().all(|said| said.last().is_some_and(|last| last.time().is_some()))
    })
    .await;
    let said = found(bed.log.as_ref(), "out").await.said;
    assert!(said.values().all(|said| !said.contains(&Watermark::IDLE)), "{said:?}");
    bed.runner.stop_all(true).await;
}

/// An event an hour for fifty days, each in sixty windows: more than one commit has room for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_that_end_together_go_out_in_several_commits_whatever_happens_between_these() {
    let dir = tempfile::tempdir().unwrap();
    let mut logs = logs(dir.path());
    logs.extend([3, 5, 8].map(|seed| Arc::new(FaultyLog::new(seed, 250)) as Arc<dyn Log>));
    for log in logs {
        let bed = Bed::on(log);
        bed.topic("raw", TIMED, &["k"], 1).await;
        bed.topic("out", &[("k", "string"), ("window_end", "timestamp!"), ("n", "bigint!")], &["k"], 1).await;
        let mut catalog = Catalog::default();
        catalog.topics.insert(name("raw"), schema(TIMED));
        catalog.event_times.insert(name("raw"), TimeColumn { name: "at".to_owned(), plus_us: 0 });
        let sql = "SELECT k, window_end, count(*) AS n FROM hop(raw, at, INTERVAL '1 minute', INTERVAL '1 hour') \
                   GROUP BY k, window_end";
        let query = plan_query(sql, &catalog).unwrap_or_else(|e| panic!("{e:?}"));
        let made = |n: u64| {
            let (month, day) = if n / 24 < 31 { (1, n / 24 + 1) } else { (2, n / 24 - 30) };
            let at = format!("1970-{month:02}-{day:02}T{:02}:00:00Z", n % 24);
            json!({"k": format!("k{}", n % 13), "n": n, "at": at}).to_string()
        };
        bed.runner.start_source(source("numbers", Numbers::new(1200), ten_seconds(), made)).await.unwrap();
        // All is there before the service begins, so that one watermark ends all windows.
        bed.drained().await;
        let def = timed("hours", input("raw", &[("numbers", 1, false)]), "out");
        bed.runner.start_service(ServiceDef { work: Work::Query(Arc::new(query)), ..def }).await.unwrap();
        bed.drained().await;
        let mut ends = BTreeSet::new();
        let (mut batches, mut promised) = (0, i64::MIN);
        let mut reader = bed.log.read(&TopicPartition::new(name("out"), 0), Offset(0)).unwrap();
        while let Read::Batch(batch) = reader.next().await.unwrap() {
            batches += usize::from(batch.rows.num_rows() > 0);
            let column = batch.rows.column_by_name("window_end").unwrap().as_primitive::<TimestampMicrosecondType>();
            for end in column.values() {
                assert!(*end > promised, "{end} is behind {promised}");
                assert!(ends.insert(*end), "{end} is there twice");
            }
            promised = batch.marks.iter().map(|mark| mark.watermark.0).fold(promised, i64::max);
        }
        assert_eq!((ends.len(), promised), (72_000, Watermark::CLOSED.0));
        assert!((2..20).contains(&batches), "{batches}");
        bed.runner.stop_all(false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_without_a_key_moves_no_time() {
    let bed = Bed::new();
    topics(&bed, &["raw"]).await;
    let (numbers, _) = endless(30);
    let made =
        |n: u64| if n.is_multiple_of(2) { event(n, 1000 + n) } else { json!({"n": n, "at": at(5000)}).to_string() };
    let source = bed.runner.start_source(source("numbers", numbers, ten_seconds(), made)).await.unwrap();
    until("all came in", async || source.counts().events_in == 30).await;
    assert_eq!(source.counts().dead_letters["key-null"], 15);
    assert_eq!(found(bed.log.as_ref(), "raw").await.late, Vec::<i64>::new());
    reaches(&source, Watermark(1018 * SECOND)).await;
    bed.runner.stop_all(true).await;
}

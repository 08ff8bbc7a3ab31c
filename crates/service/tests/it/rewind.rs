//! Services that read again what they have read: set back, or because their state is in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use millstream_service::event::{Offset, Stamp, TopicPartition, Watermark};
use millstream_service::flow::{Catalog, TimeColumn, plan_query};
use millstream_service::log::{Log, MemoryLog, Read, TopicKind};
use millstream_service::rewind::{Outputs, Rewind, To, carry_out, preview};
use millstream_service::{
    EventTimeDef, Handle, Injected, InputTime, Keep, Producers, ServiceDef, ServiceTime, SourceDef, State, SystemClock,
    Work,
};
use serde_json::Value;

use crate::bed::{Bed, COLUMNS, FaultyLog, Numbers, checked, name, pass, schema, until};
use crate::folds::{EVENTS, counter, folding, numbers, pairs, topics};

fn order(service: &str, to: To, how: Outputs) -> Rewind {
    let (inputs, outputs) = (vec![name("raw")], vec![name("out")]);
    Rewind { service: name(service), inputs, outputs, stateful: true, to, how, store: None }
}

fn counting() -> ServiceDef {
    ServiceDef { batch_rows_max: 20, ..folding(pass("counter", "raw", "out"), &counter()) }
}

/// What a changelog says: by partition and key.
async fn state(log: &dyn Log, service: &str) -> BTreeMap<(u32, String), Value> {
    let mut state = BTreeMap::new();
    for (partition, _, row) in crate::bed::rows(log, &format!("{service}.state")).await {
        let key = row["key"].as_str().unwrap().to_owned();
        match &row["value"] {
            _ if key.is_empty() => state.retain(|(p, _): &(u32, String), _| *p != partition),
            Value::Null => drop(state.remove(&(partition, key))),
            value => drop(state.insert((partition, key), value.clone())),
        }
    }
    state
}

/// Waits until a service has read all there is and is where it was.
async fn settled(handle: &Handle) {
    until("reading again coming to its end", async || {
        let status = handle.status().await.unwrap();
        status.lag == 0 && status.state == State::Running && status.tasks.iter().all(|task| task.note.is_none())
    })
    .await;
}

/// The rows of `out` are the counts of all events before `count`, each `times` times.
async fn exact(bed: &Bed, out: &str, count: u64, times: usize) {
    let mut expected: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    for n in (0..count).filter(|n| n % 10 != 7 && n % 10 != 9) {
        let of_key = expected.entry(format!("k{}", n % 13)).or_default();
        let next = of_key.len() as u64 / times as u64 + 1;
        of_key.extend(vec![(n, next); times]);
    }
    let mut found: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    for (_, _, row) in bed.rows(out).await {
        let pair = (row["n"].as_u64().unwrap(), row["count"].as_u64().unwrap());
        found.entry(row["k"].as_str().unwrap().to_owned()).or_default().push(pair);
    }
    if times > 1 {
        found.values_mut().for_each(|of_key| of_key.sort_unstable());
    }
    assert_eq!(found, expected);
}

/// Adds events up to `count` and waits until they are read.
async fn feed(bed: &Bed, count: u64) {
    let source = bed.runner.start_source(numbers(count).def("raw")).await.unwrap();
    bed.drained().await;
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suppressed_outputs_and_state_are_what_they_were_and_the_service_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    for bed in [Bed::new(), Bed::embedded(dir.path())] {
        topics(&bed).await;
        let counter = bed.runner.start_service(counting()).await.unwrap();
        feed(&bed, 2_000).await;
        let before = (bed.rows("out").await, bed.rows("counter.dlq").await, state(&*bed.log, "counter").await);
        let order = order("counter", To::Start, Outputs::Suppress);
        let plan = preview(&*bed.log, &order).await.unwrap();
        let raw = plan.inputs.iter().find(|input| input.topic == name("raw")).unwrap();
        assert_eq!((plan.tasks, plan.rewound, raw.partitions, raw.trimmed), (3, 3, 3, false));
        assert!(raw.events >= 2_000, "{plan:?}");
        for _ in 0..2 {
            assert_eq!(counter.rewind(&order).await.unwrap().rewound, 3);
            settled(&counter).await;
            let after = (bed.rows("out").await, bed.rows("counter.dlq").await, state(&*bed.log, "counter").await);
            assert_eq!(after, before);
        }
        let changelog = bed.log.topic(&name("counter.state")).unwrap().spec;
        assert_eq!(changelog.kind, TopicKind::Table);
        let at = TopicPartition::new(changelog.name, 0);
        assert!(bed.log.start(&at).await.unwrap() > Offset(0), "what is void was let go of");
        feed(&bed, 3_000).await;
        exact(&bed, "out", 3_000, 1).await;
        counter.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appended_outputs_are_there_exactly_twice_and_those_for_a_topic_there_once() {
    let bed = Bed::new();
    topics(&bed).await;
    let counter = bed.runner.start_service(counting()).await.unwrap();
    feed(&bed, 1_000).await;
    let letters = bed.rows("counter.dlq").await.len();
    counter.rewind(&order("counter", To::Start, Outputs::Topic(name("aside")))).await.unwrap();
    settled(&counter).await;
    exact(&bed, "aside", 1_000, 1).await;
    exact(&bed, "out", 1_000, 1).await;
    assert_eq!(bed.rows("counter.dlq").await.len(), letters);
    counter.rewind(&order("counter", To::Start, Outputs::Append)).await.unwrap();
    settled(&counter).await;
    exact(&bed, "out", 1_000, 2).await;
    assert_eq!(bed.rows("counter.dlq").await.len(), 2 * letters);
    feed(&bed, 1_200).await;
    exact(&bed, "aside", 1_000, 1).await;
    assert_eq!(bed.rows("out").await.len(), 2 * 800 + 160);
    for wrong in [Outputs::Topic(name("out")), Outputs::Topic(name("raw"))] {
        assert!(counter.rewind(&order("counter", To::Start, wrong)).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_dies_in_the_middle_goes_on_with_it() {
    for seed in 0..4 {
        let log = Arc::new(FaultyLog::new(seed, 0));
        let bed = Bed::on(log.clone());
        topics(&bed).await;
        let counter = bed.runner.start_service(counting()).await.unwrap();
        feed(&bed, 2_000).await;
        let before = (bed.rows("out").await, state(&*bed.log, "counter").await);
        log.fail(60);
        let order = order("counter", To::Start, Outputs::Suppress);
        until("being set back", async || counter.rewind(&order).await.is_ok()).await;
        for _ in 0..5 {
            counter.inject(Injected::Panic);
            tokio::task::yield_now().await;
        }
        until("some faults", async || log.injected.load(Ordering::Acquire) > 10 || bed.drained_now(&counter).await)
            .await;
        log.heal();
        settled(&counter).await;
        assert_eq!((bed.rows("out").await, state(&*bed.log, "counter").await), before, "seed {seed}");
        feed(&bed, 2_500).await;
        exact(&bed, "out", 2_500, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_stopped_again_and_again_on_its_way_comes_back_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (before, order) = {
        let bed = Bed::embedded(dir.path());
        topics(&bed).await;
        let counter = bed.runner.start_service(counting()).await.unwrap();
        feed(&bed, 3_000).await;
        counter.stop().await;
        let order = order("counter", To::Start, Outputs::Suppress);
        carry_out(&*bed.log, &SystemClock, &order).await.unwrap();
        let before = bed.rows("out").await;
        bed.log.close().await.unwrap();
        (before, order)
    };
    for round in 0..6 {
        let bed = Bed::embedded(dir.path());
        let counter = bed.runner.start_service(ServiceDef { batch_rows_max: 7, ..counting() }).await.unwrap();
        until("some commits", async || {
            counter.counts().commits > 5 || counter.status().await.is_ok_and(|status| status.lag == 0)
        })
        .await;
        counter.stop().await;
        if round == 3 {
            // Set back once more, on its way: it was as far as it was at first.
            carry_out(&*bed.log, &SystemClock, &order).await.unwrap();
        }
        assert_eq!(bed.rows("out").await, before);
        bed.log.close().await.unwrap();
    }
    let bed = Bed::embedded(dir.path());
    let counter = bed.runner.start_service(counting()).await.unwrap();
    settled(&counter).await;
    assert_eq!(bed.rows("out").await, before);
    feed(&bed, 3_500).await;
    exact(&bed, "out", 3_500, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offset_and_a_time_are_places_to_go_back_to() {
    let bed = Bed::new();
    bed.topic("raw", COLUMNS, &["k"], 2).await;
    bed.topic("out", COLUMNS, &["k"], 2).await;
    let def = checked(pass("passes", "raw", "out"), COLUMNS, &[("even", "n % 2 = 0")], millstream_service::Else::Drop);
    let passes = bed.runner.start_service(def).await.unwrap();
    let source = bed.runner.start_source(Numbers::new(400).def("raw")).await.unwrap();
    bed.drained().await;
    source.stop().await;
    let order = |to, how| Rewind { stateful: false, ..order("passes", to, how) };
    let behind: usize =
        bed.rows("raw").await.iter().filter(|(_, o, row)| *o >= 50 && row["n"].as_i64().unwrap() % 2 == 0).count();
    passes.rewind(&order(To::Offset(50), Outputs::Topic(name("some")))).await.unwrap();
    settled(&passes).await;
    assert_eq!(bed.rows("some").await.len(), behind);
    passes.rewind(&order(To::Time(0), Outputs::Topic(name("all")))).await.unwrap();
    settled(&passes).await;
    assert_eq!(bed.rows("all").await.len(), 200);
    let refused = passes.rewind(&order(To::Offset(10_000), Outputs::Append)).await.unwrap_err();
    assert!(refused.to_string().contains("has not read anything"), "{refused}");
    let future = To::Time(i64::MAX);
    assert!(passes.rewind(&order(future, Outputs::Append)).await.is_err());
    assert_eq!(bed.rows("out").await.len(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_kept_any_more_is_not_read_again_and_that_is_told() {
    let bed = Bed::new();
    topics(&bed).await;
    let counter = bed.runner.start_service(counting()).await.unwrap();
    feed(&bed, 500).await;
    bed.log.trim(&TopicPartition::new(name("raw"), 1), Offset(40)).await.unwrap();
    let order = order("counter", To::Start, Outputs::Suppress);
    let plan = counter.rewind(&order).await.unwrap();
    let raw = plan.inputs.iter().find(|input| input.topic == name("raw")).unwrap();
    assert!(raw.trimmed && raw.events < 500, "{plan:?}");
    settled(&counter).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_fold_begins_anew_where_its_form_is_refused() {
    let bed = Bed::new();
    topics(&bed).await;
    let first = bed.runner.start_service(counting()).await.unwrap();
    feed(&bed, 1_000).await;
    first.stop().await;
    let mut spec = counter();
    spec.state = pairs(&[("count", "bigint! = 0"), ("more", "string")]);
    let changed = ServiceDef { batch_rows_max: 30, ..folding(pass("counter", "raw", "out"), &spec) };
    let counter = bed.runner.start_service(changed).await.unwrap();
    let mut told = String::new();
    until("being refused", async || match counter.state() {
        State::Failed { reason } => {
            told = reason;
            true
        }
        _ => false,
    })
    .await;
    assert!(told.contains("millstream services rewind counter --to start"), "{told}");
    counter.rewind(&order("counter", To::Start, Outputs::Suppress)).await.unwrap();
    settled(&counter).await;
    exact(&bed, "out", 1_000, 1).await;
    feed(&bed, 1_500).await;
    exact(&bed, "out", 1_500, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_some_partitions_go_back_the_state_of_all_begins_anew() {
    let bed = Bed::new();
    topics(&bed).await;
    let counter = bed.runner.start_service(counting()).await.unwrap();
    feed(&bed, 2_000).await;
    let mut ends = Vec::new();
    for partition in 0..3 {
        ends.push((bed.log.end(&TopicPartition::new(name("raw"), partition)).await.unwrap().0, partition));
    }
    ends.sort_unstable();
    assert!(ends[0].0 < ends[2].0, "{ends:?}");
    // The shortest partition is not read again from there on, but counts from then on like the others.
    let order = order("counter", To::Offset(ends[0].0), Outputs::Suppress);
    assert_eq!(preview(&*bed.log, &order).await.unwrap().rewound, 3);
    assert_eq!(counter.rewind(&order).await.unwrap().rewound, 3);
    settled(&counter).await;
    let state = state(&*bed.log, "counter").await;
    let of = |partition: u32| state.keys().filter(|(p, _)| *p == partition).count();
    assert!(of(ends[0].1) == 0 && of(ends[2].1) > 0, "{state:?}");
    counter.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_in_memory_is_the_state_in_the_log_after_every_restart() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Arc::new(MemoryLog::new());
    for embedded in [false, true] {
        for count in [700, 701, 1_500, 2_600] {
            let bed = if embedded { Bed::embedded(dir.path()) } else { Bed::on(memory.clone()) };
            if count == 700 {
                topics(&bed).await;
            }
            let def = ServiceDef { keep: Keep::Memory, ..counting() };
            let counter = bed.runner.start_service(def).await.unwrap();
            if count == 1_500 {
                (0..3).for_each(|_| counter.inject(Injected::Panic));
            }
            feed(&bed, count).await;
            exact(&bed, "out", count, 1).await;
            counter.stop().await;
            assert!(bed.log.topic(&name("counter.state")).is_none(), "nothing is written down");
            if embedded {
                bed.log.close().await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_in_memory_can_be_set_back_too_and_its_trimmed_past_is_told() {
    let bed = Bed::new();
    topics(&bed).await;
    let def = || ServiceDef { keep: Keep::Memory, ..counting() };
    let counter = bed.runner.start_service(def()).await.unwrap();
    feed(&bed, 900).await;
    counter.rewind(&order("counter", To::Offset(100), Outputs::Suppress)).await.unwrap();
    settled(&counter).await;
    feed(&bed, 1_100).await;
    exact(&bed, "out", 1_100, 1).await;
    counter.stop().await;
    // Who keeps it in the log from now on would begin with nothing.
    let local = bed.runner.start_service(counting()).await.unwrap();
    until("being refused", async || matches!(local.state(), State::Failed { reason } if reason.contains("in memory")))
        .await;
    local.rewind(&order("counter", To::Start, Outputs::Suppress)).await.unwrap();
    settled(&local).await;
    feed(&bed, 1_300).await;
    exact(&bed, "out", 1_300, 1).await;
    local.stop().await;
    bed.log.trim(&TopicPartition::new(name("raw"), 0), Offset(10)).await.unwrap();
    let counter = bed.runner.start_service(def()).await.unwrap();
    until("being told", async || {
        let tasks = counter.status().await.unwrap().tasks;
        tasks.iter().any(|t| t.note.as_ref().is_some_and(|note| note.contains("`raw` from offset 10")))
    })
    .await;
}

const WINDOWS: &[(&str, &str)] = &[("k", "string"), ("window_end", "timestamp!"), ("n", "bigint!")];
const SECOND: i64 = 1_000_000;

/// Counts events by minute.
fn minutes() -> ServiceDef {
    let mut catalog = Catalog::default();
    catalog.topics.insert(name("raw"), schema(&[("k", "string"), ("n", "bigint!"), ("at", "timestamp")]));
    catalog.event_times.insert(name("raw"), TimeColumn { name: "at".to_owned(), plus_us: 0 });
    let sql = "SELECT k, window_end, count(*) AS n FROM tumble(raw, at, INTERVAL '1 minute') GROUP BY k, window_end";
    let query = plan_query(sql, &catalog).unwrap_or_else(|e| panic!("{e:?}"));
    let producers = vec![Producers { name: name("numbers"), tasks: 1, in_place: false }];
    let time = ServiceTime {
        inputs: vec![InputTime { topic: name("raw"), producers }],
        outputs: vec![name("out")],
        columns: BTreeMap::from([(name("out"), "window_end".to_owned())]),
    };
    let work = Work::Query(Arc::new(query));
    ServiceDef { work, time: Some(time), batch_rows_max: 15, ..pass("minutes", "raw", "out") }
}

/// The windows that were given out, with whether they are late, and what was promised, in order, by partition.
type Given = (BTreeMap<(String, String), Vec<(i64, bool)>>, Vec<Vec<Watermark>>);

async fn given(log: &dyn Log) -> Given {
    let mut windows: BTreeMap<(String, String), Vec<(i64, bool)>> = BTreeMap::new();
    let mut said = Vec::new();
    let rows = crate::bed::rows(log, "out").await;
    for partition in 0..2 {
        let mut late = BTreeMap::new();
        let mut of_partition = Vec::new();
        let mut reader = log.read(&TopicPartition::new(name("out"), partition), Offset(0)).unwrap();
        while let Read::Batch(batch) = reader.next().await.unwrap() {
            let stamps = batch.rows.columns().last().unwrap().as_primitive::<TimestampMicrosecondType>();
            for row in 0..batch.rows.num_rows() {
                late.insert(batch.offset(row).0, Stamp(stamps.value(row)).is_late());
            }
            of_partition.extend(batch.marks.iter().map(|mark| mark.watermark));
        }
        said.push(of_partition);
        for (_, offset, row) in rows.iter().filter(|(p, ..)| *p == partition) {
            let key = (row["window_end"].as_str().unwrap().to_owned(), row["k"].as_str().unwrap().to_owned());
            windows.entry(key).or_default().push((row["n"].as_i64().unwrap(), late[offset]));
        }
    }
    (windows, said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_close_once_and_promises_never_go_back() {
    for (keep, how) in [(Keep::Log, Outputs::Suppress), (Keep::Memory, Outputs::Suppress), (Keep::Log, Outputs::Append)]
    {
        let bed = Bed::new();
        bed.topic("raw", &[("k", "string"), ("n", "bigint!"), ("at", "timestamp")], &["k"], 2).await;
        bed.topic("out", WINDOWS, &["k"], 2).await;
        let numbers = Numbers { endless: true, ..numbers(600) };
        let count = Arc::clone(&numbers.count);
        let column = "at".to_owned();
        let time = EventTimeDef { column, max_out_of_orderness_us: 10 * SECOND, future_us: None, idle: None };
        let source = SourceDef { event_time: Some(time), ..numbers.def("raw") };
        bed.runner.start_source(source).await.unwrap();
        let minutes = bed.runner.start_service(ServiceDef { keep, ..minutes() }).await.unwrap();
        let reaches = async |seconds: i64| {
            until("time", async || {
                let time = minutes.status().await.unwrap().time;
                time.map(|time| time.watermark) == Some(Watermark(seconds * SECOND))
            })
            .await;
            settled(&minutes).await;
        };
        reaches(589).await;
        let (before, _) = given(&*bed.log).await;
        assert_eq!(before.len(), 9 * 13, "the windows before 540 s");
        minutes.rewind(&order("minutes", To::Start, how.clone())).await.unwrap();
        reaches(589).await;
        count.store(1_200, Ordering::Release);
        reaches(1_189).await;
        let (after, said) = given(&*bed.log).await;
        assert_eq!(after.len(), 19 * 13, "the windows before 1140 s");
        for (window, rows) in &after {
            match (&how, before.get(window)) {
                (Outputs::Append, Some(first)) => {
                    assert_eq!(rows[0], first[0]);
                    assert_eq!(rows[1..], [(first[0].0, true)], "{window:?} is late when it is given out again");
                }
                _ => assert!(rows.len() == 1 && !rows[0].1, "{window:?}: {rows:?}"),
            }
        }
        for said in said {
            assert!(said.windows(2).all(|two| two[0] <= two[1]), "{said:?}");
        }
        bed.runner.stop_all(false).await;
    }
}

impl Bed {
    /// Whether a service has read all there is.
    async fn drained_now(&self, handle: &Handle) -> bool {
        handle.status().await.is_ok_and(|status| status.lag == 0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_kept_no_state_meanwhile_does_not_go_on_with_the_old_one() {
    let bed = Bed::new();
    topics(&bed).await;
    bed.topic("plain", EVENTS, &["k"], 3).await;
    let counter = bed.runner.start_service(counting()).await.unwrap();
    feed(&bed, 100).await;
    counter.stop().await;
    let plain = bed.runner.start_service(pass("counter", "raw", "plain")).await.unwrap();
    feed(&bed, 200).await;
    plain.stop().await;
    let counter = bed.runner.start_service(counting()).await.unwrap();
    let refused = |state| matches!(state, State::Failed { reason } if reason.contains("services rewind counter"));
    until("the old state is refused", async || refused(counter.state())).await;
    counter.rewind(&order("counter", To::Start, Outputs::Suppress)).await.unwrap();
    settled(&counter).await;
    feed(&bed, 300).await;
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    for (_, _, row) in bed.rows("out").await {
        let most = found.entry(row["k"].as_str().unwrap().to_owned()).or_default();
        *most = row["count"].as_u64().unwrap().max(*most);
    }
    let counted = |k: u64| (0..300).filter(|n| n % 13 == k && n % 10 != 7 && n % 10 != 9).count() as u64;
    assert_eq!(found, (0..13).map(|k| (format!("k{k}"), counted(k))).collect());
}

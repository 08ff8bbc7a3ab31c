//! Folds: the state of a key is in the log, whoever dies.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_service::event::Name;
use millstream_service::flow::{
    Catalog, FoldAction, FoldCase, FoldOtherwise, FoldSpec, FoldTimer, TimeColumn, plan_fold,
};
use millstream_service::log::MemoryLog;
use millstream_service::{EventTimeDef, Injected, InputTime, Producers, ServiceDef, ServiceTime, SourceDef, Work};
use serde_json::json;

use crate::bed::{Bed, Numbers, name, pass, schema};

pub(crate) const EVENTS: &[(&str, &str)] = &[("k", "string"), ("n", "bigint!"), ("at", "timestamp")];
const COUNTED: &[(&str, &str)] = &[("k", "string"), ("n", "bigint"), ("count", "bigint!")];

pub(crate) fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(name, sql)| ((*name).to_owned(), (*sql).to_owned())).collect()
}

fn action(set: &[(&str, &str)], emit: &[(&str, &str)]) -> FoldAction {
    FoldAction { set: pairs(set), emit: vec![pairs(emit)], forget: false }
}

/// Counts the events of each key; those with a `n` that ends in 7 it does not take, on one that ends in 9 it fails.
pub(crate) fn counter() -> FoldSpec {
    let emit = [("k", "k"), ("n", "n + 0 / (9 - n % 10)"), ("count", "state.count")];
    FoldSpec {
        key: vec!["k".to_owned()],
        state: pairs(&[("count", "bigint! = 0")]),
        cases: vec![FoldCase {
            when: Some("n % 10 <> 7".to_owned()),
            action: action(&[("count", "state.count + 1")], &emit),
        }],
        otherwise: FoldOtherwise::Drop,
        timer: None,
    }
}

pub(crate) fn folding(mut def: ServiceDef, spec: &FoldSpec) -> ServiceDef {
    let mut catalog = Catalog::default();
    let input = def.inputs[0].clone();
    catalog.topics.insert(input.clone(), schema(EVENTS));
    catalog.event_times.insert(input.clone(), TimeColumn { name: "at".to_owned(), plus_us: 0 });
    def.work = Work::Fold(Arc::new(plan_fold(spec, &[input], &catalog).unwrap_or_else(|e| panic!("{e:?}"))));
    def
}

pub(crate) fn numbers(count: u64) -> Numbers {
    let make = |n: u64| json!({"k": format!("k{}", n % 13), "n": n, "at": format!("1970-01-01T{:02}:{:02}:{:02}Z", n / 3600, n / 60 % 60, n % 60)});
    Numbers { schema: schema(EVENTS), ..Numbers::new(count) }.making(move |n| make(n).to_string())
}

pub(crate) async fn topics(bed: &Bed) {
    bed.topic("raw", EVENTS, &["k"], 3).await;
    bed.topic("out", COUNTED, &["k"], 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_is_counted_once_whoever_dies_and_however_often_it_is_started() {
    let log = Arc::new(MemoryLog::new());
    for count in [2_000, 5_000, 5_001] {
        let bed = Bed::on(log.clone());
        if count == 2_000 {
            topics(&bed).await;
        }
        let counter = bed.runner.start_service(folding(pass("counter", "raw", "out"), &counter())).await.unwrap();
        let source = bed.runner.start_source(numbers(count).def("raw")).await.unwrap();
        for _ in 0..3 {
            counter.inject(Injected::Panic);
            tokio::task::yield_now().await;
        }
        bed.drained().await;
        source.stop().await;
        counter.stop().await;
        let mut expected: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
        for n in (0..count).filter(|n| n % 10 != 7 && n % 10 != 9) {
            let of_key = expected.entry(format!("k{}", n % 13)).or_default();
            of_key.push((n, of_key.len() as u64 + 1));
        }
        let mut found: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
        for (_, _, row) in bed.rows("out").await {
            let pair = (row["n"].as_u64().unwrap(), row["count"].as_u64().unwrap());
            found.entry(row["k"].as_str().unwrap().to_owned()).or_default().push(pair);
        }
        assert_eq!(found, expected);
        let mut failed: Vec<i64> =
            bed.rows("counter.dlq").await.iter().map(|(_, _, l)| l["event"]["n"].as_i64().unwrap()).collect();
        failed.sort_unstable();
        assert_eq!(failed, (0..count as i64).filter(|n| n % 10 == 9).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_no_case_takes_are_counted() {
    let bed = Bed::new();
    topics(&bed).await;
    let counter = bed.runner.start_service(folding(pass("counter", "raw", "out"), &counter())).await.unwrap();
    bed.runner.start_source(numbers(1_000).def("raw")).await.unwrap();
    bed.drained().await;
    assert_eq!((counter.counts().dropped_by_fold, counter.counts().dropped_total()), (100, 100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timers_run_when_event_time_reaches_them_and_the_last_at_the_end() {
    let bed = Bed::new();
    topics(&bed).await;
    // A key is told after a minute without events: each has one every 13 s, so only the end tells them.
    let emit = [("k", "k"), ("n", "CAST(NULL AS BIGINT)"), ("count", "state.count")];
    let timer = FoldTimer {
        column: "until".to_owned(),
        cases: vec![FoldCase { when: None, action: FoldAction { forget: true, ..action(&[], &emit) } }],
    };
    let set = [("count", "state.count + 1"), ("until", "at + INTERVAL '1 minute'")];
    let spec = FoldSpec {
        key: vec!["k".to_owned()],
        state: pairs(&[("count", "bigint! = 0"), ("until", "timestamp")]),
        cases: vec![FoldCase { when: None, action: FoldAction { set: pairs(&set), emit: Vec::new(), forget: false } }],
        otherwise: FoldOtherwise::Drop,
        timer: Some(timer),
    };
    let input = |topic: Name| InputTime {
        topic,
        producers: vec![Producers { name: name("numbers"), tasks: 1, in_place: false }],
    };
    let mut def = folding(pass("quiet", "raw", "out"), &spec);
    def.time = Some(ServiceTime { inputs: vec![input(name("raw"))], outputs: Vec::new(), columns: Default::default() });
    bed.runner.start_service(def).await.unwrap();
    let time =
        EventTimeDef { column: "at".to_owned(), max_out_of_orderness_us: 1_000_000, future_us: None, idle: None };
    // The first key stops at 130 s, and is told at 190 s.
    let make = |n: u64| {
        let key = if n > 130 && n.is_multiple_of(13) { 1 } else { n % 13 };
        json!({"k": format!("k{key}"), "n": n, "at": format!("1970-01-01T00:{:02}:{:02}Z", n / 60, n % 60)}).to_string()
    };
    let source = SourceDef { event_time: Some(time), ..numbers(1_300).making(make).def("raw") };
    bed.runner.start_source(source).await.unwrap();
    bed.drained().await;
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (_, _, row) in bed.rows("out").await {
        found.entry(row["k"].as_str().unwrap().to_owned()).or_default().push(row["count"].as_u64().unwrap());
    }
    let expected = (0..13).map(|key| {
        let count = match key {
            0 => 11,
            1 => 189,
            _ => 100,
        };
        (format!("k{key}"), vec![count])
    });
    assert_eq!(found, expected.collect());
    let kept = bed.rows("quiet.state").await;
    assert!(kept.iter().any(|(_, _, row)| row["value"].is_null()) || kept.len() > 13, "{}", kept.len());
}

//! No event lost, none twice, order per key kept, whatever the log answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bed::{Bed, COLUMNS, FaultyLog, Numbers, Paper, name, pass, querying};

/// The numbers of each key are in order.
fn in_order_per_key(rows: &[(u32, u64, serde_json::Value)]) {
    let mut last: BTreeMap<String, (u32, i64)> = BTreeMap::new();
    for (partition, _, row) in rows {
        let (key, n) = (row["k"].as_str().unwrap().to_owned(), row["n"].as_i64().unwrap());
        if let Some((p, before)) = last.insert(key.clone(), (*partition, n)) {
            assert_eq!(p, *partition, "key {key} is in two partitions");
            assert!(before < n, "key {key}: {n} follows {before}");
        }
    }
}

async fn pipeline(bed: &Bed, count: u64) -> Paper {
    pipeline_with(bed, count, Paper::default()).await
}

async fn pipeline_with(bed: &Bed, count: u64, paper: Paper) -> Paper {
    bed.topic("raw", COLUMNS, &["k"], 4).await;
    bed.topic("kept", COLUMNS, &["k"], 4).await;
    bed.topic("fewer", COLUMNS, &["k"], 3).await;
    bed.runner.start_sink(paper.def("paper", &["kept", "fewer"])).await.unwrap();
    let filter = querying(pass("filter", "raw", "kept"), COLUMNS, "SELECT k, n FROM raw WHERE n % 5 <> 0");
    bed.runner.start_service(filter).await.unwrap();
    bed.runner.start_service(pass("repartition", "kept", "fewer")).await.unwrap();
    bed.runner.start_source(Numbers::new(count).def("raw")).await.unwrap();
    paper
}

async fn check(bed: &Bed, paper: &Paper, count: i64) {
    assert_eq!(bed.numbers("raw", "n").await, (0..count).collect::<Vec<_>>());
    let kept: Vec<i64> = (0..count).filter(|n| n % 5 != 0).collect();
    for topic in ["kept", "fewer"] {
        assert_eq!(bed.numbers(topic, "n").await, kept, "{topic}");
        in_order_per_key(&bed.rows(topic).await);
    }
    assert_eq!(paper.lines().len(), 2 * kept.len());
    let files = paper.files.lock().clone();
    for (task, lines) in files {
        for topic in ["kept", "fewer"] {
            let offsets: Vec<u64> = lines.iter().filter(|(t, _)| t == topic).map(|(_, o)| *o).collect();
            assert!(offsets.windows(2).all(|w| w[0] < w[1]), "task {task} wrote {topic} twice or out of order");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_arrives_once_and_in_order_per_key() {
    let bed = Bed::new();
    let paper = pipeline(&bed, 5_000).await;
    bed.drained().await;
    check(&bed, &paper, 5_000).await;
    bed.runner.stop_all(true).await;
    assert_eq!(paper.finished.load(std::sync::atomic::Ordering::Acquire), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_log_resumes_where_it_was_closed() {
    let dir = tempfile::tempdir().unwrap();
    let mut paper = Paper::default();
    for count in [1_000, 2_500, 2_500] {
        let bed = Bed::embedded(dir.path());
        let written = std::mem::take(&mut paper);
        paper = pipeline_with(&bed, count, written).await;
        bed.drained().await;
        check(&bed, &paper, count as i64).await;
        bed.runner.stop_all(true).await;
        bed.log.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_arrives_once_through_aborts_fencing_and_unknown_outcomes() {
    let long = std::env::var("MILLSTREAM_LONG").is_ok();
    for seed in 0..(if long { 100 } else { 4 }) {
        let log = Arc::new(FaultyLog::new(seed, 60));
        let bed = Bed::on(log.clone());
        let paper = pipeline(&bed, 1_500).await;
        bed.drained().await;
        log.heal();
        check(&bed, &paper, 1_500).await;
        assert!(log.injected.load(std::sync::atomic::Ordering::Acquire) > 10, "seed {seed} injected too little");
        bed.runner.stop_all(false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pausing_scaling_and_changing_under_load_lose_nothing() {
    let bed = Bed::new();
    let mut numbers = Numbers::new(20_000);
    numbers.endless = true;
    let count = numbers.count.clone();
    bed.topic("raw", COLUMNS, &["k"], 4).await;
    bed.topic("kept", COLUMNS, &["k"], 4).await;
    bed.topic("fewer", COLUMNS, &["k"], 3).await;
    let paper = Paper::default();
    bed.runner.start_sink(paper.def("paper", &["kept", "fewer"])).await.unwrap();
    let filter = |sql| querying(pass("filter", "raw", "kept"), COLUMNS, sql);
    let first = bed.runner.start_service(filter("SELECT k, n FROM raw WHERE n % 5 <> 0")).await.unwrap();
    let second = bed.runner.start_service(pass("repartition", "kept", "fewer")).await.unwrap();
    let source = bed.runner.start_source(numbers.def("raw")).await.unwrap();

    first.scale(3).await.unwrap();
    second.pause();
    crate::bed::until("the second service pauses", async || {
        let status = second.status().await.unwrap();
        status.tasks.iter().all(|t| t.state == millstream_service::State::Paused)
    })
    .await;
    let while_paused = bed.rows("fewer").await.len();
    crate::bed::until("the first service goes on", async || bed.rows("kept").await.len() > while_paused + 100).await;
    assert_eq!(bed.rows("fewer").await.len(), while_paused);
    second.resume();
    first.scale(1).await.unwrap();
    second.scale(2).await.unwrap();

    // The same rule, said differently: a new version takes over at a commit boundary.
    first.stop().await;
    let mut changed = filter("SELECT k, n FROM raw WHERE NOT (n % 5 = 0)");
    changed.version = "2".into();
    let first = bed.runner.start_service(changed).await.unwrap();
    assert_eq!(first.version(), "2");
    count.fetch_add(1_000, std::sync::atomic::Ordering::AcqRel);
    crate::bed::until("all numbers enter", async || bed.rows("raw").await.len() == 21_000).await;
    source.stop().await;
    bed.drained().await;
    check(&bed, &paper, 21_000).await;
    assert!(bed.runner.start_service(pass("filter", "raw", "kept")).await.is_err(), "it is running already");
    assert!(bed.runner.handle(&name("filter")).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_sink_waits_and_then_has_everything_once() {
    let bed = Bed::new();
    bed.topic("raw", COLUMNS, &["k"], 2).await;
    let paper = Paper::default();
    paper.failures.store(20, std::sync::atomic::Ordering::Release);
    let other = Paper::default();
    bed.runner.start_sink(paper.def("paper", &["raw"])).await.unwrap();
    bed.runner.start_sink(other.def("other", &["raw"])).await.unwrap();
    bed.runner.start_source(Numbers::new(2_000).def("raw")).await.unwrap();
    bed.drained().await;
    for paper in [&paper, &other] {
        let lines = paper.lines();
        assert_eq!(lines.len(), 2_000);
    }
    let status = bed.runner.handle(&name("other")).unwrap().status().await.unwrap();
    assert_eq!((status.counts.restarts, status.counts.events_out), (0, 2_000));
    assert!(bed.runner.handle(&name("paper")).unwrap().counts().restarts > 0);
}

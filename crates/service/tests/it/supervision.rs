//! Tasks that die start again alone; an event that kills is isolated.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use millstream_service::event::Schema;
use millstream_service::flow::{Origin, Processed};
use millstream_service::{Injected, Processor, State, Work};

use crate::bed::{Bed, COLUMNS, Numbers, Paper, name, pass, schema, until};

/// Panics on some numbers.
struct Fragile(Schema);

impl Processor for Fragile {
    fn schema(&self) -> &Schema {
        &self.0
    }

    fn process(&self, rows: &RecordBatch) -> Processed {
        let numbers = rows.column(1).as_primitive::<Int64Type>();
        assert!(!numbers.values().iter().any(|n| *n % 1000 == 777), "cannot stand 777");
        Processed { rows: rows.clone(), origin: Origin::Identity(rows.num_rows()), failed: vec![], dropped: vec![] }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_kills_its_task_becomes_a_dead_letter_and_the_others_go_on() {
    let bed = Bed::new();
    bed.topic("raw", COLUMNS, &["k"], 2).await;
    bed.topic("out", COLUMNS, &["k"], 2).await;
    let mut def = pass("fragile", "raw", "out");
    def.work = Work::Processor(Arc::new(Fragile(schema(COLUMNS))));
    let fragile = bed.runner.start_service(def).await.unwrap();
    bed.runner.start_source(Numbers::new(3_000).def("raw")).await.unwrap();
    bed.drained().await;
    assert_eq!(bed.numbers("out", "n").await, (0..3_000).filter(|n| n % 1000 != 777).collect::<Vec<_>>());
    let letters = bed.rows("fragile.dlq").await;
    let mut killers: Vec<i64> = letters.iter().map(|(_, _, l)| l["event"]["n"].as_i64().unwrap()).collect();
    killers.sort_unstable();
    assert_eq!(killers, [777, 1777, 2777]);
    assert!(letters.iter().all(|(_, _, l)| l["code"] == "panic"));
    assert!(letters.iter().all(|(_, _, l)| l["reason"].as_str().unwrap().contains("cannot stand 777")));
    assert!(fragile.counts().panics >= 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn injected_panics_restart_one_task_and_disturb_nobody() {
    let bed = Bed::new();
    bed.topic("raw", COLUMNS, &["k"], 3).await;
    bed.topic("mid", COLUMNS, &["k"], 3).await;
    bed.topic("out", COLUMNS, &["k"], 3).await;
    let paper = Paper::default();
    let sink = bed.runner.start_sink(paper.def("paper", &["out"])).await.unwrap();
    let one = bed.runner.start_service(pass("one", "raw", "mid")).await.unwrap();
    let two = bed.runner.start_service(pass("two", "mid", "out")).await.unwrap();
    let source = bed.runner.start_source(Numbers::new(30_000).def("raw")).await.unwrap();
    for _ in 0..5 {
        for handle in [&two, &sink, &source] {
            handle.inject(Injected::Panic);
        }
        tokio::task::yield_now().await;
    }
    bed.drained().await;
    assert_eq!(bed.numbers("out", "n").await, (0..30_000).collect::<Vec<_>>());
    assert_eq!(paper.lines().len(), 30_000);
    assert_eq!(bed.rows("two.dlq").await.len(), 0);
    until("all panics are taken", async || two.counts().panics == 5 && sink.counts().panics == 5).await;
    assert_eq!(one.counts().restarts, 0);
    until("all run again", async || two.state() == State::Running && sink.state() == State::Running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_log_stops_the_tasks_with_its_reason() {
    let log = millstream_service::log::MemoryLog::new();
    let bed = Bed::on(Arc::new(log.clone()));
    bed.topic("raw", COLUMNS, &["k"], 1).await;
    bed.topic("out", COLUMNS, &["k"], 1).await;
    let service = bed.runner.start_service(pass("one", "raw", "out")).await.unwrap();
    let mut numbers = Numbers::new(10);
    numbers.endless = true;
    let count = numbers.count.clone();
    let source = bed.runner.start_source(numbers.def("raw")).await.unwrap();
    until("events flow", async || bed.rows("out").await.len() == 10).await;
    log.stop("the disk is gone");
    count.fetch_add(10, std::sync::atomic::Ordering::AcqRel);
    let failed = |state: State| matches!(state, State::Failed { reason } if reason.contains("the disk is gone"));
    until("the source fails", async || failed(source.state())).await;
    assert_eq!(bed.rows("out").await.len(), 10);
    assert_eq!(bed.runner.handle(&name("one")).unwrap().name(), service.name());
    bed.runner.stop_all(false).await;
    assert_eq!(source.state(), State::Stopped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_kills_is_found_although_another_input_is_busy() {
    let bed = Bed::new();
    for topic in ["busy", "calm", "out"] {
        bed.topic(topic, COLUMNS, &["k"], 1).await;
    }
    let mut def = pass("fragile", "busy", "out");
    def.inputs.push(name("calm"));
    def.work = Work::Processor(Arc::new(Fragile(schema(COLUMNS))));
    bed.runner.start_service(def).await.unwrap();
    let mut numbers = Numbers::new(10);
    numbers.endless = true;
    let count = numbers.count.clone();
    bed.runner.start_source(numbers.def("busy")).await.unwrap();
    let mut calm = Numbers::new(778).def("calm");
    calm.name = name("second");
    bed.runner.start_source(calm).await.unwrap();
    until("the killer is a dead letter", async || {
        // Below what kills.
        if count.load(std::sync::atomic::Ordering::Acquire) < 700 {
            count.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        }
        bed.rows("fragile.dlq").await.len() == 1
    })
    .await;
    until("the others go on", async || bed.numbers("out", "n").await.contains(&776)).await;
}

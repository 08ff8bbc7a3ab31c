//! What a hop costs: events pass through services that do nothing, over the embedded log (group sync) and the memory log.
//! Prints CPU nanoseconds per event for one hop and for five, and what each hop more costs.
//!
//! Run: `cargo bench -p millstream-service --bench hops`

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a benchmark that cannot go on should stop")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::RecordBatch;
use bytes::Bytes;
use futures::future::BoxFuture;
use millstream_service::event::json::Decoder;
use millstream_service::event::{Column, Name, PartitionId, Schema, Unknown};
use millstream_service::log::{
    EmbeddedLog, EmbeddedOptions, Log, MemoryLog, Position, Retention, TopicKind, TopicSpec,
};
use millstream_service::{
    ConnectError, Intake, Kind, Options, Output, Runner, ServiceDef, Source, SourceDef, SourceRead, SourceTask, Work,
};

const BATCHES: u64 = 1_000;
const ROWS: usize = 1_000;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Gives one batch again and again.
struct Same(RecordBatch);

struct SameTask(RecordBatch, AtomicU64);

impl Source for Same {
    fn bounded(&self) -> bool {
        true
    }

    fn open(&self, _: PartitionId, at: Option<Position>) -> BoxFuture<'_, Result<Box<dyn SourceTask>, ConnectError>> {
        let done = if at.is_some() { BATCHES } else { 0 };
        Box::pin(async move { Ok(Box::new(SameTask(self.0.clone(), done.into())) as Box<dyn SourceTask>) })
    }
}

impl SourceTask for SameTask {
    fn next(&mut self) -> BoxFuture<'_, Result<SourceRead, ConnectError>> {
        Box::pin(async move {
            // Within the future, because one that is dropped unpolled must not lose a batch.
            let n = self.1.fetch_add(1, Ordering::Relaxed);
            let intake = Intake {
                rows: self.0.clone(),
                refused: vec![],
                position: Some(Position::Opaque(Bytes::from(n.to_string()))),
                extra: vec![],
                receipt: None,
            };
            Ok(if n < BATCHES { SourceRead::Intake(Box::new(intake)) } else { SourceRead::Finished })
        })
    }
}

/// User and system time of this process, in nanoseconds (clock ticks are 10 ms).
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).unwrap().parse::<u64>().unwrap();
    (ticks(11) + ticks(12)) * 10_000_000
}

async fn run(log: Arc<dyn Log>, hops: usize) -> u64 {
    let columns = [
        ("id", "string!"),
        ("card_id", "string!"),
        ("merchant_id", "string"),
        ("amount", "decimal(12,2)!"),
        ("currency", "string"),
        ("country", "string"),
        ("at", "timestamp!"),
    ];
    let columns = columns.iter().map(|(n, k)| Column::parse(*n, k).unwrap()).collect();
    let schema = Schema::new(columns).unwrap();
    for hop in 0..=hops {
        let spec = TopicSpec {
            name: name(&format!("t{hop}")),
            partitions: 2,
            key: vec!["card_id".into()],
            schema: schema.clone(),
            kind: TopicKind::Stream,
            retention: Retention { age: Some(std::time::Duration::ZERO), ..Retention::default() },
            consumers: if hop < hops { vec![name(&format!("s{hop}"))] } else { vec![] },
        };
        log.create_topic(spec).await.unwrap();
    }
    let lines: Vec<String> = (0..ROWS)
        .map(|i| {
            format!(
                r#"{{"id":"t{i:08}","card_id":"c{:05}","merchant_id":"m{:04}","amount":{}.{:02},"currency":"EUR","country":"DE","at":"2026-01-01T00:00:00Z"}}"#,
                i % 500, i % 97, i % 300, i % 100
            )
        })
        .collect();
    let rows = Decoder::new(&schema, Unknown::Drop).decode_lines(lines.join("\n").as_bytes()).unwrap().rows;
    let runner = Runner::new(Arc::clone(&log), Options::new(tokio::runtime::Handle::current()));
    let begun = cpu_ns();
    for hop in 0..hops {
        let def = ServiceDef {
            name: name(&format!("s{hop}")),
            version: "1".into(),
            inputs: vec![name(&format!("t{hop}"))],
            aliases: Default::default(),
            columns: Default::default(),
            check: None,
            work: Work::None,
            output: Output::To(name(&format!("t{}", hop + 1))),
            instances: 1,
            batch_rows_max: 8192,
            lookups: vec![],
            late: Default::default(),
            time: None,
            keep: Default::default(),
        };
        runner.start_service(def).await.unwrap();
    }
    let def = SourceDef {
        name: name("same"),
        version: "1".into(),
        source: Arc::new(Same(rows)),
        to: name("t0"),
        columns: None,
        event_time: None,
    };
    runner.start_source(def).await.unwrap();
    runner.drained().await;
    let used = cpu_ns() - begun;
    for handle in runner.handles().iter().filter(|h| h.kind() == Kind::Service) {
        assert_eq!(handle.counts().events_out, BATCHES * ROWS as u64, "{}", handle.name());
    }
    runner.stop_all(true).await;
    log.close().await.unwrap();
    used / (BATCHES * ROWS as u64)
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!(
        "{} events in batches of {ROWS}, 2 partitions, {} CPUs",
        BATCHES * ROWS as u64,
        std::thread::available_parallelism().unwrap()
    );
    runtime.block_on(async {
        for embedded in [false, true] {
            let mut costs = vec![];
            for hops in [1, 5] {
                let dir = tempfile::tempdir().unwrap();
                let log: Arc<dyn Log> = match embedded {
                    false => Arc::new(MemoryLog::new()),
                    true => Arc::new(EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap()),
                };
                costs.push(run(log, hops).await);
            }
            let [one, five] = costs.as_slice() else { return };
            let log = if embedded { "embedded, group sync" } else { "memory" };
            println!(
                "{log}: 1 hop {one} ns/event, 5 hops {five} ns/event, each hop more {} ns/event",
                five.saturating_sub(*one) / 4
            );
        }
    });
}

//! Receipts and backpressure.

use std::sync::Arc;

use arrow_array::RecordBatch;
use futures::future::BoxFuture;
use millstream_service::event::json::Decoder;
use millstream_service::event::{PartitionId, Unknown};
use millstream_service::log::{Position, Retention, TopicKind, TopicSpec};
use millstream_service::{ConnectError, Intake, Receipt, RowFate, Source, SourceDef, SourceRead, SourceTask, State};
use serde_json::json;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::bed::{Bed, COLUMNS, Numbers, name, pass, schema, until};

/// A source that events are pushed into.
struct Push(Arc<Mutex<mpsc::Receiver<Intake>>>);

impl Source for Push {
    fn bounded(&self) -> bool {
        false
    }

    fn open(&self, _: PartitionId, _: Option<Position>) -> BoxFuture<'_, Result<Box<dyn SourceTask>, ConnectError>> {
        let receiver = Arc::clone(&self.0);
        Box::pin(async move { Ok(Box::new(PushTask(receiver)) as Box<dyn SourceTask>) })
    }
}

struct PushTask(Arc<Mutex<mpsc::Receiver<Intake>>>);

impl SourceTask for PushTask {
    fn next(&mut self) -> BoxFuture<'_, Result<SourceRead, ConnectError>> {
        Box::pin(async move {
            match self.0.lock().await.recv().await {
                Some(intake) => Ok(SourceRead::Intake(Box::new(intake))),
                None => std::future::pending().await,
            }
        })
    }
}

fn rows(lines: &[serde_json::Value]) -> RecordBatch {
    let text: Vec<String> = lines.iter().map(ToString::to_string).collect();
    let mut decoder = Decoder::new(&schema(COLUMNS), Unknown::Reject);
    decoder.decode_lines(text.join("\n").as_bytes()).unwrap().rows
}

async fn push(to: &mpsc::Sender<Intake>, lines: &[serde_json::Value]) -> Receipt {
    let (sender, receipt) = oneshot::channel();
    let intake = Intake { rows: rows(lines), refused: vec![], position: None, extra: vec![], receipt: Some(sender) };
    to.send(intake).await.unwrap();
    receipt.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_says_where_each_row_stands() {
    let bed = Bed::new();
    bed.topic("raw", COLUMNS, &["k"], 3).await;
    let (sender, receiver) = mpsc::channel(8);
    let source = Arc::new(Push(Arc::new(Mutex::new(receiver))));
    let def =
        SourceDef { name: name("api"), version: "1".into(), source, to: name("raw"), columns: None, event_time: None };
    bed.runner.start_source(def).await.unwrap();
    let lines: Vec<_> =
        (0..40).map(|n| if n == 5 { json!({"n": n}) } else { json!({"n": n, "k": format!("k{n}")}) }).collect();
    for round in 0..2 {
        let Receipt::Durable { rows } = push(&sender, &lines).await else { panic!("not durable") };
        assert_eq!(rows.len(), 40);
        let stand = bed.rows("raw").await;
        for (line, fate) in lines.iter().zip(rows) {
            match fate {
                RowFate::Placed { partition, offset } => {
                    let offset = offset.unwrap().0;
                    let (_, _, row) = stand.iter().find(|(p, o, _)| (*p, *o) == (partition.0, offset)).unwrap();
                    assert_eq!(row["n"], line["n"], "round {round}");
                }
                RowFate::Refused(refusal) => assert_eq!((refusal.code, &line["n"]), ("key-null", &json!(5))),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_backlog_is_told_to_callers_and_waited_for_by_others() {
    let bed = Bed::new();
    let spec = TopicSpec {
        name: name("raw"),
        partitions: 1,
        key: vec!["k".into()],
        schema: schema(COLUMNS),
        kind: TopicKind::Stream,
        retention: Retention { max_bytes: Some(20_000), ..Retention::default() },
        consumers: vec![name("slow")],
    };
    bed.log.create_topic(spec).await.unwrap();
    bed.topic("out", COLUMNS, &["k"], 1).await;
    let slow = bed.runner.start_service(pass("slow", "raw", "out")).await.unwrap();
    slow.pause();
    let file = bed.runner.start_source(Numbers::new(3_000).def("raw")).await.unwrap();
    let full = |state: State| matches!(state, State::Waiting { reason } if reason.contains("unread"));
    until("the file source waits", async || full(file.state())).await;
    let (sender, receiver) = mpsc::channel(8);
    let source = Arc::new(Push(Arc::new(Mutex::new(receiver))));
    let def =
        SourceDef { name: name("api"), version: "1".into(), source, to: name("raw"), columns: None, event_time: None };
    bed.runner.start_source(def).await.unwrap().state();
    let receipt = push(&sender, &[json!({"k": "a", "n": 1})]).await;
    assert!(matches!(receipt, Receipt::Backpressure { disk_full: false, .. }), "{receipt:?}");
    slow.resume();
    until("all arrive", async || bed.rows("out").await.len() == 3_000).await;
    assert_eq!(bed.numbers("out", "n").await, (0..3_000).collect::<Vec<_>>());
    let receipt = push(&sender, &[json!({"k": "a", "n": 3_000})]).await;
    assert!(matches!(receipt, Receipt::Durable { .. }), "{receipt:?}");
}

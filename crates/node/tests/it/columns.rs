//! Topics gain columns while the pipeline runs, also where the change that adds them is taken back.

use std::time::Duration;

use millstream_node::Node;
use millstream_node::api::ChangeKind;

use crate::change::{changed, plan, text};
use crate::world::{PIPELINE, World, collect, http, until};

const LIMIT: Duration = Duration::from_secs(30);
const COLUMNS: &str = "{id: string!, country: string,";

/// Orders posted, and a sink of the checked ones with all their columns.
fn posted() -> String {
    PIPELINE
        .replace("file: {path: orders.ndjson}", "http: {path: /orders}")
        .replace("sinks:\n", "sinks:\n  raw: {from: [valid], file: {path: raw}}\n")
}

/// The pipeline with a column before those that are used, of the same type as its neighbour.
fn noted() -> String {
    posted().replace(COLUMNS, "{note: string, id: string!, country: string,")
}

async fn start(world: &World) -> Node {
    std::fs::write(world.dir.path().join("pipeline.yaml"), posted()).unwrap();
    world.start(false).await
}

async fn post(node: &Node, event: &str) {
    let (code, body) = http(node, "POST", "/orders", event).await;
    assert_eq!(code, 200, "{body}");
}

/// Waits until everything is written, ends the node and gives the lines of both sinks.
async fn written(world: &World, node: &Node) -> (Vec<String>, Vec<String>) {
    // A stop completes the files.
    until("all are read", async || {
        let status = node.status().await;
        let steps = status.services.iter().map(|s| s.lag).chain(status.sinks.iter().map(|s| s.lag));
        steps.sum::<u64>() == 0
    })
    .await;
    node.shutdown(LIMIT).await.unwrap();
    let mut raw = Vec::new();
    collect(&world.dir.path().join("raw"), &mut raw);
    raw.sort();
    (raw, world.out())
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_of_a_change_that_is_taken_back_are_seen_by_nobody() {
    let world = World::new(0);
    let node = start(&world).await;
    post(&node, r#"{"id":"a","country":"de","amount":1.5}"#).await;
    // Files that the log does not know, with names that would come: only opening finds them.
    let other = world.dir.path().join("other/enriched");
    std::fs::create_dir_all(&other).unwrap();
    (0..2).for_each(|p| std::fs::write(other.join(format!("{p}-000099.ndjson")), "").unwrap());
    let wrong = noted().replace("file: {path: out}", "file: {path: other}");
    let (code, body) = http(&node, "POST", "/api/apply", &text(&wrong)).await;
    assert!(code == 409 && body.contains("runs as before"), "{body}");
    assert_eq!(changed(&plan(&node, &posted()).await), []);
    post(&node, r#"{"id":"b","country":"fr","amount":2.5}"#).await;
    let a = (r#"{"id":"a","country":"de","amount":1.50}"#, r#"{"id":"a","twice":3.00,"name":"Germany"}"#);
    let b = (r#"{"id":"b","country":"fr","amount":2.50}"#, r#"{"id":"b","twice":5.00,"name":"France"}"#);
    let (raw, out) = written(&world, &node).await;
    assert_eq!((raw, out), (vec![a.0.into(), b.0.into()], vec![a.1.into(), b.1.into()]));
    drop(node);

    // The file that ran goes on running, and another column comes beside the one that stayed.
    let node = start(&world).await;
    post(&node, r#"{"id":"c","country":"de","amount":3.5}"#).await;
    let other_type = posted().replace(COLUMNS, "{note: int, id: string!, country: string,");
    let refused = plan(&node, &other_type).await;
    assert!(refused.changes.iter().any(|c| c.change == ChangeKind::Refused && c.name == "orders"), "{refused:?}");
    let memo = posted().replace(COLUMNS, "{id: string!, memo: string, country: string,");
    let (code, body) = http(&node, "POST", "/api/apply", &text(&memo)).await;
    assert_eq!(code, 200, "{body}");
    post(&node, r#"{"id":"d","country":"fr","amount":4.5,"memo":"m","note":"n"}"#).await;
    let (raw, out) = written(&world, &node).await;
    let c = (r#"{"id":"c","country":"de","amount":3.50}"#, r#"{"id":"c","twice":7.00,"name":"Germany"}"#);
    let d = (r#"{"id":"d","memo":"m","country":"fr","amount":4.50}"#, r#"{"id":"d","twice":9.00,"name":"France"}"#);
    assert_eq!(out, [a.1, b.1, c.1, d.1]);
    // The sink of the checked ones may have been stopped for the change before it read `c`.
    let late = r#"{"id":"c","memo":null,"country":"de","amount":3.50}"#;
    assert!(raw == [a.0, b.0, c.0, d.0] || raw == [a.0, b.0, late, d.0], "{raw:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_added_before_used_ones_reaches_every_step() {
    let world = World::new(0);
    let node = start(&world).await;
    post(&node, r#"{"id":"a","country":"de","amount":1.5}"#).await;
    until("the first is written", async || node.status().await.sinks.iter().all(|s| s.events == 1)).await;
    let found = plan(&node, &noted()).await;
    assert_eq!(found.unchanged, ["out"], "whoever reads or fills a topic with another column restarts");
    let (code, body) = http(&node, "POST", "/api/apply", &text(&noted())).await;
    assert_eq!(code, 200, "{body}");
    post(&node, r#"{"id":"b","country":"fr","amount":2.5,"note":"n"}"#).await;
    let (raw, out) = written(&world, &node).await;
    assert_eq!(
        raw,
        [r#"{"id":"a","country":"de","amount":1.50}"#, r#"{"note":"n","id":"b","country":"fr","amount":2.50}"#]
    );
    assert_eq!(out, [r#"{"id":"a","twice":3.00,"name":"Germany"}"#, r#"{"id":"b","twice":5.00,"name":"France"}"#]);
}

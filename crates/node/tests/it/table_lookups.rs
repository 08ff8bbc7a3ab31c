//! A table topic as a lookup, in a node: from posted rows to what each event found.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_node::api::{Applied, ChangeKind, LookupState, PartKind};
use millstream_node::{Node, plan as planned};

use crate::change::{changed, plan, text};
use crate::world::{World, http, until};

const LIMIT: Duration = Duration::from_secs(30);

const PIPELINE: &str = r#"version: 1
pipeline: limits
log: {embedded: {dir: log, segment: 1MiB}}
defaults: {topic: {partitions: 2}}
topics:
  payments: {key: [id], columns: {id: string!, card: string!, amount: bigint!}}
  limits: {kind: table, key: [card], partitions: 3, columns: {card: string!, most: bigint}}
  spent: {kind: table, key: [card]}
lookups:
  limits: {topic: limits, key: [card]}
sources:
  pay: {http: {path: /pay}, to: payments}
  set: {http: {path: /set}, to: limits}
services:
  look: {from: payments, sql: "SELECT p.id, l.most FROM payments AS p LEFT JOIN limits AS l ON l.card = p.card", to: out}
sinks:
  written: {from: [out], file: {path: out}}
tests:
  - name: a table's rows are there before events look them up
    given:
      payments: [{id: a, card: x, amount: 1}, {id: b, card: y, amount: 1}, {id: c, card: x, amount: 1}]
      limits: [{card: x, most: 1}, {card: x, most: 2}]
    expect: {out: [{id: a, most: 2}, {id: b, most: null}, {id: c, most: 2}]}
"#;

/// The pipeline with what services write as a lookup, too.
fn summed() -> String {
    let second = "  sum: {from: payments, sql: \"SELECT card, sum(amount) AS total FROM payments GROUP BY card\", to: spent}\n  \
                  rich: {from: payments, sql: \"SELECT p.id, s.total FROM payments AS p JOIN sums AS s ON s.card = p.card\", to: rich}\n";
    let text = PIPELINE.replace("lookups:\n", "lookups:\n  sums: {topic: spent}\n");
    let text = text.replace("sinks:\n", &format!("{second}sinks:\n"));
    text.replace(
        "{id: c, most: 2}]}",
        "{id: c, most: 2}], rich: [{id: a, total: 2}, {id: b, total: 1}, {id: c, total: 2}]}",
    )
}

fn world(text: &str) -> World {
    let world = World::new(0);
    std::fs::write(world.dir.path().join("pipeline.yaml"), text).unwrap();
    world
}

async fn post(node: &Node, path: &str, body: &str) {
    let (code, answer) = http(node, "POST", path, body).await;
    assert_eq!(code, 200, "{answer}");
}

async fn lookup(node: &Node, name: &str) -> Option<LookupState> {
    node.status().await.lookups.into_iter().find(|lookup| lookup.name == name)
}

/// Posts limits and waits until they are read.
async fn set(node: &Node, body: &str, rows: u64) {
    let before = lookup(node, "limits").await.unwrap().loaded_at;
    post(node, "/set", body).await;
    until("the limits are read", async || {
        let now = lookup(node, "limits").await.unwrap();
        now.loaded_at != before && now.rows == Some(rows)
    })
    .await;
}

async fn pay(node: &Node, id: &str, card: &str) {
    post(node, "/pay", &format!("{{\"id\":\"{id}\",\"card\":\"{card}\",\"amount\":1}}")).await;
    until("the payment is through", async || node.status().await.services.iter().all(|s| s.lag == 0)).await;
}

fn found(world: &World) -> BTreeMap<String, serde_json::Value> {
    let rows = world.out();
    let rows = rows.iter().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let pairs: Vec<_> = rows.map(|row| (row["id"].as_str().unwrap().to_owned(), row["most"].clone())).collect();
    let found: BTreeMap<_, _> = pairs.iter().cloned().collect();
    assert_eq!(found.len(), pairs.len(), "each once: {pairs:?}");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn posted_rows_are_found_from_then_on_and_behind_a_restart() {
    let world = world(PIPELINE);
    let node = world.start(false).await;
    pay(&node, "a", "x").await;
    set(&node, r#"[{"card":"x","most":1},{"card":"y","most":7}]"#, 2).await;
    pay(&node, "b", "x").await;
    set(&node, r#"[{"card":"x","most":2}]"#, 2).await;
    pay(&node, "c", "x").await;
    let known = lookup(&node, "limits").await.unwrap();
    assert_eq!((known.topic.as_deref(), known.error), (Some("limits"), None));
    assert!(known.bytes > Some(0));
    let metrics = http(&node, "GET", "/metrics", "").await.1;
    assert!(metrics.contains("millstream_lookup_rows{lookup=\"limits\"} 2"), "{metrics}");
    assert!(metrics.contains("millstream_lookup_bytes{lookup=\"limits\"}"), "{metrics}");
    let readers = http(&node, "GET", "/api/topics", "").await.1;
    assert!(readers.contains("\"look\""), "{readers}");
    node.shutdown(LIMIT).await.unwrap();

    let node = world.start(false).await;
    pay(&node, "d", "x").await;
    pay(&node, "e", "y").await;
    node.shutdown(LIMIT).await.unwrap();
    let wanted = [("a", None), ("b", Some(1)), ("c", Some(2)), ("d", Some(2)), ("e", Some(7))];
    let wanted = wanted.into_iter().map(|(id, most)| (id.to_owned(), serde_json::json!(most))).collect();
    assert_eq!(found(&world), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_that_is_applied_has_all_that_is_there_before_its_service_starts() {
    let without = PIPELINE.replace("lookups:\n  limits: {topic: limits, key: [card]}\n", "").replace(
        "p.id, l.most FROM payments AS p LEFT JOIN limits AS l ON l.card = p.card",
        "p.id, NULLIF(p.amount - 1, 5) AS most FROM payments AS p",
    );
    let world = world(&without[..without.find("tests:").unwrap()]);
    let node = world.start(false).await;
    let many: Vec<String> = (0..5_000).map(|i| format!("{{\"card\":\"k{}\",\"most\":{i}}}", i % 2_500)).collect();
    post(&node, "/set", &format!("[{}]", many.join(","))).await;
    pay(&node, "a", "k1").await;
    let found_plan = plan(&node, PIPELINE).await;
    assert_eq!(
        changed(&found_plan),
        [(PartKind::Lookup, "limits", ChangeKind::Added), (PartKind::Service, "look", ChangeKind::Changed)]
    );
    let (code, body) = http(&node, "POST", "/api/apply", &text(PIPELINE)).await;
    assert_eq!(code, 200, "{body}");
    serde_json::from_str::<Applied>(&body).unwrap();
    assert_eq!(lookup(&node, "limits").await.unwrap().rows, Some(2_500));
    pay(&node, "b", "k1").await;
    pay(&node, "c", "nobody").await;

    // Of a topic that comes with the same change, which has no rows yet.
    let (code, body) = http(&node, "POST", "/api/apply", &text(&summed())).await;
    assert_eq!(code, 200, "{body}");
    until("the sums are read", async || lookup(&node, "sums").await.unwrap().rows == Some(2)).await;
    let other = PIPELINE.replace("limits: {topic: limits, key: [card]}", "limits: {topic: spent, key: [card]}");
    let other = planned_error(&world, &other);
    assert!(other.contains("error[topic-columns]"), "{other}");
    node.shutdown(LIMIT).await.unwrap();
    let wanted = [("a", Some(0)), ("b", Some(2_501)), ("c", None)];
    let wanted = wanted.into_iter().map(|(id, most)| (id.to_owned(), serde_json::json!(most))).collect();
    assert_eq!(found(&world), wanted);
}

fn planned_error(world: &World, yaml: &str) -> String {
    std::fs::write(world.dir.path().join("pipeline.yaml"), yaml).unwrap();
    planned(&world.load()).unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn tests_give_a_table_its_rows_before_anybody_looks_them_up() {
    for text in [PIPELINE.to_owned(), summed()] {
        let world = world(&text);
        let loaded = world.load();
        let pipeline = planned(&loaded).unwrap_or_else(|e| panic!("{e}"));
        for _ in 0..5 {
            let results = millstream_node::testing::run_tests(&pipeline, &loaded.config.tests).await;
            assert_eq!(results.len(), 1);
            assert!(results[0].faults.is_empty(), "{:?}", results[0].faults);
        }
    }
}

//! Services are set back, while they run and when they do not.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{Dir, wait, wait_for};

const PIPELINE: &str = r#"version: 1
pipeline: it
log: {embedded: {dir: log, segment: 4MiB}}
server: {listen: 127.0.0.1:0}
defaults: {topic: {partitions: 2, key: [k]}}
topics:
  events: {columns: {id: bigint!, k: string!}, retention: forever}
  totals: {kind: table, key: [k]}
sources:
  input: {file: {path: input.ndjson, follow: true}, to: events}
services:
  odd: {from: events, check: {is_odd: id % 2 = 1}, to: good}
  total: {from: good, sql: "SELECT k, count(*) AS n FROM good GROUP BY k", to: totals}
"#;

fn dir() -> Dir {
    let dir = Dir::empty();
    dir.write("pipeline.yaml", PIPELINE);
    let line = |i: u64| format!("{{\"id\":{i},\"k\":\"k{}\"}}\n", i % 3);
    dir.write("input.ndjson", &(0..600).map(line).collect::<String>());
    dir
}

fn rows(dir: &Dir, args: &[&str]) -> Vec<Value> {
    dir.run(args).exits(0).json_lines().into_iter().map(|line| line["event"].clone()).collect()
}

fn totals(dir: &Dir) -> BTreeMap<String, u64> {
    let rows = rows(dir, &["tap", "totals", "--table", "--json"]);
    rows.iter().map(|row| (row["k"].as_str().unwrap().to_owned(), row["n"].as_u64().unwrap())).collect()
}

fn all_counted() -> BTreeMap<String, u64> {
    (0..3).map(|k| (format!("k{k}"), 100)).collect()
}

/// Waits until a service is where it was.
fn back(dir: &Dir, service: &str) {
    wait_for(dir, service, "being where it was", |s| s["lag"] == 0 && s["state"] == "running" && s["reason"].is_null());
}

#[test]
fn a_service_is_set_back_on_a_running_node_and_on_a_stopped_one() {
    let dir = dir();
    let node = dir.start(&[]);
    wait("all to be counted", || totals(&dir) == all_counted());
    let unsaid = dir.run(&["services", "rewind", "total", "--to", "start"]).exits(1);
    let unsaid = unsaid.says("it has no default").says("suppress").says("append").says("TOPIC");
    drop(unsaid);
    dir.run(&["services", "rewind", "totl", "--to", "start", "--outputs", "append", "-y"]).exits(1).says("`total`");
    dir.run(&["services", "rewind", "total", "--to", "x", "--outputs", "append", "-y"]).exits(1).says("an offset");
    dir.run(&["services", "rewind", "total", "--to", "start", "--outputs", "append"]).exits(2).says("--yes");
    let before = rows(&dir, &["tap", "good", "--json"]).len();
    let told = dir.run(&["services", "rewind", "odd", "--to", "start", "--outputs", "aside", "--yes"]).exits(0);
    let told = told.says("events: up to 600 events in 1 partition are read again").says("goes to `aside` alone");
    assert!(told.stdout().contains("`odd` was rewound (1 of 2 partitions)"), "{}", told.stdout());
    back(&dir, "odd");
    assert_eq!(rows(&dir, &["tap", "aside", "--json"]).len(), before);
    let letters = dir.run(&["dlq", "list", "--json"]).exits(0).json();
    assert_eq!(letters["odd"]["letters"], 300, "dead letters are not written again");
    assert_eq!(rows(&dir, &["tap", "good", "--json"]).len(), before);
    let answer = dir.run(&["services", "rewind", "total", "--to", "start", "--outputs", "suppress", "-y", "--json"]);
    let answer = answer.exits(0).json();
    assert_eq!((&answer["done"], &answer["rewound"]), (&json!(true), &json!(2)), "{answer}");
    back(&dir, "total");
    node.stop();
    // A form that does not fit is refused, and here is the way out.
    dir.edit("GROUP BY k", "GROUP BY k HAVING max(id) >= 0");
    let node = dir.start(&[]);
    wait_for(&dir, "total", "being refused", |s| s["state"] == "failed");
    let reason = dir.run(&["services"]).exits(0).stdout();
    assert!(reason.contains("millstream services rewind total --to start"), "{reason}");
    node.stop();
    let told = dir.run(&["services", "rewind", "total", "--to", "start", "--outputs", "append", "-y"]).exits(0);
    assert!(told.stdout().contains("was rewound"));
    let node = dir.start(&[]);
    back(&dir, "total");
    assert_eq!(totals(&dir), all_counted());
    node.stop();
}

#[test]
fn state_in_memory_is_built_anew_at_every_start() {
    let dir = dir();
    dir.edit("to: totals}", "to: totals, state: {keep: memory}}");
    let valid = dir.run(&["validate"]).exits(0);
    drop(valid.says("state-memory-retention"));
    let node = dir.start(&[]);
    wait("all to be counted", || totals(&dir) == all_counted());
    dir.run(&["state", "show", "total"]).exits(1).says("in memory");
    node.stop();
    let more = (600..900).map(|i: u64| format!("{{\"id\":{i},\"k\":\"k{}\"}}\n", i % 3)).collect::<String>();
    let text = dir.read("input.ndjson") + &more;
    dir.write("input.ndjson", &text);
    let node = dir.start(&[]);
    let expect: BTreeMap<String, u64> = (0..3).map(|k| (format!("k{k}"), 150)).collect();
    wait("all to be counted again", || totals(&dir) == expect);
    node.stop();
    let topics = dir.run(&["topics", "--json"]).exits(0).json();
    assert!(topics["topics"].as_array().unwrap().iter().all(|topic| topic["name"] != "total.state"), "{topics}");
}

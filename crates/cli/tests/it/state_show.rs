//! What services keep, shown while they run and when they do not.

use serde_json::json;

use crate::support::{Dir, wait};

const PIPELINE: &str = r#"version: 1
pipeline: it
log: {embedded: {dir: log, segment: 4MiB}}
server: {listen: 127.0.0.1:0}
defaults: {topic: {partitions: 2, key: [k]}}
topics:
  events:
    columns: {id: bigint!, k: string!, amount: "decimal(8,2)!", at: timestamp!}
    event_time: {column: at, max_out_of_orderness: 0s}
  totals: {kind: table, key: [k]}
sources:
  input: {file: {path: input.ndjson, follow: true}, to: events}
services:
  minutes:
    from: events
    sql: |
      SELECT k, window_start, window_end, sum(amount) AS total FROM tumble(events, at, INTERVAL '1 minute')
      GROUP BY k, window_start, window_end
    to: by_minute
  total: {from: events, sql: "SELECT k, count(*) AS n FROM events GROUP BY k", to: totals}
  passes: {from: events, sql: "SELECT id, k FROM events", to: passed}
"#;

fn dir() -> Dir {
    let dir = Dir::empty();
    dir.write("pipeline.yaml", PIPELINE);
    let line =
        |i: u64| format!("{{\"id\":{i},\"k\":\"k{}\",\"amount\":1.50,\"at\":\"2026-01-01T00:00:{i:02}Z\"}}\n", i % 3);
    dir.write("input.ndjson", &(0..30).map(line).collect::<String>());
    dir
}

#[test]
fn what_a_service_keeps_is_shown_by_name_on_a_running_node_and_on_a_stopped_one() {
    let dir = dir();
    let node = dir.start(&[]);
    let total = ["state", "show", "total", "--key", "k=k1", "--json"];
    let expect = json!({"k": "k1"});
    wait("all is counted", || dir.run(&total).exits(0).json()["rows"][0]["value"] == json!({"count(*)": 10}));
    let answer = dir.run(&total).exits(0).json();
    assert_eq!(answer["rows"].as_array().unwrap().len(), 1);
    assert_eq!((&answer["rows"][0]["key"], &answer["rows"][0]["what"]), (&expect, &json!("group")));
    dir.run(&["state", "show", "totl"]).exits(1).says("did you mean `total`");
    dir.run(&["state", "show", "total", "--key", "kk=1"]).exits(1).says("did you mean `k`");
    dir.run(&["state", "show", "total", "--key", "k"]).exits(2).says("COLUMN=VALUE");
    dir.run(&["state", "show", "passes"]).exits(1).says("keeps nothing");
    node.stop();
    let answer = dir.run(&["state", "show", "minutes", "--key", "{\"k\": \"k2\"}", "--json"]).exits(0).json();
    let row = &answer["rows"][0];
    let window = json!({"k": "k2", "window_start": "2026-01-01T00:00:00Z", "window_end": "2026-01-01T00:01:00Z"});
    assert_eq!((&row["key"], &row["what"]), (&window, &json!("window")), "{answer}");
    assert!(row["value"].to_string().contains("15"), "{row}");
    let table = dir.run(&["state", "show", "total"]).exits(0).stdout();
    let heading: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(heading, ["WHAT", "PART", "k", "count(*)", "SIZE"], "{table}");
    assert_eq!(table.lines().count(), 4, "{table}");
    dir.run(&["state", "show", "total", "-n", "2"]).exits(0).says("there is more");
    assert_eq!(dir.run(&["state", "show", "total", "--partition", "7"]).exits(1).stdout(), "");
}

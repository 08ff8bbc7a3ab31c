//! Late events that update the rows of a table.

use crate::support::{Dir, wait, wait_for};

const PIPELINE: &str = r#"version: 1
pipeline: shop
log: {embedded: {dir: log, segment: 4MiB}}
server: {listen: 127.0.0.1:0}
defaults: {topic: {partitions: 1, key: [sku]}}
topics:
  sales:
    event_time: {column: at, max_out_of_orderness: 5s}
    columns: {id: bigint!, sku: string!, at: timestamp!}
  minutes: {kind: table, key: [sku, window_start, window_end]}
sources:
  shop: {file: {path: sales.ndjson, follow: true}, to: sales}
services:
  count:
    from: sales
    late: update
    state: {ttl: 5m}
    sql: |
      SELECT sku, window_start, window_end, count(*) AS n FROM tumble(sales, at, INTERVAL '1 minute')
      GROUP BY sku, window_start, window_end
    to: minutes
sinks:
  out: {from: [minutes], file: {path: out}}
"#;

fn sale(id: u64, sku: &str, minute: u64, second: u64) -> String {
    format!("{{\"id\":{id},\"sku\":\"{sku}\",\"at\":\"2026-01-01T12:{minute:02}:{second:02}Z\"}}\n")
}

/// The rows of the table: product, minute and count.
fn table(dir: &Dir) -> Vec<(String, String, u64)> {
    let rows = dir.run(&["tap", "minutes", "--table"]).exits(0).json_lines();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let mut rows: Vec<_> = rows
        .iter()
        .map(|r| (text(&r["sku"]), text(&r["window_start"])[14..16].to_owned(), r["n"].as_u64().unwrap()))
        .collect();
    rows.sort();
    rows
}

fn row(sku: &str, minute: &str, n: u64) -> (String, String, u64) {
    (sku.to_owned(), minute.to_owned(), n)
}

#[test]
fn late_events_update_the_table_also_behind_a_kill_until_their_window_is_not_kept() {
    let dir = Dir::empty();
    dir.write("pipeline.yaml", PIPELINE);
    let mut sales = [sale(1, "a", 0, 10), sale(2, "b", 0, 20), sale(3, "a", 1, 10), sale(4, "a", 2, 10)].concat();
    dir.write("sales.ndjson", &sales);
    let mut node = dir.start(&[]);
    let first = vec![row("a", "00", 1), row("a", "01", 1), row("b", "00", 1)];
    wait("the first two minutes", || table(&dir) == first);
    node.signal("-KILL");
    node.ended();

    // Late for minutes that were given out: one row changes, one is new.
    sales += &[sale(5, "a", 0, 30), sale(6, "b", 1, 30)].concat();
    dir.write("sales.ndjson", &sales);
    let node = dir.start(&[]);
    let second = vec![row("a", "00", 2), row("a", "01", 1), row("b", "00", 1), row("b", "01", 1)];
    wait("the late events", || table(&dir) == second);
    // Minute 7 is more than five minutes behind minute 0, and not behind minute 2.
    sales += &[sale(7, "a", 7, 0), sale(8, "b", 0, 40), sale(9, "b", 2, 40)].concat();
    dir.write("sales.ndjson", &sales);
    let third = vec![
        row("a", "00", 2),
        row("a", "01", 1),
        row("a", "02", 1),
        row("b", "00", 1),
        row("b", "01", 1),
        row("b", "02", 1),
    ];
    wait("minute 2 with its late event", || table(&dir) == third);
    wait_for(&dir, "count", "the letter of what is too late", |s| s["dead_letters"] == 1);
    let letters = dir.run(&["dlq", "list", "count"]).exits(0).stdout();
    assert!(letters.contains("late") && letters.contains("not kept any more"), "{letters}");
    node.stop();
}

//! A table topic as a lookup, in a process that is killed.

use std::collections::BTreeMap;
use std::io::Write;

use crate::support::{Dir, part, wait, wait_for};

const PIPELINE: &str = r#"version: 1
pipeline: limits
log: {embedded: {dir: log, segment: 4MiB}}
server: {listen: 127.0.0.1:0}
defaults: {topic: {partitions: 2}}
topics:
  payments: {key: [id], columns: {id: bigint!, card: string!}}
  limits: {kind: table, key: [card], columns: {card: string!, most: bigint!}}
lookups:
  limits: {topic: limits, key: [card]}
sources:
  pay: {file: {path: payments.ndjson, follow: true}, to: payments}
  set: {file: {path: limits.ndjson, follow: true}, to: limits}
services:
  look: {from: payments, sql: "SELECT p.id, l.most FROM payments AS p JOIN limits AS l ON l.card = p.card", to: out}
sinks:
  written: {from: [out], file: {path: out}}
"#;

fn add(dir: &Dir, file: &str, lines: impl Iterator<Item = String>) {
    let mut file = std::fs::OpenOptions::new().append(true).open(dir.path().join(file)).unwrap();
    file.write_all(lines.collect::<String>().as_bytes()).unwrap();
}

#[test]
fn every_event_finds_the_newest_row_once_however_often_the_process_is_killed() {
    const ROUNDS: u64 = 6;
    const CARDS: u64 = 50;
    const PAID: u64 = 3_000;
    let dir = Dir::empty();
    dir.write("pipeline.yaml", PIPELINE);
    dir.write("payments.ndjson", "");
    dir.write("limits.ndjson", "");
    let written = || {
        let status = dir.run(&["services", "--json"]).exits(0).json();
        part(&status, "sinks", "written")["lag"] == 0
    };
    let mut node = None;
    for round in 0..ROUNDS {
        // Half of the changes come while nobody runs; the row with a new key is the last of them.
        let limits = (0..CARDS).map(|c| format!("{{\"card\":\"k{c}\",\"most\":{round}}}\n"));
        let last = format!("{{\"card\":\"last{round}\",\"most\":0}}\n");
        add(&dir, "limits.ndjson", limits.chain([last]));
        let mut running = node.take().unwrap_or_else(|| dir.start(&[]));
        wait("the limits to be read", || {
            let status = dir.run(&["services", "--json"]).exits(0).json();
            part(&status, "lookups", "limits")["rows"] == CARDS + round + 1
        });
        let paid =
            (round * PAID..(round + 1) * PAID).map(|id| format!("{{\"id\":{id},\"card\":\"k{}\"}}\n", id % CARDS));
        add(&dir, "payments.ndjson", paid);
        if round % 2 == 0 {
            // In the middle of it.
            wait_for(&dir, "look", "some payments", |s| s["events_out"].as_u64() > Some(0));
            running.signal("-KILL");
            running.ended();
            running = dir.start(&[]);
        }
        wait("all payments to be through", || {
            // In this order: what the sink lags behind is asked for when all of it is made.
            dir.run(&["topics", "out", "--json"]).exits(0).json()["events"] == (round + 1) * PAID && written()
        });
        if round % 3 == 2 {
            running.signal("-KILL");
            running.ended();
        } else {
            node = Some(running);
        }
    }
    let node = node.unwrap_or_else(|| dir.start(&[]));
    wait("the files to have all", written);
    node.stop();
    let rows = dir.out();
    let found: BTreeMap<u64, u64> =
        rows.iter().map(|row| (row["id"].as_u64().unwrap(), row["most"].as_u64().unwrap())).collect();
    assert_eq!((rows.len() as u64, found.len() as u64), (ROUNDS * PAID, ROUNDS * PAID));
    let wrong: Vec<_> = found.iter().filter(|(id, most)| *id / PAID != **most).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

//! Rows that must meet do, whichever input they come from, and whoever waits for them in event time learns when they have.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_node::api::{ChangeKind, PartKind};
use millstream_node::plan as planned;

use crate::change::{changed, plan};
use crate::world::World;

const LIMIT: Duration = Duration::from_secs(60);

/// A pipeline in four partitions with these topics, services and files as sources, whose topic `out` is written down.
fn world(topics: &str, services: &str, files: &[(&str, Vec<String>)]) -> World {
    let world = World::new(0);
    let sources: String = files.iter().map(|(name, _)| source(name)).collect();
    let text = format!(
        "version: 1\npipeline: meet\nlog: {{embedded: {{dir: log, segment: 1MiB}}}}\n\
         defaults: {{topic: {{partitions: 4}}}}\ntopics:\n{topics}sources:\n{sources}services:\n{services}\
         sinks:\n  written: {{from: [out], file: {{path: out}}}}\n"
    );
    std::fs::write(world.dir.path().join("pipeline.yaml"), text).unwrap();
    for (name, lines) in files {
        std::fs::write(world.dir.path().join(format!("{name}.ndjson")), lines.join("\n") + "\n").unwrap();
    }
    world
}

fn source(name: &str) -> String {
    format!("  in_{name}: {{file: {{path: {name}.ndjson}}, to: {name}}}\n")
}

/// What is written when all has been read, and how many dead letters there are.
async fn drained(world: &World) -> (Vec<serde_json::Value>, u64) {
    let node = world.start(true).await;
    tokio::time::timeout(LIMIT, node.finished()).await.expect("the pipeline drains").unwrap();
    let summary = node.shutdown(LIMIT).await.unwrap();
    let lines = world.out().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    (lines, summary.total.dead_letters)
}

/// The greatest `n` of each key.
fn greatest(rows: &[serde_json::Value], key: &str) -> BTreeMap<String, i64> {
    let mut found = BTreeMap::new();
    for row in rows {
        let n = row["n"].as_i64().unwrap();
        let known = found.entry(row[key].as_str().unwrap().to_owned()).or_insert(n);
        *known = n.max(*known);
    }
    found
}

fn at(second: usize) -> String {
    format!("2026-01-01T12:{:02}:{:02}Z", second / 60, second % 60)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_every_part_of_a_union_go_to_the_partition_of_their_key() {
    let a = (0..20).map(|i| format!(r#"{{"id":"k{i}"}}"#)).collect();
    let b = (0..20).map(|i| format!(r#"{{"bid":"x{i}","other":"k{i}"}}"#)).collect();
    let topics = "  a: {key: [id], columns: {id: string!}}\n  b: {key: [bid], columns: {bid: string!, other: string!}}\n  \
                  c: {key: [k]}\n  out: {kind: table, key: [k]}\n";
    let services = "  both: {from: [a, b], sql: SELECT id AS k FROM a UNION ALL SELECT other AS k FROM b, to: c}\n  \
                    counted: {from: c, sql: \"SELECT k, count(*) AS n FROM c GROUP BY k\", to: out}\n";
    let (rows, _) = drained(&world(topics, services, &[("a", a), ("b", b)])).await;
    let found = greatest(&rows, "k");
    assert!(found.len() == 20 && found.values().all(|n| *n == 2), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_inputs_does_not_decide_whether_windows_behind_a_join_close() {
    for from in ["[a, b]", "[b, a]"] {
        let a = (0..20).map(|i| format!(r#"{{"id":"k{i}","at":"{}"}}"#, at(i))).collect();
        let b = (0..20).map(|i| format!(r#"{{"aid":"k{i}","bt":"{}"}}"#, at(i + 5))).collect();
        let topics = "  a: {key: [id], event_time: {column: at}, columns: {id: string!, at: timestamp!}}\n  \
                      b: {key: [aid], event_time: {column: bt}, columns: {aid: string!, bt: timestamp!}}\n  \
                      j: {key: [id]}\n  out: {key: [id]}\n";
        let services = format!(
            "  joined:\n    from: {from}\n    sql: SELECT a.id, a.at FROM a JOIN b ON a.id = b.aid AND b.bt BETWEEN a.at \
             AND a.at + INTERVAL '1 minute'\n    to: j\n  counted:\n    from: j\n    sql: SELECT id, window_start, count(*) \
             AS n FROM tumble(j, at, INTERVAL '1 minute') GROUP BY id, window_start\n    to: out\n"
        );
        let (rows, _) = drained(&world(topics, &services, &[("a", a), ("b", b)])).await;
        assert_eq!(greatest(&rows, "id").len(), 20, "{from}: {rows:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_comes_to_any_input_restarts_whoever_has_its_columns() {
    let topics = "  a: {key: [id], columns: {id: string!, land: string}}\n  \
                  lands: {kind: table, key: [code], columns: {code: string!, name: string}}\n  \
                  out: {kind: table, key: [land]}\n  named: {key: [id]}\n";
    let services = "  counted: {from: a, sql: \"SELECT land, count(*) AS n FROM a GROUP BY land\", to: out}\n  \
                    naming:\n    from: [a, lands]\n    sql: SELECT a.id, l.name FROM a JOIN lands AS l ON l.code = a.land\n    \
                    to: named\n";
    let world = world(topics, services, &[("a", vec![r#"{"id":"x"}"#.into()]), ("lands", vec![])]);
    let node = world.start(false).await;
    let before = std::fs::read_to_string(world.dir.path().join("pipeline.yaml")).unwrap();
    let wider = before.replace("id: string!, land: string}", "id: string!, land: string, note: string}");
    let found = plan(&node, &wider).await;
    let restarted: Vec<&str> = changed(&found)
        .into_iter()
        .filter(|(part, _, change)| (*part, *change) == (PartKind::Service, ChangeKind::Changed))
        .map(|(_, name, _)| name)
        .collect();
    assert!(
        ["counted.repartition.a", "counted", "naming.repartition.a", "naming"].iter().all(|n| restarted.contains(n)),
        "{restarted:?}"
    );
    let wider = before.replace("name: string}", "name: string, long: string}");
    let found = plan(&node, &wider).await;
    assert!(changed(&found).contains(&(PartKind::Service, "naming", ChangeKind::Changed)), "{found:?}");
    node.shutdown(LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_brought_together_as_any_topic() {
    let a = (0..40).map(|i| format!(r#"{{"id":"k{i}"}}"#)).collect();
    let topics = "  a: {key: [id], columns: {id: string!}}\n  out: {kind: table, key: [code]}\n";
    let services = "  v: {from: a, check: {never: id = 'x'}, to: valid}\n  \
                    counted: {from: v.dlq, sql: 'SELECT code, count(*) AS n FROM \"v.dlq\" GROUP BY code', to: out}\n";
    let (rows, _) = drained(&world(topics, services, &[("a", a)])).await;
    assert_eq!(greatest(&rows, "code"), BTreeMap::from([("check".to_owned(), 40)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_without_a_key_is_a_dead_letter_however_many_partitions_there_are() {
    for partitions in [1, 4, 8] {
        let a = vec![r#"{"id":"x","land":"de"}"#.to_owned(), r#"{"id":"y"}"#.to_owned(), r#"{"id":"z"}"#.to_owned()];
        let topics = format!(
            "  a: {{key: [id], columns: {{id: string!, land: string}}}}\n  \
             out: {{kind: table, key: [land], partitions: {partitions}}}\n"
        );
        let services = "  counted: {from: a, sql: \"SELECT land, count(*) AS n FROM a GROUP BY land\", to: out}\n";
        let (rows, letters) = drained(&world(&topics, services, &[("a", a)])).await;
        assert!(rows.iter().all(|row| row["land"] == "de") && rows.len() == 1, "{partitions}: {rows:?}");
        assert!(letters > 0, "{partitions}");
    }
}

#[test]
fn topics_that_are_read_as_one_have_one_event_time() {
    let columns = "columns: {id: string!, at: timestamp!, seen: timestamp!}";
    let topics = format!(
        "  a: {{key: [id], event_time: {{column: at}}, {columns}}}\n  b: {{key: [id], event_time: {{column: seen}}, {columns}}}\n"
    );
    let world = world(&topics, "  one: {from: [a, b], to: out}\n", &[("a", vec![]), ("b", vec![])]);
    let found = planned(&world.load()).unwrap_err().to_string();
    assert!(found.contains("error[event-times-differ]") && found.contains("`b`: seen"), "{found}");
}

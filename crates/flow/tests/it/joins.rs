//! Joins of topics against a naive model: whatever comes in which order, cut and restarted anywhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use millstream_event::{Column, Name, Schema, Stamp};
use millstream_flow::{Catalog, LookupSchema, LookupSet, Query, Running, TimeColumn, plan_query};
use proptest::prelude::*;

/// A row of topic `a` or `b`: its key, its time in seconds, whether it is a tombstone.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Row {
    right: bool,
    id: i64,
    key: Option<i64>,
    time: i64,
    deleted: bool,
}

const SECOND: i64 = 1_000_000;

fn schema() -> Schema {
    let columns = ["id: bigint!", "k: bigint", "at: timestamp!"];
    let columns = columns.map(|c| c.split_once(": ").unwrap()).map(|(name, kind)| Column::parse(name, kind).unwrap());
    Schema::new(columns.to_vec()).unwrap()
}

fn catalog(table: bool) -> Catalog {
    let mut catalog = Catalog::default();
    for name in ["a", "b"] {
        let name = Name::new(name).unwrap();
        catalog.topics.insert(name.clone(), schema());
        catalog.event_times.insert(name, TimeColumn { name: "at".to_owned(), plus_us: 0 });
    }
    if table {
        catalog.tables.insert(Name::new("b").unwrap(), vec!["k".to_owned()]);
    }
    catalog
}

fn times(times: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(times.map(Some).collect::<TimestampMicrosecondArray>().with_timezone("+00:00"))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(rows.iter().map(|r| Some(r.id)).collect::<Int64Array>());
    let keys: ArrayRef = Arc::new(rows.iter().map(|r| r.key).collect::<Int64Array>());
    let stamp = |r: &Row| if r.deleted { Stamp::at(0).with(Stamp::DELETED).0 } else { 0 };
    let (at, stamps) = (times(rows.iter().map(|r| r.time * SECOND)), times(rows.iter().map(stamp)));
    RecordBatch::try_new(Arc::clone(schema().physical()), vec![ids, keys, at, stamps]).unwrap()
}

/// Rows with times that wander; those that would be late are left out.
fn rows(tombstones: bool) -> impl Strategy<Value = Vec<Row>> {
    let one = (any::<bool>(), prop::option::weighted(0.9, 0..3_i64), 0..6_i64, prop::bool::weighted(0.3));
    prop::collection::vec(one, 0..60).prop_map(move |parts| {
        let mut greatest = [0_i64, 0];
        let mut rows = Vec::new();
        for (id, (right, key, step, deleted)) in parts.into_iter().enumerate() {
            let so_far = &mut greatest[usize::from(right)];
            let time = *so_far + step - BEHIND;
            *so_far = (*so_far).max(time);
            rows.push(Row { right, id: id as i64, key, time, deleted: deleted && right && tombstones });
        }
        rows
    })
}

/// How far times go back.
const BEHIND: i64 = 3;

/// What a query gives out: the identities of both sides. Batches are cut at `cuts`, the query restarted at `restarts`.
fn run(query: &Arc<Query>, rows: &[Row], cuts: &[bool], restarts: &[bool]) -> Vec<(Option<i64>, Option<i64>)> {
    let lookups = LookupSet::default();
    let mut running = query.open().unwrap();
    let mut kept: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut given = Vec::new();
    let mut promised = i64::MIN;
    let mut greatest = [0_i64, 0];
    let mut from = 0;
    let time = query.event_time("at");
    let mut take = |step: millstream_flow::Step, promised: i64| {
        assert!(step.late.is_empty() && step.failed.is_empty() && step.derived.is_empty());
        for rows in &step.rows {
            let ids = |at: usize| rows.column(at).as_primitive::<Int64Type>().iter();
            given.extend(ids(0).zip(ids(1)));
            if let Some((column, plus)) = &time {
                let times = rows.column_by_name(column).unwrap().as_primitive::<TimestampMicrosecondType>().clone();
                assert!(times.iter().flatten().all(|time| time + plus >= promised), "behind {promised}");
            }
        }
    };
    for at in 0..rows.len() {
        let row = rows[at];
        greatest[usize::from(row.right)] = greatest[usize::from(row.right)].max(row.time);
        let ends = rows.get(at + 1).is_none_or(|next| next.right != row.right);
        if !ends && !cuts.get(at).copied().unwrap_or(false) {
            continue;
        }
        let topic = Name::new(if row.right { "b" } else { "a" }).unwrap();
        take(running.push(&topic, &batch(&rows[from..=at]), &lookups).unwrap(), promised);
        from = at + 1;
        let watermark = (greatest[0].min(greatest[1]) - BEHIND) * SECOND;
        take(running.advance(watermark, &lookups).unwrap(), promised);
        promised = promised.max(running.output_watermark(watermark));
        keep(&mut running, &mut kept);
        if restarts.get(at).copied().unwrap_or(false) {
            running = query.open().unwrap();
            kept.iter().for_each(|(key, value)| running.restore(key, Some(value)).unwrap());
        }
    }
    take(running.advance(i64::MAX, &lookups).unwrap(), promised);
    keep(&mut running, &mut kept);
    if !query.explain().contains("table topic") {
        assert_eq!(running.size(), (0, 0), "all is let go at the end");
        assert!(kept.is_empty(), "the changelog as well");
    }
    given.sort_unstable();
    given
}

fn keep(running: &mut Running, kept: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    let Some(changes) = running.changes() else { return };
    for (key, value) in changes.iter() {
        match value {
            Some(value) => drop(kept.insert(key.to_vec(), value.to_vec())),
            None => drop(kept.remove(key)),
        }
    }
}

fn planned(sql: &str, table: bool) -> Arc<Query> {
    Arc::new(plan_query(sql, &catalog(table)).unwrap_or_else(|errors| panic!("{sql}: {errors:?}")))
}

fn flags() -> impl Strategy<Value = Vec<bool>> {
    prop::collection::vec(any::<bool>(), 60)
}

proptest! {
    #[test]
    fn a_join_by_interval_is_the_pairs_within_it(
        rows in rows(false), cuts in flags(), restarts in flags(), kind in 0..4_usize, least in -6..6_i64, width in -1..8_i64,
        residual in any::<bool>(),
    ) {
        let most = least + width;
        let (name, left, right) =
            [("JOIN", false, false), ("LEFT JOIN", true, false), ("RIGHT JOIN", false, true), ("FULL JOIN", true, true)][kind];
        let other = if residual { " AND a.id < b.id" } else { "" };
        let time = if right && !left { "b.at" } else { "a.at" };
        let sql = format!(
            "SELECT a.id, b.id AS other, {time} FROM a {name} b ON a.k = b.k AND b.at >= a.at + INTERVAL '{least} seconds' \
             AND b.at - INTERVAL '{most} seconds' <= a.at{other}"
        );
        let query = planned(&sql, false);
        let meet = |a: &Row, b: &Row| {
            let within = (least..=most).contains(&(b.time - a.time));
            a.key.is_some() && a.key == b.key && within && (!residual || a.id < b.id)
        };
        let (bs, lefts): (Vec<Row>, Vec<Row>) = rows.iter().partition(|r| r.right);
        let mut expected: Vec<(Option<i64>, Option<i64>)> = Vec::new();
        for a in &lefts {
            expected.extend(bs.iter().filter(|b| meet(a, b)).map(|b| (Some(a.id), Some(b.id))));
        }
        let alone = |a: &&Row| left && !bs.iter().any(|b| meet(a, b));
        expected.extend(lefts.iter().filter(alone).map(|a| (Some(a.id), None)));
        let alone = |b: &&Row| right && !lefts.iter().any(|a| meet(a, b));
        expected.extend(bs.iter().filter(alone).map(|b| (None, Some(b.id))));
        expected.sort_unstable();
        prop_assert_eq!(run(&query, &rows, &cuts, &restarts), expected);
    }

    #[test]
    fn a_row_meets_the_version_that_was_valid_at_its_time(
        rows in rows(true), cuts in flags(), restarts in flags(), left in any::<bool>(),
    ) {
        let kind = if left { "LEFT JOIN" } else { "JOIN" };
        let query =
            planned(&format!("SELECT a.id, b.id AS other, a.at FROM a {kind} b FOR SYSTEM_TIME AS OF a.at ON a.k = b.k"), true);
        let mut expected: Vec<(Option<i64>, Option<i64>)> = Vec::new();
        for a in rows.iter().filter(|r| !r.right) {
            let versions = rows.iter().filter(|b| b.right && b.key.is_some() && b.key == a.key && b.time <= a.time);
            // Of versions of one time the last one counts.
            let found = versions.max_by_key(|b| (b.time, b.id)).filter(|b| !b.deleted).map(|b| b.id);
            if found.is_some() || left {
                expected.push((Some(a.id), found));
            }
        }
        expected.sort_unstable();
        prop_assert_eq!(run(&query, &rows, &cuts, &restarts), expected);
    }

    #[test]
    fn a_row_meets_the_newest_row_of_a_table(rows in rows(true), cuts in flags(), restarts in flags(), left in any::<bool>()) {
        let kind = if left { "LEFT JOIN" } else { "JOIN" };
        let query = planned(&format!("SELECT a.id, b.id AS other, a.at FROM a {kind} b ON a.k = b.k"), true);
        let mut expected: Vec<(Option<i64>, Option<i64>)> = Vec::new();
        for (at, a) in rows.iter().enumerate().filter(|(_, r)| !r.right) {
            let before = rows[..at].iter().filter(|b| b.right && b.key.is_some() && b.key == a.key);
            let found = before.max_by_key(|b| b.id).filter(|b| !b.deleted).map(|b| b.id);
            if found.is_some() || left {
                expected.push((Some(a.id), found));
            }
        }
        expected.sort_unstable();
        prop_assert_eq!(run(&query, &rows, &cuts, &restarts), expected);
    }
}

#[test]
fn what_a_query_says_twice_is_computed_once() {
    let counts = "SELECT k, count(*) AS n, window_start, window_end FROM hop(a, at, INTERVAL '1 second', INTERVAL '5 seconds') \
                  GROUP BY k, window_start, window_end";
    let sql = format!(
        "SELECT c.k, c.n FROM ({counts}) c JOIN (SELECT max(d.n) AS most, d.window_start, d.window_end FROM ({counts}) d \
         GROUP BY d.window_start, d.window_end) m ON c.window_start = m.window_start AND c.window_end = m.window_end AND c.n >= m.most"
    );
    let steps = planned(&sql, false).explain();
    assert_eq!(steps.matches("hop 5 s every 1 s, ").count(), 2, "{steps}");
}

#[test]
fn a_bounded_join_may_be_joined_with_a_lookup_as_well() {
    let mut catalog = catalog(false);
    let lookup = LookupSchema { schema: schema(), key: vec!["k".to_owned()] };
    catalog.lookups.insert(Name::new("l").unwrap(), lookup);
    let sql = "SELECT a.id, l.id AS other FROM a \
               JOIN b ON a.k = b.k AND b.at BETWEEN a.at AND a.at + INTERVAL '1 second' JOIN l ON l.k = a.k";
    let steps = plan_query(sql, &catalog).unwrap_or_else(|errors| panic!("{errors:?}")).explain();
    assert!(steps.contains("inner join of streams, the right one 0 to 1 s behind the left one"), "{steps}");
    assert!(steps.contains("join with lookup l"), "{steps}");
}

#[test]
fn columns_that_no_query_asks_for_are_not_in_the_form_of_its_state() {
    let wider = |table: bool, at: usize| {
        let mut catalog = catalog(table);
        let mut columns = schema().columns().to_vec();
        columns.insert(at, Column::parse("note", "string").unwrap());
        catalog.topics.insert(Name::new("b").unwrap(), Schema::new(columns).unwrap());
        catalog
    };
    let windows = "JOIN tumble(b, at, INTERVAL '1 minute') AS r ON l.k = r.k AND l.window_start = r.window_start AND \
                   l.window_end = r.window_end";
    for (table, sql) in [
        (false, "SELECT l.id, r.id AS other FROM a AS l JOIN b AS r ON l.k = r.k AND r.at BETWEEN l.at AND l.at + INTERVAL \
                 '9 seconds'".to_owned()),
        (true, "SELECT l.id, r.id AS other FROM a AS l JOIN b AS r ON l.k = r.k".to_owned()),
        (true, "SELECT k, id FROM b WHERE id > 3".to_owned()),
        (true, "SELECT id, count(*) AS n, max(at) AS last FROM b GROUP BY id".to_owned()),
        (false, format!("SELECT l.id, r.id AS other FROM tumble(a, at, INTERVAL '1 minute') AS l {windows}")),
        (false, "SELECT id, k FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY k, window_start, window_end ORDER BY at DESC) \
                 AS n FROM tumble(b, at, INTERVAL '1 minute')) WHERE n <= 2".to_owned()),
    ] {
        let form = |mut catalog: Catalog| {
            catalog.updating = table;
            match plan_query(&sql, &catalog) {
                Ok(query) => query.state_signature(),
                Err(errors) => panic!("{sql}: {errors:?}"),
            }
        };
        for at in [0, 1] {
            assert_eq!(form(catalog(table)), form(wider(table, at)), "{sql}");
        }
    }
}

#[test]
fn a_query_says_which_columns_of_each_topic_come_out_unchanged() {
    let carries = |sql: &str, topic: &str, column: &str, output: &str| {
        let query = plan_query(sql, &catalog(false)).unwrap();
        query.carries(&Name::new(topic).unwrap(), column, output)
    };
    let union = "SELECT id AS x FROM a UNION ALL SELECT k AS x FROM b";
    assert!(carries(union, "a", "id", "x") && carries(union, "b", "k", "x"));
    assert!(!carries(union, "b", "id", "x") && !carries(union, "a", "k", "x"));
    let joined = "SELECT a.k, b.id FROM a JOIN b ON a.k = b.k AND b.at BETWEEN a.at AND a.at + INTERVAL '9 seconds'";
    assert!(carries(joined, "a", "k", "k") && carries(joined, "b", "k", "k") && carries(joined, "b", "id", "id"));
    assert!(!carries(joined, "a", "id", "id"));
    let itself =
        "SELECT l.k AS x FROM a AS l JOIN a AS r ON l.id = r.k AND r.at BETWEEN l.at AND l.at + INTERVAL '9 seconds'";
    assert!(!carries(itself, "a", "id", "x"), "which of the two it is, nobody knows");
}

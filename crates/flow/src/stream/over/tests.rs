//! OVER against a naive model, whatever the cuts, restarts and orders.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::{ArrayRef, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_array::{StringArray as Texts, TimestampMicrosecondArray};
use arrow_cast::display::array_value_to_string;
use millstream_event::{Column, Name, Schema};
use proptest::prelude::*;

use crate::{Catalog, LookupSet, Order, Query, TimeColumn, plan_query};

const SECOND: i64 = 1_000_000;
const START: i64 = 1_767_225_600 * SECOND;
const SHORT: i64 = 600 * SECOND;
const LONG: i64 = 3600 * SECOND;

#[derive(Debug, Clone)]
struct Row {
    id: i64,
    card: String,
    x: Option<i128>,
    s: Option<String>,
    f: Option<f64>,
    at: i64,
}

const QUERY: &str = "SELECT id, count(*) OVER r AS n, sum(x) OVER r AS total, min(x) OVER r AS least, max(s) OVER r AS most,
  count(DISTINCT s) OVER r AS many, first_value(id) OVER r AS first, count(x) OVER q AS longer,
  sum(x) OVER l AS three, lag(s, 2) OVER a AS two, sum(x) OVER a AS everything, row_number() OVER a AS nth,
  avg(f) OVER q AS mean, var_pop(f) OVER q AS v, max(f) OVER b AS top
FROM t WINDOW r AS (PARTITION BY card ORDER BY at RANGE BETWEEN INTERVAL '10 minutes' PRECEDING AND CURRENT ROW),
  q AS (PARTITION BY card ORDER BY at RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND INTERVAL '1 second' PRECEDING),
  l AS (PARTITION BY card ORDER BY at ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING),
  a AS (PARTITION BY card ORDER BY at), b AS (PARTITION BY card ORDER BY at ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)";
/// How many of the results are floating point numbers, at the end.
const FLOATS: usize = 3;

fn schema() -> Schema {
    let columns = ["id: bigint!", "card: string!", "x: decimal(12,2)", "s: string", "f: double", "at: timestamp!"];
    let columns = columns.iter().map(|c| c.split_once(": ").and_then(|(n, k)| Column::parse(n, k).ok()).unwrap());
    Schema::new(columns.collect()).unwrap()
}

fn query(order: Order) -> Arc<Query> {
    let mut catalog = Catalog { order, ..Catalog::default() };
    let name = Name::new("t").unwrap();
    catalog.topics.insert(name.clone(), schema());
    catalog.event_times.insert(name, TimeColumn { name: "at".into(), plus_us: 0 });
    Arc::new(plan_query(QUERY, &catalog).unwrap_or_else(|e| panic!("{e:?}")))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let at = || TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.at)).with_timezone("+00:00");
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.id))),
        Arc::new(Texts::from_iter_values(rows.iter().map(|r| &r.card))),
        Arc::new(Decimal128Array::from_iter(rows.iter().map(|r| r.x)).with_precision_and_scale(12, 2).unwrap()),
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.s.as_deref()))),
        Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.f))),
        Arc::new(at()),
        Arc::new(at()),
    ];
    RecordBatch::try_new(Arc::clone(schema().physical()), columns).unwrap()
}

/// Runs the query; a cut says how many rows are pushed at once and whether it is opened again from its changes behind.
fn run(order: Order, rows: &[Row], cuts: &[(usize, bool)]) -> Vec<Vec<String>> {
    let query = query(order);
    let (topic, lookups) = (Name::new("t").unwrap(), LookupSet::default());
    let mut running = query.open().unwrap();
    let mut kept: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut out = Vec::new();
    let mut at = 0;
    let mut cuts = cuts.iter().cycle();
    while at < rows.len() {
        let &(count, reopen) = cuts.next().unwrap();
        let end = (at + count.max(1)).min(rows.len());
        let step = running.push(&topic, &batch(&rows[at..end]), &lookups).unwrap();
        out.extend(step.rows);
        at = end;
        // The least time that is still to come: nobody is late.
        let watermark = rows[at..].iter().map(|r| r.at).min().unwrap_or(i64::MAX);
        out.extend(running.advance(watermark, &lookups).unwrap().rows);
        for (key, value) in running.changes().iter().flat_map(|c| c.iter()) {
            match value {
                Some(value) => drop(kept.insert(key.to_vec(), value.to_vec())),
                None => drop(kept.remove(key)),
            }
        }
        if reopen {
            running = query.open().unwrap();
            kept.iter().for_each(|(key, value)| running.restore(key, Some(value)).unwrap());
        }
    }
    let texts = |batch: &RecordBatch, row: usize| -> Vec<String> {
        let columns = batch.columns().iter().take(batch.num_columns() - 1);
        columns.map(|column| array_value_to_string(column, row).unwrap()).collect()
    };
    out.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| texts(batch, row))).collect()
}

fn decimal(value: Option<i128>) -> String {
    value.map_or(String::new(), |v| format!("{}{}.{:02}", if v < 0 { "-" } else { "" }, v.abs() / 100, v.abs() % 100))
}

fn sum(rows: &[&Row]) -> Option<i128> {
    rows.iter().filter_map(|r| r.x).reduce(|a, b| a + b)
}

/// What the query means.
fn model(order: Order, rows: &[Row], from: usize) -> Vec<(Vec<String>, Vec<Option<f64>>)> {
    let by_time = order == Order::EventTime;
    let mut ordered: Vec<&Row> = rows.iter().collect();
    if by_time {
        ordered.sort_by_key(|r| r.at);
    }
    let mut results = Vec::new();
    for (place, row) in ordered.iter().enumerate().skip(from) {
        let known = if by_time { ordered.len() } else { place + 1 };
        let of_key: Vec<&Row> = ordered[..known].iter().copied().filter(|r| r.card == row.card).collect();
        let before: Vec<&Row> = ordered[..place].iter().copied().filter(|r| r.card == row.card).collect();
        let newest = before.iter().map(|r| r.at).max().unwrap_or(row.at).max(row.at);
        let horizon = if by_time { i64::MIN } else { newest - LONG - LONG / 8 };
        let range = |from: i64, to: i64| -> Vec<&Row> {
            // A row that is later than what is kept is in its own frame, alone.
            let alone = |r: &&Row| to == 0 && row.at < horizon && std::ptr::eq(*r, *row);
            let within = |r: &&Row| r.at >= (row.at - from).max(horizon) && r.at <= row.at - to || alone(r);
            of_key.iter().copied().filter(within).collect()
        };
        let (r, q) = (range(SHORT, 0), range(LONG, SECOND));
        let three = &before[before.len().saturating_sub(3)..];
        let all: Vec<&Row> = match by_time {
            true => of_key.iter().copied().filter(|other| other.at <= row.at).collect(),
            false => of_key.clone(),
        };
        let floats: Vec<f64> = q.iter().filter_map(|r| r.f).collect();
        let mean = floats.iter().sum::<f64>() / floats.len() as f64;
        let spread = floats.iter().map(|f| (f - mean).powi(2)).sum::<f64>() / floats.len() as f64;
        let top = before.iter().filter_map(|r| r.f).reduce(f64::max);
        let some = |value: f64| (!floats.is_empty()).then_some(value);
        let two = before.len().checked_sub(2).and_then(|at| before[at].s.clone());
        results.push((
            vec![
                row.id.to_string(),
                r.len().to_string(),
                decimal(sum(&r)),
                decimal(r.iter().filter_map(|r| r.x).min()),
                r.iter().filter_map(|r| r.s.clone()).max().unwrap_or_default(),
                r.iter().filter_map(|r| r.s.clone()).collect::<BTreeSet<_>>().len().to_string(),
                r.first().map_or(String::new(), |r| r.id.to_string()),
                q.iter().filter(|r| r.x.is_some()).count().to_string(),
                decimal(sum(three)),
                two.unwrap_or_default(),
                decimal(sum(&all)),
                (before.len() + 1).to_string(),
            ],
            vec![some(mean), some(spread), top],
        ));
    }
    results
}

fn agree(order: Order, rows: &[Row], cuts: &[(usize, bool)]) {
    let whole = run(order, rows, &[(rows.len(), false)]);
    for (actual, (exact, floats)) in whole.iter().zip(model(order, rows, 0)) {
        assert_eq!(actual[..actual.len() - FLOATS], exact);
        for (actual, expected) in actual[actual.len() - FLOATS..].iter().zip(floats) {
            let actual: Option<f64> = actual.parse().ok();
            assert_eq!(actual.is_some(), expected.is_some(), "{exact:?}");
            let (a, b) = (actual.unwrap_or(0.0), expected.unwrap_or(0.0));
            assert!((a - b).abs() <= 1e-6 * (1.0 + b.abs()), "{exact:?}: {a} {b}");
        }
    }
    assert_eq!(whole.len(), rows.len());
    // To the last bit, also of floating point numbers.
    assert_eq!(run(order, rows, cuts), whole);
}

fn row() -> impl Strategy<Value = Row> {
    let text = prop_oneof![Just("DE"), Just("FR"), Just("a much longer name"), Just("another long name"), Just("")];
    let values = (prop::option::of(-5000_i128..5000), prop::option::of(text), prop::option::of(-10.0..10.0));
    (0..3_u8, 0..200_i64, values).prop_map(|(card, step, (x, s, f))| Row {
        id: 0,
        card: format!("c{card}"),
        x,
        s: s.map(str::to_owned),
        f,
        at: step,
    })
}

/// Rows that go forward in time by some seconds each, some of them out of order by up to hours.
fn rows(count: usize) -> impl Strategy<Value = Vec<Row>> {
    let moved = (row(), prop_oneof![8 => Just(0), 2 => 0..300_i64, 1 => 0..9000_i64]);
    prop::collection::vec(moved, 0..count).prop_map(|rows| {
        let mut now = START;
        let place = |(id, (row, back)): (i64, (Row, i64))| {
            now += row.at * SECOND;
            Row { id, at: now - back * SECOND, ..row }
        };
        (0..).zip(rows).map(place).collect()
    })
}

fn cuts() -> impl Strategy<Value = Vec<(usize, bool)>> {
    prop::collection::vec((1..20_usize, any::<bool>()), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn events_in_the_order_of_arrival_meet_what_the_model_says(rows in rows(120), cuts in cuts()) {
        agree(Order::Arrival, &rows, &cuts);
    }

    #[test]
    fn events_in_the_order_of_time_meet_what_the_model_says(rows in rows(120), cuts in cuts()) {
        agree(Order::EventTime, &rows, &cuts);
    }
}

/// One key with so many events that blocks of blocks are added up.
#[test]
fn a_long_history_of_one_key_is_added_up_by_blocks_and_means_the_same() {
    let row = |id: i64| Row {
        id,
        card: "c".into(),
        x: (id % 7 != 0).then_some(i128::from(id * 37 % 1000)),
        s: (id % 5 != 0).then(|| format!("name {}", id * 31 % 40)),
        f: Some((id * 7919 % 1000) as f64 / 7.0),
        // An hour has more than 8192.
        at: START + id * SECOND / 3 - (id % 11) * SECOND,
    };
    let rows: Vec<Row> = (0..9000).map(row).collect();
    let whole = run(Order::Arrival, &rows, &[(rows.len(), false)]);
    assert_eq!(run(Order::Arrival, &rows, &[(997, true)]), whole);
    let from = rows.len() - 100;
    for (actual, (exact, _)) in whole[from..].iter().zip(model(Order::Arrival, &rows, from)) {
        assert_eq!(actual[..actual.len() - FLOATS], exact);
    }
}

//! What a person reads of a query's or fold's state.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use millstream_event::json::Decoder;
use millstream_event::{Column, Name, Schema, Stamp, Unknown};
use millstream_flow::{
    Catalog, FoldAction, FoldCase, FoldOtherwise, FoldSpec, LookupSet, Order, StateLegend, TimeColumn, plan_fold,
    plan_query,
};

const SALES: &[(&str, &str)] = &[("sku", "string!"), ("price", "decimal(8,2)"), ("at", "timestamp!")];
const STOCK: &[(&str, &str)] = &[("sku", "string!"), ("place", "string")];

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn schema(columns: &[(&str, &str)]) -> Schema {
    Schema::new(columns.iter().map(|(n, k)| Column::parse(*n, k).unwrap()).collect()).unwrap()
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    for (topic, columns) in [("sales", SALES), ("refunds", SALES), ("stock", STOCK)] {
        catalog.topics.insert(name(topic), schema(columns));
    }
    for topic in ["sales", "refunds"] {
        catalog.event_times.insert(name(topic), TimeColumn { name: "at".to_owned(), plus_us: 0 });
    }
    catalog.tables.insert(name("stock"), vec!["sku".to_owned()]);
    catalog
}

fn rows(topic: &str, lines: &[&str]) -> (Name, RecordBatch) {
    let schema = schema(if topic == "stock" { STOCK } else { SALES });
    let decoded = Decoder::new(&schema, Unknown::Reject).decode_lines(lines.join("\n").as_bytes()).unwrap();
    assert!(decoded.refused.is_empty(), "{:?}", decoded.refused);
    let stamps: Vec<i64> = vec![Stamp::at(1_000_000).0; decoded.rows.num_rows()];
    let stamps: ArrayRef = Arc::new(TimestampMicrosecondArray::from(stamps).with_timezone("+00:00"));
    (name(topic), schema.with_system_column(&decoded.rows, stamps).unwrap())
}

fn events() -> Vec<(Name, RecordBatch)> {
    vec![
        rows("stock", &[r#"{"sku":"a","place":"B4"}"#]),
        rows(
            "sales",
            &[
                r#"{"sku":"a","price":1.50,"at":"2026-01-01T00:00:10Z"}"#,
                r#"{"sku":"a","price":2.25,"at":"2026-01-01T00:00:20Z"}"#,
                r#"{"sku":"b","price":null,"at":"2026-01-01T00:00:30Z"}"#,
            ],
        ),
        rows("refunds", &[r#"{"sku":"a","price":1.50,"at":"2026-01-01T00:00:40Z"}"#]),
    ]
}

/// The rows of the state, a line for each.
fn lines(legend: &StateLegend, kept: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<String> {
    let text = |(key, value): (&Vec<u8>, &Vec<u8>)| {
        let row = legend.row(key, value).unwrap();
        let cells = |cells: &[millstream_flow::StateCell]| {
            cells.iter().map(|cell| format!("{}={}", cell.name, cell.json)).collect::<Vec<_>>().join(" ")
        };
        let note = row.note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
        format!("{} {}: {} -> {}{note}", row.step, row.what, cells(&row.key), cells(&row.value))
    };
    kept.iter().map(text).collect()
}

fn of_query(sql: &str, catalog: &Catalog) -> Vec<String> {
    let query = Arc::new(plan_query(sql, catalog).unwrap_or_else(|e| panic!("{e:?}")));
    let mut running = query.open().unwrap();
    for (topic, rows) in events().iter().filter(|(topic, _)| query.inputs().contains(topic)) {
        running.push(topic, rows, &LookupSet::default()).unwrap();
    }
    let mut kept = BTreeMap::new();
    for (key, value) in running.changes().iter().flat_map(|changes| changes.iter()) {
        match value {
            Some(value) => kept.insert(key.to_vec(), value.to_vec()),
            None => kept.remove(key),
        };
    }
    lines(&query.state_legend().unwrap(), &kept)
}

#[test]
fn a_window_shows_its_key_its_ends_and_what_its_aggregates_are_by_now() {
    let sql = "SELECT sku, window_start, window_end, sum(price) AS total, count(*) AS n
               FROM tumble(sales, at, INTERVAL '1 minute') GROUP BY sku, window_start, window_end";
    let window = r#"window_start="2026-01-01T00:00:00Z" window_end="2026-01-01T00:01:00Z""#;
    let found = of_query(sql, &catalog());
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with(&format!(r#"0 window: sku="a" {window} -> "#)), "{found:#?}");
    assert!(found[0].ends_with("=3.75 count(*)=2"), "{found:#?}");
    assert!(found[1].ends_with("=null count(*)=1"), "{found:#?}");
    let hop = sql.replace("tumble(sales, at, ", "hop(sales, at, INTERVAL '30 seconds', ");
    let found = of_query(&hop, &catalog());
    assert!(found[0].starts_with(r#"0 pane: sku="a" pane_start="2026-01-01T00:00:00Z""#), "{found:#?}");
    let session =
        "SELECT sku, window_end, count(*) AS n FROM session(sales, at, INTERVAL '1 minute') GROUP BY sku, window_end";
    let found = of_query(session, &catalog());
    assert!(
        found[0].contains(r#"sku="a" window_start="2026-01-01T00:00:10Z" window_end="2026-01-01T00:01:20Z""#),
        "{found:#?}"
    );
}

#[test]
fn a_group_shows_its_results_and_the_values_that_they_follow_from() {
    let catalog = Catalog { updating: true, ..catalog() };
    let found = of_query("SELECT sku, count(*) AS n, max(price) AS most FROM sales GROUP BY sku", &catalog);
    assert!(found[0].starts_with(r#"0 group: sku="a" -> count(*)=2"#) && found[0].ends_with("=2.25"), "{found:#?}");
    let nested = "SELECT n, count(*) AS skus, max(sku) AS last FROM
                  (SELECT sku, count(*) AS n FROM sales GROUP BY sku) GROUP BY n";
    let found = of_query(nested, &catalog);
    assert!(
        found.iter().any(|line| line.starts_with("1 group: n=2 -> count(*)=1") && line.contains("follow from")),
        "{found:#?}"
    );
    assert!(
        found.iter().any(|line| line.contains(r#"1 value: n=2 -> of="#) && line.contains(r#"value="a" times=1"#)),
        "{found:#?}"
    );
}

#[test]
fn joins_show_the_rows_that_they_keep() {
    let found = of_query("SELECT s.sku, t.place FROM sales s JOIN stock t ON s.sku = t.sku", &catalog());
    assert_eq!(found, [r#"0 table row: sku="a" -> place="B4""#]);
    let between = "SELECT s.sku, s.price FROM sales s LEFT JOIN refunds r ON s.sku = r.sku
                   AND r.at BETWEEN s.at AND s.at + INTERVAL '1 minute'";
    let found = of_query(between, &catalog());
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(found[0].starts_with(r#"0 left row: sku="a" -> held_at="2026-01-01T00:00:10Z" "#), "{found:#?}");
    assert!(found[0].contains("price=1.50") && found[0].ends_with("(has met another)"), "{found:#?}");
    assert!(found[2].contains(r#"sku="b""#) && !found[2].contains("met"), "{found:#?}");
    assert!(found[3].starts_with(r#"0 right row: sku="a" -> held_at="2026-01-01T00:00:40Z""#), "{found:#?}");
}

#[test]
fn what_was_seen_and_who_is_first_is_shown() {
    let ttl = Catalog { state_ttl_us: Some(3_600_000_000), ..catalog() };
    let seen = "SELECT sku, price, at FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY sku ORDER BY at) AS n FROM sales) WHERE n = 1";
    let found = of_query(seen, &ttl);
    assert_eq!(
        found[0], r#"0 seen: sku="a" -> first_at="2026-01-01T00:00:10Z" until="2026-01-01T01:00:10Z""#,
        "{found:#?}"
    );
    let updating = Catalog { updating: true, ..catalog() };
    let top = "SELECT sku, price, n FROM (SELECT sku, price, ROW_NUMBER() OVER (PARTITION BY sku ORDER BY price DESC) AS n FROM sales) WHERE n <= 1";
    let found = of_query(top, &updating);
    assert!(found[0].starts_with(r#"0 row: sku="a" -> "#) && found[0].contains("price=2.25"), "{found:#?}");
}

#[test]
fn histories_and_waiting_events_are_shown() {
    let over = "SELECT sku, sum(price) OVER (PARTITION BY sku ORDER BY at RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW) AS spent FROM sales";
    let found = of_query(over, &catalog());
    assert!(
        found[0].starts_with(r#"0 event: sku="a" -> number=0 "#) && found[0].contains("2026-01-01T00:00:10Z"),
        "{found:#?}"
    );
    assert!(found[0].ends_with("=1.50") && found[2].ends_with("=null"), "{found:#?}");
    let by_time = Catalog { order: Order::EventTime, ..catalog() };
    let found = of_query(over, &by_time);
    assert!(found.iter().any(|line| line.contains("waits for its time") && line.contains(r#"sku="b""#)), "{found:#?}");
}

#[test]
fn a_fold_shows_its_key_and_its_state() {
    let pairs = |of: &[(&str, &str)]| of.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
    let action = FoldAction { set: pairs(&[("n", "state.n + 1"), ("last", "price")]), emit: vec![], forget: false };
    let emit = FoldAction { emit: vec![pairs(&[("sku", "sku")])], ..action };
    let spec = FoldSpec {
        key: vec!["sku".to_owned()],
        state: pairs(&[("n", "int! = 0"), ("last", "decimal(8,2)"), ("word", "string = 'x'")]),
        cases: vec![FoldCase { when: None, action: emit }],
        otherwise: FoldOtherwise::Drop,
        timer: None,
    };
    let fold = Arc::new(plan_fold(&spec, &[name("sales")], &catalog()).unwrap());
    let mut folding = fold.open().unwrap();
    for (topic, rows) in events().iter().filter(|(topic, _)| *topic == name("sales")) {
        folding.push(topic, rows, &LookupSet::default()).unwrap();
    }
    let changes = folding.changes().unwrap();
    let kept = changes.iter().map(|(key, value)| (key.to_vec(), value.unwrap().to_vec())).collect();
    let found = lines(&fold.state_legend().unwrap(), &kept);
    assert_eq!(
        found,
        [r#"0 state: sku="a" -> n=2 last=2.25 word="x""#, r#"0 state: sku="b" -> n=1 last=null word="x""#]
    );
}

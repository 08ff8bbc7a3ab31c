//! Random rows through a set of expressions: at once and one by one agree, also where they fail.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use millstream_event::{Column, Name, Schema};
use millstream_flow::{Catalog, LookupSchema, LookupSet, LookupTable, Query, plan_query};
use proptest::prelude::*;

use crate::one_by_one;

const QUERIES: &[&str] = &[
    "SELECT a + b AS x, a - b AS y, a * b AS z FROM t",
    "SELECT a / b AS q, a % b AS r FROM t WHERE b <> 0 OR a > 3",
    "SELECT -a AS n, abs(b) AS m FROM t",
    "SELECT CAST(s AS BIGINT) AS i FROM t WHERE s IS NOT NULL",
    "SELECT TRY_CAST(s AS BIGINT) AS i, CAST(a AS INT) AS small FROM t",
    "SELECT d * d AS dd, d / CAST(i AS DECIMAL(10, 0)) AS q FROM t",
    "SELECT CASE WHEN b <> 0 THEN a / b WHEN s = 'x' THEN i / 0 END AS c FROM t",
    "SELECT a FROM t WHERE b <> 0 AND a / b > 1",
    "SELECT a FROM t WHERE b = 0 OR a / b > 1 OR CAST(s AS INT) = 1",
    "SELECT NOT (b <> 0 AND a / b > 1) AS c FROM t",
    "SELECT coalesce(b, a / i) AS c, nullif(a, b) AS n FROM t",
    "SELECT upper(s) AS u, s || '-' || a AS k, substr(s, 2) AS sub FROM t",
    "SELECT at + INTERVAL '1 day' AS next, date_trunc('hour', at) AS h, extract(year FROM at) AS y FROM t",
    "SELECT at + CAST(i || ' minutes' AS INTERVAL) AS later FROM t",
    "SELECT f / 0 AS inf, sqrt(f) AS r, CAST(f AS BIGINT) AS i FROM t",
    "SELECT t.a, l.v, a / l.v AS q FROM t JOIN l ON l.k = t.s",
    "SELECT t.a, l.v FROM t LEFT JOIN l ON l.k = t.s AND l.v <> t.b",
    "SELECT l.v FROM t LEFT JOIN l ON l.k = upper(t.s) WHERE a / b > 0",
    "SELECT unnest(make_array(a, b, a / i)) AS e, a FROM t",
    "SELECT now() AS n, current_date AS d, dt + INTERVAL '1' MONTH AS m FROM t",
];

fn schema(columns: &[(&str, &str)]) -> Schema {
    Schema::new(columns.iter().map(|(n, t)| Column::parse(*n, t).unwrap()).collect()).unwrap()
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    let columns = [
        ("a", "bigint"),
        ("b", "bigint"),
        ("i", "int"),
        ("d", "decimal(38,2)"),
        ("f", "double"),
        ("s", "string"),
        ("at", "timestamp"),
        ("dt", "date"),
    ];
    catalog.topics.insert(Name::new("t").unwrap(), schema(&columns));
    let l = LookupSchema { schema: schema(&[("k", "string!"), ("v", "bigint!")]), key: vec!["k".into()] };
    catalog.lookups.insert(Name::new("l").unwrap(), l);
    catalog
}

fn lookups(catalog: &Catalog) -> LookupSet {
    let l = &catalog.lookups["l"];
    let columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(vec!["x", "1", "X"])), Arc::new(Int64Array::from(vec![0, 1, 2]))];
    let rows = RecordBatch::try_new(Arc::clone(l.schema.arrow()), columns).unwrap();
    LookupSet::new([(Name::new("l").unwrap(), Arc::new(LookupTable::build(l, rows).unwrap()))])
}

type Row = (Option<i64>, Option<i64>, Option<i32>, Option<i128>, Option<f64>, Option<String>, Option<i64>);

fn big() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![
        Just(None),
        (-3_i64..4).prop_map(Some),
        prop_oneof![Just(i64::MAX), Just(i64::MIN), Just(4_000_000_000)].prop_map(Some)
    ]
}

fn row() -> impl Strategy<Value = Row> {
    let decimal = prop_oneof![Just(None), (-500_i128..500).prop_map(Some), Just(Some(10_i128.pow(37)))];
    let float = prop_oneof![Just(None), Just(Some(-1.0)), Just(Some(2.25)), Just(Some(1e300))];
    let text = prop_oneof![Just(None), "[x1é]{0,2}".prop_map(Some)];
    let at = prop_oneof![Just(None), (0_i64..4_000_000_000_000_000).prop_map(Some), Just(Some(i64::MAX))];
    (big(), big(), prop::option::of(-2_i32..3), decimal, float, text, at)
}

fn batch(rows: &[Row], schema: &Schema) -> RecordBatch {
    let at = TimestampMicrosecondArray::from_iter(rows.iter().map(|r| r.6)).with_timezone("+00:00");
    let ingested = TimestampMicrosecondArray::from_iter_values((0..).take(rows.len())).with_timezone("+00:00");
    let decimals = Decimal128Array::from_iter(rows.iter().map(|r| r.3));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.0))),
        Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.1))),
        Arc::new(Int32Array::from_iter(rows.iter().map(|r| r.2))),
        Arc::new(decimals.with_precision_and_scale(38, 2).unwrap()),
        Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.4))),
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.5.clone()))),
        Arc::new(at),
        Arc::new(Date32Array::from_iter(rows.iter().map(|r| r.2.map(|i| i * 10_000)))),
        Arc::new(ingested),
    ];
    RecordBatch::try_new(Arc::clone(schema.physical()), columns).unwrap()
}

fn queries(catalog: &Catalog) -> Vec<Query> {
    let plan = |sql: &&str| plan_query(sql, catalog).unwrap_or_else(|e| panic!("{sql}: {}", e[0]));
    QUERIES.iter().map(plan).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_yields_what_its_rows_yield_one_by_one(rows in prop::collection::vec(row(), 0..40)) {
        let catalog = catalog();
        let lookups = lookups(&catalog);
        let batch = batch(&rows, &catalog.topics["t"]);
        for query in &queries(&catalog) {
            one_by_one::run(query, &batch, &lookups);
        }
    }
}

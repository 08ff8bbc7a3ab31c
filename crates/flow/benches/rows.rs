//! What a query costs per row, in CPU time: `cargo bench -p millstream-flow --bench rows`.
//!
//! The query is like the fraud example's: a filter, two lookups by a text key and ten expressions.

use std::hint::black_box;
use std::sync::Arc;

use arrow_array::{ArrayRef, Decimal128Array, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use millstream_event::{Column, Name, Schema};
use millstream_flow::{Catalog, LookupSchema, LookupSet, LookupTable, plan_query, plan_rules};

const QUERY: &str = "SELECT t.id, t.card_id, t.merchant_id, t.amount, t.at, c.segment,
  c.home_country, t.country IS DISTINCT FROM c.home_country AS abroad,
  coalesce(m.risk, 0.5) AS risk,
  extract(hour FROM t.at) AS hour,
  t.amount * 2 AS twice,
  CASE t.currency WHEN 'EUR' THEN t.amount WHEN 'USD' THEN t.amount * 0.9 ELSE t.amount * 1.1 END AS euros,
  CAST(t.amount AS DOUBLE) / c.daily_limit AS share,
  t.amount > 500 AND coalesce(m.risk, 0.5) > 0.5 AS suspicious,
  date_trunc('day', t.at) AS day,
  t.currency || '-' || t.country AS market,
  t.at + INTERVAL '5 minutes' AS due
FROM transactions AS t
JOIN customers AS c ON c.card_id = t.card_id
LEFT JOIN merchants AS m ON m.merchant_id = t.merchant_id
WHERE t.amount > 1";

/// The CPU time of this process so far, in nanoseconds.
fn cpu_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn schema(columns: &[(&str, &str)]) -> Schema {
    let columns = columns.iter().map(|(name, kind)| Column::parse(*name, kind).expect("a column"));
    Schema::new(columns.collect()).expect("a schema")
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn texts(prefix: &str, rows: usize, modulus: usize) -> ArrayRef {
    Arc::new(StringArray::from_iter_values((0..rows).map(|i| format!("{prefix}{:06}", i * 7919 % modulus))))
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    let transactions = [
        ("id", "string!"),
        ("card_id", "string!"),
        ("merchant_id", "string"),
        ("amount", "decimal(12,2)!"),
        ("currency", "string"),
        ("country", "string"),
        ("at", "timestamp!"),
    ];
    catalog.topics.insert(name("transactions"), schema(&transactions));
    let customers =
        [("card_id", "string!"), ("segment", "string"), ("home_country", "string"), ("daily_limit", "double")];
    let customers = LookupSchema { schema: schema(&customers), key: vec!["card_id".into()] };
    let merchants = [("merchant_id", "string!"), ("risk", "double")];
    let merchants = LookupSchema { schema: schema(&merchants), key: vec!["merchant_id".into()] };
    catalog.lookups.insert(name("customers"), customers);
    catalog.lookups.insert(name("merchants"), merchants);
    catalog
}

fn rows(catalog: &Catalog, rows: usize) -> RecordBatch {
    let Some(topic) = catalog.topics.get("transactions") else { unreachable!("declared above") };
    let amounts = Decimal128Array::from_iter_values((0..rows).map(|i| (i % 90_000) as i128));
    let times = || (0..rows as i64).map(|i| 1_767_225_600_000_000 + i * 1_000_000);
    let cycle = |of: [&'static str; 4]| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(of.into_iter().cycle().take(rows)))
    };
    let columns: Vec<ArrayRef> = vec![
        texts("t", rows, usize::MAX),
        texts("c", rows, 50_000),
        texts("m", rows, 6_000),
        Arc::new(amounts.with_precision_and_scale(12, 2).expect("a decimal")),
        cycle(["EUR", "USD", "EUR", "GBP"]),
        cycle(["DE", "US", "FR", "GB"]),
        Arc::new(TimestampMicrosecondArray::from_iter_values(times()).with_timezone("+00:00")),
        Arc::new(TimestampMicrosecondArray::from_iter_values(times()).with_timezone("+00:00")),
    ];
    RecordBatch::try_new(Arc::clone(topic.physical()), columns).expect("rows")
}

fn lookups(catalog: &Catalog) -> LookupSet {
    let build = |lookup: &str, columns: Vec<ArrayRef>| {
        let Some(schema) = catalog.lookups.get(lookup) else { unreachable!("declared above") };
        let rows = RecordBatch::try_new(Arc::clone(schema.schema.arrow()), columns).expect("rows");
        (name(lookup), Arc::new(LookupTable::build(schema, rows).expect("a lookup")))
    };
    let doubles = |rows: usize| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values((0..rows).map(|i| (i % 100) as f64 / 100.0 + 0.01)))
    };
    let n = 50_000;
    let customers = vec![texts("c", n, n), texts("s", n, 3), texts("", n, 40), doubles(n)];
    let merchants = vec![texts("m", 5_000, 5_000), doubles(5_000)];
    LookupSet::new([build("customers", customers), build("merchants", merchants)])
}

/// Prints nanoseconds per row and per call.
fn measure(what: &str, rows: usize, mut work: impl FnMut()) {
    let calls = (2_000_000 / (rows + 20)).max(10);
    (0..calls / 10).for_each(|_| work());
    let start = cpu_nanos();
    (0..calls).for_each(|_| work());
    let nanos = (cpu_nanos() - start) as f64 / calls as f64;
    #[expect(clippy::print_stdout, reason = "the benchmark's result")]
    {
        println!("{what:28} {rows:5} rows  {:9.1} ns/row  {:9.2} us/call", nanos / rows as f64, nanos / 1000.0);
    }
}

/// Only the batch sizes named on the command line, if any are.
fn wanted(count: usize) -> bool {
    let mut sizes = std::env::args().skip(1).filter_map(|a| a.parse::<usize>().ok()).peekable();
    sizes.peek().is_none() || sizes.any(|size| size == count)
}

fn main() {
    let catalog = catalog();
    let lookups = lookups(&catalog);
    let all = rows(&catalog, 10_000);
    let plan = |sql: &str| plan_query(sql, &catalog).unwrap_or_else(|e| panic!("{:?}", e.first()));
    let queries = [
        ("enrich and score", plan(QUERY)),
        (
            "two lookups only",
            plan(
                "SELECT t.*, c.segment, m.risk FROM transactions AS t JOIN customers AS c ON c.card_id = t.card_id
             LEFT JOIN merchants AS m ON m.merchant_id = t.merchant_id",
            ),
        ),
        ("pass through", plan("SELECT * FROM transactions")),
    ];
    for (what, query) in &queries {
        for count in [1, 10, 100, 1_000, 8_192].into_iter().filter(|c| wanted(*c)) {
            let part = all.slice(500, count);
            measure(what, count, || drop(black_box(query.run(black_box(&part), &lookups))));
        }
    }
    let rules = [
        ("positive", "amount > 0"),
        ("known", "currency IN ('EUR', 'USD', 'GBP')"),
        ("safe", "amount <> 0 AND 100 / amount < 1000"),
    ];
    let rules: Vec<_> = rules.iter().map(|(n, sql)| ((*n).to_owned(), (*sql).to_owned())).collect();
    let Some(topic) = catalog.topics.get("transactions") else { unreachable!("declared above") };
    let rules = plan_rules(&rules, topic).unwrap_or_else(|e| panic!("{:?}", e.first()));
    for count in [1, 1_000].into_iter().filter(|c| wanted(*c)) {
        let part = all.slice(500, count);
        measure("three rules", count, || drop(black_box(rules.run(black_box(&part)))));
    }
}

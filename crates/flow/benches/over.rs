//! What an event costs that meets its history, in CPU time: `cargo bench -p millstream-flow --bench over -- [--events N]`.
//!
//! Six functions over ten minutes and a day, on 100,000 cards with about 20 kept events each; then a million cards, to see
//! what memory a kept event takes.

use std::hint::black_box;
use std::sync::Arc;

use arrow_array::{ArrayRef, Decimal128Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use millstream_event::{Column, Name, Schema};
use millstream_flow::{Catalog, LookupSet, TimeColumn, plan_query};

const QUERY: &str = "SELECT id, card_id, amount, at,
  count(*) OVER short AS n_10m, sum(amount) OVER short AS spent_10m,
  count(*) OVER long AS n_24h, sum(amount) OVER long AS spent_24h,
  count(DISTINCT country) OVER long AS countries, lag(country) OVER long AS before
FROM payments
WINDOW short AS (PARTITION BY card_id ORDER BY at RANGE BETWEEN INTERVAL '10 minutes' PRECEDING AND CURRENT ROW),
  long AS (PARTITION BY card_id ORDER BY at RANGE BETWEEN INTERVAL '24 hours' PRECEDING AND CURRENT ROW)";
const BATCH_EVENTS: usize = 8192;
const DAY_MICROS: i64 = 86_400_000_000;
const KEPT_EVENTS: usize = 20;
const COUNTRIES: [&str; 7] = ["DE", "US", "FR", "GB", "IT", "ES", "PL"];

/// The CPU time of this process so far, in nanoseconds.
fn cpu_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn catalog() -> Catalog {
    let columns = [
        ("id", "string!"),
        ("card_id", "string!"),
        ("amount", "decimal(12,2)!"),
        ("country", "string"),
        ("at", "timestamp!"),
    ];
    let columns = columns.iter().map(|(name, kind)| Column::parse(*name, kind).expect("a column"));
    let name = Name::new("payments").expect("a name");
    let mut catalog = Catalog::default();
    catalog.topics.insert(name.clone(), Schema::new(columns.collect()).expect("a schema"));
    catalog.event_times.insert(name, TimeColumn { name: "at".into(), plus_us: 0 });
    catalog
}

/// Events `from` and on of so many cards, which have about 20 a day each.
fn batch(schema: &Schema, from: usize, cards: usize) -> RecordBatch {
    let numbers = || from..from + BATCH_EVENTS;
    // A stride without a common divisor spreads the cards.
    let card = |i: usize| i.wrapping_mul(2_654_435_761) % cards;
    let step = DAY_MICROS / (cards * KEPT_EVENTS) as i64;
    let at = || numbers().map(|i| 1_767_225_600_000_000 + i as i64 * step.max(1));
    let texts =
        |text: &dyn Fn(usize) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(numbers().map(text))) };
    let amounts = Decimal128Array::from_iter_values(numbers().map(|i| (i * 7919 % 90_000) as i128));
    let times = || TimestampMicrosecondArray::from_iter_values(at()).with_timezone("+00:00");
    let columns: Vec<ArrayRef> = vec![
        texts(&|i| format!("t{i:09}")),
        texts(&|i| format!("card{:08}", card(i))),
        Arc::new(amounts.with_precision_and_scale(12, 2).expect("a decimal")),
        Arc::new(StringArray::from_iter_values(numbers().filter_map(|i| COUNTRIES.get(i * 31 % 7)))),
        Arc::new(times()),
        Arc::new(times()),
    ];
    RecordBatch::try_new(Arc::clone(schema.physical()), columns).expect("rows")
}

fn measure(what: &str, cards: usize, events: usize) {
    let catalog = catalog();
    let query = Arc::new(plan_query(QUERY, &catalog).unwrap_or_else(|e| panic!("{:?}", e.first())));
    let topic = Name::new("payments").expect("a name");
    let Some(schema) = catalog.topics.get(&topic) else { unreachable!("declared above") };
    let lookups = LookupSet::default();
    let before = resident_mib();
    let mut running = query.open().expect("an operator");
    let fill = cards * KEPT_EVENTS / BATCH_EVENTS * BATCH_EVENTS;
    let (mut nanos, mut changed) = (0, 0_usize);
    for from in (0..fill + events).step_by(BATCH_EVENTS) {
        let rows = batch(schema, from, cards);
        let start = cpu_nanos();
        black_box(running.push(&topic, &rows, &lookups).expect("rows"));
        let changes = running.changes().map_or(0, |c| c.columns().iter().map(|c| c.get_array_memory_size()).sum());
        if from >= fill {
            nanos += cpu_nanos() - start;
            changed += changes;
        }
    }
    let (kept, bytes) = running.size();
    let measured = events.div_ceil(BATCH_EVENTS) * BATCH_EVENTS;
    #[expect(clippy::print_stdout, reason = "the benchmark's result")]
    {
        println!(
            "{what:20} {:9.0} events/CPU s  {:6.0} B changelog/event  {kept} kept, {:.0} B each, {} MiB resident more",
            measured as f64 / nanos as f64 * 1e9,
            changed as f64 / measured as f64,
            bytes as f64 / kept.max(1) as f64,
            resident_mib().saturating_sub(before)
        );
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let given = arguments.iter().position(|a| a == "--events").and_then(|at| arguments.get(at + 1));
    let events = given.and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    measure("100,000 cards", 100_000, events);
    if arguments.iter().any(|a| a == "--million") {
        measure("1,000,000 cards", 1_000_000, events);
    }
}

//! What a fold costs per event, in CPU time: `cargo bench -p millstream-flow --bench fold`.
//!
//! Stock by SKU, as in the inventory example: two thirds sales, one third receipts. Keys are spread over all SKUs, or half
//! of all events have one. `hard` has an expression that is not computed without a batch. The changes of the state are
//! taken after each batch of 8,192 events, as for the changelog.

use std::hint::black_box;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use millstream_event::{Column, Name, Schema};
use millstream_flow::{Catalog, Fold, FoldAction, FoldCase, FoldOtherwise, FoldSpec, LookupSet, plan_fold};

const EVENTS: usize = 2_000_000;
const BATCH: usize = 8192;

/// The CPU time of this process so far, in nanoseconds.
fn cpu_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn case(when: &str, set: &[(&str, &str)], emit: &[(&str, &str)]) -> FoldCase {
    let action = FoldAction { set: pairs(set), emit: vec![pairs(emit)], forget: false };
    FoldCase { when: Some(when.to_owned()), action }
}

fn fold(hard: bool) -> Arc<Fold> {
    let columns = [
        ("id", "string!"),
        ("sku", "string!"),
        ("warehouse", "string!"),
        ("kind", "string!"),
        ("qty", "int!"),
        ("at", "timestamp!"),
    ];
    let columns = columns.iter().map(|(name, kind)| Column::parse(*name, kind).expect("a column"));
    let topic = Name::new("movements").expect("a name");
    let mut catalog = Catalog::default();
    catalog.topics.insert(topic.clone(), Schema::new(columns.collect()).expect("a schema"));
    let stock = if hard { "greatest(state.stock, 0)" } else { "state.stock" };
    let row = |accepted| {
        vec![
            ("id", "id"),
            ("sku", "sku"),
            ("warehouse", "warehouse"),
            ("accepted", accepted),
            ("stock", stock),
            ("at", "at"),
        ]
    };
    let spec = FoldSpec {
        key: vec!["sku".into(), "warehouse".into()],
        state: pairs(&[("stock", "bigint! = 0"), ("reserved", "bigint! = 0"), ("last_at", "timestamp")]),
        cases: vec![
            case("kind = 'receipt'", &[("stock", "state.stock + qty"), ("last_at", "at")], &row("true")),
            case(
                "kind = 'sale' AND state.stock - state.reserved >= qty",
                &[("stock", "state.stock - qty"), ("last_at", "at")],
                &row("true"),
            ),
            case("kind = 'sale'", &[], &row("false")),
        ],
        otherwise: FoldOtherwise::DeadLetter,
        timer: None,
    };
    Arc::new(plan_fold(&spec, &[topic], &catalog).unwrap_or_else(|e| panic!("{e:?}")))
}

/// Batches over `keys` SKUs; `hot`: half of all events have the first.
fn batches(fold: &Fold, keys: usize, hot: bool, batch: usize) -> Vec<RecordBatch> {
    let mut seed = 7_u64;
    let mut next = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let count = EVENTS.min(batch * 20_000);
    let batches = (0..count / batch).map(|number| {
        let (mut ids, mut skus, mut kinds, mut qtys, mut times) = (vec![], vec![], vec![], vec![], vec![]);
        for row in 0..batch {
            let sku = if hot && next(2) == 0 { 0 } else { next(keys) };
            ids.push(format!("m{:09}", number * batch + row));
            skus.push(format!("sku-{sku:06}"));
            kinds.push(if next(3) == 0 { "receipt" } else { "sale" });
            qtys.push(1 + next(5) as i32);
            times.push(1_767_225_600_000_000 + (number * batch + row) as i64 * 1000);
        }
        let time = |of: Vec<i64>| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(of).with_timezone("+00:00")) };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(ids)),
            Arc::new(StringArray::from(skus)),
            Arc::new(StringArray::from(vec!["berlin"; batch])),
            Arc::new(StringArray::from(kinds)),
            Arc::new(Int32Array::from(qtys)),
            time(times.clone()),
            time(times),
        ];
        RecordBatch::try_new(Arc::clone(fold.input_schema().physical()), columns).expect("rows")
    });
    batches.collect()
}

fn main() {
    let topic = Name::new("movements").expect("a name");
    let lookups = LookupSet::default();
    for (what, hard, keys, hot, batch) in [
        ("100,000 keys", false, 100_000, false, BATCH),
        ("100,000 keys, half of all one", false, 100_000, true, BATCH),
        ("1,000,000 keys", false, 1_000_000, false, BATCH),
        ("100,000 keys, 10 at a time", false, 100_000, false, 10),
        ("100,000 keys, one at a time", false, 100_000, false, 1),
        ("hard, 100,000 keys", true, 100_000, false, BATCH),
        ("hard, half of all one", true, 100_000, true, BATCH),
    ] {
        let fold = fold(hard);
        let batches = batches(&fold, keys, hot, batch);
        let mut folding = fold.open().unwrap_or_else(|e| panic!("{e}"));
        let mut rows = 0;
        let start = cpu_nanos();
        for batch in &batches {
            let step = folding.push(&topic, black_box(batch), &lookups).unwrap_or_else(|e| panic!("{e}"));
            rows += step.rows.iter().map(RecordBatch::num_rows).sum::<usize>();
            black_box(folding.changes());
        }
        let nanos = (cpu_nanos() - start) as f64;
        let events = batches.len() * batch;
        let (size, bytes) = folding.size();
        #[expect(clippy::print_stdout, reason = "the benchmark's result")]
        {
            let rate = events as f64 / nanos * 1e9;
            println!(
                "{what:32} {events:8} events  {rows:8} rows  {:8.0} events/CPU s  {:6.0} ns/event  {size} keys, {bytes} bytes",
                rate,
                nanos / events as f64
            );
        }
    }
}

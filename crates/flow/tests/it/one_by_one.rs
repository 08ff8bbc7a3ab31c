//! The law that every query keeps: a batch yields what its rows yield one by one.

use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use millstream_flow::{LookupSet, Processed, Query};

/// Runs `query` on the whole batch and on each row alone, asserts that both agree, and gives the former.
pub(crate) fn run(query: &Query, rows: &RecordBatch, lookups: &LookupSet) -> Processed {
    let whole = query.run(rows, lookups);
    let mut batches = Vec::new();
    let mut origin = Vec::new();
    let mut failed = Vec::new();
    let mut dropped: Vec<_> = whole.dropped.iter().map(|(name, _)| (name.clone(), 0)).collect();
    for row in 0..rows.num_rows() {
        let one = query.run(&rows.slice(row, 1), lookups);
        origin.extend(one.origin.iter().map(|o| o + row as u32));
        failed.extend(one.failed.into_iter().map(|mut f| {
            f.row += row as u32;
            f
        }));
        dropped.iter_mut().zip(&one.dropped).for_each(|(sum, (_, count))| sum.1 += count);
        batches.push(one.rows);
    }
    let rows = concat_batches(query.schema().physical(), &batches).unwrap();
    assert_eq!(whole.rows, rows, "rows at once and one by one, {}", query.explain());
    assert_eq!(whole.origin.iter().collect::<Vec<_>>(), origin, "origins");
    assert_eq!(whole.failed, failed, "failed rows");
    assert_eq!(whole.dropped, dropped, "dropped rows");
    whole
}

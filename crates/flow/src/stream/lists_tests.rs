use arrow_array::RecordBatch;

use crate::LookupSet;
use crate::stream::laws::{Cut, Event, catalog, planned, rows};

const ELEMENTS: i64 = 10_000;

/// The bytes of the changelog for one more event of a group that has ten thousand.
fn bytes_of_one_more(sql: &str) -> usize {
    let mut catalog = catalog();
    catalog.updating = true;
    let query = planned(sql, &catalog);
    let event = |v: i64| Event { k: Some(1), v: Some(v), at: v % 10, late: false, watermark: 0, cut: Cut::None };
    let mut running = query.open().unwrap();
    let mut push = |batch: &RecordBatch| {
        running.push(&query.inputs()[0], batch, &LookupSet::default()).unwrap();
        let changes = running.changes().unwrap();
        changes.iter().map(|(key, value)| key.len() + value.map_or(0, <[u8]>::len)).sum::<usize>()
    };
    let many: Vec<Event> = (0..ELEMENTS).map(event).collect();
    push(&rows(&query, &many, &catalog));
    push(&rows(&query, &[event(ELEMENTS)], &catalog))
}

#[test]
fn one_more_event_of_a_long_list_writes_a_few_rows_and_not_the_list() {
    for aggregate in
        ["count(DISTINCT v)", "array_agg(v)", "median(v)", "percentile_cont(0.9) WITHIN GROUP (ORDER BY v)"]
    {
        for (what, sql) in [
            ("update", format!("SELECT k, {aggregate} AS a, count(*) AS n FROM t GROUP BY k")),
            (
                "window",
                format!(
                    "SELECT k, window_end, {aggregate} AS a, count(*) AS n FROM tumble(t, at, INTERVAL '1 minute') GROUP BY k, window_end"
                ),
            ),
        ] {
            let bytes = bytes_of_one_more(&sql);
            assert!(bytes < 200, "{what} {aggregate}: {bytes}");
        }
        // A session has its values in one row.
        let sql = format!(
            "SELECT k, window_end, {aggregate} AS a FROM session(t, at, INTERVAL '1 minute') GROUP BY k, window_end"
        );
        let bytes = bytes_of_one_more(&sql);
        assert!(bytes > 8 * ELEMENTS as usize, "session {aggregate}: {bytes}");
    }
}

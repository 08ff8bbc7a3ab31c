use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::stream::laws::{Event, catalog, events, given, planned};

/// The table of `k, window_end: count, sum` of all events that count.
fn expected(
    events: &[Event],
    ttl: i64,
    ends: impl Fn(i64) -> Vec<i64>,
    pane: i64,
) -> BTreeMap<Vec<String>, Vec<String>> {
    let mut newest = i64::MIN;
    let mut groups: BTreeMap<(i64, Option<u8>), Vec<Option<i64>>> = BTreeMap::new();
    for event in events {
        let ends = ends(event.at);
        let start = event.at - event.at.rem_euclid(pane);
        if ends.is_empty() || event.late && ends.iter().max().unwrap() <= &newest.saturating_sub(ttl) {
            continue;
        }
        newest = newest.max(start);
        ends.into_iter().for_each(|end| groups.entry((end, event.k)).or_default().push(event.v));
    }
    let rows = groups.into_iter().map(|((end, k), values)| {
        let key = vec![k.map_or_else(String::new, |k| format!("k{k}")), (end * 1_000_000).to_string()];
        let known: Vec<i64> = values.iter().copied().flatten().collect();
        let total = if known.is_empty() { String::new() } else { known.iter().sum::<i64>().to_string() };
        let distinct = known.iter().collect::<BTreeSet<_>>().len().to_string();
        (key.clone(), [key, vec![values.len().to_string(), total, distinct]].concat())
    });
    rows.collect()
}

fn check(
    events: &[Event],
    ttl: i64,
    from: &str,
    ends: impl Fn(i64) -> Vec<i64>,
    pane: i64,
) -> Result<(), TestCaseError> {
    let mut catalog = catalog();
    catalog.updating = true;
    catalog.late_us = Some(ttl * 1_000_000);
    let sql = format!(
        "SELECT k, date_part('epoch', window_end)::bigint * 1000000 AS e, window_end, count(*) AS n, sum(v) AS total, \
         count(DISTINCT v) AS d FROM {from} GROUP BY k, window_end"
    );
    let query = planned(&sql, &catalog);
    let found = given(&query, events, &catalog);
    let mut table = BTreeMap::new();
    for (row, deleted) in &found.rows {
        let row: Vec<String> = [0, 1, 3, 4, 5].iter().map(|at| row[*at].clone()).collect();
        match deleted {
            true => table.remove(&row[..2]),
            false => table.insert(row[..2].to_vec(), row),
        };
    }
    prop_assert_eq!(table, expected(events, ttl, ends, pane));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_table_of_windows_has_the_late_events_that_came_in_time(events in events(60), ttl in 0_i64..120) {
        check(&events, ttl, "tumble(t, at, INTERVAL '10 seconds')", |at| vec![at - at.rem_euclid(10) + 10], 10)?;
        let hop = |at: i64| (0..3).map(|n| at - at.rem_euclid(5) + 15 - 5 * n).collect();
        check(&events, ttl, "hop(t, at, INTERVAL '5 seconds', INTERVAL '15 seconds')", hop, 5)?;
        let cumulate = |at: i64| {
            let start = at - at.rem_euclid(30);
            (1..=3).map(|n| start + n * 10).filter(|end| at < *end).collect()
        };
        check(&events, ttl, "cumulate(t, at, INTERVAL '10 seconds', INTERVAL '30 seconds')", cumulate, 10)?;
    }

    #[test]
    fn panes_that_no_late_event_needs_are_let_go(events in events(60)) {
        let mut catalog = catalog();
        catalog.updating = true;
        catalog.late_us = Some(0);
        let sql = "SELECT k, window_end, count(*) AS n FROM tumble(t, at, INTERVAL '10 seconds') GROUP BY k, window_end";
        let query = planned(sql, &catalog);
        let late = given(&query, &events, &catalog).kept;
        // Those of open windows, and of the last one that was given out.
        let open = events.iter().filter(|e| e.at >= events.last().map_or(0, |e| e.watermark) - 20).count();
        prop_assert!(late <= open + 1 + 3, "{late} of {open}");
    }
}

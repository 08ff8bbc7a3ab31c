//! The time to live of keys against a naive model.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::stream::laws::{Cut, Event, catalog, events, given, planned};

const QUERY: &str = "SELECT k, v, at, lag(v) OVER w AS l, count(*) OVER w AS n, sum(v) OVER r AS s FROM t \
    WINDOW w AS (PARTITION BY k ORDER BY at), r AS (PARTITION BY k ORDER BY at ROWS BETWEEN 2 PRECEDING AND CURRENT ROW)";

fn text(value: Option<i64>) -> String {
    value.map_or_else(String::new, |v| v.to_string())
}

fn model(events: &[Event], ttl: i64) -> Vec<Vec<String>> {
    let mut newest = i64::MIN;
    let mut keys: BTreeMap<Option<u8>, (i64, Vec<Option<i64>>)> = BTreeMap::new();
    let answers = events.iter().map(|event| {
        newest = newest.max(event.at);
        let (last, past) = keys.entry(event.k).or_insert((event.at, Vec::new()));
        if *last + ttl < newest {
            past.clear();
        }
        *last = event.at;
        let before = past.last().copied().flatten();
        past.push(event.v);
        let known: Vec<i64> = past.iter().rev().take(3).copied().flatten().collect();
        let sum = (!known.is_empty()).then(|| known.iter().sum());
        let key = event.k.map_or_else(String::new, |k| format!("k{k}"));
        vec![key, text(event.v), text(before), past.len().to_string(), text(sum)]
    });
    answers.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_key_that_has_outlived_its_time_begins_anew_however_events_are_cut(events in events(60), ttl in 0_i64..80) {
        let mut catalog = catalog();
        catalog.state_ttl_us = Some(ttl * 1_000_000);
        let found = given(&planned(QUERY, &catalog), &events, &catalog);
        let rows: Vec<Vec<String>> =
            found.texts().into_iter().map(|row| [0, 1, 3, 4, 5].iter().map(|at| row[*at].clone()).collect()).collect();
        prop_assert_eq!(rows, model(&events, ttl));
    }
}

#[test]
fn keys_that_nobody_comes_back_for_are_let_go() {
    let mut catalog = catalog();
    catalog.state_ttl_us = Some(10_000_000);
    let event = |n: u8| Event { k: Some(n), v: Some(1), at: i64::from(n), late: false, watermark: 0, cut: Cut::Batch };
    let events: Vec<Event> = (0..=u8::MAX).map(event).collect();
    let kept = given(&planned(QUERY, &catalog), &events, &catalog).kept;
    // Eleven keys with a row each and what they have added up, and the newest time.
    assert!(kept <= 23 + 2, "{kept} rows of state");
}

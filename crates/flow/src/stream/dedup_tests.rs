use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::stream::laws::{catalog, events, given, planned};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn distinct_rows_of_windows_are_those_that_come_first(events in events(60)) {
        let catalog = catalog();
        let sql = "SELECT DISTINCT k, v, extract(epoch from window_end)::bigint AS e, window_start \
            FROM tumble(t, at, INTERVAL '20 seconds')";
        let query = planned(sql, &catalog);
        let out = given(&query, &events, &catalog);
        let mut seen = BTreeSet::new();
        let rows = events.iter().filter(|e| !e.late).map(|e| (e.k, e.v, e.at - e.at.rem_euclid(20) + 20));
        let expected: Vec<_> = rows.filter(|row| seen.insert(*row)).collect();
        let found: Vec<_> = out.texts().iter().map(|row| {
            (row[0].strip_prefix('k').map(|k| k.parse::<u8>().unwrap()), row[1].parse::<i64>().ok(), row[2].parse::<i64>().unwrap())
        }).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_key_is_new_again_when_its_time_has_passed(events in events(60)) {
        let mut catalog = catalog();
        catalog.state_ttl_us = Some(30_000_000);
        let sql = "SELECT k, extract(epoch from at)::bigint AS s FROM \
            (SELECT *, ROW_NUMBER() OVER (PARTITION BY k ORDER BY at) AS n FROM t) WHERE n = 1";
        let query = planned(sql, &catalog);
        let out = given(&query, &events, &catalog);
        let mut first: BTreeMap<Option<u8>, i64> = BTreeMap::new();
        let mut expected = Vec::new();
        for event in events.iter().filter(|e| !e.late) {
            if first.get(&event.k).is_none_or(|first| event.at >= first + 30) {
                first.insert(event.k, event.at);
                expected.push((event.k, event.at));
            }
        }
        let found: Vec<_> = out.texts().iter().map(|row| {
            (row[0].strip_prefix('k').map(|k| k.parse::<u8>().unwrap()), row[1].parse::<i64>().unwrap())
        }).collect();
        prop_assert_eq!(found, expected);
    }
}

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::stream::laws::{catalog, events, given, planned};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_best_of_a_window_are_given_out_in_order_however_events_are_cut(events in events(60)) {
        let catalog = catalog();
        let sql = "SELECT k, v, extract(epoch from at)::bigint AS s, extract(epoch from window_end)::bigint AS e, n FROM \
            (SELECT *, ROW_NUMBER() OVER (PARTITION BY k, window_start, window_end ORDER BY v DESC NULLS LAST) AS n \
            FROM tumble(t, at, INTERVAL '20 seconds')) WHERE n <= 2";
        let query = planned(sql, &catalog);
        let out = given(&query, &events, &catalog);
        let mut groups: BTreeMap<_, Vec<(Option<i64>, i64)>> = BTreeMap::new();
        for e in events.iter().filter(|e| !e.late) {
            groups.entry((e.at - e.at.rem_euclid(20) + 20, e.k)).or_default().push((e.v, e.at));
        }
        let mut expected = Vec::new();
        for ((end, k), mut rows) in groups {
            rows.sort_by_key(|(v, _)| v.map_or(i64::MAX, |v| -v));
            let rows = rows.into_iter().take(2).zip(1..);
            expected.extend(rows.map(|((v, at), n)| (k, v, at, end, n)));
        }
        let found: Vec<_> = out.texts().iter().map(|row| {
            let number = |i: usize| row[i].parse::<i64>().unwrap();
            (row[0].strip_prefix('k').map(|k| k.parse::<u8>().unwrap()), row[1].parse::<i64>().ok(), number(2), number(3), number(4))
        }).collect();
        prop_assert_eq!(found, expected);
        prop_assert!(query.updates().is_none());
    }

    #[test]
    fn the_best_so_far_are_what_a_table_has_in_the_end(events in events(60)) {
        let mut catalog = catalog();
        catalog.updating = true;
        let sql = "SELECT k, n, v, extract(epoch from at)::bigint AS s FROM \
            (SELECT *, ROW_NUMBER() OVER (PARTITION BY k ORDER BY v DESC NULLS LAST) AS n FROM t) WHERE n <= 3";
        let query = planned(sql, &catalog);
        prop_assert_eq!(query.updates(), Some(vec!["k", "n"]));
        let found = given(&query, &events, &catalog).table(2);
        let mut groups: BTreeMap<Option<u8>, Vec<(Option<i64>, i64)>> = BTreeMap::new();
        events.iter().for_each(|e| groups.entry(e.k).or_default().push((e.v, e.at)));
        let mut expected = BTreeMap::new();
        for (k, mut rows) in groups {
            rows.sort_by_key(|(v, _)| v.map_or(i64::MAX, |v| -v));
            for ((v, at), n) in rows.into_iter().take(3).zip(1..) {
                let key = vec![k.map_or_else(String::new, |k| format!("k{k}")), format!("{n}")];
                let rest = [v.map_or_else(String::new, |v| v.to_string()), at.to_string()];
                expected.insert(key.clone(), key.into_iter().chain(rest).collect::<Vec<_>>());
            }
        }
        prop_assert_eq!(found, expected);
    }
}

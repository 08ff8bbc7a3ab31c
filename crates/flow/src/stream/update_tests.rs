use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::stream::laws::{catalog, events, given, planned};

fn text(value: Option<i64>) -> String {
    value.map_or_else(String::new, |v| v.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_table_has_the_aggregates_of_all_rows(events in events(60)) {
        let mut catalog = catalog();
        catalog.updating = true;
        let sql = "SELECT k, count(*) AS n, sum(v) AS total, min(v) AS least, count(DISTINCT v) AS d FROM t GROUP BY k HAVING count(*) > 1";
        let query = planned(sql, &catalog);
        prop_assert_eq!(query.updates(), Some(vec!["k"]));
        let found = given(&query, &events, &catalog).table(1);
        let mut groups: BTreeMap<Option<u8>, Vec<Option<i64>>> = BTreeMap::new();
        events.iter().for_each(|e| groups.entry(e.k).or_default().push(e.v));
        let expected: BTreeMap<Vec<String>, Vec<String>> = groups.into_iter().filter(|(_, rows)| rows.len() > 1).map(|(k, rows)| {
            let key = k.map_or_else(String::new, |k| format!("k{k}"));
            let known: Vec<i64> = rows.iter().copied().flatten().collect();
            let total = (!known.is_empty()).then(|| known.iter().sum());
            let distinct: BTreeSet<i64> = known.iter().copied().collect();
            let row = vec![key.clone(), rows.len().to_string(), text(total), text(known.iter().min().copied()), distinct.len().to_string()];
            (vec![key], row)
        }).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn aggregates_of_aggregates_are_right_when_these_change(events in events(60)) {
        let mut catalog = catalog();
        catalog.updating = true;
        // The greatest of each minute, of which a few are then a group.
        let sql = "SELECT k, count(*) AS n, sum(m) AS total, min(m) AS least, max(m) AS most, count(DISTINCT m) AS d, \
            round(avg(m) * 60)::bigint AS mean, array_agg(m ORDER BY m) AS all, count(*) FILTER (WHERE m > 5) AS big \
            FROM (SELECT k, date_trunc('minute', at) AS minute, max(v) AS m FROM t GROUP BY k, date_trunc('minute', at)) \
            WHERE m <> 7 GROUP BY k";
        let query = planned(sql, &catalog);
        let found = given(&query, &events, &catalog).table(1);
        let mut minutes: BTreeMap<(Option<u8>, i64), Option<i64>> = BTreeMap::new();
        for e in &events {
            let most = minutes.entry((e.k, e.at.div_euclid(60))).or_default();
            *most = (*most).max(e.v);
        }
        let mut groups: BTreeMap<Option<u8>, Vec<i64>> = BTreeMap::new();
        for ((k, _), m) in minutes {
            groups.entry(k).or_default().extend(m.filter(|m| *m != 7));
        }
        let expected: BTreeMap<Vec<String>, Vec<String>> = groups.into_iter().filter(|(_, rows)| !rows.is_empty()).map(|(k, mut rows)| {
            let key = k.map_or_else(String::new, |k| format!("k{k}"));
            rows.sort_unstable();
            let distinct: BTreeSet<i64> = rows.iter().copied().collect();
            let total: i64 = rows.iter().sum();
            let mean = (total as f64 / rows.len() as f64 * 60.0).round() as i64;
            let all: Vec<String> = rows.iter().map(i64::to_string).collect();
            let row = vec![
                key.clone(), rows.len().to_string(), total.to_string(), rows[0].to_string(), rows[rows.len() - 1].to_string(),
                distinct.len().to_string(), mean.to_string(), format!("[{}]", all.join(", ")),
                rows.iter().filter(|m| **m > 5).count().to_string(),
            ];
            (vec![key], row)
        }).collect();
        prop_assert_eq!(found, expected);
    }
}

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::stream::laws::{Cut, Event, catalog, events, given, planned};

const GAP: i64 = 15;

/// Start, end, number, sum and values of sessions, by key and start.
type Sessions = BTreeMap<(i64, Option<u8>), (i64, usize, Option<i64>)>;

/// All sessions, by definition: events of a key in the order of their times, cut where a gap is.
fn model(events: &[Event]) -> Sessions {
    let mut by_key: BTreeMap<Option<u8>, Vec<(i64, Option<i64>)>> = BTreeMap::new();
    for event in events.iter().filter(|event| !event.late) {
        by_key.entry(event.k).or_default().push((event.at, event.v));
    }
    let mut sessions = Sessions::new();
    for (key, mut rows) in by_key {
        rows.sort_by_key(|(at, _)| *at);
        let mut open: Option<(i64, i64, usize, Option<i64>)> = None;
        for (at, v) in rows {
            let sum = |a: Option<i64>| v.map_or(a, |v| Some(a.unwrap_or(0) + v));
            open = Some(match open {
                Some((start, last, n, total)) if at - last < GAP => (start, at, n + 1, sum(total)),
                before => {
                    before.map(|(start, last, n, total)| sessions.insert((start, key), (last + GAP, n, total)));
                    (at, at, 1, sum(None))
                }
            });
        }
        open.map(|(start, last, n, total)| sessions.insert((start, key), (last + GAP, n, total)));
    }
    sessions
}

proptest! {
    #[test]
    fn sessions_are_what_gaps_leave_however_events_are_cut(events in events(60)) {
        let catalog = catalog();
        let sql = "SELECT k, extract(epoch from window_start)::bigint AS s, extract(epoch from window_end)::bigint AS e, \
            count(*) AS n, sum(v)::bigint AS total FROM session(t, at, INTERVAL '15 seconds') \
            GROUP BY k, window_start, window_end";
        let query = planned(sql, &catalog);
        let out = given(&query, &events, &catalog);
        let mut found = Sessions::new();
        let mut order = Vec::new();
        for row in out.texts() {
            let number = |i: usize| row[i].parse::<i64>().unwrap();
            let key = row[0].strip_prefix('k').map(|k| k.parse().unwrap());
            order.push((number(2), key));
            let value = (number(2), number(3) as usize, row[4].parse().ok());
            prop_assert!(found.insert((number(1), key), value).is_none());
        }
        prop_assert_eq!(found, model(&events));
        // By their ends, then by key.
        prop_assert!(order.is_sorted());
    }

    #[test]
    fn what_depends_on_the_order_of_rows_does_not_depend_on_cuts(events in events(60)) {
        let catalog = catalog();
        let sql = "SELECT k, window_start, array_agg(v) AS all, first_value(v) AS first \
            FROM session(t, at, INTERVAL '15 seconds') GROUP BY k, window_start";
        let query = planned(sql, &catalog);
        let whole: Vec<Event> = events.iter().map(|e| Event { cut: Cut::None, ..*e }).collect();
        let single: Vec<Event> = events.iter().map(|e| Event { cut: Cut::Restart, ..*e }).collect();
        let expected = given(&query, &single, &catalog).texts();
        prop_assert_eq!(given(&query, &whole, &catalog).texts(), expected.clone());
        prop_assert_eq!(given(&query, &events, &catalog).texts(), expected);
    }
}

#[test]
fn no_session_is_kept_that_was_given_out() {
    let catalog = catalog();
    let query = planned("SELECT window_end FROM session(t, at, INTERVAL '1 second') GROUP BY window_end", &catalog);
    let event = |at: i64| Event { k: None, v: None, at, late: false, watermark: at - 20, cut: Cut::Batch };
    let events: Vec<Event> = (0..100).map(|i| event(i * 2)).collect();
    let out = given(&query, &events, &catalog);
    assert_eq!(out.rows.len(), 100);
    // Those of the last 20 seconds, and the end of the last one that was given out.
    assert_eq!(out.kept, 12);
}

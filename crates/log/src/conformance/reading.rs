//! Rules 2 and 5 as a reader sees them.

use futures::FutureExt as _;
use millstream_event::Offset;

use super::Fixture;
use super::kit::*;
use crate::{Error, Join, Lead, Read};

pub async fn a_reader_sees_every_event_once_in_order(f: Fixture) {
    topic(&f.log, "a", 1).await;
    let (_m, task) = one(&f.log, "s").await;
    let mut live = f.log.read(&at("a", 0), Offset(0)).unwrap();
    let mut seen = Vec::new();
    for i in 0..40i64 {
        put(&f.log, &task, vec![], vec![append("a", 0, &[3 * i, 3 * i + 1, 3 * i + 2])]).await;
        seen.extend(to_end(&mut live).await.unwrap().0);
    }
    assert_eq!(seen.iter().map(|(_, n)| *n).collect::<Vec<_>>(), (0..120).collect::<Vec<_>>());
    assert_eq!(all_from(&f.log, "a", 0, 0).await, seen, "a later reader finds the same at the same offsets");
}

pub async fn a_reader_at_the_end_wakes(f: Fixture) {
    topic(&f.log, "a", 1).await;
    let (_m, task) = one(&f.log, "s").await;
    let mut reader = f.log.read(&at("a", 0), Offset(0)).unwrap();
    for i in 0..20 {
        assert!(matches!(reader.next().await.unwrap(), Read::AtEnd { .. }));
        let log = f.log.clone();
        let task = task.clone();
        let putting = tokio::spawn(async move { put(&log, &task, vec![], vec![append("a", 0, &[i])]).await });
        // A wake-up without need is allowed, one that never comes is not.
        let batch = loop {
            reader.changed().await;
            if let Read::Batch(batch) = reader.next().await.unwrap() {
                break batch;
            }
        };
        assert_eq!(numbers(&batch.rows), [i]);
        putting.await.unwrap();
    }
}

pub async fn a_reader_beyond_the_end_waits_for_it(f: Fixture) {
    topic(&f.log, "a", 1).await;
    let (_m, task) = one(&f.log, "s").await;
    let mut reader = f.log.read(&at("a", 0), Offset(3)).unwrap();
    assert!(matches!(reader.next().await.unwrap(), Read::AtEnd { .. }));
    let mut last = 0;
    while last < 5 {
        last = put(&f.log, &task, vec![], vec![append("a", 0, &[9])]).await.first().map_or(last + 1, |o| o.0);
    }
    let (seen, _) = to_end(&mut reader).await.unwrap();
    assert!(seen.iter().all(|(offset, _)| *offset >= 3), "nothing before the place asked for: {seen:?}");
    assert_eq!(seen, all_from(&f.log, "a", 0, 3).await);
    assert!(!seen.is_empty());
}

pub async fn reading_begins_within_a_batch(f: Fixture) {
    topic(&f.log, "a", 1).await;
    let (_m, task) = one(&f.log, "s").await;
    put(&f.log, &task, vec![], vec![append("a", 0, &[1, 2, 3])]).await;
    put(&f.log, &task, vec![], vec![append("a", 0, &[4, 5, 6])]).await;
    let whole = all_from(&f.log, "a", 0, 0).await;
    for from in 0..=end(&f.log, "a", 0).await {
        let want: Vec<_> = whole.iter().copied().filter(|(offset, _)| *offset >= from).collect();
        assert_eq!(all_from(&f.log, "a", 0, from).await, want);
    }
}

pub async fn an_acknowledged_commit_is_visible_at_once(f: Fixture) {
    topic(&f.log, "a", 1).await;
    let (_m, task) = one(&f.log, "s").await;
    let mut reader = f.log.read(&at("a", 0), Offset(0)).unwrap();
    for i in 0..50 {
        put(&f.log, &task, vec![consumed("in", (i > 0).then_some(i), i + 1)], vec![append("a", 0, &[i as i64])]).await;
        assert_eq!(to_end(&mut reader).await.unwrap().0.len(), 1);
        assert_eq!(offset(&f.log, &task, "in").await, Some(i + 1));
    }
}

pub async fn the_position_at_the_end_is_the_end(f: Fixture) {
    topic(&f.log, "a", 1).await;
    let (_m, task) = one(&f.log, "s").await;
    let mut reader = f.log.read(&at("a", 0), Offset(0)).unwrap();
    for i in 0..10 {
        put(&f.log, &task, vec![], vec![append("a", 0, &[i, i])]).await;
        let (_, next) = to_end(&mut reader).await.unwrap();
        assert_eq!(next.0, end(&f.log, "a", 0).await);
        let mut again = f.log.read(&at("a", 0), next).unwrap();
        assert!(matches!(again.next().await.unwrap(), Read::AtEnd { next: n } if n == next));
    }
}

pub async fn what_does_not_exist_is_named(f: Fixture) {
    topic(&f.log, "a", 1).await;
    for (place, part) in [(at("nowhere", 0), "`nowhere`"), (at("a", 1), "a/1")] {
        let told = |error: Error| assert!(error.to_string().contains(part), "{error}");
        told(f.log.read(&place, Offset(0)).err().unwrap());
        told(f.log.start(&place).await.unwrap_err());
        told(f.log.end(&place).await.unwrap_err());
        told(f.log.trim(&place, Offset(0)).await.unwrap_err());
    }
    assert!(f.log.topic(&name("nowhere")).is_none());
    let join = Join { service: name("s"), instance: 0, lead: Lead::Topic(name("nowhere")) };
    assert!(matches!(f.log.join(join).err(), Some(Error::UnknownTopic(_))));
    let join = Join { service: name("s"), instance: 0, lead: Lead::Topic(name("a")) };
    let mut member = f.log.join(join).unwrap();
    assert_eq!(assigned(&mut member).await.len(), 1);
    assert_eq!(member.next().now_or_never(), None);
}

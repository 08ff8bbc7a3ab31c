//! What goes, and what must stay.

use std::time::{Duration, Instant};

use millstream_event::Offset;

use super::Fixture;
use super::kit::*;
use crate::{AbortReason, Class, Commit, Error, Outcome, Retention, TopicSpec};

const HOUR: Duration = Duration::from_secs(3600);

pub async fn what_was_trimmed_is_out_of_range(f: Fixture) {
    topic(&f.log, "a", 1).await;
    let (_m, task) = one(&f.log, "s").await;
    put(&f.log, &task, vec![], vec![append("a", 0, &[1, 2, 3])]).await;
    put(&f.log, &task, vec![], vec![append("a", 0, &[4, 5])]).await;
    let before = all_from(&f.log, "a", 0, 0).await;
    let mut slow = f.log.read(&at("a", 0), Offset(0)).unwrap();
    let cut = before[2].0;
    f.log.trim(&at("a", 0), Offset(cut)).await.unwrap();
    assert_eq!(f.log.start(&at("a", 0)).await.unwrap(), Offset(cut));
    for error in [f.log.read(&at("a", 0), Offset(cut - 1)).err(), slow.next().await.err()] {
        let Some(Error::OutOfRange { start, .. }) = error else { panic!("{error:?}") };
        assert_eq!(start, Offset(cut));
    }
    assert_eq!(all_from(&f.log, "a", 0, cut).await, before[2..]);
    // Going back is not possible.
    f.log.trim(&at("a", 0), Offset(0)).await.unwrap();
    assert_eq!(f.log.start(&at("a", 0)).await.unwrap(), Offset(cut));
}

pub async fn trimming_ends_at_the_end(f: Fixture) {
    topic(&f.log, "a", 1).await;
    let (_m, task) = one(&f.log, "s").await;
    put(&f.log, &task, vec![], vec![append("a", 0, &[1, 2, 3])]).await;
    let end = end(&f.log, "a", 0).await;
    f.log.trim(&at("a", 0), Offset(u64::MAX)).await.unwrap();
    assert_eq!(f.log.start(&at("a", 0)).await.unwrap(), Offset(end));
    put(&f.log, &task, vec![], vec![append("a", 0, &[4])]).await;
    assert_eq!(all(&f.log, "a", 0).await, [4]);
}

fn kept_an_hour(consumers: &[&str]) -> TopicSpec {
    let retention = Retention { until_read: true, age: Some(HOUR), max_bytes: None };
    TopicSpec { retention, consumers: consumers.iter().map(|c| name(c)).collect(), ..spec("a", 1) }
}

pub async fn what_a_consumer_has_not_read_stays(f: Fixture) {
    f.log.create_topic(kept_an_hour(&["fast", "slow"])).await.unwrap();
    let (_m, task) = one(&f.log, "s").await;
    let (_n, fast) = one(&f.log, "fast").await;
    let many: Vec<i64> = (0..1000).collect();
    let mut read = None;
    for _ in 0..30 {
        put(&f.log, &task, vec![], vec![append("a", 0, &many)]).await;
        f.clock.advance(HOUR * 2);
        let to = end(&f.log, "a", 0).await;
        put(&f.log, &fast, vec![consumed("a", read, to)], vec![]).await;
        read = Some(to);
    }
    assert_eq!(all_from(&f.log, "a", 0, 0).await.len(), 30_000);
}

pub async fn what_every_consumer_has_read_goes_after_its_age(f: Fixture) {
    f.log.create_topic(kept_an_hour(&["c"])).await.unwrap();
    let (_m, task) = one(&f.log, "s").await;
    let (_n, consumer) = one(&f.log, "c").await;
    let many: Vec<i64> = (0..1000).collect();
    put(&f.log, &task, vec![], vec![append("a", 0, &many)]).await;
    let mut read = end(&f.log, "a", 0).await;
    put(&f.log, &consumer, vec![consumed("a", None, read)], vec![]).await;
    assert_eq!(f.log.start(&at("a", 0)).await.unwrap(), Offset(0), "it is not old yet");
    let begun = Instant::now();
    // A log may let go in larger pieces and in the background, so more has to come.
    while f.log.start(&at("a", 0)).await.unwrap() == Offset(0) {
        assert!(begun.elapsed() < DEADLINE / 2, "what was read and is old never goes");
        f.clock.advance(HOUR * 2);
        put(&f.log, &task, vec![], vec![append("a", 0, &many)]).await;
        let to = end(&f.log, "a", 0).await;
        put(&f.log, &consumer, vec![consumed("a", Some(read), to)], vec![]).await;
        read = to;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(f.log.start(&at("a", 0)).await.unwrap().0 <= read);
}

pub async fn a_full_backlog_refuses_sources_only(f: Fixture) {
    let retention = Retention { until_read: true, age: Some(HOUR), max_bytes: Some(64 << 10) };
    let spec = TopicSpec { retention, consumers: vec![name("c")], ..spec("a", 1) };
    f.log.create_topic(spec).await.unwrap();
    let (_m, mut task) = one(&f.log, "s").await;
    let (_n, consumer) = one(&f.log, "c").await;
    let many: Vec<i64> = (0..1000).collect();
    let intake =
        |task: &crate::Task| Commit { class: Class::Intake, ..commit(task, vec![], vec![append("a", 0, &many)]) };
    let mut taken = 0;
    let reason = loop {
        match f.log.commit(intake(&task)).await {
            Outcome::Committed(_) => taken += 1,
            Outcome::Aborted(reason) => break reason,
            other => panic!("{other:?}"),
        }
        assert!(taken < 1000, "the limit never comes");
    };
    assert_eq!(reason, AbortReason::BacklogFull(name("a")));
    assert!(reason.retryable());
    task = f.log.restart(&task).await.unwrap().unwrap();
    put(&f.log, &task, vec![], vec![append("a", 0, &[1])]).await;
    let to = end(&f.log, "a", 0).await;
    put(&f.log, &consumer, vec![consumed("a", None, to)], vec![]).await;
    assert!(matches!(f.log.commit(intake(&task)).await, Outcome::Committed(_)), "read events make room");
}

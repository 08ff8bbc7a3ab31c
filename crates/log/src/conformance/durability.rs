//! What is there after a log ended and was opened again. Empty for a log that does not outlive its process.

use millstream_event::{Column, ColumnType, Offset};

use super::kit::*;
use super::topics::wider;
use super::{End, Fixture};
use crate::{AbortReason, Outcome};

pub async fn what_was_acknowledged_is_there_after_a_crash(mut f: Fixture) {
    topic(&f.log, "a", 2).await;
    let (member, task) = one(&f.log, "s").await;
    for i in 0..20u64 {
        let appends = vec![append("a", 0, &[i as i64]), append("a", 1, &[i as i64, -1])];
        put(&f.log, &task, vec![consumed("in", (i > 0).then_some(i), i + 1)], appends).await;
    }
    let before = (all_from(&f.log, "a", 0, 0).await, all_from(&f.log, "a", 1, 0).await);
    drop(member);
    if f.end(End::Crash).await {
        assert_eq!((all_from(&f.log, "a", 0, 0).await, all_from(&f.log, "a", 1, 0).await), before);
        let (_m, task) = one(&f.log, "s").await;
        assert_eq!(offset(&f.log, &task, "in").await, Some(20));
        put(&f.log, &task, vec![consumed("in", Some(20), 21)], vec![append("a", 0, &[20])]).await;
        assert_eq!(all(&f.log, "a", 0).await, (0..=20).collect::<Vec<_>>());
    }
}

pub async fn what_was_on_its_way_is_whole_or_gone_after_a_crash(mut f: Fixture) {
    topic(&f.log, "a", 1).await;
    topic(&f.log, "b", 1).await;
    let mut done = 0u64;
    for _ in 0..10 {
        let (member, task) = one(&f.log, "s").await;
        for i in done..done + 5 {
            let appends = vec![append("a", 0, &[i as i64]), append("b", 0, &[i as i64])];
            drop(f.log.commit(commit(&task, vec![consumed("in", (i > 0).then_some(i), i + 1)], appends)));
        }
        drop(member);
        if !f.end(End::Crash).await {
            return;
        }
        let (_m, task) = one(&f.log, "s").await;
        let kept = offset(&f.log, &task, "in").await.unwrap_or(0);
        assert!(kept >= done);
        let want: Vec<i64> = (0..kept as i64).collect();
        assert_eq!(all(&f.log, "a", 0).await, want);
        assert_eq!(all(&f.log, "b", 0).await, want);
        done = kept;
    }
}

pub async fn all_is_there_after_closing(mut f: Fixture) {
    topic(&f.log, "a", 1).await;
    let (member, task) = one(&f.log, "s").await;
    let pending: Vec<_> = (0..10).map(|i| f.log.commit(commit(&task, vec![], vec![append("a", 0, &[i])]))).collect();
    if f.end(End::Close).await {
        assert_eq!(all(&f.log, "a", 0).await, (0..10).collect::<Vec<_>>());
    }
    for pending in pending {
        ok(pending).await;
    }
    drop(member);
}

pub async fn epochs_grow_over_a_restart(mut f: Fixture) {
    for end in [End::Crash, End::Close, End::Crash, End::Crash] {
        let (member, old) = one(&f.log, "s").await;
        drop(member);
        if !f.end(end).await {
            return;
        }
        let (_m, new) = one(&f.log, "s").await;
        assert!(new.epoch > old.epoch, "{new:?} after {old:?}");
        assert_eq!(f.log.commit(commit(&old, vec![], vec![])).await, Outcome::Fenced);
    }
}

pub async fn topics_and_their_schemas_outlive_a_crash(mut f: Fixture) {
    topic(&f.log, "a", 3).await;
    let info = f.log.create_topic(wider("a", 3, Column::nullable("x", ColumnType::Json))).await.unwrap();
    for end in [End::Crash, End::Close] {
        if f.end(end).await {
            assert_eq!(f.log.topic(&name("a")), Some(info.clone()));
            assert_eq!(f.log.topics(), std::slice::from_ref(&info));
        }
    }
}

pub async fn trimming_outlives_closing(mut f: Fixture) {
    topic(&f.log, "a", 1).await;
    let (member, task) = one(&f.log, "s").await;
    put(&f.log, &task, vec![], vec![append("a", 0, &[1, 2, 3])]).await;
    f.log.trim(&at("a", 0), Offset(2)).await.unwrap();
    drop(member);
    if f.end(End::Close).await {
        assert_eq!(f.log.start(&at("a", 0)).await.unwrap(), Offset(2));
        assert_eq!(all(&f.log, "a", 0).await, [3]);
    }
}

pub async fn a_closed_log_refuses_commits(f: Fixture) {
    topic(&f.log, "a", 1).await;
    let (_m, task) = one(&f.log, "s").await;
    f.log.close().await.unwrap();
    match f.log.commit(commit(&task, vec![], vec![append("a", 0, &[1])])).await {
        Outcome::Aborted(AbortReason::Stopped(why)) => assert!(!why.is_empty()),
        other => panic!("{other:?}"),
    }
    assert!(f.log.stopped().is_some());
    f.log.close().await.unwrap();
}

pub async fn many_restarts_in_a_row_keep_all(mut f: Fixture) {
    topic(&f.log, "a", 2).await;
    let many: Vec<i64> = (0..400).collect();
    let mut want = Vec::new();
    for round in 0..12 {
        let (member, task) = one(&f.log, "s").await;
        for _ in 0..3 {
            put(&f.log, &task, vec![], vec![append("a", 0, &many), append("a", 1, &[round])]).await;
            want.push(round);
        }
        drop(member);
        if !f.end(if round % 3 == 0 { End::Close } else { End::Crash }).await {
            return;
        }
        assert_eq!(all(&f.log, "a", 1).await, want);
        assert_eq!(all(&f.log, "a", 0).await.len(), want.len() * 400);
    }
}

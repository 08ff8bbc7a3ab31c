//! Rule 3: commits of a task take effect in order, and none slips past one that failed.

use super::Fixture;
use super::kit::*;
use crate::{AbortReason, Outcome};

pub async fn successors_of_a_refused_commit_are_refused(f: Fixture) {
    topic(&f.log, "a", 1).await;
    let (_m, task) = one(&f.log, "s").await;
    let step =
        |from, to: u64| f.log.commit(commit(&task, vec![consumed("in", from, to)], vec![append("a", 0, &[to as i64])]));
    let pending = [step(None, 1), step(Some(7), 2), step(Some(1), 3), step(Some(2), 4), step(Some(1), 5)];
    let [first, bad, rest @ ..] = pending;
    ok(first).await;
    refused(bad).await;
    for successor in rest {
        assert_eq!(successor.await, Outcome::Aborted(AbortReason::Predecessor));
    }
    assert_eq!(step(Some(1), 2).await, Outcome::Aborted(AbortReason::Predecessor));
    assert_eq!(all(&f.log, "a", 0).await, [1]);
    let task = f.log.restart(&task).await.unwrap().unwrap();
    assert_eq!(offset(&f.log, &task, "in").await, Some(1));
    put(&f.log, &task, vec![consumed("in", Some(1), 2)], vec![append("a", 0, &[2])]).await;
    assert_eq!(all(&f.log, "a", 0).await, [1, 2]);
}

pub async fn a_failure_stops_its_own_task_only(f: Fixture) {
    topic(&f.log, "a", 2).await;
    let (_m, tasks) = service(&f.log, "s", 2).await;
    let (_n, other) = one(&f.log, "other").await;
    refused(f.log.commit(commit(&tasks[0], vec![consumed("in", Some(1), 2)], vec![]))).await;
    put(&f.log, &tasks[1], vec![consumed("in", None, 1)], vec![append("a", 1, &[1])]).await;
    put(&f.log, &other, vec![], vec![append("a", 0, &[2])]).await;
    assert_eq!(f.log.stopped(), None);
}

pub async fn commits_of_a_task_take_effect_in_the_order_of_calls(f: Fixture) {
    topic(&f.log, "a", 3).await;
    let (_m, task) = one(&f.log, "s").await;
    let mut pending = Vec::new();
    for i in 0..300i64 {
        let appends = (0..3).map(|p| append("a", p, &[i * 2, i * 2 + 1])).collect();
        pending.push(f.log.commit(commit(&task, vec![], appends)));
    }
    let mut last = None;
    for pending in pending {
        let offsets = ok(pending).await;
        assert!(last < offsets.first().copied());
        last = offsets.first().copied();
    }
    for partition in 0..3 {
        assert_eq!(all(&f.log, "a", partition).await, (0..600).collect::<Vec<_>>());
    }
}

pub async fn commits_of_several_tasks_to_one_partition_keep_each_tasks_order(f: Fixture) {
    topic(&f.log, "a", 1).await;
    let (_m, tasks) = service(&f.log, "s", 4).await;
    let mut running = Vec::new();
    for (t, task) in (0i64..).zip(tasks) {
        let log = f.log.clone();
        running.push(tokio::spawn(async move {
            let pending: Vec<_> =
                (0..100).map(|i| log.commit(commit(&task, vec![], vec![append("a", 0, &[t * 1000 + i])]))).collect();
            for pending in pending {
                ok(pending).await;
            }
        }));
    }
    for task in running {
        task.await.unwrap();
    }
    let seen = all(&f.log, "a", 0).await;
    for t in 0..4 {
        let own: Vec<i64> = seen.iter().filter(|n| **n / 1000 == t).map(|n| n % 1000).collect();
        assert_eq!(own, (0..100).collect::<Vec<_>>());
    }
}

pub async fn a_dropped_answer_does_not_undo_a_commit(f: Fixture) {
    topic(&f.log, "a", 1).await;
    let (_m, task) = one(&f.log, "s").await;
    drop(f.log.commit(commit(&task, vec![consumed("in", None, 1)], vec![append("a", 0, &[1])])));
    put(&f.log, &task, vec![consumed("in", Some(1), 2)], vec![append("a", 0, &[2])]).await;
    assert_eq!(all(&f.log, "a", 0).await, [1, 2]);
}

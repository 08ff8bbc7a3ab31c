//! Epochs: who may commit for a task, and how it passes from one owner to the next.

use super::Fixture;
use super::kit::*;
use crate::{Change, Epoch, Outcome, Task, TaskId};

pub async fn a_restart_gives_a_greater_epoch_and_fences_the_old(f: Fixture) {
    let (_m, old) = one(&f.log, "s").await;
    let new = f.log.restart(&old).await.unwrap().unwrap();
    assert!(new.epoch > old.epoch && new.id == old.id);
    assert_eq!(f.log.commit(commit(&old, vec![consumed("in", None, 1)], vec![])).await, Outcome::Fenced);
    assert_eq!(f.log.restart(&old).await.unwrap(), None);
    put(&f.log, &new, vec![consumed("in", None, 1)], vec![]).await;
}

pub async fn a_task_that_nobody_joined_is_fenced(f: Fixture) {
    let task = Task { id: TaskId::new(name("s"), 0), epoch: Epoch(1) };
    assert_eq!(f.log.commit(commit(&task, vec![], vec![])).await, Outcome::Fenced);
    let (_m, own) = one(&f.log, "s").await;
    for epoch in [own.epoch.0 - 1, own.epoch.0 + 1] {
        let other = Task { epoch: Epoch(epoch), ..own.clone() };
        assert_eq!(f.log.commit(commit(&other, vec![], vec![])).await, Outcome::Fenced);
    }
    put(&f.log, &own, vec![], vec![]).await;
}

pub async fn an_owner_is_fenced_after_it_left(f: Fixture) {
    topic(&f.log, "a", 1).await;
    let (member, old) = one(&f.log, "s").await;
    let mut second = join(&f.log, "s", 1, 1);
    drop(member);
    let new = assigned(&mut second).await.remove(0);
    assert_eq!(f.log.commit(commit(&old, vec![], vec![append("a", 0, &[1])])).await, Outcome::Fenced);
    put(&f.log, &new, vec![], vec![append("a", 0, &[2])]).await;
    assert_eq!(all(&f.log, "a", 0).await, [2]);
}

pub async fn a_revoked_task_commits_until_its_release(f: Fixture) {
    let (mut first, tasks) = service(&f.log, "s", 2).await;
    let mut second = join(&f.log, "s", 1, 2);
    let Change::Revoke(asked) = first.next().await else { panic!("not asked") };
    assert_eq!(asked.len(), 1);
    let old = tasks.iter().find(|task| task.id == asked[0]).unwrap();
    put(&f.log, old, vec![consumed("in", None, 1)], vec![]).await;
    first.release(&asked);
    let new = assigned(&mut second).await.remove(0);
    assert!(new.id == old.id && new.epoch > old.epoch);
    assert_eq!(f.log.commit(commit(old, vec![], vec![])).await, Outcome::Fenced);
    assert_eq!(offset(&f.log, &new, "in").await, Some(1));
    put(&f.log, &new, vec![consumed("in", Some(1), 2)], vec![]).await;
    let kept = tasks.iter().find(|task| task.id != asked[0]).unwrap();
    put(&f.log, kept, vec![consumed("in", None, 1)], vec![]).await;
}

pub async fn a_new_owner_goes_on_from_the_last_commit(f: Fixture) {
    topic(&f.log, "a", 1).await;
    for _ in 0..50 {
        let (member, task) = one(&f.log, "s").await;
        // What the owner before had on its way is settled by now, one way or the other.
        let first = offset(&f.log, &task, "in").await.unwrap_or(0);
        assert_eq!(all(&f.log, "a", 0).await, (1..=first as i64).collect::<Vec<_>>());
        for at in first..first + 3 {
            let step = vec![consumed("in", (at > 0).then_some(at), at + 1)];
            // The answers are not awaited: this owner vanishes.
            drop(f.log.commit(commit(&task, step, vec![append("a", 0, &[at as i64 + 1])])));
        }
        drop(member);
    }
    let (_m, task) = one(&f.log, "s").await;
    let last = offset(&f.log, &task, "in").await.unwrap_or(0);
    put(&f.log, &task, vec![consumed("in", (last > 0).then_some(last), 1000)], vec![]).await;
    assert_eq!(all(&f.log, "a", 0).await, (1..=last as i64).collect::<Vec<_>>());
}

pub async fn a_second_instance_of_one_number_takes_over(f: Fixture) {
    let (mut first, old) = one(&f.log, "s").await;
    let (_second, new) = one(&f.log, "s").await;
    assert_eq!(first.next().await, Change::Lost(vec![old.id.clone()]));
    assert_eq!(f.log.commit(commit(&old, vec![], vec![])).await, Outcome::Fenced);
    drop(first);
    put(&f.log, &new, vec![], vec![]).await;
}

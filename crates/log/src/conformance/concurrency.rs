//! Everything at once, with a checker beside it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millstream_event::Offset;

use super::Fixture;
use super::kit::*;
use crate::{Change, Log, Membership, Outcome, Read, Task, TaskId};

const TASKS: u32 = 4;
const COMMITS: u64 = 150;
const PARTITIONS: u32 = 3;

/// Follows a partition until told that nothing comes any more; what it saw, in order.
async fn follow(log: Arc<dyn Log>, partition: u32, done: Arc<AtomicBool>) -> Vec<(u64, i64)> {
    let mut reader = log.read(&at("a", partition), Offset(0)).unwrap();
    let mut seen: Vec<(u64, i64)> = Vec::new();
    loop {
        let last_round = done.load(Ordering::SeqCst);
        loop {
            match reader.next().await.unwrap() {
                Read::Batch(batch) => {
                    assert!(
                        seen.last().is_none_or(|(last, _)| *last < batch.base.0),
                        "a gap was filled, or one repeats"
                    );
                    seen.extend(events(&batch));
                }
                Read::AtEnd { next } => {
                    assert!(seen.last().is_none_or(|(last, _)| *last < next.0));
                    break;
                }
            }
        }
        if last_round {
            return seen;
        }
        drop(tokio::time::timeout(std::time::Duration::from_millis(20), reader.changed()).await);
    }
}

/// Commits `COMMITS` steps with up to eight on their way.
async fn write(log: Arc<dyn Log>, task: Task) {
    let mut waiting = std::collections::VecDeque::new();
    for i in 0..COMMITS {
        let number = i64::from(task.id.partition.0) * 1_000_000 + i as i64;
        let appends = (0..PARTITIONS).map(|p| append("a", p, &[number])).collect();
        let from = (i > 0).then_some(i);
        waiting.push_back(log.commit(commit(&task, vec![consumed("in", from, i + 1)], appends)));
        if waiting.len() == 8 {
            ok(waiting.pop_front().unwrap()).await;
        }
    }
    for pending in waiting {
        ok(pending).await;
    }
}

pub async fn readers_and_committers_at_once_agree(f: Fixture) {
    topic(&f.log, "a", PARTITIONS).await;
    let (_m, tasks) = service(&f.log, "s", TASKS).await;
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> =
        (0..PARTITIONS * 2).map(|r| tokio::spawn(follow(f.log.clone(), r % PARTITIONS, done.clone()))).collect();
    let writers: Vec<_> = tasks.iter().map(|task| tokio::spawn(write(f.log.clone(), task.clone()))).collect();
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let mut orders = Vec::new();
    for reader in readers {
        let seen = reader.await.unwrap();
        assert_eq!(seen.len() as u64, u64::from(TASKS) * COMMITS);
        for task in 0..i64::from(TASKS) {
            let own = seen.iter().map(|(_, n)| *n).filter(|n| n / 1_000_000 == task).map(|n| n % 1_000_000);
            assert!(own.eq(0..COMMITS as i64), "each task's order is kept");
        }
        orders.push(seen.iter().map(|(_, n)| *n).collect::<Vec<_>>());
    }
    // A commit is one step: all partitions have the commits in one order.
    assert!(orders.windows(2).all(|w| w[0] == w[1]));
    for (partition, order) in (0..PARTITIONS).zip(&orders) {
        assert_eq!(&all(&f.log, "a", partition).await, order);
    }
    for task in &tasks {
        assert_eq!(offset(&f.log, task, "in").await, Some(COMMITS));
    }
}

/// Works on whatever it is given for some steps and then vanishes without a word.
async fn come_and_go(log: Arc<dyn Log>, mut member: Box<dyn Membership>, steps: u32) {
    let mut own: BTreeMap<TaskId, (Task, Option<u64>)> = BTreeMap::new();
    for _ in 0..steps {
        let change = tokio::time::timeout(std::time::Duration::from_millis(1), member.next()).await;
        match change {
            Ok(Change::Assigned(tasks)) => {
                for task in tasks {
                    let from = offset(&log, &task, "in").await;
                    own.insert(task.id.clone(), (task, from));
                }
            }
            Ok(Change::Revoke(tasks)) => {
                own.retain(|id, _| !tasks.contains(id));
                member.release(&tasks);
            }
            Ok(Change::Lost(tasks)) => own.retain(|id, _| !tasks.contains(id)),
            Err(_) => {}
        }
        let mut pending = Vec::new();
        for (task, from) in own.values_mut() {
            let to = from.unwrap_or(0) + 1;
            let number = i64::from(task.id.partition.0) * 1_000_000 + to as i64;
            pending.push(log.commit(commit(task, vec![consumed("in", *from, to)], vec![append("a", 0, &[number])])));
            *from = Some(to);
        }
        for pending in pending {
            match pending.await {
                Outcome::Committed(_) | Outcome::Fenced => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

pub async fn owners_that_come_and_go_lose_and_repeat_nothing(f: Fixture) {
    topic(&f.log, "a", 1).await;
    let mut running = Vec::new();
    for instance in 0..3u32 {
        let log = f.log.clone();
        running.push(tokio::spawn(async move {
            for round in 0..6 {
                let member = join(&log, "s", instance, TASKS);
                come_and_go(log.clone(), member, 5 + 3 * instance + round).await;
            }
        }));
    }
    for task in running {
        task.await.unwrap();
    }
    let seen = all(&f.log, "a", 0).await;
    let (_m, tasks) = service(&f.log, "s", TASKS).await;
    for task in &tasks {
        let number = i64::from(task.id.partition.0);
        let own: Vec<i64> = seen.iter().filter(|n| **n / 1_000_000 == number).map(|n| n % 1_000_000).collect();
        assert!(own.iter().copied().eq(1..=own.len() as i64), "task {number}: {own:?}");
        assert_eq!(offset(&f.log, task, "in").await.unwrap_or(0), own.len() as u64);
    }
}

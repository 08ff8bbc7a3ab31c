//! Bugs planted on purpose: each must turn an oracle red, or the oracle is worth nothing.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use millstream_log::conformance::kit::*;
use millstream_log::conformance::{Fixture, ownership};
use millstream_log::vfs::sim::SimVfs;
use millstream_log::{EmbeddedLog, EmbeddedOptions, Log, ManualClock, Sabotage};

use crate::compactions::{self, fine, one_cut};
use crate::rig::{Plan, Witness, check_once, disk, find, judge, run, work, work_resting};

/// Nothing happens by itself, and a segment has room for a whole history.
fn options(vfs: &SimVfs) -> EmbeddedOptions {
    EmbeddedOptions { segment_bytes: 64 << 10, idle_after: Duration::from_secs(60), ..crate::rig::options(vfs) }
}

fn open_broken(vfs: &SimVfs, sabotage: Option<Sabotage>) -> Arc<dyn Log> {
    Arc::new(EmbeddedLog::open(EmbeddedOptions { sabotage, ..options(vfs) }).unwrap())
}

/// Cuts the power at some moments of a workload on a log with this bug; whether any outcome breaks a promise.
fn power_cuts_find(sabotage: Option<Sabotage>) -> bool {
    (0..60u64).any(|seed| {
        let plan = Plan { seed, tasks: 2, steps: 20 };
        let vfs = disk();
        let log = open_broken(&vfs, sabotage);
        vfs.power_off_after(10 + seed);
        let mut witness = Witness::default();
        run(work(&log, plan, &mut witness));
        drop(log);
        let left = |image| vfs.after_power_off(image).unwrap_or_else(|| vfs.crash(image));
        (0..4).any(|image| run(check_once(&left(image), plan, &witness)).is_err())
    })
}

#[test]
fn without_a_planted_bug_the_oracle_is_content() {
    assert!(!power_cuts_find(None));
}

#[test]
fn a_missing_sync_is_found() {
    assert!(power_cuts_find(Some(Sabotage::NoSync)));
}

#[test]
fn an_early_acknowledgement_is_found() {
    assert!(power_cuts_find(Some(Sabotage::EarlyAcknowledgement)));
}

/// Whether a power cut at one of these calls of compactions breaks a promise.
fn cut_compactions_find(sabotage: Sabotage) -> bool {
    (0..200).any(|after| one_cut(compactions::PLAN, after, Some(sabotage)).is_err())
}

#[test]
fn a_compaction_without_a_sync_is_found() {
    assert!(cut_compactions_find(Sabotage::CompactUnsynced));
}

#[test]
fn a_compaction_that_removes_before_the_checkpoint_says_so_is_found() {
    assert!(cut_compactions_find(Sabotage::CompactHasty));
}

/// Whether a workload whose tables are compacted again and again finds all that was promised.
fn compacted_tables_are_whole(sabotage: Option<Sabotage>) -> bool {
    let vfs = disk();
    let settings = EmbeddedOptions { sabotage, ..fine(&vfs, |_| Ok(())) };
    let log = Arc::new(EmbeddedLog::open(settings).unwrap());
    let mut witness = Witness::default();
    run(async {
        // Two readers differ where one began before the rows were lost.
        let worked = work_resting(&log, compactions::PLAN, compactions::EVERY, DEADLINE, &mut witness);
        let worked = AssertUnwindSafe(worked).catch_unwind().await.is_ok();
        let shared: Arc<dyn Log> = log.clone();
        let found = find(&shared, compactions::PLAN.tasks).await.unwrap();
        worked && judge(compactions::PLAN, &witness, &found).is_ok()
    })
}

#[test]
fn a_compaction_that_loses_a_row_or_a_promise_is_found() {
    assert!(compacted_tables_are_whole(None));
    assert!(!compacted_tables_are_whole(Some(Sabotage::CompactForgetful)));
    assert!(!compacted_tables_are_whole(Some(Sabotage::CompactSilent)));
}

/// Whether the rules of ownership hold.
fn owners_are_fenced(sabotage: Option<Sabotage>) -> bool {
    let log = open_broken(&disk(), sabotage);
    let fixture = Fixture { log, clock: Arc::new(ManualClock::new(0)), reopen: None };
    run(AssertUnwindSafe(ownership::an_owner_is_fenced_after_it_left(fixture)).catch_unwind()).is_ok()
}

#[test]
fn a_missing_epoch_check_is_found() {
    assert!(owners_are_fenced(None));
    assert!(!owners_are_fenced(Some(Sabotage::NoEpochCheck)));
}

/// A log with the event 1, on a disk where more was written behind it.
async fn one_event_and(vfs: &SimVfs, more: &[i64]) {
    let log = open_broken(vfs, None);
    let (_m, task) = one(&log, "s").await;
    for number in more {
        put(&log, &task, vec![], vec![append("a", 0, &[*number])]).await;
    }
}

/// Puts a group of another history behind the last group, as a recycled segment or a restored backup might; what the
/// log then reads, unless it refuses.
fn with_a_group_of_another_history(sabotage: Option<Sabotage>) -> Option<Vec<i64>> {
    let begin = disk();
    run(async {
        let log = open_broken(&begin, None);
        topic(&log, "a", 1).await;
        log.close().await.unwrap();
    });
    let (one_way, other_way) = (begin.copy(), begin.copy());
    run(one_event_and(&one_way, &[1, 2, 3]));
    run(one_event_and(&other_way, &[1, 7]));
    for (path, _) in other_way.files().into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "seg")) {
        let (Some(from), Some(mut to)) = (one_way.content(&path), other_way.content(&path)) else { continue };
        to.resize(to.len().max(from.len()), 0);
        for (to, from) in to.chunks_mut(4096).zip(from.chunks(4096)) {
            if to.iter().all(|b| *b == 0) {
                to[..from.len()].copy_from_slice(from);
            }
        }
        other_way.put(&path, &to);
    }
    run(async {
        let opened = EmbeddedLog::open(EmbeddedOptions { sabotage, ..options(&other_way) });
        let log: Arc<dyn Log> = Arc::new(opened.inspect_err(|refusal| println!("refused: {refusal}")).ok()?);
        let mut reader = log.read(&at("a", 0), millstream_event::Offset(0)).unwrap();
        let (seen, _) = to_end(&mut reader).await.inspect_err(|refusal| println!("refused: {refusal}")).ok()?;
        Some(seen.into_iter().map(|(_, n)| n).collect())
    })
}

#[test]
fn a_missing_chain_check_is_found() {
    let sound = with_a_group_of_another_history(None);
    assert!(sound.is_none() || sound == Some(vec![1, 7]), "{sound:?}");
    assert_eq!(with_a_group_of_another_history(Some(Sabotage::NoChainCheck)), Some(vec![1, 7, 3]));
}

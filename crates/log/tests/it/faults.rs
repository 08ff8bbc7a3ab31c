//! Every call to the disk fails once, in every way: nothing promised is lost, nothing is promised after, the error is
//! clear, and opening again works.

use std::sync::Arc;
use std::time::Duration;

use millstream_log::vfs::sim::{Fault, FaultKind, Op, SimVfs};
use millstream_log::{EmbeddedLog, Log};

use crate::rig::{Plan, Witness, check, disk, eager, in_parallel, long, open, rest, run, work};

const PLAN: Plan = Plan { seed: 42, tasks: 2, steps: 16 };

/// The kinds of calls and what can go wrong with each.
const CASES: [(Op, &[FaultKind]); 13] = [
    (Op::Open, &[FaultKind::Io, FaultKind::NoSpace]),
    (Op::Read, &[FaultKind::Io]),
    (Op::Write, &[FaultKind::Io, FaultKind::NoSpace, FaultKind::Part]),
    (Op::Sync, &[FaultKind::Io, FaultKind::LostSync, FaultKind::NoSpace]),
    (Op::SetLen, &[FaultKind::Io, FaultKind::NoSpace]),
    (Op::Stat, &[FaultKind::Io]),
    (Op::Rename, &[FaultKind::Io, FaultKind::NoSpace]),
    (Op::Remove, &[FaultKind::Io]),
    (Op::CreateDir, &[FaultKind::Io, FaultKind::NoSpace]),
    (Op::List, &[FaultKind::Io]),
    (Op::SyncDir, &[FaultKind::Io]),
    (Op::Lock, &[FaultKind::Io]),
    (Op::FreeSpace, &[FaultKind::Io]),
];

/// Runs the workload with two openings, so that calls of recovery are hit too.
fn session(vfs: &SimVfs, witness: &mut Witness) {
    for steps in [PLAN.steps / 2, PLAN.steps] {
        match EmbeddedLog::open(eager(vfs)).map(Arc::new) {
            Ok(log) => run(async {
                let shared: Arc<dyn Log> = log.clone();
                work(&shared, Plan { steps, ..PLAN }, witness).await;
                // What was written is settled and compacted, as far as the disk gives it.
                rest(&log, Duration::from_millis(20)).await;
                // A log that has stopped says so here as well; what matters is what is found later.
                drop(log.close().await);
            }),
            Err(error) => witness.refusals.push(error.to_string()),
        }
    }
}

/// Lets one call fail and judges; whether a call was hit.
fn one_fault(fault: Fault) -> bool {
    let vfs = disk();
    vfs.fail(fault);
    let mut witness = Witness::default();
    session(&vfs, &mut witness);
    let struck = vfs.struck();
    assert_eq!(witness.after_stop, 0, "{fault:?}: acknowledged after the log had stopped");
    for refusal in &witness.refusals {
        assert!(refusal.len() > 10, "{fault:?}: an unclear error: `{refusal}`");
    }
    vfs.heal();
    for (how, left) in [("power cut", vfs.crash(fault.after)), ("restart", vfs.clone())] {
        if let Err(wrong) = run(check(&left, PLAN, &witness)) {
            panic!("{fault:?}, then a {how}: {wrong}; refused before: {:?}", witness.refusals);
        }
    }
    struck
}

fn every_call_of(op: Op, kinds: &[FaultKind], for_good: bool) {
    for kind in kinds {
        let mut after = 0;
        let mut hits = 0;
        // Threads make the number of calls vary a little, so a few misses in a row are needed to believe the end.
        let mut missed = 0;
        while missed < 3 {
            let struck = one_fault(Fault { op, after, kind: *kind, for_good });
            missed = if struck { 0 } else { missed + 1 };
            hits += u64::from(struck);
            // The short form looks at every call at first and then at fewer and fewer.
            after += if long() { 1 } else { 1 + after / 6 };
        }
        println!("{op:?} {kind:?}: {hits} calls failed");
    }
}

#[test]
fn no_single_failing_call_breaks_a_promise() {
    in_parallel(CASES.len() as u64, |i| every_call_of(CASES[i as usize].0, CASES[i as usize].1, false));
}

#[test]
fn no_disk_that_fails_for_good_breaks_a_promise() {
    in_parallel(CASES.len() as u64, |i| every_call_of(CASES[i as usize].0, CASES[i as usize].1, true));
}

#[test]
fn a_full_disk_refuses_and_then_goes_on() {
    let vfs = disk();
    let mut witness = Witness::default();
    let log = open(&vfs).unwrap();
    run(work(&log, Plan { steps: 10, ..PLAN }, &mut witness));
    assert_eq!(witness.refusals, Vec::<String>::new());
    vfs.set_capacity(Some(vfs.used() + (4 << 10)));
    run(work(&log, Plan { steps: 200, ..PLAN }, &mut witness));
    assert!(!witness.refusals.is_empty(), "4 KiB were enough for 200 steps");
    drop(log);
    vfs.set_capacity(None);
    run(check(&vfs, PLAN, &witness)).unwrap();
}

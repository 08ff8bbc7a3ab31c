//! Compactions under fire: each call of theirs fails once, the power goes at each, the disk is full from each on. What
//! was promised is there, nothing stays behind, and the log goes on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millstream_log::conformance::kit::DEADLINE;
use millstream_log::vfs::sim::{Fault, FaultKind, Op, SimVfs};
use millstream_log::{EmbeddedLog, EmbeddedOptions, Log, Sabotage};
use parking_lot::Mutex;

use crate::hooked::{Call, Hooked};
use crate::rig::{
    Plan, Witness, check, check_once, disk, find, in_parallel, judge, long, nothing_stays_behind, open, options, rest,
    run, work, work_resting,
};

pub(crate) const PLAN: Plan = Plan { seed: 3, tasks: 2, steps: 18 };

/// How many steps go between two rests.
pub(crate) const EVERY: u64 = 3;

/// How long a rest is waited for where the disk may never give it.
const PATIENCE: Duration = Duration::from_millis(100);

/// Settings under which a compaction of little makes several files of several blocks.
pub(crate) fn fine(vfs: &SimVfs, hook: impl Fn(Call<'_>) -> io::Result<()> + Send + Sync + 'static) -> EmbeddedOptions {
    let vfs = (Hooked::new(vfs, hook), options(vfs));
    EmbeddedOptions { block_bytes: 512, settled_file_bytes: 1 << 10, compact_bytes: 0, vfs: Arc::new(vfs.0), ..vfs.1 }
}

/// Whether a compaction has made this file.
pub(crate) fn is_compacted(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.starts_with("/log/topics") && name.ends_with(".ev") && name.contains('-')
}

/// The workloads: one, or in the long form some of different tasks and histories.
fn plans() -> Vec<Plan> {
    match long() {
        false => vec![PLAN],
        true => (1..=12).map(|seed| Plan { seed, tasks: 1 + seed as u32 % 4, steps: 24 }).collect(),
    }
}

/// The calls of compactions in a workload, in order.
fn calls(plan: Plan) -> Vec<Op> {
    let (vfs, seen) = (disk(), Arc::new(Mutex::new(Vec::new())));
    let noted = seen.clone();
    let settings = fine(&vfs, move |call| {
        if call.is_of_a_compaction() {
            noted.lock().push(call.op);
        }
        Ok(())
    });
    let log = Arc::new(EmbeddedLog::open(settings).unwrap());
    let mut witness = Witness::default();
    run(work_resting(&log, plan, EVERY, DEADLINE, &mut witness));
    assert_eq!(witness.refusals, Vec::<String>::new());
    let bytes: u64 = vfs.files().iter().filter(|(path, _)| path.starts_with("/log/topics")).map(|(_, len)| len).sum();
    assert_eq!(
        log.stat().topics.iter().map(|topic| topic.settled_bytes).sum::<u64>(),
        bytes,
        "what is there is counted"
    );
    assert!(vfs.files().iter().filter(|(path, _)| is_compacted(path)).count() > 1, "{:?}", vfs.files());
    drop(log);
    seen.lock().clone()
}

/// The numbers of the calls to try: those that change something and some reads, or all of them in the long form.
fn chosen(calls: &[Op], most: usize) -> Vec<u64> {
    let counts = |(at, op): &(usize, &Op)| long() || **op != Op::Read || at % 7 == 0;
    let all: Vec<u64> = calls.iter().enumerate().filter(counts).map(|(at, _)| at as u64).collect();
    let step = if long() { 1 } else { all.len().div_ceil(most) };
    all.into_iter().step_by(step).collect()
}

fn kinds_of(op: Op) -> &'static [FaultKind] {
    match op {
        Op::Read | Op::Stat | Op::List | Op::Remove => &[FaultKind::Io],
        Op::Write => &[FaultKind::Io, FaultKind::NoSpace, FaultKind::Part],
        Op::Sync => &[FaultKind::Io, FaultKind::NoSpace, FaultKind::LostSync],
        _ => &[FaultKind::Io, FaultKind::NoSpace],
    }
}

fn error_of(kind: FaultKind) -> Option<io::Error> {
    match kind {
        FaultKind::Io => Some(io::Error::other("input/output error")),
        FaultKind::NoSpace => Some(io::ErrorKind::StorageFull.into()),
        FaultKind::Part | FaultKind::LostSync => None,
    }
}

/// Lets the call number `after` of compactions fail once.
fn one_fault(plan: Plan, after: u64, which: usize) {
    let vfs = disk();
    let (count, struck) = (AtomicU64::new(0), Arc::new(Mutex::new(None)));
    let (sick, strike) = (vfs.clone(), struck.clone());
    let settings = fine(&vfs, move |call| {
        if !call.is_of_a_compaction() || count.fetch_add(1, Ordering::SeqCst) != after {
            return Ok(());
        }
        let Some(kind) = kinds_of(call.op).get(which).copied() else { return Ok(()) };
        *strike.lock() = Some((call.op, kind, call.is_by("log-compact"), call.path.to_owned()));
        match error_of(kind) {
            Some(error) => Err(error),
            None => {
                sick.fail(Fault { op: call.op, after: 0, kind, for_good: false });
                Ok(())
            }
        }
    });
    let log = Arc::new(EmbeddedLog::open(settings).unwrap());
    let mut witness = Witness::default();
    let worked = run(async {
        tokio::time::timeout(DEADLINE / 2, work_resting(&log, plan, EVERY, PATIENCE, &mut witness)).await
    });
    let struck = struck.lock().clone();
    if worked.is_err() {
        panic!("{plan:?}, call {after}, {struck:?}: it hangs; stopped: {:?}\n{}", log.stopped(), vfs.record());
    }
    if let Some((_, kind, true, _)) = &struck
        && error_of(*kind).is_some()
    {
        assert_eq!(log.stopped(), None, "call {after}, {struck:?}: what a compaction meets stops nobody");
    }
    assert_eq!(witness.after_stop, 0);
    run(async { drop(log.close().await) });
    drop(log);
    vfs.heal();
    for (how, left) in [("power cut", vfs.crash(after)), ("restart", vfs.clone())] {
        if let Err(wrong) = run(check(&left, plan, &witness)) {
            panic!(
                "{plan:?}, call {after}, {struck:?}, then a {how}: {wrong}; before: {:?}\n{}",
                witness.refusals,
                vfs.record()
            );
        }
    }
}

#[test]
fn no_failing_call_of_a_compaction_breaks_a_promise() {
    for plan in plans() {
        let calls = calls(plan);
        let chosen = chosen(&calls, 50);
        println!("{} of {} calls", chosen.len(), calls.len());
        in_parallel(chosen.len() as u64 * 3, |i| {
            let (after, which) = (chosen[i as usize / 3], i as usize % 3);
            if which < kinds_of(calls[after as usize]).len() {
                one_fault(plan, after, which);
            }
        });
    }
}

/// Cuts the power at the call number `after` of compactions; what is wrong with what is left.
pub(crate) fn one_cut(plan: Plan, after: u64, sabotage: Option<Sabotage>) -> Result<(), String> {
    let (vfs, count) = (disk(), AtomicU64::new(0));
    let cut = vfs.clone();
    let settings = fine(&vfs, move |call| {
        if call.is_of_a_compaction() && count.fetch_add(1, Ordering::SeqCst) == after {
            cut.power_off_after(0);
        }
        Ok(())
    });
    let log = Arc::new(EmbeddedLog::open(EmbeddedOptions { sabotage, ..settings }).unwrap());
    let mut witness = Witness::default();
    run(work_resting(&log, plan, EVERY, PATIENCE, &mut witness));
    drop(log);
    for seed in 0..4 {
        let mut left = vfs.after_power_off(seed).unwrap_or_else(|| vfs.crash(seed));
        if seed > 1 {
            // It goes again while the log opens, or tidies up behind that.
            left.power_off_after((after * 7 + seed) % 80);
            drop(open(&left));
            left = left.after_power_off(seed).unwrap_or_else(|| left.crash(seed));
        }
        let judged = match seed {
            0 => run(check(&left, plan, &witness)),
            _ => run(check_once(&left, plan, &witness)),
        };
        judged.map_err(|wrong| format!("{plan:?} cut at call {after}, image {seed}: {wrong}\n{}", vfs.record()))?;
    }
    Ok(())
}

#[test]
fn what_was_promised_survives_a_power_cut_at_every_call_of_a_compaction() {
    for plan in plans() {
        let chosen = chosen(&calls(plan), 60);
        in_parallel(chosen.len() as u64, |i| {
            one_cut(plan, chosen[i as usize], None).unwrap_or_else(|wrong| panic!("{wrong}"));
        });
    }
}

/// Works until a compaction has replaced files.
pub(crate) async fn until_compacted(
    vfs: &SimVfs,
    log: &Arc<EmbeddedLog>,
    mut plan: Plan,
    witness: &mut Witness,
) -> Plan {
    let (begun, before) = (Instant::now(), newest_generation(vfs));
    while newest_generation(vfs) <= before || !rest(log, DEADLINE).await {
        assert!(begun.elapsed() < DEADLINE, "it is never compacted again: {:?}", vfs.files());
        plan.steps += EVERY;
        work_resting(log, plan, EVERY, DEADLINE, witness).await;
    }
    plan
}

pub(crate) fn newest_generation(vfs: &SimVfs) -> u64 {
    let files: Vec<PathBuf> = vfs.files().into_iter().map(|(path, _)| path).filter(|path| is_compacted(path)).collect();
    let generation = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().split('-').nth(1).unwrap().parse();
    files.iter().map(|path| generation(path).unwrap()).max().unwrap_or(0)
}

/// Fills the disk for compactions from the call number `after` of theirs on that needs space; whether there was such a call.
fn full_from(after: u64) -> bool {
    let (vfs, count) = (disk(), AtomicU64::new(0));
    let (full, struck) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let (is_full, strike) = (full.clone(), struck.clone());
    let settings = fine(&vfs, move |call| {
        let takes = call.is_by("log-compact") && call.changes && call.op != Op::Remove;
        if takes && is_full.load(Ordering::SeqCst) && count.fetch_add(1, Ordering::SeqCst) >= after {
            strike.store(true, Ordering::SeqCst);
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    });
    let log = Arc::new(EmbeddedLog::open(settings).unwrap());
    let shared: Arc<dyn Log> = log.clone();
    let mut witness = Witness::default();
    run(async {
        work_resting(&log, PLAN, EVERY, DEADLINE, &mut witness).await;
        assert_eq!(log.stopped(), None);
        assert_eq!(witness.refusals, Vec::<String>::new(), "a compaction without space is nobody else's concern");
        nothing_stays_behind(&vfs, &log).await.unwrap();
        judge(PLAN, &witness, &find(&shared, PLAN.tasks).await.unwrap()).unwrap();
        full.store(false, Ordering::SeqCst);
        let plan = until_compacted(&vfs, &log, PLAN, &mut witness).await;
        nothing_stays_behind(&vfs, &log).await.unwrap();
        judge(plan, &witness, &find(&shared, plan.tasks).await.unwrap()).unwrap();
        shared.close().await.unwrap();
        drop((shared, log));
        check(&vfs, plan, &witness).await.unwrap();
    });
    struck.load(Ordering::SeqCst)
}

#[test]
fn a_disk_without_space_for_a_compaction_keeps_what_was_and_compacts_when_there_is_some() {
    let most = if long() { 1000 } else { 24 };
    let hits = AtomicU64::new(0);
    in_parallel(most, |after| {
        hits.fetch_add(u64::from(full_from(after)), Ordering::Relaxed);
    });
    assert!(hits.into_inner() >= 20, "compactions need space more often");
}

/// The disk is full for everybody from the moment on at which a compaction begins to write.
#[test]
fn a_disk_that_a_compaction_fills_is_waited_for() {
    let vfs = disk();
    let (sick, filled) = (vfs.clone(), Arc::new(AtomicU64::new(0)));
    let fill = filled.clone();
    let settings = fine(&vfs, move |call| {
        let begins = call.is_by("log-compact") && call.op == Op::Write;
        if begins && fill.fetch_add(1, Ordering::SeqCst) == 0 {
            sick.set_capacity(Some(sick.used() + 100));
        }
        Ok(())
    });
    let log = Arc::new(EmbeddedLog::open(settings).unwrap());
    let shared: Arc<dyn Log> = log.clone();
    let mut witness = Witness::default();
    run(async {
        let begun = Instant::now();
        let mut plan = PLAN;
        while witness.refusals.is_empty() {
            assert!(begun.elapsed() < DEADLINE, "it is never full");
            work(&shared, plan, &mut witness).await;
            plan.steps += 20;
        }
        assert!(filled.load(Ordering::SeqCst) > 0);
        assert!(
            witness.refusals.iter().all(|refusal| refusal.starts_with("the disk is full")),
            "{:?}",
            witness.refusals
        );
        assert_eq!(log.stopped(), None);
        vfs.set_capacity(None);
        loop {
            assert!(begun.elapsed() < DEADLINE, "it goes on: {:?}", witness.refusals);
            witness.refusals.clear();
            work(&shared, plan, &mut witness).await;
            if witness.refusals.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let plan = until_compacted(&vfs, &log, plan, &mut witness).await;
        nothing_stays_behind(&vfs, &log).await.unwrap();
        judge(plan, &witness, &find(&shared, plan.tasks).await.unwrap()).unwrap();
        shared.close().await.unwrap();
        drop((shared, log));
        check(&vfs, plan, &witness).await.unwrap();
    });
}

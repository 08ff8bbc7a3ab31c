//! Tables on a disk that crashes: whatever was done, reading one from its start gives what a map would hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millstream_log::conformance::kit::*;
use millstream_log::vfs::sim::{Rng, SimVfs};
use millstream_log::{Commit, EmbeddedLog, EmbeddedOptions, Log, MemoryLog, Outcome, Task, stat, verify};
use proptest::prelude::*;

use crate::rig::{disk, in_parallel, long, open, options, run};

/// What one step of a task does to the table.
fn step_of(seed: u64, step: u64) -> Vec<(i64, Option<String>)> {
    let mut rng = Rng::new(seed ^ (step << 20));
    let rows = 1 + rng.below(60);
    let keys = 1 + rng.below(40);
    let text = |rng: &mut Rng| (!rng.chance(20)).then(|| format!("step {step}, some words: {}", rng.below(1000)));
    (0..rows).map(|_| (rng.below(keys) as i64, text(&mut rng))).collect()
}

/// What the table holds after so many steps.
fn after(seed: u64, steps: u64) -> Contents {
    let mut contents = Contents::new();
    (0..steps).for_each(|step| change(&mut contents, step_of(seed, step)));
    contents
}

fn step(task: &Task, seed: u64, at: u64) -> Commit {
    commit(task, vec![consumed("in", (at > 0).then_some(at), at + 1)], vec![changes("t", &step_of(seed, at))])
}

/// Steps until `to`, or until the log refuses; answers the last that was acknowledged.
async fn work(log: &Arc<dyn Log>, seed: u64, to: u64) -> u64 {
    if log.create_topic(table("t", &[])).await.is_err() {
        return 0;
    }
    let (_m, task) = one(log, "s").await;
    let mut at = offset(log, &task, "in").await.unwrap_or(0);
    while at < to {
        match log.commit(step(&task, seed, at)).await {
            Outcome::Committed(_) => at += 1,
            _ => return at,
        }
    }
    at
}

/// Opens what is left and compares it with what was promised.
fn judge(vfs: &SimVfs, seed: u64, promised: u64) -> Result<(), String> {
    let report = verify(&options(vfs)).map_err(|e| format!("verifying: {e}"));
    let log = open(vfs).map_err(|e| format!("opening: {e}"))?;
    match report {
        Ok(report) if !report.is_sound() => return Err(format!("verify: {:?}", report.problems)),
        // Before the first opening has ended there is nothing to verify.
        Err(error) if promised > 0 => return Err(error),
        _ => {}
    }
    run(async {
        if log.topic(&name("t")).is_none() {
            return if promised == 0 { Ok(()) } else { Err("the table is gone".to_owned()) };
        }
        let (_m, task) = one(&log, "s").await;
        let position = offset(&log, &task, "in").await.unwrap_or(0);
        if position < promised {
            return Err(format!("step {promised} was acknowledged, the position is {position}"));
        }
        let (contents, _) = whole_table(&log, "t").await.map_err(|e| format!("reading: {e}"))?;
        if contents != after(seed, position) {
            return Err(format!("at step {position} it holds {contents:?}, not {:?}", after(seed, position)));
        }
        Ok(())
    })
}

/// Cuts once and judges several outcomes; answers whether a compaction had made a file.
fn one_cut(seed: u64) -> bool {
    let mut rng = Rng::new(seed);
    let vfs = disk();
    vfs.hold_up(rng.next_u64());
    vfs.power_off_after(rng.below(900));
    let promised = open(&vfs).map_or(0, |log| run(work(&log, seed, 200)));
    for image in 0..5 {
        let left = vfs.after_power_off(rng.next_u64()).unwrap_or_else(|| vfs.crash(rng.next_u64()));
        left.hold_up(rng.next_u64());
        let mut judged = judge(&left, seed, promised);
        if judged.is_ok() && rng.chance(30) {
            // It goes on, and is cut again.
            left.power_off_after(rng.below(300));
            let further = open(&left).map_or(0, |log| run(work(&log, seed, 250)));
            let again = left.after_power_off(rng.next_u64()).unwrap_or_else(|| left.crash(rng.next_u64()));
            judged = judge(&again, seed, further.max(promised));
        }
        if let Err(wrong) = judged {
            panic!("seed {seed}, image {image}: {wrong}\n{}", vfs.record());
        }
    }
    vfs.files()
        .iter()
        .any(|(path, _)| path.extension().is_some_and(|e| e == "ev") && path.to_string_lossy().contains('-'))
}

#[test]
fn a_table_survives_every_power_cut() {
    let (cuts, compacted) = (if long() { 20_000 } else { 200 }, AtomicU64::new(0));
    in_parallel(cuts, |cut| {
        compacted.fetch_add(u64::from(one_cut(cut + 1)), Ordering::Relaxed);
    });
    let compacted = compacted.into_inner();
    println!("{compacted} of {cuts} cuts came when a compaction had made files");
    assert!(compacted > cuts / 10, "only {compacted} of {cuts} cuts came behind a compaction");
}

/// What a test does to a table.
#[derive(Debug, Clone)]
enum Act {
    Steps(u64),
    Close,
    Crash(u64),
    /// Lets the log settle and compact what there is.
    Wait,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        5 => (1..60u64).prop_map(Act::Steps),
        1 => Just(Act::Close),
        1 => any::<u64>().prop_map(Act::Crash),
        2 => Just(Act::Wait),
    ];
    proptest::collection::vec(act, 1..12)
}

/// Waits until nothing waits to be settled.
async fn settled(log: &EmbeddedLog) {
    let begun = Instant::now();
    while log.waiting_to_settle() > 0 {
        assert!(begun.elapsed() < DEADLINE, "it never settles");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn check_acts(seed: u64, acts: Vec<Act>) {
    let mut vfs = disk();
    let mut log = Arc::new(EmbeddedLog::open(options(&vfs)).unwrap());
    let memory: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let mut done = 0;
    for act in acts {
        let shared: Arc<dyn Log> = log.clone();
        match act {
            Act::Steps(n) => {
                done += n;
                assert_eq!(run(work(&shared, seed, done)), done);
                assert_eq!(run(work(&memory, seed, done)), done);
            }
            Act::Wait => run(settled(&log)),
            Act::Close | Act::Crash(_) => {
                if let Act::Crash(seed) = act {
                    vfs = vfs.crash(seed);
                } else {
                    run(shared.close()).unwrap();
                }
                drop(shared);
                drop(log);
                log = Arc::new(EmbeddedLog::open(options(&vfs)).unwrap());
            }
        }
        let shared: Arc<dyn Log> = log.clone();
        if done > 0 {
            for log in [&shared, &memory] {
                assert_eq!(run(whole_table(log, "t")).unwrap().0, after(seed, done));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if long() { 2_000 } else { 40 }))]

    #[test]
    fn a_table_is_a_map_whatever_is_done_to_it(seed in any::<u64>(), acts in acts()) {
        check_acts(seed, acts);
    }
}

/// Updates of few keys without end, on real files: the directory stays small, and each byte is written few times.
#[test]
fn endless_updates_of_few_keys_end_in_a_bounded_directory() {
    let dir = tempfile::tempdir().unwrap();
    let settings = EmbeddedOptions {
        segment_bytes: 1 << 20,
        compact_bytes: 1 << 20,
        reserve_bytes: 0,
        ..EmbeddedOptions::new(dir.path().join("log"))
    };
    let log = Arc::new(EmbeddedLog::open(settings.clone()).unwrap());
    let shared: Arc<dyn Log> = log.clone();
    let updates: i64 = if long() { 20_000_000 } else { 600_000 };
    let at_once = 5_000;
    run(async {
        shared.create_topic(table("t", &[])).await.unwrap();
        let (_m, task) = one(&shared, "s").await;
        for round in 0..updates / at_once {
            let rows: Vec<_> = (0..at_once).map(|i| (i % 1000, Some(format!("round {round}")))).collect();
            put(&shared, &task, vec![], vec![changes("t", &rows)]).await;
        }
        let begun = Instant::now();
        loop {
            settled(&log).await;
            let table = log.stat().topics.remove(0);
            if table.column_bytes < 4 << 20 {
                break;
            }
            assert!(begun.elapsed() < DEADLINE, "{} bytes are left", table.column_bytes);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (contents, _) = whole_table(&shared, "t").await.unwrap();
        assert_eq!(contents.len(), 1000);
        assert!(contents.values().all(|text| *text == format!("round {}", updates / at_once - 1)));
    });
    let counts = log.counts();
    assert!(counts.compacted_bytes > 0 && counts.compacted_bytes <= counts.settled_bytes / 2, "{counts:?}");
    run(shared.close()).unwrap();
    drop((shared, log));
    assert!(verify(&settings).unwrap().is_sound());
    let table = stat(&settings).unwrap().topics.remove(0);
    assert!(table.settled_events < 200_000, "{table:?}");
}

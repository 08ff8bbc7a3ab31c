//! Repairs of tables that are compacted: what is lost is said, and no more is.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millstream_log::conformance::kit::{DEADLINE, spec, table};
use millstream_log::vfs::Vfs as _;
use millstream_log::vfs::sim::{Op, SimVfs};
use millstream_log::{EmbeddedLog, EmbeddedOptions, Log, Lost, Retention, TopicSpec, repair, verify};
use parking_lot::Mutex;

use crate::compactions::{EVERY, fine, is_compacted, newest_generation};
use crate::rig::tables::{Rows, TABLES};
use crate::rig::{DIR, Found, Plan, Witness, disk, find, in_parallel, long, open, options, rest, run, work_resting};

/// One task, so that every offset follows from the steps.
const PLAN: Plan = Plan { seed: 3, tasks: 1, steps: 24 };

async fn work_well(log: &Arc<EmbeddedLog>, plan: Plan) {
    let mut witness = Witness::default();
    work_resting(log, plan, EVERY, DEADLINE, &mut witness).await;
    assert_eq!(witness.refusals, Vec::<String>::new());
}

fn open_finely(vfs: &SimVfs) -> Arc<EmbeddedLog> {
    let finer = EmbeddedOptions { block_bytes: 256, settled_file_bytes: 512, ..fine(vfs, |_| Ok(())) };
    Arc::new(EmbeddedLog::open(finer).unwrap())
}

/// A closed log whose tables were compacted into several files of several blocks.
fn closed() -> SimVfs {
    let vfs = disk();
    let log = open_finely(&vfs);
    run(async {
        work_well(&log, PLAN).await;
        log.close().await.unwrap();
    });
    drop(log);
    vfs.copy()
}

fn found(vfs: &SimVfs) -> Found {
    run(find(&open(vfs).unwrap(), PLAN.tasks)).unwrap()
}

/// What is in the log after some more steps.
fn found_later(vfs: &SimVfs) -> Found {
    let log = open_finely(vfs);
    run(async {
        work_well(&log, Plan { steps: PLAN.steps + 12, ..PLAN }).await;
        let shared: Arc<dyn Log> = log.clone();
        find(&shared, PLAN.tasks).await.unwrap()
    })
}

/// The rows that are left of a table where these offsets were lost.
fn without(rows: &Rows, place: usize, lost: &[Lost]) -> Rows {
    let (topic, partition) = TABLES[place];
    let mine = |lost: &&Lost| lost.topic.as_str() == topic && lost.partition == partition;
    let is_lost = |offset: u64| lost.iter().filter(mine).any(|lost| lost.from.0 <= offset && offset < lost.to.0);
    rows.iter().filter(|(_, (offset, _))| !is_lost(*offset)).map(|(key, row)| (*key, row.clone())).collect()
}

/// Compares what is there with what was, but for what was lost; answers how many rows went.
fn compare(found: &mut Found, want: &Found, lost: &[Lost], what: &str) -> usize {
    let mut gone = 0;
    for (place, (have, want)) in found.tables.iter_mut().zip(&want.tables).enumerate() {
        let left = without(&want.rows, place, lost);
        assert_eq!(have.rows, left, "{what}, {:?}", TABLES[place]);
        gone += want.rows.len() - left.len();
        // Marks of a block go with it; who begins behind it still learns them.
        *have = want.clone();
    }
    assert_eq!(found, want, "{what}");
    gone
}

/// Damages one byte and repairs; how many rows that took, or `None` where the byte says nothing.
fn one_flip(sound: &SimVfs, before: &Found, later: &Found, path: &Path, at: u64) -> Option<usize> {
    let (vfs, what) = (sound.copy(), format!("byte {at} of {}", path.display()));
    vfs.flip(path, at, 4);
    let blocks = verify(&options(sound)).unwrap().blocks;
    if verify(&options(&vfs)).unwrap().is_sound() {
        return None;
    }
    let would = repair(&options(&vfs), false).unwrap();
    let did = repair(&options(&vfs), true).unwrap();
    assert_eq!(would.lost, did.lost);
    assert_eq!(did.lost.len(), 1, "{what}: {:?}", did.lost);
    assert!(did.notes.iter().any(|note| note.contains("a key whose newest row is lost")), "{:?}", did.notes);
    let report = verify(&options(&vfs)).unwrap();
    assert!(report.is_sound(), "{what}: {:?}", report.problems);
    assert_eq!(report.blocks, blocks - 1, "{what}: one block is damaged");
    let gone = compare(&mut found(&vfs.copy()), before, &did.lost, &what);
    // It goes on, and what is left is compacted.
    let compacted = newest_generation(&vfs);
    compare(&mut found_later(&vfs), later, &did.lost, &format!("{what}, later"));
    assert!(newest_generation(&vfs) > compacted, "{what}: it is compacted no more");
    Some(gone)
}

#[test]
fn a_damaged_block_of_a_compacted_table_takes_its_own_rows_and_no_other() {
    let sound = closed();
    let (before, later) = (found(&sound.copy()), found_later(&sound.copy()));
    let files: Vec<(PathBuf, u64)> = sound.files().into_iter().filter(|(path, _)| is_compacted(path)).collect();
    // Of each table, and of one of them several.
    let has = |(topic, partition): &(&str, u32)| {
        files.iter().any(|(path, _)| path.starts_with(format!("/log/topics/{topic}/{partition}")))
    };
    assert!(files.len() > TABLES.len() && TABLES.iter().all(has), "{files:?}");
    let step = if long() { 3 } else { 170 };
    let places: Vec<(PathBuf, u64)> =
        files.iter().flat_map(|(path, len)| (0..*len).step_by(step).map(move |at| (path.clone(), at))).collect();
    let gone = Mutex::new(Vec::new());
    in_parallel(places.len() as u64, |i| {
        let (path, at) = &places[i as usize];
        gone.lock().extend(one_flip(&sound, &before, &later, path, *at));
    });
    let gone = gone.into_inner();
    let all: usize = before.tables.iter().map(|table| table.rows.len()).sum();
    println!("{} of {} flips were damage; of {all} rows they took {gone:?}", gone.len(), places.len());
    assert!(gone.len() > 10 && gone.iter().all(|gone| *gone < all / 2), "{gone:?}");
}

/// Has the definitions of all topics in the journal: what is not there cannot be worked out anew.
async fn define_again(log: &dyn Log) {
    for topic in [spec("a", 2), spec("b", 1), table("t", &[]), table("u", &["reader"])] {
        let retention = Retention { max_bytes: Some(1 << 40), ..topic.retention };
        log.create_topic(TopicSpec { retention, ..topic }).await.unwrap();
    }
}

/// A disk as it is, and as power cuts may leave it, before each call of a compaction that replaces another's files.
fn moments() -> (Vec<SimVfs>, Found) {
    let (vfs, full, moments) = (disk(), Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
    let hooked = |segment_bytes| {
        let (sick, full, moments) = (vfs.clone(), full.clone(), moments.clone());
        let hook = move |call: crate::hooked::Call<'_>| {
            if call.is_by("log-compact") && call.op == Op::Write && full.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if let (true, Some(moments)) = (call.is_of_a_compaction() && call.changes, moments.lock().as_mut()) {
                Vec::extend(moments, (0..3).map(|seed| sick.crash(seed)).chain([sick.copy()]));
            }
            Ok(())
        };
        Arc::new(EmbeddedLog::open(EmbeddedOptions { segment_bytes, ..fine(&vfs, hook) }).unwrap())
    };
    let log = hooked(EmbeddedOptions::SEGMENT_BYTES_MIN);
    run(async {
        work_well(&log, Plan { steps: PLAN.steps / 2, ..PLAN }).await;
        full.store(true, Ordering::SeqCst);
        work_well(&log, PLAN).await;
        log.close().await.unwrap();
    });
    drop(log);
    // Room for all definitions, so that none of them is settled.
    let log = hooked(64 << 10);
    let found = run(async {
        assert!(rest(&log, DEADLINE).await);
        define_again(log.as_ref()).await;
        let (begun, before) = (Instant::now(), newest_generation(&vfs));
        // No cut brings a segment back that was settled.
        vfs.sync_all();
        *moments.lock() = Some(Vec::new());
        full.store(false, Ordering::SeqCst);
        while newest_generation(&vfs) == before || !rest(&log, DEADLINE).await {
            assert!(begun.elapsed() < DEADLINE, "no compaction comes");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let shared: Arc<dyn Log> = log.clone();
        find(&shared, PLAN.tasks).await.unwrap()
    });
    let all = moments.lock().take().unwrap();
    (all, found)
}

#[test]
fn a_checkpoint_that_is_worked_out_anew_in_the_middle_of_a_compaction_finds_all_rows() {
    let (moments, want) = moments();
    println!("{} moments", moments.len());
    assert!(moments.len() > 40);
    in_parallel(moments.len() as u64, |i| {
        let vfs = &moments[i as usize];
        for name in ["checkpoint", "checkpoint.copy"] {
            vfs.remove(&Path::new(DIR).join(name)).unwrap();
        }
        let names: Vec<_> = vfs.files().into_iter().filter(|(path, _)| path.starts_with("/log/topics")).collect();
        let report = repair(&options(vfs), true).unwrap();
        assert_eq!(report.lost, [], "moment {i}: {names:?}");
        let found = found(vfs);
        for (table, want) in found.tables.iter().zip(&want.tables) {
            assert_eq!(table.rows, want.rows, "moment {i}: {names:?}");
        }
    });
}

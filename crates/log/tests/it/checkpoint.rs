//! A damaged checkpoint is mended: from its copy, else from what the journal and the settled files say; and what cannot
//! be known any more is said.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use millstream_log::conformance::kit::name;
use millstream_log::vfs::Vfs as _;
use millstream_log::vfs::sim::{Rng, SimVfs};
use millstream_log::{EmbeddedLog, EmbeddedOptions, Error, Log, Report, TopicSpec, repair, verify};

use crate::flips::{PLAN, closed_log};
use crate::rig::{DIR, Found, PLACES, Plan, Witness, disk, find, in_parallel, long, open, options, run, work};

fn checkpoint() -> PathBuf {
    Path::new(DIR).join("checkpoint")
}

fn copy() -> PathBuf {
    Path::new(DIR).join("checkpoint.copy")
}

/// Repairs, first for show and then in earnest.
fn mend(vfs: &SimVfs) -> Result<Report, Error> {
    let before = vfs.copy();
    let would = repair(&options(vfs), false)?;
    assert!(!verify(&options(vfs))?.is_sound(), "nothing is changed without a confirmation");
    for (path, _) in before.files() {
        assert_eq!(before.content(&path), vfs.content(&path), "{path:?}");
    }
    let did = repair(&options(vfs), true)?;
    assert_eq!(would.lost, did.lost);
    assert!(verify(&options(vfs))?.is_sound());
    Ok(did)
}

/// What is in the log, and that it can be worked on.
fn found(vfs: &SimVfs) -> Found {
    let log = open(vfs).unwrap();
    let found = run(find(&log, PLAN.tasks)).unwrap();
    let mut witness = Witness::default();
    run(work(&log, Plan { steps: PLAN.steps + 3, ..PLAN }, &mut witness));
    assert_eq!(witness.refusals, Vec::<String>::new());
    found
}

#[test]
fn every_flipped_byte_of_a_checkpoint_is_mended_and_nothing_is_lost() {
    let (sound, want) = closed_log();
    let len = sound.content(&checkpoint()).unwrap().len() as u64;
    let step = if long() { 1 } else { 7 };
    in_parallel(len.div_ceil(step), |i| {
        let (vfs, mask) = (sound.copy(), 1 << Rng::new(i).below(8));
        vfs.flip(&checkpoint(), i * step, mask);
        if open(&vfs.copy()).is_err() {
            let report = mend(&vfs).unwrap();
            assert_eq!(report.lost, []);
            assert!(report.notes.iter().any(|note| note.contains("copy")), "{:?}", report.notes);
        }
        assert_eq!(found(&vfs), want, "byte {} ^ {mask}", i * step);
    });
}

#[test]
fn a_damaged_copy_is_found_does_not_matter_and_is_made_anew_by_opening() {
    let (vfs, want) = closed_log();
    vfs.flip(&copy(), 100, 1);
    let report = verify(&options(&vfs)).unwrap();
    assert_eq!(report.problems.len(), 1, "{report:?}");
    assert_eq!(report.problems[0].path, copy());
    assert_eq!(found(&vfs), want);
    assert!(verify(&options(&vfs)).unwrap().is_sound());
    // A log of a version that made no copy.
    vfs.remove(&copy()).unwrap();
    assert!(verify(&options(&vfs)).unwrap().is_sound());
    drop(open(&vfs).unwrap());
    assert_eq!(vfs.content(&copy()), vfs.content(&checkpoint()));
}

/// Works on a log of large segments and closes it.
fn work_in_one_segment(vfs: &SimVfs, steps: u64) -> Found {
    let log = EmbeddedLog::open(EmbeddedOptions { segment_bytes: 4 << 20, ..options(vfs) }).unwrap();
    // What was not settled before is now: it was written before the definitions that follow.
    run(async {
        while !log.is_at_rest() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    });
    let log: Arc<dyn Log> = Arc::new(log);
    run(async {
        for topic in log.topics() {
            // A change of settings writes the definition to the journal again.
            let consumers = vec![name("another")];
            log.create_topic(TopicSpec { consumers, ..topic.spec }).await.unwrap();
        }
        let mut witness = Witness::default();
        work(&log, Plan { steps, ..PLAN }, &mut witness).await;
        assert_eq!(witness.refusals, Vec::<String>::new());
        log.close().await.unwrap();
        find(&log, PLAN.tasks).await.unwrap()
    })
}

fn lose_both(vfs: &SimVfs) {
    vfs.flip(&checkpoint(), 60, 1);
    vfs.remove(&copy()).unwrap();
}

#[test]
fn a_log_whose_journal_is_whole_is_worked_out_anew() {
    let vfs = disk();
    let want = work_in_one_segment(&vfs, PLAN.steps);
    for missing in [false, true] {
        let vfs = vfs.copy();
        lose_both(&vfs);
        if missing {
            vfs.remove(&checkpoint()).unwrap();
        }
        assert!(open(&vfs).is_err());
        let report = mend(&vfs).unwrap();
        assert_eq!(report.lost, []);
        assert!(!report.notes.iter().any(|note| note.contains("positions")), "{:?}", report.notes);
        assert_eq!(found(&vfs), want);
    }
}

/// A log of which a part is settled, and whose topics' definitions are in the journal still.
fn settled_and_defined() -> (SimVfs, Found) {
    let (vfs, _) = closed_log();
    let want = work_in_one_segment(&vfs, PLAN.steps + 20);
    assert!(vfs.files().iter().any(|(path, len)| path.starts_with("/log/topics") && *len > 0));
    (vfs, want)
}

#[test]
fn settled_files_and_journal_are_put_together_again() {
    let (vfs, want) = settled_and_defined();
    lose_both(&vfs);
    let report = mend(&vfs).unwrap();
    assert_eq!(report.lost, []);
    assert!(report.notes.iter().any(|note| note.contains("positions of tasks that have not")), "{:?}", report.notes);
    let log = open(&vfs).unwrap();
    assert_eq!(run(find(&log, PLAN.tasks)).unwrap(), want);
}

#[test]
fn what_is_damaged_as_well_is_said_and_the_rest_is_put_together() {
    let (vfs, want) = settled_and_defined();
    lose_both(&vfs);
    // Of what is counted below.
    let counted = |path: &Path| PLACES.iter().any(|(topic, _)| path.starts_with(format!("/log/topics/{topic}")));
    let settled = vfs.files().into_iter().filter(|(path, len)| counted(path) && *len > 0);
    let (path, len) = settled.max_by_key(|(_, len)| *len).unwrap();
    vfs.flip(&path, len / 2, 1);
    let report = mend(&vfs).unwrap();
    let log = open(&vfs).unwrap();
    let found = run(find(&log, PLAN.tasks)).unwrap();
    let lost: u64 = report.lost.iter().map(|lost| lost.to.0 - lost.from.0).sum();
    assert!(lost > 0);
    assert_eq!(found.count() as u64 + lost, want.count() as u64);
}

#[test]
fn what_stood_in_the_checkpoint_only_is_named_and_nothing_is_touched() {
    let (vfs, _) = closed_log();
    lose_both(&vfs);
    let before = vfs.copy();
    let error = mend(&vfs).unwrap_err().to_string();
    for words in ["definitions of topics number 1, 2", "nothing was changed", "backup"] {
        assert!(error.contains(words), "{error}");
    }
    assert!(before.files().iter().all(|(path, _)| before.content(path) == vfs.content(path)));
}

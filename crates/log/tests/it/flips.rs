//! One byte of a log changes while nobody looks: it is refused loudly, or what was acknowledged is all there; and what
//! opening or reading refuses, `verify` finds as well.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use millstream_log::vfs::sim::{Rng, SimVfs};
use millstream_log::{EmbeddedLog, EmbeddedOptions, Log, verify};

use crate::rig::{Found, Plan, Witness, disk, find, in_parallel, long, open, options, run, work};

pub(crate) const PLAN: Plan = Plan { seed: 11, tasks: 2, steps: 40 };

/// How many bytes the short form changes.
const FLIPS: usize = 3_000;

/// A log that was closed, with sealed, settled and current parts, and what it holds.
pub(crate) fn closed_log() -> (SimVfs, Found) {
    let vfs = disk();
    for steps in [PLAN.steps / 2, PLAN.steps] {
        let log = open(&vfs).unwrap();
        run(async {
            let mut witness = Witness::default();
            work(&log, Plan { steps, ..PLAN }, &mut witness).await;
            assert_eq!(witness.refusals, Vec::<String>::new());
            log.close().await.unwrap();
        });
    }
    let vfs = vfs.copy();
    let found = run(async { find(&open(&vfs.copy()).unwrap(), PLAN.tasks).await.unwrap() });
    (vfs, found)
}

/// A log that ended twice without a last word: the second opening wrote the last commit again, and nothing came after.
fn log_that_ended_uncleanly_twice() -> (SimVfs, Found) {
    let vfs = disk();
    let unnoted = || -> Arc<dyn Log> {
        let hour = Duration::from_secs(3600);
        Arc::new(EmbeddedLog::open(EmbeddedOptions { idle_after: hour, ..options(&vfs) }).unwrap())
    };
    let log = unnoted();
    let mut witness = Witness::default();
    run(work(&log, PLAN, &mut witness));
    assert_eq!(witness.refusals, Vec::<String>::new());
    drop(log);
    let log = unnoted();
    let found = run(find(&log, PLAN.tasks)).unwrap();
    drop(log);
    (vfs.copy(), found)
}

/// The bytes to change: all of them, or in the short form some of those that say something.
fn places(vfs: &SimVfs) -> Vec<(PathBuf, usize)> {
    let mut places = Vec::new();
    for (path, _) in vfs.files() {
        let bytes = vfs.content(&path).unwrap();
        let said = |at: usize| bytes[at & !63..(at | 63).min(bytes.len() - 1)].iter().any(|b| *b != 0);
        places.extend((0..bytes.len()).filter(|at| long() || said(*at)).map(|at| (path.clone(), at)));
    }
    let step = if long() { 1 } else { (places.len() / FLIPS).max(1) };
    places.into_iter().step_by(step).collect()
}

fn one_flip(sound: &SimVfs, want: &Found, path: &Path, at: usize, mask: u8) {
    let vfs = sound.copy();
    vfs.flip(path, at as u64, mask);
    let report = verify(&options(&vfs));
    let told = report.as_ref().map_or(true, |report| !report.is_sound());
    let read = match open(&vfs) {
        Ok(log) => run(find(&log, PLAN.tasks)),
        Err(error) => Err(error),
    };
    match read {
        Ok(found) => assert_eq!(&found, want, "{path:?} at {at} ^ {mask}: other events, silently"),
        Err(error) => {
            assert!(error.to_string().len() > 20, "{path:?} at {at}: unclear: {error}");
            assert!(told, "{path:?} at {at} ^ {mask}: reading says `{error}`, verify says {report:?}");
        }
    }
}

fn flip_each(vfs: &SimVfs, want: &Found) {
    assert!(verify(&options(&vfs.copy())).unwrap().is_sound());
    let places = places(vfs);
    println!("{} bytes in {:?}", places.len(), vfs.files());
    in_parallel(places.len() as u64, |i| {
        let (path, at) = &places[i as usize];
        let mask = 1 << Rng::new(i).below(8);
        one_flip(vfs, want, path, *at, mask);
    });
}

#[test]
fn no_flipped_byte_silently_loses_what_was_acknowledged() {
    let (vfs, want) = closed_log();
    flip_each(&vfs, &want);
}

#[test]
fn no_flipped_byte_silently_loses_what_an_opening_wrote_again() {
    let (vfs, want) = log_that_ended_uncleanly_twice();
    flip_each(&vfs, &want);
}

//! Copies of a log that works, that was cut off, and that is damaged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millstream_log::backup::{CHECKPOINT, Image, Source, Step};
use millstream_log::conformance::kit::DEADLINE;
use millstream_log::vfs::sim::SimVfs;
use millstream_log::vfs::{OpenOptions, Vfs};
use millstream_log::{EmbeddedLog, Error, Log};

use crate::rig::*;

/// What was copied before, by name and range.
pub(crate) type Copied = BTreeMap<(String, u64, u32), Vec<u8>>;

pub(crate) fn write(vfs: &SimVfs, path: &Path, bytes: &[u8]) {
    vfs.create_dir_all(path.parent().unwrap()).unwrap();
    let file = vfs.open(path, OpenOptions::CREATE).unwrap();
    let at = file.len().unwrap();
    file.write_all_at(bytes, at).unwrap();
}

/// A disk for a copy.
pub(crate) fn empty_copy() -> SimVfs {
    let to = disk();
    for dir in ["journal", "topics"] {
        to.create_dir_all(&Path::new(DIR).join(dir)).unwrap();
    }
    to
}

/// Copies an image in pieces that end where steps say; what was copied before is taken from there. `None` where the log
/// has gone on meanwhile.
pub(crate) fn copy(source: &Source, image: &Image, known: &mut Copied, every: usize) -> Option<SimVfs> {
    let to = empty_copy();
    for file in &image.files {
        let mut from = Step::default();
        let chosen = file.steps.iter().enumerate().filter(|(i, step)| (i + 1) % every == 0 || **step == file.end());
        for (_, step) in chosen {
            let key = (file.path.clone(), step.to, step.mark);
            let bytes = match known.get(&key).filter(|bytes| bytes.len() as u64 == step.to - from.to) {
                Some(bytes) => bytes.clone(),
                None => source.read(image, &file.path, from, *step).unwrap()?,
            };
            write(&to, &Path::new(DIR).join(&file.path), &bytes);
            known.insert(key, bytes);
            from = *step;
        }
    }
    write(&to, &Path::new(DIR).join(CHECKPOINT), &image.checkpoint);
    to.sync_all();
    Some(to)
}

#[test]
fn copies_taken_while_commits_and_the_settler_go_on_are_whole() {
    in_parallel(if long() { 200 } else { 16 }, |seed| {
        let vfs = disk();
        vfs.hold_up(seed);
        let plan = Plan { seed, tasks: 3, steps: 150 };
        let log = open_log(&vfs).unwrap();
        let source = Source::of(&log);
        let done = AtomicBool::new(false);
        let mut witness = Witness::default();
        let copies = std::thread::scope(|scope| {
            let copier = scope.spawn(|| {
                let (mut copies, mut known) = (Vec::new(), Copied::new());
                while !done.load(Ordering::Relaxed) {
                    let image = match source.image() {
                        Ok(image) => image,
                        // The settler was faster again and again.
                        Err(Error::Refused(_)) => continue,
                        Err(other) => panic!("seed {seed}: {other}"),
                    };
                    copies.extend(copy(&source, &image, &mut known, 1 + seed as usize % 3));
                }
                copies.push(copy(&source, &source.image().unwrap(), &mut known, 2).expect("the log is at rest"));
                copies
            });
            let dynamic: Arc<dyn Log> = log.clone();
            run(work(&dynamic, plan, &mut witness));
            // What the settler leaves stays.
            assert!(run(rest(&log, DEADLINE)));
            done.store(true, Ordering::Relaxed);
            copier.join().unwrap()
        });
        assert!(copies.len() > 1, "seed {seed}: no copy was taken meanwhile");
        let (last, before) = copies.split_last().unwrap();
        for copy in before.iter().rev().take(10) {
            run(check_once(copy, plan, &Witness::default())).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        }
        run(check(last, plan, &witness)).unwrap_or_else(|e| panic!("seed {seed}: the last copy: {e}"));
    });
}

#[test]
fn the_copy_of_a_log_that_was_cut_off_has_all_that_was_acknowledged() {
    in_parallel(if long() { 200 } else { 16 }, |seed| {
        let vfs = disk();
        let plan = Plan { seed, tasks: 2, steps: 60 };
        let mut witness = Witness::default();
        let log: Arc<dyn Log> = open_log(&vfs).unwrap();
        run(work(&log, plan, &mut witness));
        let cut = vfs.crash(seed);
        let source = Source::stopped(options(&cut)).unwrap();
        let locked = EmbeddedLog::open(options(&cut)).expect_err("nobody opens it meanwhile");
        assert!(matches!(locked, Error::Locked { .. }), "{locked}");
        let image = source.image().unwrap();
        let copied = copy(&source, &image, &mut Copied::new(), 3).unwrap();
        assert!(image.positions > 0 && image.group > 0);
        run(check(&copied, plan, &witness)).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        drop(source);
        run(check(&cut, plan, &witness)).unwrap_or_else(|e| panic!("seed {seed}: the original: {e}"));
    });
}

#[test]
fn what_a_later_image_has_again_has_the_same_marks() {
    let vfs = disk();
    let log = open_log(&vfs).unwrap();
    let source = Source::of(&log);
    let dynamic: Arc<dyn Log> = log.clone();
    let mut before = source.image().unwrap();
    for steps in [20, 40, 60] {
        run(work(&dynamic, Plan { seed: 7, tasks: 2, steps }, &mut Witness::default()));
        let image = source.image().unwrap();
        assert!(image.group > before.group);
        for file in &before.files {
            let Some(again) = image.files.iter().find(|again| again.path == file.path) else { continue };
            assert!(again.steps.starts_with(&file.steps), "{}", file.path);
        }
        before = image;
    }
}

#[test]
fn a_segment_that_was_given_back_is_noticed_and_a_new_image_has_its_events_elsewhere() {
    let vfs = disk();
    let log = open_log(&vfs).unwrap();
    let source = Source::of(&log);
    let dynamic: Arc<dyn Log> = log.clone();
    run(work(&dynamic, Plan { seed: 3, tasks: 2, steps: 5 }, &mut Witness::default()));
    let old = source.image().unwrap();
    let segment = old.files.iter().find(|file| file.path.starts_with("journal/")).unwrap().clone();
    let plan = Plan { seed: 3, tasks: 2, steps: 200 };
    let mut witness = Witness::default();
    run(work(&dynamic, plan, &mut witness));
    assert!(run(rest(&log, DEADLINE)));
    assert_eq!(source.read(&old, &segment.path, Step::default(), segment.end()).unwrap(), None);
    let image = source.image().unwrap();
    let copied = copy(&source, &image, &mut Copied::new(), 1).unwrap();
    run(check(&copied, plan, &witness)).unwrap();
}

#[test]
fn damage_is_never_copied_and_never_taken_for_progress() {
    let vfs = disk();
    let plan = Plan { seed: 5, tasks: 2, steps: 120 };
    let log: Arc<dyn Log> = open_log(&vfs).unwrap();
    let mut witness = Witness::default();
    run(work(&log, plan, &mut witness));
    run(log.close()).unwrap();
    drop(log);
    let whole = Source::stopped(options(&vfs)).unwrap().image().unwrap();
    let paths: Vec<PathBuf> = whole.files.iter().map(|file| Path::new(DIR).join(&file.path)).collect();
    assert!(paths.iter().any(|path| path.starts_with("/log/topics")), "something is settled");
    let mut refused = 0;
    for (path, file) in paths.iter().zip(&whole.files) {
        for at in [200, file.end().to / 2, file.end().to - 4000.min(file.end().to / 2)] {
            let sick = vfs.copy();
            sick.flip(path, at, 1);
            let source = Source::stopped(options(&sick)).unwrap();
            let read = source.image().and_then(|image| {
                let of = image.files.iter().find(|f| f.path == file.path).expect("every file is in the image");
                let bytes = source.read(&image, &of.path, Step::default(), of.end())?;
                Ok((image, bytes))
            });
            match read {
                Err(Error::Corrupt { .. }) => refused += 1,
                // Padding may be damaged: then the bytes are taken as they are, and nothing is missing in the copy.
                Ok((image, Some(_))) => {
                    let copied = copy(&source, &image, &mut Copied::new(), 1).unwrap();
                    run(check(&copied, plan, &witness)).unwrap_or_else(|e| panic!("{} at {at}: {e}", path.display()));
                }
                other => panic!("{} at {at}: {other:?}", path.display()),
            }
        }
    }
    assert!(refused > paths.len(), "{refused} of {} damaged files were refused", 3 * paths.len());
}

//! Copies of a log taken while a compaction stands still at one of its calls, and finished while it goes on: each restores
//! to exactly what its checkpoint and its journal say.

use std::sync::Arc;
use std::time::Instant;

use millstream_log::backup::{CHECKPOINT, Image, Source, Step};
use millstream_log::conformance::kit::DEADLINE;
use millstream_log::vfs::sim::SimVfs;
use millstream_log::{EmbeddedLog, Log, stat, verify};
use parking_lot::{Condvar, Mutex};

use crate::backing_up::{Copied, copy, empty_copy, write};
use crate::compactions::{EVERY, PLAN, fine};
use crate::rig::{DIR, Plan, Witness, check, disk, in_parallel, long, options, rest, run, work, work_resting};

/// Where the threads of compactions stand still.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<Standing>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Standing {
    /// How many calls go through before one is held; `None`: all.
    after: Option<u64>,
    held: bool,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock();
        while state.after == Some(0) {
            state.held = true;
            self.changed.wait(&mut state);
        }
        state.after = state.after.map(|left| left - 1);
    }

    fn close_after(&self, calls: u64) {
        *self.state.lock() = Standing { after: Some(calls), held: false };
        self.changed.notify_all();
    }

    fn open(&self) {
        *self.state.lock() = Standing::default();
        self.changed.notify_all();
    }

    fn holds(&self) -> bool {
        self.state.lock().held
    }
}

/// Opens the gate also where the test fails, so that the log can end.
struct Opened<'a>(&'a Gate);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// Waits until a thread is held and nobody else works, or nobody works; whether one is held.
async fn still(log: &EmbeddedLog, gate: &Gate) -> bool {
    let begun = Instant::now();
    loop {
        if gate.holds() {
            return true;
        }
        if rest(log, std::time::Duration::from_millis(1)).await {
            return gate.holds();
        }
        assert!(begun.elapsed() < DEADLINE, "it neither rests nor comes to the gate");
    }
}

/// The first half of the files, and then, after `meanwhile`, the rest; `None` where the log has gone on.
fn copy_in_two(source: &Source, image: &Image, meanwhile: impl FnOnce()) -> Option<SimVfs> {
    let to = empty_copy();
    let put = |file: &millstream_log::backup::ImageFile| {
        let bytes = source.read(image, &file.path, Step::default(), file.end()).unwrap()?;
        write(&to, &std::path::Path::new(DIR).join(&file.path), &bytes);
        Some(())
    };
    let (first, second) = image.files.split_at(image.files.len() / 2);
    first.iter().try_for_each(put)?;
    meanwhile();
    second.iter().try_for_each(put)?;
    write(&to, &std::path::Path::new(DIR).join(CHECKPOINT), &image.checkpoint);
    to.sync_all();
    Some(to)
}

/// What a copy restores to: all that was promised, and of settled files what the image's checkpoint names.
fn restores(copied: &SimVfs, image: &Image, plan: Plan, witness: &Witness) {
    assert!(verify(&options(copied)).unwrap().is_sound());
    let settled = image.files.iter().filter(|file| file.path.starts_with("topics/"));
    let (mut files, mut bytes) = (0, 0);
    settled.for_each(|file| (files, bytes) = (files + 1, bytes + file.end().to));
    let topics = stat(&options(copied)).unwrap().topics;
    let counted = topics.iter().fold((0, 0), |(n, len), topic| (n + topic.files, len + topic.settled_bytes));
    assert_eq!(counted, (files, bytes), "the checkpoint names other files than the image");
    run(check(copied, plan, witness)).unwrap();
}

/// Holds a compaction at its call number `after`; whether there was one, and whether a copy was begun in vain.
fn held_at(after: u64) -> (bool, bool) {
    let (vfs, gate) = (disk(), Arc::new(Gate::default()));
    let at = gate.clone();
    let settings = fine(&vfs, move |call| {
        if call.is_of_a_compaction() {
            at.pass();
        }
        Ok(())
    });
    let log = Arc::new(EmbeddedLog::open(settings).unwrap());
    let opened = Opened(&gate);
    let source = Source::of(&log);
    let shared: Arc<dyn Log> = log.clone();
    let mut witness = Witness::default();
    // There are files of a compaction already.
    let before = Plan { steps: 2 * EVERY, ..PLAN };
    run(work_resting(&log, before, EVERY, DEADLINE, &mut witness));
    // The next ones begin when all the work is done, because no reader of a table begins while its files are swapped.
    gate.close_after(0);
    run(work(&shared, PLAN, &mut witness));
    gate.close_after(after);
    let held = run(still(&log, &gate));
    let image = source.image().unwrap();
    let whole = copy(&source, &image, &mut Copied::new(), 1);
    if held && let Some(whole) = &whole {
        restores(whole, &image, PLAN, &witness);
    }
    let later = source.image().unwrap();
    let halves = copy_in_two(&source, &later, || {
        gate.close_after(1 + after * 7 % 60);
        run(still(&log, &gate));
    });
    if let Some(copied) = &halves {
        restores(copied, &later, PLAN, &witness);
    }
    drop(opened);
    assert!(run(rest(&log, DEADLINE)));
    let last = source.image().unwrap();
    let copied = copy(&source, &last, &mut Copied::new(), 2).expect("the log is at rest");
    restores(&copied, &last, PLAN, &witness);
    (held, halves.is_none())
}

#[test]
fn a_copy_taken_at_any_call_of_a_compaction_restores_exactly_what_its_checkpoint_says() {
    let (most, step) = if long() { (400, 1) } else { (160, 2) };
    let counts = Mutex::new((0, 0));
    in_parallel(most / step, |i| {
        let (held, in_vain) = held_at(i * step);
        let mut counts = counts.lock();
        *counts = (counts.0 + u64::from(held), counts.1 + u64::from(in_vain));
    });
    let (held, in_vain) = counts.into_inner();
    println!("held {held} times, {in_vain} copies were overtaken");
    assert!(held > 40 && in_vain > 0 && in_vain < held, "held {held} times, {in_vain} copies were overtaken");
}

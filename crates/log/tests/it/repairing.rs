//! A repair that is cut short, or finds no space, is begun again and loses no more than one that went through.

use std::path::PathBuf;

use millstream_log::vfs::sim::{Fault, FaultKind, Op, SimVfs};
use millstream_log::{Error, Report, repair, verify};

use crate::flips::{PLAN, closed_log};
use crate::rig::{Found, find, in_parallel, long, open, options, run};

/// The most calls that a repair of these logs makes.
const CALLS_MAX: u64 = 20_000;

/// The largest settled file.
fn settled(vfs: &SimVfs) -> (PathBuf, u64) {
    let files = vfs.files().into_iter().filter(|(path, _)| path.starts_with("/log/topics"));
    files.max_by_key(|(_, len)| *len).unwrap()
}

/// A log whose largest settled file has a flipped byte in the middle, or in its first block.
fn damaged(middle: bool) -> SimVfs {
    let (vfs, _) = closed_log();
    let (path, len) = settled(&vfs);
    for at in (if middle { len / 2 } else { 70 })..len {
        vfs.flip(&path, at, 1);
        // A byte between two blocks says nothing.
        if !verify(&options(&vfs)).unwrap().is_sound() {
            return vfs;
        }
    }
    panic!("no byte of {path:?} says anything")
}

fn mend(vfs: &SimVfs) -> Result<Report, Error> {
    repair(&options(vfs), true)
}

fn found(vfs: &SimVfs) -> Found {
    assert!(verify(&options(vfs)).unwrap().is_sound());
    run(find(&open(vfs).unwrap(), PLAN.tasks)).unwrap()
}

/// Repairs a copy undisturbed: what is left, and how many calls it took.
fn undisturbed(vfs: &SimVfs) -> (Found, u64) {
    let vfs = vfs.copy();
    let report = mend(&vfs).unwrap();
    assert!(!report.lost.is_empty());
    let calls = vfs.calls_in_all();
    assert!(calls < CALLS_MAX, "{calls} calls");
    (found(&vfs), calls)
}

#[test]
fn a_repair_cut_short_by_the_power_loses_no_sound_block() {
    for middle in [true, false] {
        let vfs = damaged(middle);
        let (want, calls) = undisturbed(&vfs);
        let step = if long() { 1 } else { (calls / 200).max(1) };
        // The last calls are those that change something.
        let cuts: Vec<u64> = (0..calls).step_by(step as usize).chain(calls.saturating_sub(60)..calls).collect();
        in_parallel(cuts.len() as u64, |i| {
            let after = cuts[i as usize];
            let one = vfs.copy();
            one.power_off_after(after);
            assert!(mend(&one).is_err(), "cut after {after} calls");
            for seed in 0..4 {
                let left = one.after_power_off(seed).unwrap();
                if let Err(error) = mend(&left) {
                    panic!("cut after {after} calls, image {seed}: {error}\n{}", left.record());
                }
                assert_eq!(found(&left), want, "cut after {after} calls, image {seed}");
            }
        });
    }
}

#[test]
fn a_repair_that_finds_no_space_is_begun_again_and_loses_no_sound_block() {
    for middle in [true, false] {
        let vfs = damaged(middle);
        let (want, _) = undisturbed(&vfs);
        let mut after = 0;
        loop {
            let one = vfs.copy();
            one.fail(Fault { op: Op::Write, after, kind: FaultKind::NoSpace, for_good: true });
            let done = mend(&one);
            one.heal();
            if done.is_err() {
                mend(&one).unwrap();
            }
            assert_eq!(found(&one), want, "no space for write {after}");
            if done.is_ok() {
                break;
            }
            after += 1;
        }
        assert!(after > 2, "it wrote {after} times");
    }
}

#[test]
fn a_settled_file_that_is_gone_is_said_and_the_rest_is_kept() {
    let (vfs, _) = closed_log();
    let (path, _) = settled(&vfs);
    millstream_log::vfs::Vfs::remove(&vfs, &path).unwrap();
    let report = mend(&vfs).unwrap();
    assert!(!report.lost.is_empty());
    found(&vfs);
}

//! Files full of nonsense: opening and reading answer, do not panic, do not hang, and believe no length unseen.

use std::path::PathBuf;

use millstream_log::fuzzing;
use millstream_log::vfs::sim::{Rng, SimVfs};

use crate::allocation::largest;
use crate::rig::{Plan, Witness, disk, find, in_parallel, long, open, run, work};

/// No file of these logs is larger than some KiB, so nobody needs more at once.
const ALLOCATION_MAX: usize = 256 << 20;

const PLAN: Plan = Plan { seed: 5, tasks: 2, steps: 30 };

/// A log on a disk: some steps, closed or not.
fn log_on_disk(close: bool) -> SimVfs {
    let vfs = disk();
    let log = open(&vfs).unwrap();
    run(async {
        work(&log, PLAN, &mut Witness::default()).await;
        if close {
            log.close().await.unwrap();
        }
    });
    drop(log);
    vfs.copy()
}

/// Changes some bytes: one, many, a stretch of zeros, a stretch from elsewhere, the length.
fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let at = rng.below(bytes.len() as u64) as usize;
    let len = (1 + rng.below(64) as usize).min(bytes.len() - at);
    match rng.below(6) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.below(5) as usize],
        2 => bytes[at..at + len].fill(if rng.chance(50) { 0 } else { 0xff }),
        3 => {
            let from = rng.below((bytes.len() - len) as u64 + 1) as usize;
            bytes.copy_within(from..from + len, at);
        }
        4 => bytes.truncate(at.max(1)),
        _ => bytes.extend((0..len).map(|_| rng.next_u64() as u8)),
    }
}

/// Changes files of a copy and reads what can be read.
fn one_disk(from: &SimVfs, rng: &mut Rng) {
    let vfs = from.copy();
    let files: Vec<PathBuf> = vfs.files().into_iter().filter(|(_, len)| *len > 0).map(|(path, _)| path).collect();
    for _ in 0..1 + rng.below(4) {
        let path = &files[rng.below(files.len() as u64) as usize];
        let mut bytes = vfs.content(path).unwrap();
        mutate(&mut bytes, rng);
        vfs.put(path, &bytes);
    }
    if let Ok(log) = open(&vfs) {
        // Whatever it says, it says something.
        drop(run(find(&log, PLAN.tasks)));
    }
}

#[test]
fn opening_mutated_files_never_panics_hangs_or_takes_much_memory() {
    let disks = [log_on_disk(true), log_on_disk(false)];
    let count = if long() { 1_000_000 } else { 2_000 };
    in_parallel(count, |i| one_disk(&disks[(i % 2) as usize], &mut Rng::new(i)));
    assert!(largest() < ALLOCATION_MAX, "{} bytes at once", largest());
}

#[test]
fn decoding_mutated_frames_never_panics_or_takes_much_memory() {
    let sample = fuzzing::sample();
    let block = fuzzing::sample_block();
    assert!(!sample.is_empty() && !block.is_empty());
    let mut rng = Rng::new(1);
    for _ in 0..if long() { 10_000_000 } else { 10_000 } {
        let mut bytes = if rng.chance(50) { block.clone() } else { sample.clone() };
        (0..1 + rng.below(4)).for_each(|_| mutate(&mut bytes, &mut rng));
        fuzzing::decode(&bytes);
    }
    assert!(largest() < ALLOCATION_MAX, "{} bytes at once", largest());
}

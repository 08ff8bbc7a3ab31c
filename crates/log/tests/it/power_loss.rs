//! The power goes at a random moment, sometimes again while the log recovers: what was promised is there.

use millstream_log::vfs::sim::{Rng, SimVfs};

use crate::rig::{Plan, Witness, check, check_once, disk, in_parallel, long, open, run, work};

/// Images made of one cut.
const IMAGES_PER_CUT: u64 = 10;

/// Runs a workload until the power goes (or it is done); what was promised, and the disk.
fn cut(plan: Plan, after: u64) -> (SimVfs, Witness) {
    let vfs = disk();
    vfs.power_off_after(after);
    let mut witness = Witness::default();
    if let Ok(log) = open(&vfs) {
        run(work(&log, plan, &mut witness));
    }
    (vfs, witness)
}

fn image(vfs: &SimVfs, seed: u64) -> SimVfs {
    vfs.after_power_off(seed).unwrap_or_else(|| vfs.crash(seed))
}

/// What is left when the power goes again while the log recovers.
fn cut_again(left: SimVfs, rng: &mut Rng) -> SimVfs {
    left.power_off_after(rng.below(60));
    drop(open(&left));
    image(&left, rng.next_u64())
}

/// Cuts once and judges several outcomes.
fn one_cut(seed: u64) {
    let mut rng = Rng::new(seed);
    let plan = Plan { seed, tasks: 1 + rng.below(4) as u32, steps: 5 + rng.below(40) };
    let (vfs, witness) = cut(plan, rng.below(600));
    for number in 0..IMAGES_PER_CUT {
        let mut left = image(&vfs, rng.next_u64());
        while rng.chance(30) {
            left = cut_again(left, &mut rng);
        }
        let judged = run(async {
            match number {
                0 => check(&left, plan, &witness).await,
                _ => check_once(&left, plan, &witness).await,
            }
        });
        if let Err(wrong) = judged {
            panic!("seed {seed} ({plan:?}): {wrong}; run again with MILLSTREAM_SEED={seed}");
        }
    }
}

#[test]
fn what_was_promised_survives_every_power_cut() {
    // Threads take turns as they like, so a seed may need some attempts to fail again.
    if let Some(seed) = std::env::var("MILLSTREAM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return in_parallel(200, |_| one_cut(seed));
    }
    let images = if long() { 100_000 } else { 2_000 };
    in_parallel(images / IMAGES_PER_CUT, |cut| one_cut(cut + 1));
}

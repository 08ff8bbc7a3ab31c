//! Background work in short steps, so that commits do not feel it: it takes a part of one core, and hands the disk little at
//! a time. Where commits would come to wait for it, it hurries.

use std::thread;
use std::time::{Duration, Instant};

/// So long it works without a rest.
const STRIDE: Duration = Duration::from_millis(2);
/// A rest is so many times as long as the work before it.
const REST: u32 = 3;
/// The longest rest, so that who ends the log does not wait.
const REST_MAX: Duration = Duration::from_millis(20);
/// What is written to a file is synced when it is so many bytes: a sync of more would hold up the journal's.
pub(super) const SYNC_BYTES: usize = 1 << 20;
/// A file is freed in pieces of a segment's length divided by this: 1 MiB, if that is as it is unless said, takes 0.3 ms where
/// the file system tells the disk what is free.
pub(super) const FREE_PARTS: u64 = 32;

/// How far background threads stand behind others where processors are short, as `nice` counts.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Lets this thread, and those that it begins, stand back behind the threads that commits wait for.
pub(super) fn stand_back() {
    // Linux takes no process for the calling thread; elsewhere it would be all of them.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "background work does not stand back");
    }
}

/// The pace of one piece of work.
#[derive(Debug)]
pub(super) struct Ease {
    rested: Instant,
}

impl Ease {
    pub(super) fn begin() -> Self {
        Self { rested: Instant::now() }
    }

    /// Rests when it is time, unless it must hurry.
    pub(super) fn step(&mut self, hurry: impl FnOnce() -> bool) {
        let worked = self.rested.elapsed();
        if worked < STRIDE {
            return;
        }
        if !hurry() {
            thread::sleep((worked * REST).min(REST_MAX));
        }
        self.rested = Instant::now();
    }
}

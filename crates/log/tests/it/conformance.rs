//! The contract's rules, for each log.

use std::sync::Arc;

use millstream_log::conformance::{End, Fixture};
use millstream_log::{EmbeddedLog, EmbeddedOptions, Log, ManualClock};

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(1_000_000_000_000_000))
}

fn embedded(options: EmbeddedOptions) -> Arc<dyn Log> {
    Arc::new(EmbeddedLog::open(options).unwrap())
}

mod memory {
    use millstream_log::MemoryLog;

    use super::*;

    fn fixture() -> Fixture {
        let clock = clock();
        Fixture { log: Arc::new(MemoryLog::with_clock(clock.clone())), clock, reopen: None }
    }

    millstream_log::conformance_tests!(fixture());
}

/// Tiny segments on a disk that loses everything it may when the power goes.
mod embedded_on_a_simulated_disk {
    use super::*;
    use crate::rig::{disk, options};

    fn fixture() -> Fixture {
        let clock = clock();
        let mut vfs = disk();
        let settings = EmbeddedOptions { clock: clock.clone(), ..options(&vfs) };
        let log = embedded(settings.clone());
        let mut seed = 0;
        let reopen = move |old: Arc<dyn Log>, how: End| {
            if how == End::Crash {
                seed += 1;
                vfs = vfs.crash(seed);
            }
            drop(old);
            embedded(EmbeddedOptions { vfs: Arc::new(vfs.clone()), ..settings.clone() })
        };
        Fixture { log, clock, reopen: Some(Box::new(reopen)) }
    }

    millstream_log::conformance_tests!(fixture());
}

/// Real files and ordinary settings; a crash is a process that ends.
mod embedded_on_real_files {
    use super::*;

    fn fixture() -> Fixture {
        let clock = clock();
        let dir = tempfile::tempdir().unwrap();
        let segment_bytes = 1 << 20;
        let settings = EmbeddedOptions {
            clock: clock.clone(),
            segment_bytes,
            compact_bytes: 64 << 10,
            ..EmbeddedOptions::new(dir.path().join("log"))
        };
        let log = embedded(settings.clone());
        let reopen = move |old: Arc<dyn Log>, _how: End| {
            // The directory lives as long as this function.
            assert!(dir.path().exists());
            drop(old);
            embedded(settings.clone())
        };
        Fixture { log, clock, reopen: Some(Box::new(reopen)) }
    }

    millstream_log::conformance_tests!(fixture());
}

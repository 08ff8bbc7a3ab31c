//! The contract's rules, for each log.

mod memory {
    use std::sync::Arc;

    use millstream_log::conformance::Fixture;
    use millstream_log::{ManualClock, MemoryLog};

    fn fixture() -> Fixture {
        let clock = Arc::new(ManualClock::new(1_000_000_000_000_000));
        Fixture { log: Arc::new(MemoryLog::with_clock(clock.clone())), clock, reopen: None }
    }

    millstream_log::conformance_tests!(fixture());
}

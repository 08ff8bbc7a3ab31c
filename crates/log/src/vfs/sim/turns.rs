//! Who waits for whom: seeded pauses before calls, so that turns which threads take on a busy machine only are taken
//! often. A seed fixes the pauses, not the turns: those stay with the scheduler.

use std::time::Duration;

use super::rng::Rng;

/// After how many calls another mood begins.
const MOOD_CALLS: u64 = 24;

/// How the calls of a while are held up.
#[derive(Debug, Clone, Copy)]
enum Mood {
    /// Not at all.
    Calm,
    /// Some calls let others go first.
    Polite,
    /// The threads of one of [`Turns::KINDS`] kinds wait before each call.
    Slow { kind: u64, us: u64 },
    /// A few calls wait so long that whatever looks after a while looks now.
    Stuck,
}

/// The pauses of one disk.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    rng: Rng,
    calls: u64,
    mood: Mood,
}

/// What a thread does before its call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pause {
    Yield,
    Sleep(Duration),
}

impl Pause {
    pub(super) fn take(self) {
        match self {
            Self::Yield => std::thread::yield_now(),
            Self::Sleep(time) => std::thread::sleep(time),
        }
    }
}

impl Turns {
    /// A thread's kind follows from its name, of which a log has three, and a test one.
    const KINDS: u64 = 4;

    pub(super) fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), calls: 0, mood: Mood::Calm }
    }

    /// The pause before the next call.
    pub(super) fn next(&mut self) -> Option<Pause> {
        if self.calls.is_multiple_of(MOOD_CALLS) {
            self.mood = match self.rng.below(8) {
                0..=2 => Mood::Calm,
                3 | 4 => Mood::Polite,
                5 | 6 => Mood::Slow { kind: self.rng.below(Self::KINDS), us: 50 << self.rng.below(5) },
                _ => Mood::Stuck,
            };
        }
        self.calls += 1;
        match self.mood {
            Mood::Calm => None,
            Mood::Polite => self.rng.chance(40).then_some(Pause::Yield),
            Mood::Slow { kind, us } => (kind == own_kind()).then(|| Pause::Sleep(Duration::from_micros(us))),
            Mood::Stuck => {
                let us = 500 + self.rng.below(8_000);
                self.rng.chance(10).then(|| Pause::Sleep(Duration::from_micros(us)))
            }
        }
    }
}

fn own_kind() -> u64 {
    match std::thread::current().name() {
        Some("log-commit") => 0,
        Some("log-settle") => 1,
        Some("log-prepare") => 2,
        _ => 3,
    }
}

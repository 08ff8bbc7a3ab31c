//! Which table is compacted next, and who waits. Pure decisions.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The longest that a partition is left alone.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// A compaction that gains less than one part in this many was for nothing.
const GAIN_PART: u64 = 16;

/// How much a compaction of a partition might gain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weight {
    /// The bytes that have come since the last one.
    pub(super) come: u64,
    /// The bytes that it left.
    pub(super) left: u64,
}

impl Weight {
    fn is_due(self, floor: u64) -> bool {
        self.come > self.left.saturating_add(floor)
    }

    /// Whether so much has come that compactions do not keep up.
    pub(super) fn is_late(self, floor: u64) -> bool {
        self.come / 2 > self.left.saturating_add(floor)
    }

    /// Compares what has come in proportion to what was left, so that none waits for ever behind others.
    fn ratio(self, floor: u64, other: Self) -> std::cmp::Ordering {
        let times = |a: Self, b: Self| u128::from(a.come) * u128::from(b.left.saturating_add(floor).max(1));
        times(self, other).cmp(&times(other, self))
    }
}

/// The one to compact: where there is room, that of which most has come in proportion to what was left and `floor`, once it
/// is more than that; where room is `scarce`, that to which most has come at all.
pub(super) fn choose<T>(all: impl Iterator<Item = (Weight, T)>, floor: u64, scarce: bool) -> Option<(Weight, T)> {
    if scarce {
        all.filter(|(weight, _)| weight.come > 0).max_by_key(|(weight, _)| weight.come)
    } else {
        all.filter(|(weight, _)| weight.is_due(floor)).max_by(|(a, _), (b, _)| a.ratio(floor, *b))
    }
}

/// Whether a compaction from `before` to `after` bytes was for nothing, so that another one soon would be as well.
pub(super) fn is_futile(before: u64, after: u64) -> bool {
    before.saturating_sub(after) < before / GAIN_PART
}

/// Partitions, by topic, that are left alone for a while.
#[derive(Debug, Default)]
pub(super) struct Pauses(BTreeMap<(u32, u32), Pause>);

#[derive(Debug)]
struct Pause {
    until: Instant,
    wait: Duration,
}

impl Pauses {
    pub(super) fn holds(&self, id: (u32, u32), now: Instant) -> bool {
        self.0.get(&id).is_some_and(|pause| now < pause.until)
    }

    /// Leaves a partition alone for twice as long as the last time, `least` the first time.
    pub(super) fn hold(&mut self, id: (u32, u32), least: Duration, now: Instant) -> Duration {
        let wait = self.0.get(&id).map_or(least, |pause| pause.wait.saturating_mul(2).min(PAUSE_MAX));
        self.0.insert(id, Pause { until: now + wait, wait });
        wait
    }

    /// A compaction has done what it should.
    pub(super) fn end(&mut self, id: (u32, u32)) {
        self.0.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(all: &[(u64, u64)], floor: u64, scarce: bool) -> Option<usize> {
        let weighed = all.iter().map(|(come, left)| Weight { come: *come, left: *left });
        choose(weighed.zip(0..), floor, scarce).map(|(_, place)| place)
    }

    #[test]
    fn the_greatest_ratio_is_first_and_the_most_bytes_where_room_is_scarce() {
        assert_eq!(chosen(&[(10, 0), (100, 90), (30, 20)], 10, false), None);
        assert_eq!(chosen(&[(11, 0), (300, 90), (35, 20)], 10, false), Some(1));
        assert_eq!(chosen(&[(110, 0), (300, 90), (35, 20)], 10, false), Some(0));
        assert_eq!(chosen(&[(10, 0), (100, 900), (30, 20)], 10, true), Some(1));
        assert_eq!(chosen(&[(0, 0), (0, 900)], 0, true), None);
        assert_eq!(chosen(&[(1, 0), (u64::MAX, u64::MAX)], u64::MAX, false), None);
    }

    #[test]
    fn a_partition_that_is_fed_faster_does_not_keep_another_waiting_for_ever() {
        let mut all = [(0u64, 100u64), (0, 100)];
        let mut last = 0;
        for turn in 0..1000 {
            all[0].0 += 500;
            all[1].0 += 3;
            match chosen(&all, 10, false) {
                Some(1) => {
                    last = turn;
                    all[1].0 = 0;
                }
                Some(_) => all[0].0 = 0,
                None => {}
            }
        }
        assert!(last > 700, "the slow one came last in turn {last}");
    }

    #[test]
    fn each_pause_is_twice_as_long_up_to_minutes() {
        let (mut pauses, now, least) = (Pauses::default(), Instant::now(), Duration::from_secs(1));
        assert!(!pauses.holds((1, 0), now));
        assert_eq!(pauses.hold((1, 0), least, now), least);
        assert_eq!(pauses.hold((1, 0), least, now), 2 * least);
        assert!(pauses.holds((1, 0), now + least) && !pauses.holds((1, 0), now + 2 * least));
        assert!(!pauses.holds((1, 1), now));
        for _ in 0..40 {
            pauses.hold((1, 0), least, now);
        }
        assert_eq!(pauses.hold((1, 0), least, now), PAUSE_MAX);
        pauses.end((1, 0));
        assert_eq!(pauses.hold((1, 0), least, now), least);
    }
}

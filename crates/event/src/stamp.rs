//! The stamp in the system column: when an event entered the pipeline, and what was decided about it then.
//!
//! The two lowest bits of the time, in microseconds, are marks. So a mark travels wherever the time of ingestion does:
//! through every operator, the log and dead letters, to the rows that are derived from the event. The time has a
//! resolution of 4 us.

/// One value of the column [`crate::INGESTED_AT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp(pub i64);

impl Stamp {
    /// The mark of an event that came later than its producer had promised.
    pub const LATE: i64 = 1;
    /// The mark of a tombstone: in a table topic, the row of this key is gone.
    pub const DELETED: i64 = 2;
    /// All marks.
    const MARKS: i64 = Self::LATE | Self::DELETED;

    /// The stamp of an event that enters at this time, in microseconds since 1970 UTC, without marks.
    pub fn at(micros: i64) -> Self {
        Self(micros & !Self::MARKS)
    }

    /// With a mark.
    #[must_use]
    pub fn with(self, mark: i64) -> Self {
        Self(self.0 | (mark & Self::MARKS))
    }

    /// When the event entered, in microseconds since 1970 UTC.
    pub fn micros(self) -> i64 {
        self.0 & !Self::MARKS
    }

    /// Whether the event was late when it entered.
    pub fn is_late(self) -> bool {
        self.0 & Self::LATE != 0
    }

    /// Whether this is a tombstone.
    pub fn is_deleted(self) -> bool {
        self.0 & Self::DELETED != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_time_do_not_touch_each_other() {
        for time in [0, 1, 3, 1_767_225_600_000_003, -1] {
            let stamp = Stamp::at(time).with(Stamp::LATE);
            assert!(stamp.is_late() && !stamp.is_deleted());
            assert_eq!(stamp.micros(), Stamp::at(time).micros());
            assert!((0..4).contains(&(time - stamp.micros())));
            assert!(stamp.with(Stamp::DELETED).is_deleted());
        }
    }
}

//! What a source's task promises about event time, and which events break the promise. Pure: no clock, no log.
//!
//! One bound for each task: the greatest `time - max_out_of_orderness` of the events so far. It is what the task
//! promises (no event with an earlier time is still expected), and an event with an earlier time is late. Row by row,
//! so it makes no difference how events are cut into batches, or whether the task was restarted between two of them.
//!
//! Invariants: the bound never goes back, whatever is configured later. A refused event (without a time, or further
//! ahead of its ingestion than `future`) moves nothing and wakes nobody. An idle or closed task that meets an event
//! again goes on at or above what it had promised, and so does one that a new run opens.

use bytes::Bytes;
use millstream_event::Watermark;

/// The version of [`Lateness::state`].
const STATE_VERSION: u8 = 1;
/// The code of an event without a time.
pub(crate) const TIME_MISSING: &str = "event-time-null";
/// The code of an event too far ahead of its ingestion.
pub(crate) const TIME_AHEAD: &str = "future";

/// The running bound of one source task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lateness {
    max_out_of_orderness_us: i64,
    future_us: Option<i64>,
    bound: Watermark,
    standing: Standing,
}

/// Whether events are expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Open,
    Idle,
    Closed,
}

/// What became of the rows of a batch; all others are on time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Judged {
    /// Rows that are late.
    pub(crate) late: Vec<u32>,
    /// Rows that are refused, in order, with code and reason.
    pub(crate) refused: Vec<(u32, &'static str, String)>,
}

impl Lateness {
    /// A task that has seen nothing. `future_us`: how far an event may be ahead of its ingestion.
    pub(crate) fn new(max_out_of_orderness_us: i64, future_us: Option<i64>) -> Self {
        Self { max_out_of_orderness_us, future_us, bound: Watermark::OPEN, standing: Standing::Open }
    }

    /// Goes on from a state that was stored.
    pub(crate) fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        let wrong = || "the stored event time of this source cannot be read; was it written by a newer version?";
        let [STATE_VERSION, standing, bound @ ..] = state else { return Err(wrong().to_owned()) };
        self.standing = match standing {
            0 => Standing::Open,
            1 => Standing::Idle,
            2 => Standing::Closed,
            _ => return Err(wrong().to_owned()),
        };
        self.bound = Watermark(i64::from_le_bytes(bound.try_into().map_err(|_| wrong().to_owned())?));
        Ok(())
    }

    /// What [`Lateness::restore`] needs.
    pub(crate) fn state(&self) -> Bytes {
        let mut state = vec![STATE_VERSION, self.standing as u8];
        state.extend(self.bound.0.to_le_bytes());
        state.into()
    }

    /// What the task says now.
    pub(crate) fn watermark(&self) -> Watermark {
        match self.standing {
            Standing::Open => self.bound,
            Standing::Idle => Watermark::IDLE,
            Standing::Closed => Watermark::CLOSED,
        }
    }

    /// A new run: that it is closed or idle holds for the run in which it was said. What was promised stays.
    pub(crate) fn open_again(&mut self) {
        self.standing = Standing::Open;
    }

    /// Nothing has come for a while. False: this was known.
    pub(crate) fn idle(&mut self) -> bool {
        self.standing == Standing::Open && {
            self.standing = Standing::Idle;
            true
        }
    }

    /// Nothing will come any more. False: this was known.
    pub(crate) fn close(&mut self) -> bool {
        std::mem::replace(&mut self.standing, Standing::Closed) != Standing::Closed
    }

    /// Judges events in their order; `now_us` is when they entered.
    pub(crate) fn judge(&mut self, times: impl Iterator<Item = Option<i64>>, now_us: i64) -> Judged {
        let mut judged = Judged::default();
        let limit = self.future_us.map_or(i64::MAX, |future| now_us.saturating_add(future));
        let mut good = false;
        for (row, time) in (0_u32..).zip(times) {
            match time {
                Some(time) if time <= limit => {
                    good = true;
                    if time < self.bound.0 {
                        judged.late.push(row);
                    } else {
                        self.bound = self.bound.max(bound_of(time, self.max_out_of_orderness_us));
                    }
                }
                Some(time) => judged.refused.push((row, TIME_AHEAD, ahead(time, now_us))),
                None => judged.refused.push((row, TIME_MISSING, "the event has no event time".to_owned())),
            }
        }
        if good {
            self.standing = Standing::Open;
        }
        judged
    }
}

/// What an event of this time lets its task promise: always a time, never one of the special values.
fn bound_of(time: i64, max_out_of_orderness_us: i64) -> Watermark {
    let bound = time.saturating_sub(max_out_of_orderness_us);
    Watermark(bound.clamp(Watermark::OPEN.0 + 1, Watermark::IDLE.0 - 1))
}

fn ahead(time: i64, now_us: i64) -> String {
    let seconds = time.saturating_sub(now_us) / 1_000_000;
    format!("its event time is {seconds} s ahead of its arrival, more than `event_time: future` allows")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_000_000_000;

    fn late(times: &[i64], out_of_orderness: i64) -> (Vec<u32>, Watermark) {
        let mut lateness = Lateness::new(out_of_orderness, None);
        let judged = lateness.judge(times.iter().map(|t| Some(*t)), NOW);
        (judged.late, lateness.watermark())
    }

    #[test]
    fn an_event_is_late_when_it_is_behind_the_maximum_by_more_than_it_may() {
        assert_eq!(late(&[100, 90, 89, 120, 110, 109], 10), (vec![2, 5], Watermark(110)));
        assert_eq!(late(&[], 10), (vec![], Watermark::OPEN));
        assert_eq!(late(&[5, 4], 0), (vec![1], Watermark(5)));
    }

    #[test]
    fn times_at_the_ends_of_the_scale_are_times() {
        assert_eq!(late(&[i64::MIN, i64::MAX], 10), (vec![], Watermark(i64::MAX - 10)));
        assert_eq!(late(&[i64::MAX], 0).1, Watermark(Watermark::IDLE.0 - 1));
        assert_eq!(late(&[i64::MIN], 0).1, Watermark(i64::MIN + 1));
    }

    #[test]
    fn an_event_without_a_time_or_from_the_future_moves_nothing() {
        let mut lateness = Lateness::new(0, Some(60));
        lateness.judge([Some(NOW)].into_iter(), NOW);
        assert!(lateness.idle());
        let judged = lateness.judge([None, Some(NOW + 61)].into_iter(), NOW);
        let codes: Vec<_> = judged.refused.iter().map(|(row, code, _)| (*row, *code)).collect();
        assert_eq!(codes, [(0, TIME_MISSING), (1, TIME_AHEAD)]);
        assert_eq!(lateness.watermark(), Watermark::IDLE, "they wake nobody either");
        assert_eq!(lateness.judge([Some(NOW + 60)].into_iter(), NOW), Judged::default());
        assert_eq!(lateness.watermark(), Watermark(NOW + 60));
    }

    #[test]
    fn whoever_was_idle_or_closed_goes_on_at_what_it_had_promised() {
        let mut lateness = Lateness::new(10, None);
        lateness.judge([Some(100)].into_iter(), NOW);
        assert!(lateness.idle() && !lateness.idle());
        assert_eq!(lateness.judge([Some(50)].into_iter(), NOW).late, [0]);
        assert_eq!(lateness.watermark(), Watermark(90));
        assert!(lateness.close() && !lateness.close() && !lateness.idle());
        assert_eq!(lateness.watermark(), Watermark::CLOSED);
        assert_eq!(lateness.judge([Some(95)].into_iter(), NOW).late, Vec::<u32>::new());
        assert_eq!(lateness.watermark(), Watermark(90));
        assert!(lateness.close());
        lateness.open_again();
        assert_eq!(lateness.watermark(), Watermark(90));
    }

    #[test]
    fn a_promise_outlives_a_change_of_what_was_configured() {
        let mut before = Lateness::new(10, None);
        before.judge([Some(100)].into_iter(), NOW);
        let mut after = Lateness::new(60, None);
        after.restore(&before.state()).unwrap();
        assert_eq!(after.watermark(), Watermark(90));
        assert_eq!(after.judge([Some(80), Some(120), Some(155)].into_iter(), NOW).late, [0]);
        assert_eq!(after.watermark(), Watermark(95));
        assert!(after.restore(b"\x02rest").is_err() && after.restore(b"").is_err());
    }

    proptest! {
        #[test]
        fn lateness_does_not_depend_on_batches_or_restarts(
            times in prop::collection::vec(prop::option::weighted(0.9, -200_i64..200), 0..80),
            cuts in prop::collection::vec((0_usize..80, any::<bool>()), 0..8),
            out_of_orderness in 0_i64..50,
            future in prop::option::of(0_i64..150),
        ) {
            let fresh = || Lateness::new(out_of_orderness, future);
            let mut whole = fresh();
            let expected = whole.judge(times.iter().copied(), 0);
            let mut places: Vec<(usize, bool)> = cuts.into_iter().map(|(at, stop)| (at.min(times.len()), stop)).collect();
            places.sort_unstable();
            let (mut parts, mut found, mut from) = (fresh(), Judged::default(), 0);
            for (to, restart) in places.into_iter().chain([(times.len(), false)]) {
                let judged = parts.judge(times[from..to].iter().copied(), 0);
                found.late.extend(judged.late.iter().map(|row| row + from as u32));
                found.refused.extend(judged.refused.into_iter().map(|(row, code, why)| (row + from as u32, code, why)));
                if restart {
                    let state = parts.state();
                    parts = fresh();
                    parts.restore(&state).unwrap();
                }
                from = to;
            }
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(&parts, &whole);
            // The definition, word by word.
            let mut max: Option<i64> = None;
            for (row, time) in times.iter().enumerate() {
                let refused = time.is_none_or(|time| future.is_some_and(|future| time > future));
                prop_assert_eq!(expected.refused.iter().any(|r| r.0 as usize == row), refused);
                let Some(time) = time.filter(|_| !refused) else { continue };
                let late = max.is_some_and(|max| time < max - out_of_orderness);
                prop_assert_eq!(expected.late.contains(&(row as u32)), late);
                max = max.max(Some(time));
            }
            prop_assert_eq!(whole.watermark(), max.map_or(Watermark::OPEN, |max| Watermark(max - out_of_orderness)));
        }
    }
}

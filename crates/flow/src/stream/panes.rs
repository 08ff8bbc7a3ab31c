//! Windows over time, cut into panes: stretches of time that belong to the same windows. Times are microseconds since
//! 1970 UTC; a window holds its start and not its end.
//!
//! A tumbling window is one pane. A hopping window is the panes between its start and its end, so that an event is added
//! to one pane and not to every window (Li et al., "No pane, no gain", SIGMOD Record 2005).

/// Windows of fixed places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd)]
pub(crate) enum Windows {
    /// One behind the other.
    Tumble { size: i64 },
    /// Of `size`, one beginning every `slide`.
    Hop { slide: i64, size: i64 },
    /// Growing by `step` until `size` is reached, then from the beginning.
    Cumulate { step: i64, size: i64 },
}

impl Windows {
    /// How long a pane is.
    pub(crate) fn pane(self) -> i64 {
        match self {
            Self::Tumble { size } => size,
            Self::Hop { slide, size } => gcd(slide, size),
            Self::Cumulate { step, .. } => step,
        }
    }

    /// How long the longest window is.
    pub(crate) fn size(self) -> i64 {
        match self {
            Self::Tumble { size } | Self::Hop { size, .. } | Self::Cumulate { size, .. } => size,
        }
    }

    /// How far apart the ends of windows are.
    pub(crate) fn step(self) -> i64 {
        match self {
            Self::Tumble { size } => size,
            Self::Hop { slide, .. } => slide,
            Self::Cumulate { step, .. } => step,
        }
    }

    /// The end of the pane that a time is in; `None` at the end of time.
    pub(crate) fn pane_end(self, time: i64) -> Option<i64> {
        let pane = self.pane();
        time.checked_sub(time.rem_euclid(pane))?.checked_add(pane)
    }

    /// The end of the first window that holds the pane that ends at `pane_end`.
    pub(crate) fn first_end(self, pane_end: i64) -> i64 {
        match self {
            Self::Tumble { .. } | Self::Cumulate { .. } => pane_end,
            // Ends are at multiples of the slide behind the size.
            Self::Hop { slide, size } => pane_end.saturating_add((size - pane_end).rem_euclid(slide)),
        }
    }

    /// The end of the window behind the one that ends at `end`.
    pub(crate) fn next_end(self, end: i64) -> i64 {
        match self {
            Self::Tumble { size } => end.saturating_add(size),
            Self::Hop { slide, .. } => end.saturating_add(slide),
            Self::Cumulate { step, .. } => end.saturating_add(step),
        }
    }

    /// The end of the last window that is over at a time; `None` at the beginning of time.
    pub(crate) fn last_over(self, time: i64) -> Option<i64> {
        let (first, by) = match self {
            Self::Tumble { size } => (0, size),
            Self::Hop { slide, size } => (size, slide),
            Self::Cumulate { step, .. } => (0, step),
        };
        time.checked_sub(time.checked_sub(first)?.rem_euclid(by))
    }

    /// The start of the window that ends at `end`.
    pub(crate) fn start(self, end: i64) -> i64 {
        match self {
            Self::Tumble { size } | Self::Hop { size, .. } => end - size,
            Self::Cumulate { step, size } => {
                let last = end - step;
                last - last.rem_euclid(size)
            }
        }
    }

    /// The end of the last window that holds the pane that ends at `pane_end`: behind it the pane is not needed.
    pub(crate) fn last_end(self, pane_end: i64) -> i64 {
        match self {
            Self::Tumble { .. } => pane_end,
            Self::Hop { slide, size } => {
                let start = pane_end - self.pane();
                // The last window that starts at or before the pane.
                (start - start.rem_euclid(slide)).saturating_add(size)
            }
            Self::Cumulate { size, .. } => {
                let start = pane_end - self.pane();
                (start - start.rem_euclid(size)).saturating_add(size)
            }
        }
    }

    /// For a person to read.
    pub(crate) fn describe(self) -> String {
        let text = |micros: i64| format!("{} s", micros as f64 / 1e6);
        match self {
            Self::Tumble { size } => format!("tumble {}", text(size)),
            Self::Hop { slide, size } => format!("hop {} every {}", text(size), text(slide)),
            Self::Cumulate { step, size } => format!("cumulate {} by {}", text(size), text(step)),
        }
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All windows that hold a time, by definition.
    fn windows_of(windows: Windows, time: i64) -> Vec<(i64, i64)> {
        let (slide, size) = match windows {
            Windows::Tumble { size } => (size, size),
            Windows::Hop { slide, size } => (slide, size),
            Windows::Cumulate { step, size } => {
                let start = time - time.rem_euclid(size);
                let ends = (1..=size / step).map(|n| start + n * step);
                return ends.filter(|end| time < *end).map(|end| (start, end)).collect();
            }
        };
        let first = time - time.rem_euclid(slide);
        let starts = (0..=size / slide + 1).map(|n| first - n * slide);
        let mut all: Vec<(i64, i64)> = starts.map(|s| (s, s + size)).filter(|(s, e)| *s <= time && time < *e).collect();
        all.sort_unstable();
        all
    }

    proptest! {
        #[test]
        fn a_pane_is_in_exactly_the_windows_of_its_times(kind in 0..3, a in 1i64..40, n in 1i64..8, time in -500i64..500) {
            let windows = match kind {
                0 => Windows::Tumble { size: a },
                1 => Windows::Hop { slide: a, size: n * 7 },
                _ => Windows::Cumulate { step: a, size: a * n },
            };
            let expected = windows_of(windows, time);
            let pane = windows.pane_end(time).unwrap();
            prop_assert!(time < pane && pane - windows.pane() <= time);
            let over = windows.last_over(time).unwrap();
            prop_assert!(over <= time && time < windows.next_end(over));
            // With a slide longer than the size a time may be in no window.
            let mut found = Vec::new();
            let mut end = windows.first_end(pane);
            while end <= windows.last_end(pane) {
                found.push((windows.start(end), end));
                end = windows.next_end(end);
            }
            prop_assert_eq!(found, expected);
        }
    }
}

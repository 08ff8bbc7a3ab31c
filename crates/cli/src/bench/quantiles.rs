//! Quantiles of what was measured.

/// Durations in microseconds, sorted.
#[derive(Debug, Clone)]
pub(super) struct Quantiles(Vec<f64>);

impl Quantiles {
    pub(super) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The least value that `share` of all values do not exceed; 0 where there are none.
    pub(super) fn at(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let q = Quantiles::of((1..=100).rev().map(f64::from).collect());
        assert_eq!([q.at(0.5), q.at(0.99), q.at(1.0), q.at(0.0)], [50.0, 99.0, 100.0, 1.0]);
        assert_eq!(Quantiles::of(vec![]).at(0.5), 0.0);
    }
}

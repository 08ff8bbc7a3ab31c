//! Made-up events: traffic for examples, tests and benchmarks.
//!
//! A [`World`] is an endless stream of events that depends on its settings and the event's number only, so it can be
//! resumed at any event and repeated exactly. Event times are simulated: the first day is `start` whatever the `rate`.
//!
//! | world | events |
//! | --- | --- |
//! | [`payments`] | card payments with labelled fraud |
//! | [`nexmark`] | the persons, auctions and bids of the Nexmark benchmark |
//! | [`market`] | ticks of a stock exchange, and orders of its accounts |
//! | [`inventory`] | movements of stock from several sales channels |
//!
//! A world knows nothing of rates and commits; that is [`GenerateSource`]'s.

mod digits;
mod fit;
pub mod inventory;
pub mod market;
mod model;
pub mod nexmark;
mod numbered;
pub mod payments;
mod random;
mod source;
#[cfg(test)]
mod tests;
mod world;

use chrono::NaiveDate;

pub use payments::{
    Bad, CUSTOMERS_MAX, Counts, MERCHANTS_MAX, Payment, Place, Settings, Simulator, columns, generate_customers_csv,
    generate_merchants_csv, generate_ndjson, schema,
};
pub use source::GenerateSource;
pub use world::World;

/// The fastest rate that can be kept in step.
pub const RATE_MAX: f64 = 10_000_000.0;

/// What all worlds but the payments' are told: how much, how fast, which one, from when.
#[derive(Debug, Clone, PartialEq)]
pub struct Supply {
    /// Events per second; unset: as fast as they are taken.
    pub rate: Option<f64>,
    /// How many events; unset: without end.
    pub count: Option<u64>,
    /// Another seed, another world.
    pub seed: u64,
    /// The first simulated day.
    pub start: NaiveDate,
}

impl Default for Supply {
    fn default() -> Self {
        Self { rate: None, count: None, seed: 1, start: NaiveDate::from_ymd_opt(2026, 1, 1).unwrap_or_default() }
    }
}

impl Supply {
    /// Microseconds from 1970 to the first simulated day.
    pub(crate) fn start_micros(&self) -> i64 {
        days_of(self.start) * 86_400_000_000
    }
}

/// A setting that makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("`{setting}` is {value}; it may be {allowed}")]
pub struct SettingsError {
    /// Which one.
    pub setting: &'static str,
    /// What it was.
    pub value: String,
    /// What it may be.
    pub allowed: String,
}

/// Days from 1970 to a day.
fn days_of(day: NaiveDate) -> i64 {
    day.signed_duration_since(NaiveDate::default()).num_days()
}

fn check_rate(rate: Option<f64>) -> Result<(), SettingsError> {
    match rate.filter(|rate| !(*rate > 0.0 && *rate <= RATE_MAX)) {
        None => Ok(()),
        Some(rate) => Err(SettingsError {
            setting: "rate",
            value: rate.to_string(),
            allowed: format!("above 0 and at most {RATE_MAX}"),
        }),
    }
}

/// Whether `value` is 1 to `max`.
fn check_size(setting: &'static str, value: u32, max: u32) -> Result<(), SettingsError> {
    if (1..=max).contains(&value) {
        return Ok(());
    }
    Err(SettingsError { setting, value: value.to_string(), allowed: format!("1 to {max}") })
}

//! Card payments with labelled fraud, made up: traffic for examples, tests and benchmarks.
//!
//! After the simulator in *Reproducible Machine Learning for Credit Card Fraud Detection: Practical Handbook* by
//! Le Borgne, Siblini, Lebichot and Bontempi (2022), chapter 3, "Simulator"; the code is our own. What is the book's
//! and what is ours stands in `population.rs` and `day.rs`. Ours besides: the event's text ids, currency and country
//! (of the merchant's place), milliseconds, arrival up to 5 s out of order, and `bad` events.
//!
//! The stream depends on the seed and the event's number only: it can be resumed at any event by making one simulated
//! day. Event times are simulated too: the first day is `start` (2026-01-01 unless set) whatever the `rate`, and a day
//! passes with about 1.9 events per customer, so that a run can be repeated exactly.

mod day;
mod model;
mod population;
mod rows;
mod simulator;
#[cfg(test)]
mod tests;
mod write;

use chrono::NaiveDate;

pub(crate) use model::Payments;
pub use simulator::{Bad, Counts, Payment, Place, Simulator};
pub use write::{generate_customers_csv, generate_merchants_csv, generate_ndjson};

use super::{SettingsError, check_rate, check_size, days_of};
use crate::event::{Column, ColumnType, Schema};

/// The most customers: their day must be made in about two seconds.
pub const CUSTOMERS_MAX: u32 = 1_000_000;
/// The most merchants.
pub const MERCHANTS_MAX: u32 = 1_000_000;

/// What to make.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Events per second; unset: as fast as they are taken.
    pub rate: Option<f64>,
    /// How many events; unset: without end.
    pub count: Option<u64>,
    /// Another seed, another world.
    pub seed: u64,
    /// How many customers (cards), 1 to [`CUSTOMERS_MAX`].
    pub customers: u32,
    /// How many merchants, 1 to [`MERCHANTS_MAX`].
    pub merchants: u32,
    /// The share of bad events, 0 to 1.
    pub bad: f64,
    /// The first simulated day.
    pub start: NaiveDate,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rate: None,
            count: None,
            seed: 1,
            customers: 5_000,
            merchants: 10_000,
            bad: 0.015,
            start: NaiveDate::from_ymd_opt(2026, 1, 1).unwrap_or_default(),
        }
    }
}

impl Settings {
    /// Days from 1970 to the first simulated day.
    pub(crate) fn start_day(&self) -> i64 {
        days_of(self.start)
    }

    /// Whether all settings make sense.
    pub fn check(&self) -> Result<(), SettingsError> {
        check_size("customers", self.customers, CUSTOMERS_MAX)?;
        check_size("merchants", self.merchants, MERCHANTS_MAX)?;
        if !(0.0..=1.0).contains(&self.bad) {
            return Err(SettingsError {
                setting: "bad",
                value: self.bad.to_string(),
                allowed: "0 to 1 (0.015 is 1.5 %)".to_owned(),
            });
        }
        check_rate(self.rate)
    }
}

/// The columns of a payment. A topic may leave columns out, but not `id`, and not rename or retype them.
pub fn columns() -> Vec<Column> {
    vec![
        Column::required("id", ColumnType::String),
        Column::required("card_id", ColumnType::String),
        Column::nullable("merchant_id", ColumnType::String),
        Column::required("amount", ColumnType::Decimal { precision: 12, scale: 2 }),
        Column::nullable("currency", ColumnType::String),
        Column::nullable("country", ColumnType::String),
        Column::required("at", ColumnType::Timestamp),
        Column::nullable("fraud", ColumnType::Bool),
        Column::nullable("scenario", ColumnType::Int),
    ]
}

/// [`columns`] as a schema.
pub fn schema() -> Schema {
    // The names are distinct, so this is never empty.
    Schema::new(columns()).unwrap_or_else(|_| unreachable!("the columns of a payment are distinct"))
}

//! One simulated day of payments, in the order in which they arrive.
//!
//! After the book: for each customer a Poisson number of payments; the time normal around noon with a deviation of
//! 20,000 s, dropped where it falls outside the day; the amount normal, drawn again uniformly in 0..2 x mean where it
//! is negative. Then the three frauds: (1) every amount above 220; (2) each day two merchants are compromised, all
//! payments at them in the next 28 days are fraud; (3) each day three customers are compromised, a third of their
//! payments in the next 14 days has five times the amount and is fraud. A later scenario overrides an earlier one.
//!
//! A day depends on (seed, day) only, so that any day can be made without those before it.

use super::population::Population;
use crate::generate::random::Random;

/// Milliseconds of a day.
pub(crate) const DAY_MS: u32 = 86_400_000;
/// How late an event may arrive (ours; the book's events are in order).
const DELAY_MS_MAX: u32 = 5_000;
const NOON_S: f64 = 43_200.0;
const NOON_DEVIATION_S: f64 = 20_000.0;
/// Above this many cents a payment is fraud (scenario 1).
const FRAUD_CENTS: i64 = 22_000;
const MERCHANTS_A_DAY: u32 = 2;
const MERCHANT_DAYS: u64 = 28;
const CUSTOMERS_A_DAY: u32 = 3;
const CUSTOMER_DAYS: u64 = 14;

/// One payment before it has a number.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Draft {
    /// When it arrives, in ms of the day; may lie a little behind midnight.
    arrives_ms: u32,
    /// When it happened, in ms of the day.
    pub(crate) at_ms: u32,
    pub(crate) customer: u32,
    pub(crate) merchant: u32,
    pub(crate) cents: i64,
    /// 0: genuine.
    pub(crate) scenario: u8,
}

/// Who is compromised on one day.
struct Compromised {
    merchants: Vec<u32>,
    customers: Vec<u32>,
}

/// All payments of a day in order of arrival.
pub(crate) fn day(seed: u64, population: &Population, day: u64, out: &mut Vec<Draft>) {
    out.clear();
    let compromised = compromised(seed, population, day);
    let mut random = Random::new(seed, 3, day);
    for (number, customer) in population.customers.iter().enumerate() {
        let number = number as u32;
        let robbed = compromised.customers.binary_search(&number).is_ok();
        for _ in 0..random.poisson(customer.per_day) {
            let seconds = random.normal(NOON_S, NOON_DEVIATION_S);
            let at_ms = (seconds * 1000.0) as i64;
            let mut amount = random.normal(customer.mean, customer.mean / 2.0);
            if amount < 0.0 {
                amount = random.uniform(0.0, customer.mean * 2.0);
            }
            let merchant = population.merchant_for(customer, &mut random);
            let delay = random.below(DELAY_MS_MAX);
            let unlucky = robbed && random.below(3) == 0;
            let Some(at_ms) = u32::try_from(at_ms).ok().filter(|ms| *ms > 0 && *ms < DAY_MS) else { continue };
            // No payment is for nothing: the smallest is one cent (ours).
            let cents = ((amount * 100.0).round() as i64).max(1);
            let mut draft = Draft { arrives_ms: at_ms + delay, at_ms, customer: number, merchant, cents, scenario: 0 };
            if cents > FRAUD_CENTS {
                draft.scenario = 1;
            }
            if compromised.merchants.binary_search(&merchant).is_ok() {
                draft.scenario = 2;
            }
            if unlucky {
                draft.cents *= 5;
                draft.scenario = 3;
            }
            out.push(draft);
        }
    }
    // Stable, so that equal times keep an order that no version of the sort decides.
    out.sort_by_key(|d| d.arrives_ms);
}

fn compromised(seed: u64, population: &Population, day: u64) -> Compromised {
    let drawn = |stream, days: u64, each: u32, of: usize| {
        let mut drawn = Vec::new();
        for day in day.saturating_sub(days - 1)..=day {
            let mut random = Random::new(seed, stream, day);
            drawn.extend((0..each).map(|_| random.below(of as u32)));
        }
        drawn.sort_unstable();
        drawn.dedup();
        drawn
    };
    Compromised {
        merchants: drawn(4, MERCHANT_DAYS, MERCHANTS_A_DAY, population.merchants.len()),
        customers: drawn(5, CUSTOMER_DAYS, CUSTOMERS_A_DAY, population.customers.len()),
    }
}

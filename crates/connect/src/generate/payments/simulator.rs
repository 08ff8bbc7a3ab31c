//! The endless stream of payments: numbered, some of them bad, resumable at any number.

use super::day::{DAY_MS, Draft, day};
use super::population::Population;
use super::{Settings, SettingsError};
use crate::generate::random::mix;

/// Milliseconds from 1970 to the first simulated day are days times this.
const DAY_MILLIS: i64 = DAY_MS as i64;

/// Where the simulation stands: the number of the next event and where it lies in its day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// The number of the next event, from 0.
    pub number: u64,
    /// The simulated day, from 0.
    pub day: u64,
    /// The event's place in the day.
    pub index: u32,
}

/// How an event is bad on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bad {
    /// The amount is negative: a rule must find it.
    NegativeAmount,
    /// The currency is `XXX`: a rule must find it.
    UnknownCurrency,
    /// There is no merchant: a rule must find it.
    NoMerchant,
    /// There is no card: the column may not be null.
    NoCard,
    /// The line breaks off.
    Malformed,
    /// The time is no time.
    BadTime,
    /// The amount is a word.
    BadAmount,
}

impl Bad {
    /// All kinds, in the order of [`Counts::bad`].
    pub const ALL: [Self; 7] = [
        Self::NegativeAmount,
        Self::UnknownCurrency,
        Self::NoMerchant,
        Self::NoCard,
        Self::Malformed,
        Self::BadTime,
        Self::BadAmount,
    ];

    /// Whether the line can be read as an event, so that a rule has to find the fault.
    pub fn readable(self) -> bool {
        matches!(self, Self::NegativeAmount | Self::UnknownCurrency | Self::NoMerchant)
    }

    /// A stable word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NegativeAmount => "negative-amount",
            Self::UnknownCurrency => "unknown-currency",
            Self::NoMerchant => "no-merchant",
            Self::NoCard => "no-card",
            Self::Malformed => "malformed",
            Self::BadTime => "bad-time",
            Self::BadAmount => "bad-amount",
        }
    }
}

/// What was made so far, for checking what came out at the other end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All events.
    pub events: u64,
    /// Bad events by kind, in the order of [`Bad::ALL`].
    pub bad: [u64; 7],
    /// Events by fraud scenario 0 (genuine) to 3, bad ones included.
    pub scenario: [u64; 4],
}

impl Counts {
    /// All bad events.
    pub fn bad_total(&self) -> u64 {
        self.bad.iter().sum()
    }

    /// Bad events of one kind.
    pub fn bad_of(&self, kind: Bad) -> u64 {
        Bad::ALL.iter().zip(self.bad).find(|(k, _)| **k == kind).map_or(0, |(_, n)| n)
    }

    pub(crate) fn add(&mut self, payment: &Payment) {
        self.events += 1;
        let bad = Bad::ALL.iter().position(|k| Some(*k) == payment.bad);
        if let Some(count) = bad.and_then(|b| self.bad.get_mut(b)) {
            *count += 1;
        }
        if let Some(count) = self.scenario.get_mut(usize::from(payment.scenario)) {
            *count += 1;
        }
    }
}

/// One payment. Where [`Payment::bad`] is set, the writer spoils it accordingly; the fields are those of the good
/// event that it would have been, but for a negative amount.
#[derive(Debug, Clone, PartialEq)]
pub struct Payment {
    /// The number in the stream, from 0.
    pub number: u64,
    /// The customer, from 0.
    pub customer: u32,
    /// The merchant, from 0.
    pub merchant: u32,
    /// The amount in cents.
    pub cents: i64,
    /// The merchant's currency.
    pub currency: &'static str,
    /// The merchant's country.
    pub country: &'static str,
    /// The simulated day, from 0.
    pub day: u64,
    /// The time of the day in milliseconds.
    pub at_ms: u32,
    /// The fraud scenario; 0 where genuine.
    pub scenario: u8,
    /// How it is bad on purpose.
    pub bad: Option<Bad>,
}

/// The simulator; see the [module](super). Equal settings give equal payments.
#[derive(Debug)]
pub struct Simulator {
    settings: Settings,
    population: Population,
    place: Place,
    /// The day of `place`, made.
    today: Vec<Draft>,
    /// Below this a mixed number makes a bad event.
    bad_below: u64,
}

impl Simulator {
    /// A simulator at the first event.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        settings.check()?;
        let population = Population::new(&settings);
        let bad_below = (settings.bad * u32::MAX as f64) as u64;
        let mut simulator = Self { settings, population, place: Place::default(), today: Vec::new(), bad_below };
        simulator.make_today();
        Ok(simulator)
    }

    /// Goes to a place that [`Simulator::place`] gave for the same settings; makes at most one day.
    pub fn seek(&mut self, place: Place) {
        self.place = place;
        self.make_today();
    }

    /// Where the next payment comes from.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn population(&self) -> &Population {
        &self.population
    }

    /// Microseconds since 1970 of a payment.
    pub fn micros(&self, payment: &Payment) -> i64 {
        let day = self.settings.start_day() + payment.day as i64;
        (day * DAY_MILLIS + i64::from(payment.at_ms)) * 1000
    }

    fn make_today(&mut self) {
        day(self.settings.seed, &self.population, self.place.day, &mut self.today);
    }

    fn bad(&self, number: u64) -> Option<Bad> {
        let mixed = mix(self.settings.seed ^ mix(number ^ 0xBAD));
        if (mixed & u64::from(u32::MAX)) >= self.bad_below {
            return None;
        }
        let kind = ((mixed >> 32) * Bad::ALL.len() as u64) >> 32;
        Bad::ALL.get(kind as usize).copied()
    }
}

impl Iterator for Simulator {
    type Item = Payment;

    /// The next payment; `None` behind the `count`-th.
    fn next(&mut self) -> Option<Payment> {
        if self.settings.count.is_some_and(|count| self.place.number >= count) {
            return None;
        }
        while self.place.index as usize >= self.today.len() {
            // A population so small that nobody pays on some days still pays on a later one.
            self.place.day += 1;
            self.place.index = 0;
            self.make_today();
        }
        let draft = self.today.get(self.place.index as usize)?;
        let (country, currency) = self.population.country(draft.merchant);
        let bad = self.bad(self.place.number);
        let cents = if bad == Some(Bad::NegativeAmount) { -draft.cents } else { draft.cents };
        let payment = Payment {
            number: self.place.number,
            customer: draft.customer,
            merchant: draft.merchant,
            cents,
            currency: if bad == Some(Bad::UnknownCurrency) { "XXX" } else { currency },
            country,
            day: self.place.day,
            at_ms: draft.at_ms,
            scenario: draft.scenario,
            bad,
        };
        self.place.number += 1;
        self.place.index += 1;
        Some(payment)
    }
}

//! The events of the Nexmark benchmark: persons who sell, their auctions, and the bids on these.
//!
//! Made by the crate `nexmark` with its usual proportions (1 person, 3 auctions and 46 bids of 50 events), sizes and
//! 10,000 events per simulated second, in order of time. A source makes one of the three; sources with one seed make
//! one world, in which bids name auctions and auctions name their sellers. `rate` and `count` are those of all three
//! together, so that three sources with one `count` end at the same moment of the world.
//!
//! The crate draws each event from its id alone, so a seed is a place in its endless world: seed 0 is its beginning.

mod auctions;
mod bids;
mod persons;

use ::nexmark::EventGenerator;
use ::nexmark::config::NexmarkConfig;
use ::nexmark::event::EventType;

use super::numbered::{Identity, Numbered, Place, Stream};
use super::{SettingsError, Supply, days_of};
use crate::event::{Column, ColumnType, Schema};
use crate::service::ConnectError;
use crate::service::log::Position;

/// The largest seed.
pub const SEED_MAX: u64 = 1_000_000;
/// The ids that a seed has to itself; a whole number of rounds of [`ROUND`].
const EVENTS_PER_SEED: u64 = 5_000_000_000;
/// After so many events the kinds repeat.
const ROUND: u64 = 50;

/// Which of the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Who sells and bids.
    Persons,
    /// What is sold.
    Auctions,
    /// What is offered for it.
    Bids,
}

/// What to make.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Rate and count are those of all kinds together.
    pub supply: Supply,
    /// Which of the events.
    pub kind: Kind,
}

impl Settings {
    /// Whether all settings make sense.
    pub fn check(&self) -> Result<(), SettingsError> {
        if self.supply.seed <= SEED_MAX {
            return Ok(());
        }
        let value = self.supply.seed.to_string();
        Err(SettingsError { setting: "seed", value, allowed: format!("0 to {SEED_MAX}") })
    }

    /// The columns of its events.
    pub fn schema(&self) -> Schema {
        let columns = match self.kind {
            Kind::Persons => persons::columns(),
            Kind::Auctions => auctions::columns(),
            Kind::Bids => bids::columns(),
        };
        Schema::new(columns).unwrap_or_else(|_| unreachable!("the columns are distinct"))
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Persons => "nexmark_persons",
            Self::Auctions => "nexmark_auctions",
            Self::Bids => "nexmark_bids",
        }
    }

    fn event_type(self) -> EventType {
        match self {
            Self::Persons => EventType::Person,
            Self::Auctions => EventType::Auction,
            Self::Bids => EventType::Bid,
        }
    }

    /// Where in a round its events are: the first of them and the first behind them.
    fn in_round(self) -> (u64, u64) {
        match self {
            Self::Persons => (0, 1),
            Self::Auctions => (1, 4),
            Self::Bids => (4, ROUND),
        }
    }

    fn has(self, number: u64) -> bool {
        let (first, end) = self.in_round();
        (first..end).contains(&(number % ROUND))
    }

    /// How many of its events come before a number.
    fn before(self, number: u64) -> u64 {
        let (first, end) = self.in_round();
        number / ROUND * (end - first) + (number % ROUND).clamp(first, end) - first
    }
}

/// The world at a position, for a topic.
pub(crate) fn model(settings: &Settings, topic: &Schema, position: Option<Position>) -> Result<Numbered, ConnectError> {
    let (kind, supply) = (settings.kind, &settings.supply);
    let start = days_of(supply.start);
    let world = Identity { kind: kind.name().to_owned(), seed: supply.seed, start, sizes: Vec::new() };
    let number = Place::read(position, &world)?.map_or(0, |place| place.number);
    let generator = generator(kind, supply, number)?;
    let stream: Box<dyn Stream> = match kind {
        Kind::Persons => Box::new(persons::Persons::new(generator)),
        Kind::Auctions => Box::new(auctions::Auctions::new(generator)),
        Kind::Bids => Box::new(bids::Bids::new(generator)),
    };
    Numbered::new(world, settings.schema(), topic, number, stream)
}

fn generator(kind: Kind, supply: &Supply, number: u64) -> Result<EventGenerator, ConnectError> {
    let fault = |_| ConnectError::permanent("`start` may not be before 1970, and `seed` must fit this machine");
    let config = NexmarkConfig {
        base_time: u64::try_from(supply.start_micros() / 1000).map_err(fault)?,
        first_event_id: usize::try_from(supply.seed.saturating_mul(EVENTS_PER_SEED)).map_err(fault)?,
        ..NexmarkConfig::default()
    };
    Ok(EventGenerator::new(config).with_type_filter(kind.event_type()).with_offset(kind.before(number)))
}

/// A column that is never null; all are.
fn column(name: &str, kind: ColumnType) -> Column {
    Column::required(name, kind)
}

/// An id or a price in cents. The crate's are far below the largest.
fn whole(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Microseconds of the crate's milliseconds.
fn micros(millis: u64) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX).saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kinds_part_all_numbers_and_count_those_before() {
        let mut seen = [0; 3];
        for number in 0..500 {
            let kinds = [Kind::Persons, Kind::Auctions, Kind::Bids];
            assert_eq!(kinds.iter().filter(|kind| kind.has(number)).count(), 1);
            for (kind, seen) in kinds.into_iter().zip(&mut seen) {
                assert_eq!(kind.before(number), *seen, "{kind:?} before {number}");
                *seen += u64::from(kind.has(number));
            }
        }
        assert_eq!(seen, [10, 30, 460]);
    }
}

//! A stock exchange, made up: ticks (each trade's price and volume) and the orders of its accounts.
//!
//! A few symbols have most of the ticks. A price is a random walk in steps of 1/10000 with about 0.03 % a tick; orders are
//! filled within 2 % of the symbol's opening price. Simulated time is strictly increasing: 10,000 ticks and 100 orders
//! a second. Ticks and orders of one seed have the same symbols and opening prices.

mod orders;
mod symbols;
mod ticks;

use super::numbered::{Identity, Numbered, Place, Stream};
use super::{SettingsError, Supply, check_size, days_of};
use crate::event::Schema;
use crate::service::ConnectError;
use crate::service::log::Position;

/// The most symbols: a position carries the price of each.
pub const SYMBOLS_MAX: u32 = 200;
/// The most accounts.
pub const ACCOUNTS_MAX: u32 = 1_000_000;

/// Which of the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Prices and volumes of trades.
    Ticks,
    /// Filled orders of accounts.
    Orders,
}

/// What to make.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How much, how fast, which one, from when.
    pub supply: Supply,
    /// Which of the events.
    pub kind: Kind,
    /// How many symbols, 1 to [`SYMBOLS_MAX`].
    pub symbols: u32,
    /// How many accounts, 1 to [`ACCOUNTS_MAX`]; ticks have none.
    pub accounts: u32,
}

impl Settings {
    /// 50 symbols and 100 accounts.
    pub fn new(kind: Kind, supply: Supply) -> Self {
        Self { supply, kind, symbols: 50, accounts: 100 }
    }

    /// Whether all settings make sense.
    pub fn check(&self) -> Result<(), SettingsError> {
        check_size("symbols", self.symbols, SYMBOLS_MAX)?;
        check_size("accounts", self.accounts, ACCOUNTS_MAX)
    }

    /// The columns of its events.
    pub fn schema(&self) -> Schema {
        let columns = match self.kind {
            Kind::Ticks => ticks::columns(),
            Kind::Orders => orders::columns(),
        };
        Schema::new(columns).unwrap_or_else(|_| unreachable!("the columns are distinct"))
    }
}

/// The world at a position, for a topic.
pub(crate) fn model(settings: &Settings, topic: &Schema, position: Option<Position>) -> Result<Numbered, ConnectError> {
    let (supply, symbols) = (&settings.supply, ("symbols".to_owned(), settings.symbols));
    let (kind, sizes) = match settings.kind {
        Kind::Ticks => ("ticks", vec![symbols]),
        Kind::Orders => ("orders", vec![symbols, ("accounts".to_owned(), settings.accounts)]),
    };
    let world = Identity { kind: kind.to_owned(), seed: supply.seed, start: days_of(supply.start), sizes };
    let place = Place::read(position, &world)?;
    let number = place.as_ref().map_or(0, |place| place.number);
    let stream: Box<dyn Stream> = match settings.kind {
        Kind::Ticks => Box::new(ticks::Ticks::new(settings, place.map(|place| place.carried))),
        Kind::Orders => Box::new(orders::Orders::new(settings)),
    };
    Numbered::new(world, settings.schema(), topic, number, stream)
}

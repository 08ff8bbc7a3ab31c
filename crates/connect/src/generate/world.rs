//! The worlds, and what a source needs to know of each.

use super::model::Model;
use super::{SettingsError, check_rate, inventory, market, nexmark, payments};
use crate::event::Schema;
use crate::service::ConnectError;
use crate::service::log::Position;

/// What is made up.
#[derive(Debug, Clone, PartialEq)]
pub enum World {
    /// Card payments with labelled fraud.
    Payments(payments::Settings),
    /// Persons, auctions or bids of the Nexmark benchmark.
    Nexmark(nexmark::Settings),
    /// Ticks or orders of a stock exchange.
    Market(market::Settings),
    /// Movements of stock.
    Inventory(inventory::Settings),
}

impl World {
    /// Whether all settings make sense.
    pub fn check(&self) -> Result<(), SettingsError> {
        check_rate(self.rate())?;
        match self {
            Self::Payments(settings) => settings.check(),
            Self::Nexmark(settings) => settings.check(),
            Self::Market(settings) => settings.check(),
            Self::Inventory(settings) => settings.check(),
        }
    }

    /// The columns of its events. A topic may leave some out, but not rename or retype them.
    pub fn schema(&self) -> Schema {
        match self {
            Self::Payments(_) => payments::schema(),
            Self::Nexmark(settings) => settings.schema(),
            Self::Market(settings) => settings.schema(),
            Self::Inventory(_) => inventory::schema(),
        }
    }

    /// Events per second; `None`: as fast as they are taken.
    pub fn rate(&self) -> Option<f64> {
        match self {
            Self::Payments(settings) => settings.rate,
            Self::Nexmark(settings) => settings.supply.rate,
            Self::Market(settings) => settings.supply.rate,
            Self::Inventory(settings) => settings.supply.rate,
        }
    }

    /// How many events there are; `None`: without end.
    pub fn count(&self) -> Option<u64> {
        match self {
            Self::Payments(settings) => settings.count,
            Self::Nexmark(settings) => settings.supply.count,
            Self::Market(settings) => settings.supply.count,
            Self::Inventory(settings) => settings.supply.count,
        }
    }

    /// The world at a position, for a topic. Takes up to about a second for a large one.
    pub(crate) fn model(&self, topic: &Schema, position: Option<Position>) -> Result<Box<dyn Model>, ConnectError> {
        match self {
            Self::Payments(settings) => Ok(Box::new(payments::Payments::new(settings, topic, position)?)),
            Self::Nexmark(settings) => Ok(Box::new(nexmark::model(settings, topic, position)?)),
            Self::Market(settings) => Ok(Box::new(market::model(settings, topic, position)?)),
            Self::Inventory(settings) => Ok(Box::new(inventory::model(settings, topic, position)?)),
        }
    }
}

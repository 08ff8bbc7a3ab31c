//! Movements of stock from several sales channels, made up: receipts of goods, sales, reservations with an expiry and what
//! becomes of them, returns, adjustments after counting.
//!
//! A movement is a *request*: that it can be granted is for the pipeline to decide. So there are sales of what is not in
//! stock, and confirmations of reservations that were refused, are confirmed already or have expired. Each reservation is
//! followed by an `expire` when its time is over, whatever became of it. A few SKUs have most of the movements.
//!
//! Simulated time is strictly increasing: 200 movements a second. A reservation is held for 100 s.

mod movements;
mod script;

use super::numbered::{Identity, Numbered, Place};
use super::{SettingsError, Supply, check_size, days_of};
use crate::event::{Column, ColumnType, Schema};
use crate::service::ConnectError;
use crate::service::log::Position;

pub use script::{Action, Movement, Script};

/// The most SKUs.
pub const SKUS_MAX: u32 = 10_000_000;
/// The most warehouses.
pub const WAREHOUSES_MAX: u32 = 100;

/// What to make.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How much, how fast, which one, from when.
    pub supply: Supply,
    /// How many SKUs, 1 to [`SKUS_MAX`].
    pub skus: u32,
    /// How many warehouses, 1 to [`WAREHOUSES_MAX`].
    pub warehouses: u32,
}

impl Settings {
    /// 1,000 SKUs in 4 warehouses.
    pub fn new(supply: Supply) -> Self {
        Self { supply, skus: 1000, warehouses: 4 }
    }

    /// Whether all settings make sense.
    pub fn check(&self) -> Result<(), SettingsError> {
        check_size("skus", self.skus, SKUS_MAX)?;
        check_size("warehouses", self.warehouses, WAREHOUSES_MAX)
    }
}

/// The columns of a movement. `reservation_id` and `expires_at` are null where there is none.
pub fn columns() -> Vec<Column> {
    vec![
        Column::required("movement_id", ColumnType::String),
        Column::required("kind", ColumnType::String),
        Column::required("sku", ColumnType::String),
        Column::required("warehouse", ColumnType::String),
        Column::required("quantity", ColumnType::BigInt),
        Column::nullable("reservation_id", ColumnType::String),
        Column::nullable("expires_at", ColumnType::Timestamp),
        Column::required("channel", ColumnType::String),
        Column::required("at", ColumnType::Timestamp),
    ]
}

/// [`columns`] as a schema.
pub fn schema() -> Schema {
    Schema::new(columns()).unwrap_or_else(|_| unreachable!("the columns are distinct"))
}

/// The world at a position, for a topic.
pub(crate) fn model(settings: &Settings, topic: &Schema, position: Option<Position>) -> Result<Numbered, ConnectError> {
    let supply = &settings.supply;
    let sizes = vec![("skus".to_owned(), settings.skus), ("warehouses".to_owned(), settings.warehouses)];
    let world = Identity { kind: "inventory".to_owned(), seed: supply.seed, start: days_of(supply.start), sizes };
    let number = Place::read(position, &world)?.map_or(0, |place| place.number);
    Numbered::new(world, schema(), topic, number, Box::new(movements::Movements::new(settings)))
}

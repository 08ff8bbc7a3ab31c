//! Orders as columns.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{Decimal128Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder};
use arrow_schema::DataType;

use super::Settings;
use super::symbols::{PRECISION, SCALE, draw, names, openings};
use crate::event::{Column, ColumnType};
use crate::generate::digits::Ids;
use crate::generate::numbered::Stream;
use crate::generate::random::Random;

/// Simulated microseconds from order to order.
const STEP_MICROS: u64 = 10_000;
/// How far from the opening price an order is filled.
const SPREAD: f64 = 0.02;
/// Quantities are whole lots.
const LOT: i64 = 10;
/// The most lots of an order.
const LOTS_MAX: u32 = 100;

/// The columns of an order that was filled.
pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::required("id", ColumnType::String),
        Column::required("account", ColumnType::String),
        Column::required("symbol", ColumnType::String),
        Column::required("side", ColumnType::String),
        Column::required("quantity", ColumnType::BigInt),
        Column::required("price", ColumnType::Decimal { precision: PRECISION, scale: SCALE }),
        Column::required("at", ColumnType::Timestamp),
    ]
}

/// All orders.
pub(super) struct Orders {
    seed: u64,
    start: i64,
    accounts: u32,
    names: Vec<String>,
    openings: Vec<i64>,
    id: Ids,
    account: Ids,
    symbol: StringBuilder,
    side: StringBuilder,
    quantity: Int64Builder,
    price: Decimal128Builder,
    at: TimestampMicrosecondBuilder,
}

impl Orders {
    pub(super) fn new(settings: &Settings) -> Self {
        let (seed, symbols) = (settings.supply.seed, settings.symbols);
        Self {
            seed,
            start: settings.supply.start_micros(),
            accounts: settings.accounts,
            names: names(symbols),
            openings: openings(seed, symbols),
            id: Ids::new(b'O', 9),
            account: Ids::new(b'A', 4),
            symbol: StringBuilder::new(),
            side: StringBuilder::new(),
            quantity: Int64Builder::new(),
            price: Decimal128Builder::new().with_data_type(DataType::Decimal128(PRECISION, SCALE as i8)),
            at: TimestampMicrosecondBuilder::new(),
        }
    }
}

impl Stream for Orders {
    fn push(&mut self, number: u64) {
        let mut random = Random::new(self.seed, 22, number);
        let symbol = draw(&mut random, self.names.len() as u32);
        let (Some(name), Some(opening)) = (self.names.get(symbol), self.openings.get(symbol)) else { return };
        let account = random.below(self.accounts);
        let side = if random.below(2) == 0 { "buy" } else { "sell" };
        let quantity = LOT * i64::from(1 + random.below(LOTS_MAX));
        let price = (*opening as f64 * random.uniform(1.0 - SPREAD, 1.0 + SPREAD)).round() as i64;
        let jitter = u64::from(random.below(STEP_MICROS as u32));
        self.id.push(number);
        self.account.push(u64::from(account));
        self.symbol.append_value(name);
        self.side.append_value(side);
        self.quantity.append_value(quantity);
        self.price.append_value(i128::from(price));
        self.at.append_value(self.start + (number * STEP_MICROS + jitter) as i64);
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.id.finish()),
            Arc::new(self.account.finish()),
            Arc::new(self.symbol.finish()),
            Arc::new(self.side.finish()),
            Arc::new(self.quantity.finish()),
            Arc::new(self.price.finish()),
            Arc::new(self.at.finish().with_timezone("+00:00")),
        ]
    }
}

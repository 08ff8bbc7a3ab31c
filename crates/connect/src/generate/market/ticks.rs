//! Ticks as columns.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{Decimal128Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder};
use arrow_schema::DataType;

use super::Settings;
use super::symbols::{PRECISION, SCALE, UNIT, draw, names, openings};
use crate::event::{Column, ColumnType};
use crate::generate::numbered::Stream;
use crate::generate::random::Random;

/// Simulated microseconds from tick to tick.
const STEP_MICROS: u64 = 100;
/// The deviation of a step of the price, as a share of it.
const DEVIATION: f64 = 0.0003;
/// Prices stay within these.
const PRICES: std::ops::RangeInclusive<i64> = UNIT..=9_999 * UNIT;
/// The mean volume of a tick.
const VOLUME_MEAN: f64 = 200.0;

/// The columns of a tick. Ids are in the order of time.
pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::required("id", ColumnType::BigInt),
        Column::required("symbol", ColumnType::String),
        Column::required("price", ColumnType::Decimal { precision: PRECISION, scale: SCALE }),
        Column::required("volume", ColumnType::BigInt),
        Column::required("at", ColumnType::Timestamp),
    ]
}

/// All ticks, with the price of each symbol carried on.
pub(super) struct Ticks {
    seed: u64,
    start: i64,
    names: Vec<String>,
    prices: Vec<i64>,
    id: Int64Builder,
    symbol: StringBuilder,
    price: Decimal128Builder,
    volume: Int64Builder,
    at: TimestampMicrosecondBuilder,
}

impl Ticks {
    /// From the place on at which these were the prices; `None`: from the opening.
    pub(super) fn new(settings: &Settings, prices: Option<Vec<i64>>) -> Self {
        let (seed, symbols) = (settings.supply.seed, settings.symbols);
        Self {
            seed,
            start: settings.supply.start_micros(),
            names: names(symbols),
            prices: prices.unwrap_or_else(|| openings(seed, symbols)),
            id: Int64Builder::new(),
            symbol: StringBuilder::new(),
            price: Decimal128Builder::new().with_data_type(DataType::Decimal128(PRECISION, SCALE as i8)),
            volume: Int64Builder::new(),
            at: TimestampMicrosecondBuilder::new(),
        }
    }
}

impl Stream for Ticks {
    fn push(&mut self, number: u64) {
        let mut random = Random::new(self.seed, 21, number);
        let symbol = draw(&mut random, self.names.len() as u32);
        let (Some(name), Some(price)) = (self.names.get(symbol), self.prices.get_mut(symbol)) else { return };
        let step = random.normal(0.0, *price as f64 * DEVIATION);
        *price = (*price + step.round() as i64).clamp(*PRICES.start(), *PRICES.end());
        let volume = 1 + (-(1.0 - random.unit()).ln() * VOLUME_MEAN) as i64;
        let jitter = u64::from(random.below(STEP_MICROS as u32));
        self.id.append_value(number as i64);
        self.symbol.append_value(name);
        self.price.append_value(i128::from(*price));
        self.volume.append_value(volume);
        self.at.append_value(self.start + (number * STEP_MICROS + jitter) as i64);
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.id.finish()),
            Arc::new(self.symbol.finish()),
            Arc::new(self.price.finish()),
            Arc::new(self.volume.finish()),
            Arc::new(self.at.finish().with_timezone("+00:00")),
        ]
    }

    fn carried(&self) -> Vec<i64> {
        self.prices.clone()
    }
}

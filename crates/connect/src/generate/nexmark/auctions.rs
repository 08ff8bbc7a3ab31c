//! Auctions as columns.

use std::sync::Arc;

use ::nexmark::EventGenerator;
use ::nexmark::event::Event;
use arrow_array::ArrayRef;
use arrow_array::builder::{Int64Builder, StringBuilder, TimestampMicrosecondBuilder};

use super::{Kind, column, micros, whole};
use crate::event::{Column, ColumnType};
use crate::generate::numbered::Stream;

/// The columns of an auction; prices are in cents.
pub(super) fn columns() -> Vec<Column> {
    vec![
        column("id", ColumnType::BigInt),
        column("item_name", ColumnType::String),
        column("description", ColumnType::String),
        column("initial_bid", ColumnType::BigInt),
        column("reserve", ColumnType::BigInt),
        column("at", ColumnType::Timestamp),
        column("expires", ColumnType::Timestamp),
        column("seller", ColumnType::BigInt),
        column("category", ColumnType::BigInt),
        column("extra", ColumnType::String),
    ]
}

/// All auctions from the generator's place on.
pub(super) struct Auctions {
    generator: EventGenerator,
    id: Int64Builder,
    item_name: StringBuilder,
    description: StringBuilder,
    initial_bid: Int64Builder,
    reserve: Int64Builder,
    at: TimestampMicrosecondBuilder,
    expires: TimestampMicrosecondBuilder,
    seller: Int64Builder,
    category: Int64Builder,
    extra: StringBuilder,
}

impl Auctions {
    pub(super) fn new(generator: EventGenerator) -> Self {
        Self {
            generator,
            id: Int64Builder::new(),
            item_name: StringBuilder::new(),
            description: StringBuilder::new(),
            initial_bid: Int64Builder::new(),
            reserve: Int64Builder::new(),
            at: TimestampMicrosecondBuilder::new(),
            expires: TimestampMicrosecondBuilder::new(),
            seller: Int64Builder::new(),
            category: Int64Builder::new(),
            extra: StringBuilder::new(),
        }
    }
}

impl Stream for Auctions {
    fn push(&mut self, number: u64) {
        if !Kind::Auctions.has(number) {
            return;
        }
        if let Some(Event::Auction(auction)) = self.generator.next() {
            self.id.append_value(whole(auction.id));
            self.item_name.append_value(&auction.item_name);
            self.description.append_value(&auction.description);
            self.initial_bid.append_value(whole(auction.initial_bid));
            self.reserve.append_value(whole(auction.reserve));
            self.at.append_value(micros(auction.date_time));
            self.expires.append_value(micros(auction.expires));
            self.seller.append_value(whole(auction.seller));
            self.category.append_value(whole(auction.category));
            self.extra.append_value(&auction.extra);
        }
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.id.finish()),
            Arc::new(self.item_name.finish()),
            Arc::new(self.description.finish()),
            Arc::new(self.initial_bid.finish()),
            Arc::new(self.reserve.finish()),
            Arc::new(self.at.finish().with_timezone("+00:00")),
            Arc::new(self.expires.finish().with_timezone("+00:00")),
            Arc::new(self.seller.finish()),
            Arc::new(self.category.finish()),
            Arc::new(self.extra.finish()),
        ]
    }

    /// Three of fifty.
    fn stride(&self) -> u64 {
        16
    }
}

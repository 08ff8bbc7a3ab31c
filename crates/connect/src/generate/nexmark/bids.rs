//! Bids as columns.

use std::sync::Arc;

use ::nexmark::EventGenerator;
use ::nexmark::event::Event;
use arrow_array::ArrayRef;
use arrow_array::builder::{Int64Builder, StringBuilder, TimestampMicrosecondBuilder};

use super::{Kind, column, micros, whole};
use crate::event::{Column, ColumnType};
use crate::generate::numbered::Stream;

/// The columns of a bid; the price is in cents.
pub(super) fn columns() -> Vec<Column> {
    vec![
        column("auction", ColumnType::BigInt),
        column("bidder", ColumnType::BigInt),
        column("price", ColumnType::BigInt),
        column("channel", ColumnType::String),
        column("url", ColumnType::String),
        column("at", ColumnType::Timestamp),
        column("extra", ColumnType::String),
    ]
}

/// All bids from the generator's place on.
pub(super) struct Bids {
    generator: EventGenerator,
    auction: Int64Builder,
    bidder: Int64Builder,
    price: Int64Builder,
    channel: StringBuilder,
    url: StringBuilder,
    at: TimestampMicrosecondBuilder,
    extra: StringBuilder,
}

impl Bids {
    pub(super) fn new(generator: EventGenerator) -> Self {
        Self {
            generator,
            auction: Int64Builder::new(),
            bidder: Int64Builder::new(),
            price: Int64Builder::new(),
            channel: StringBuilder::new(),
            url: StringBuilder::new(),
            at: TimestampMicrosecondBuilder::new(),
            extra: StringBuilder::new(),
        }
    }
}

impl Stream for Bids {
    fn push(&mut self, number: u64) {
        if !Kind::Bids.has(number) {
            return;
        }
        if let Some(Event::Bid(bid)) = self.generator.next() {
            self.auction.append_value(whole(bid.auction));
            self.bidder.append_value(whole(bid.bidder));
            self.price.append_value(whole(bid.price));
            self.channel.append_value(&bid.channel);
            self.url.append_value(&bid.url);
            self.at.append_value(micros(bid.date_time));
            self.extra.append_value(&bid.extra);
        }
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.auction.finish()),
            Arc::new(self.bidder.finish()),
            Arc::new(self.price.finish()),
            Arc::new(self.channel.finish()),
            Arc::new(self.url.finish()),
            Arc::new(self.at.finish().with_timezone("+00:00")),
            Arc::new(self.extra.finish()),
        ]
    }
}

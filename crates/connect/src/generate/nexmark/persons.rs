//! Persons as columns.

use std::sync::Arc;

use ::nexmark::EventGenerator;
use ::nexmark::event::Event;
use arrow_array::ArrayRef;
use arrow_array::builder::{Int64Builder, StringBuilder, TimestampMicrosecondBuilder};

use super::{Kind, ROUND, column, micros, whole};
use crate::event::{Column, ColumnType};
use crate::generate::numbered::Stream;

/// The columns of a person.
pub(super) fn columns() -> Vec<Column> {
    vec![
        column("id", ColumnType::BigInt),
        column("name", ColumnType::String),
        column("email_address", ColumnType::String),
        column("credit_card", ColumnType::String),
        column("city", ColumnType::String),
        column("state", ColumnType::String),
        column("at", ColumnType::Timestamp),
        column("extra", ColumnType::String),
    ]
}

/// All persons from the generator's place on.
pub(super) struct Persons {
    generator: EventGenerator,
    id: Int64Builder,
    name: StringBuilder,
    email_address: StringBuilder,
    credit_card: StringBuilder,
    city: StringBuilder,
    state: StringBuilder,
    at: TimestampMicrosecondBuilder,
    extra: StringBuilder,
}

impl Persons {
    pub(super) fn new(generator: EventGenerator) -> Self {
        Self {
            generator,
            id: Int64Builder::new(),
            name: StringBuilder::new(),
            email_address: StringBuilder::new(),
            credit_card: StringBuilder::new(),
            city: StringBuilder::new(),
            state: StringBuilder::new(),
            at: TimestampMicrosecondBuilder::new(),
            extra: StringBuilder::new(),
        }
    }
}

impl Stream for Persons {
    fn push(&mut self, number: u64) {
        if !Kind::Persons.has(number) {
            return;
        }
        if let Some(Event::Person(person)) = self.generator.next() {
            self.id.append_value(whole(person.id));
            self.name.append_value(&person.name);
            self.email_address.append_value(&person.email_address);
            self.credit_card.append_value(&person.credit_card);
            self.city.append_value(&person.city);
            self.state.append_value(&person.state);
            self.at.append_value(micros(person.date_time));
            self.extra.append_value(&person.extra);
        }
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.id.finish()),
            Arc::new(self.name.finish()),
            Arc::new(self.email_address.finish()),
            Arc::new(self.credit_card.finish()),
            Arc::new(self.city.finish()),
            Arc::new(self.state.finish()),
            Arc::new(self.at.finish().with_timezone("+00:00")),
            Arc::new(self.extra.finish()),
        ]
    }

    fn stride(&self) -> u64 {
        ROUND
    }
}

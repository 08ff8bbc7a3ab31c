//! Payments as columns, without the way through text.

use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Int32Builder, PrimitiveBuilder, StringBuilder};
use arrow_array::types::{Decimal128Type, TimestampMicrosecondType};
use arrow_array::{ArrayRef, RecordBatch};

use super::simulator::{Bad, Payment};
use crate::event::Schema;
use crate::generate::digits::Ids;
use crate::generate::fit::Fit;
use crate::service::ConnectError;

/// Gathers payments with the columns of a topic.
#[derive(Debug)]
pub(crate) struct Rows {
    fit: Fit,
    id: Ids,
    card: Ids,
    merchant: Ids,
    amount: PrimitiveBuilder<Decimal128Type>,
    currency: StringBuilder,
    country: StringBuilder,
    at: PrimitiveBuilder<TimestampMicrosecondType>,
    fraud: BooleanBuilder,
    scenario: Int32Builder,
}

impl Rows {
    /// Checks that every column of the topic is one of a payment, or may be null.
    pub(crate) fn new(topic: &Schema) -> Result<Self, ConnectError> {
        Ok(Self {
            fit: Fit::new(topic, super::schema())?,
            id: Ids::new(b'T', 9),
            card: Ids::new(b'C', 5),
            merchant: Ids::new(b'M', 5),
            amount: PrimitiveBuilder::new(),
            currency: StringBuilder::new(),
            country: StringBuilder::new(),
            at: PrimitiveBuilder::new(),
            fraud: BooleanBuilder::new(),
            scenario: Int32Builder::new(),
        })
    }

    /// Adds a payment that can be read.
    pub(crate) fn push(&mut self, payment: &Payment, micros: i64) {
        self.id.push(payment.number);
        self.card.push(u64::from(payment.customer));
        match payment.bad {
            Some(Bad::NoMerchant) => self.merchant.push_null(),
            _ => self.merchant.push(u64::from(payment.merchant)),
        }
        self.amount.append_value(i128::from(payment.cents));
        self.currency.append_value(payment.currency);
        self.country.append_value(payment.country);
        self.at.append_value(micros);
        self.fraud.append_value(payment.scenario != 0);
        self.scenario.append_value(i32::from(payment.scenario));
    }

    /// The rows added so far, with the topic's columns in the topic's order.
    pub(crate) fn finish(&mut self) -> Result<RecordBatch, ConnectError> {
        let fault = |e: &dyn std::fmt::Display| ConnectError::permanent(format!("making payments: {e}"));
        let amount = self.amount.finish().with_precision_and_scale(12, 2).map_err(|e| fault(&e))?;
        let made: [ArrayRef; 9] = [
            Arc::new(self.id.finish()),
            Arc::new(self.card.finish()),
            Arc::new(self.merchant.finish()),
            Arc::new(amount),
            Arc::new(self.currency.finish()),
            Arc::new(self.country.finish()),
            Arc::new(self.at.finish().with_timezone("+00:00")),
            Arc::new(self.fraud.finish()),
            Arc::new(self.scenario.finish()),
        ];
        self.fit.rows(made.to_vec())
    }
}

//! Payments as columns, without the way through text.

use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Int32Builder, PrimitiveBuilder, StringBuilder};
use arrow_array::types::{Decimal128Type, TimestampMicrosecondType};
use arrow_array::{ArrayRef, RecordBatch};

use super::columns;
use super::simulator::{Bad, Payment};
use super::write::number;
use crate::event::Schema;
use crate::service::ConnectError;

/// Gathers payments with the columns of a topic.
#[derive(Debug)]
pub(crate) struct Rows {
    schema: Schema,
    id: StringBuilder,
    card: StringBuilder,
    merchant: StringBuilder,
    amount: PrimitiveBuilder<Decimal128Type>,
    currency: StringBuilder,
    country: StringBuilder,
    at: PrimitiveBuilder<TimestampMicrosecondType>,
    fraud: BooleanBuilder,
    scenario: Int32Builder,
    text: Vec<u8>,
}

impl Rows {
    /// Checks that every column of the topic is one of a payment, or may be null.
    pub(crate) fn new(schema: &Schema) -> Result<Self, ConnectError> {
        for column in schema.columns() {
            let made = columns().into_iter().find(|c| c.name == column.name);
            let fault = match made {
                Some(made) if made.kind != column.kind => format!("is {} there and {} here", made.kind, column.kind),
                Some(made) if made.nullable && !column.nullable => "may be null there and not here".to_owned(),
                None if !column.nullable => "is not made by it and may not be null".to_owned(),
                _ => continue,
            };
            return Err(ConnectError::permanent(format!(
                "the topic does not fit what `generate` makes: column `{}` {fault}; it makes: {}",
                column.name,
                super::schema()
            )));
        }
        Ok(Self {
            schema: schema.clone(),
            id: StringBuilder::new(),
            card: StringBuilder::new(),
            merchant: StringBuilder::new(),
            amount: PrimitiveBuilder::new(),
            currency: StringBuilder::new(),
            country: StringBuilder::new(),
            at: PrimitiveBuilder::new(),
            fraud: BooleanBuilder::new(),
            scenario: Int32Builder::new(),
            text: Vec::new(),
        })
    }

    /// Adds a payment that can be read.
    pub(crate) fn push(&mut self, payment: &Payment, micros: i64) {
        text(&mut self.text, &mut self.id, b'T', payment.number, 9);
        text(&mut self.text, &mut self.card, b'C', u64::from(payment.customer), 5);
        match payment.bad {
            Some(Bad::NoMerchant) => self.merchant.append_null(),
            _ => text(&mut self.text, &mut self.merchant, b'M', u64::from(payment.merchant), 5),
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
        let at = self.at.finish().with_timezone("+00:00");
        let made: [ArrayRef; 9] = [
            Arc::new(self.id.finish()),
            Arc::new(self.card.finish()),
            Arc::new(self.merchant.finish()),
            Arc::new(amount),
            Arc::new(self.currency.finish()),
            Arc::new(self.country.finish()),
            Arc::new(at),
            Arc::new(self.fraud.finish()),
            Arc::new(self.scenario.finish()),
        ];
        let all = RecordBatch::try_new(super::schema().arrow().clone(), made.to_vec()).map_err(|e| fault(&e))?;
        self.schema.conform(&all).map_err(|e| fault(&e))
    }
}

fn text(buffer: &mut Vec<u8>, column: &mut StringBuilder, letter: u8, value: u64, width: usize) {
    buffer.clear();
    number(letter, value, width, buffer);
    // A letter and digits are always UTF-8.
    column.append_value(std::str::from_utf8(buffer).unwrap_or_default());
}

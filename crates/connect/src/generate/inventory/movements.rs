//! Movements as columns.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{Int64Builder, StringBuilder, TimestampMicrosecondBuilder};

use super::Settings;
use super::script::{Action, HOLD, Script};
use crate::generate::digits::Ids;
use crate::generate::numbered::Stream;
use crate::generate::random::Random;

/// Simulated microseconds from movement to movement.
const STEP_MICROS: u64 = 5_000;
/// Where movements come from.
const CHANNELS: [&str; 4] = ["web", "app", "store", "marketplace"];

/// All movements.
pub(super) struct Movements {
    seed: u64,
    start: i64,
    script: Script,
    movement: Ids,
    kind: StringBuilder,
    sku: Ids,
    warehouse: Ids,
    quantity: Int64Builder,
    reservation: Ids,
    expires: TimestampMicrosecondBuilder,
    channel: StringBuilder,
    at: TimestampMicrosecondBuilder,
}

impl Movements {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            seed: settings.supply.seed,
            start: settings.supply.start_micros(),
            script: Script::new(settings),
            movement: Ids::new(b'M', 9),
            kind: StringBuilder::new(),
            sku: Ids::new(b'S', 5),
            warehouse: Ids::new(b'W', 2),
            quantity: Int64Builder::new(),
            reservation: Ids::new(b'R', 9),
            expires: TimestampMicrosecondBuilder::new(),
            channel: StringBuilder::new(),
            at: TimestampMicrosecondBuilder::new(),
        }
    }

    /// When a movement is made, but for a jitter of less than a step.
    fn micros(&self, number: u64) -> i64 {
        self.start + (number * STEP_MICROS) as i64
    }
}

impl Stream for Movements {
    fn push(&mut self, number: u64) {
        let movement = self.script.movement(number);
        let mut random = Random::new(self.seed, 32, number);
        let channel = CHANNELS.get(random.below(CHANNELS.len() as u32) as usize).copied().unwrap_or("web");
        let jitter = i64::from(random.below(STEP_MICROS as u32));
        self.movement.push(number);
        self.kind.append_value(movement.action.name());
        self.sku.push(u64::from(movement.sku));
        self.warehouse.push(u64::from(movement.warehouse));
        self.quantity.append_value(movement.quantity);
        match movement.reservation {
            Some(reservation) => self.reservation.push(reservation),
            None => self.reservation.push_null(),
        }
        // The movement that expires it comes right then, not before.
        let expires = (movement.action == Action::Reserve).then(|| self.micros(number + HOLD));
        self.expires.append_option(expires);
        self.channel.append_value(channel);
        self.at.append_value(self.micros(number) + jitter);
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.movement.finish()),
            Arc::new(self.kind.finish()),
            Arc::new(self.sku.finish()),
            Arc::new(self.warehouse.finish()),
            Arc::new(self.quantity.finish()),
            Arc::new(self.reservation.finish()),
            Arc::new(self.expires.finish().with_timezone("+00:00")),
            Arc::new(self.channel.finish()),
            Arc::new(self.at.finish().with_timezone("+00:00")),
        ]
    }
}

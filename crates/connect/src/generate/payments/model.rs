//! The payments as a model: good ones as columns, unreadable ones as what the decoder says to their line.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::rows::Rows;
use super::simulator::{Place, Simulator};
use super::write::Lines;
use super::{Settings, SettingsError};
use crate::decode::{Decode, refused_event};
use crate::event::{Schema, Unknown};
use crate::generate::model::{Made, Model};
use crate::service::log::Position;
use crate::service::{ConnectError, RefusedEvent};

/// The version of the position's form.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Stored {
    v: u32,
    /// The seed and the sizes, because a place means nothing in another world.
    seed: u64,
    customers: u32,
    merchants: u32,
    number: u64,
    day: u64,
    index: u32,
}

/// The simulator as a source needs it.
pub(crate) struct Payments {
    simulator: Simulator,
    rows: Rows,
    decode: Decode,
    lines: Lines,
}

impl Payments {
    /// The payments from a position on, for a topic.
    pub(crate) fn new(settings: &Settings, topic: &Schema, position: Option<Position>) -> Result<Self, ConnectError> {
        let place = place(settings, position)?;
        let fault = |e: SettingsError| ConnectError::permanent(e.to_string());
        let mut simulator = Simulator::new(settings.clone()).map_err(fault)?;
        simulator.seek(place);
        Ok(Self {
            simulator,
            rows: Rows::new(topic)?,
            decode: Decode::ndjson(topic, Unknown::Drop),
            lines: Lines::default(),
        })
    }

    /// The line goes through the decoder, so that a made fault reads as the same fault would from outside.
    fn refuse(&mut self, line: &[u8], number: u64) -> Result<RefusedEvent, ConnectError> {
        let place = format!("generate:{number}");
        let decoded = self.decode.decode(line, true)?;
        Ok(match decoded.refused.into_iter().next() {
            Some(refused) => refused_event(line, refused.code.as_str(), refused.reason, place),
            // The topic leaves out the column that is bad.
            None => refused_event(line, "generated", "bad on purpose".to_owned(), place),
        })
    }
}

fn place(settings: &Settings, position: Option<Position>) -> Result<Place, ConnectError> {
    let Some(position) = position else { return Ok(Place::default()) };
    let fault = || ConnectError::permanent("the position is not one of a generator");
    let Position::Opaque(bytes) = position else { return Err(fault()) };
    let then: Stored = serde_json::from_slice(&bytes).map_err(|_| fault())?;
    if then.v != VERSION {
        return Err(ConnectError::permanent("the position was written by a newer version of millstream"));
    }
    if (settings.seed, settings.customers, settings.merchants) != (then.seed, then.customers, then.merchants) {
        return Err(ConnectError::permanent(format!(
            "seed, customers and merchants were {}, {} and {} when the events so far were made; set them so again, or \
             start with a fresh log",
            then.seed, then.customers, then.merchants
        )));
    }
    Ok(Place { number: then.number, day: then.day, index: then.index })
}

impl Model for Payments {
    fn number(&self) -> u64 {
        self.simulator.place().number
    }

    fn make(&mut self, numbers: u64) -> Result<Made, ConnectError> {
        let mut refused = Vec::new();
        for _ in 0..numbers {
            let Some(payment) = self.simulator.next() else { break };
            if payment.bad.is_none_or(|bad| bad.readable()) {
                let micros = self.simulator.micros(&payment);
                self.rows.push(&payment, micros);
            } else {
                let mut line = Vec::new();
                self.lines.write(&payment, self.simulator.settings().start, &mut line);
                refused.push(self.refuse(line.trim_ascii_end(), payment.number)?);
            }
        }
        Ok(Made { rows: self.rows.finish()?, refused })
    }

    fn position(&self) -> Result<Position, ConnectError> {
        let (settings, place) = (self.simulator.settings(), self.simulator.place());
        let stored = Stored {
            v: VERSION,
            seed: settings.seed,
            customers: settings.customers,
            merchants: settings.merchants,
            number: place.number,
            day: place.day,
            index: place.index,
        };
        let bytes = serde_json::to_vec(&stored)
            .map_err(|e| ConnectError::permanent(format!("the position cannot be written: {e}")))?;
        Ok(Position::Opaque(Bytes::from(bytes)))
    }
}

//! The `generate` source: the simulator as a source with an exact position.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::rows::Rows;
use super::simulator::{Place, Simulator};
use super::write::Lines;
use super::{Settings, SettingsError};
use crate::decode::{Decode, redecode, refused_event};
use crate::event::{PartitionId, Schema, Unknown};
use crate::service::log::Position;
use crate::service::{ConnectError, Intake, RefusedEvent, Source, SourceRead, SourceTask};

/// The most events handed over at once.
const ROWS_MAX: usize = 8192;
/// With a rate: how long events are gathered at most, so that slow rates stay smooth and fast ones do not commit
/// single events.
const TICK: Duration = Duration::from_millis(5);
/// The version of the position's form.
const VERSION: u32 = 1;

/// Makes payments; see the [module](super). Never finished unless `count` is set.
#[derive(Debug, Clone)]
pub struct GenerateSource {
    settings: Settings,
    schema: Schema,
}

impl GenerateSource {
    /// A source of payments with the columns of `schema`, the topic's.
    pub fn new(settings: Settings, schema: Schema) -> Result<Self, SettingsError> {
        settings.check()?;
        Ok(Self { settings, schema })
    }
}

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

impl GenerateSource {
    fn place(&self, position: Option<Position>) -> Result<Place, ConnectError> {
        let Some(position) = position else { return Ok(Place::default()) };
        let fault = || ConnectError::permanent("the position is not one of a generator");
        let Position::Opaque(bytes) = position else { return Err(fault()) };
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|_| fault())?;
        let (now, then) = (&self.settings, &stored);
        if stored.v != VERSION {
            return Err(ConnectError::permanent("the position was written by a newer version of millstream"));
        }
        if (now.seed, now.customers, now.merchants) != (then.seed, then.customers, then.merchants) {
            return Err(ConnectError::permanent(format!(
                "seed, customers and merchants were {}, {} and {} when the events so far were made; set them so again, \
                 or start with a fresh log",
                then.seed, then.customers, then.merchants
            )));
        }
        Ok(Place { number: stored.number, day: stored.day, index: stored.index })
    }
}

impl Source for GenerateSource {
    fn bounded(&self) -> bool {
        self.settings.count.is_some()
    }

    fn open(
        &self,
        _task: PartitionId,
        position: Option<Position>,
    ) -> BoxFuture<'_, Result<Box<dyn SourceTask>, ConnectError>> {
        async move {
            let place = self.place(position)?;
            let (settings, schema) = (self.settings.clone(), self.schema.clone());
            // A large population takes a while to make.
            let made = tokio::task::spawn_blocking(move || Task::new(settings, &schema, place));
            let task = made.await.map_err(|e| ConnectError::permanent(format!("making the simulator: {e}")))??;
            Ok(Box::new(task) as Box<dyn SourceTask>)
        }
        .boxed()
    }

    fn redecode(&self, raw: &[u8]) -> Option<Result<arrow_array::RecordBatch, crate::service::Refusal>> {
        Some(redecode(&mut Decode::ndjson(&self.schema, Unknown::Drop), raw))
    }
}

struct Task {
    simulator: Simulator,
    rows: Rows,
    decode: Decode,
    lines: Lines,
    began: Instant,
    /// The number of the first event since `began`.
    first: u64,
}

impl Task {
    fn new(settings: Settings, schema: &Schema, place: Place) -> Result<Self, ConnectError> {
        let fault = |e: SettingsError| ConnectError::permanent(e.to_string());
        let mut simulator = Simulator::new(settings).map_err(fault)?;
        simulator.seek(place);
        Ok(Self {
            simulator,
            rows: Rows::new(schema)?,
            decode: Decode::ndjson(schema, Unknown::Drop),
            lines: Lines::default(),
            began: Instant::now(),
            first: place.number,
        })
    }

    /// How many events are due now, and how long until the next is.
    fn due(&self) -> (usize, Duration) {
        let Some(rate) = self.simulator.settings().rate else { return (ROWS_MAX, Duration::ZERO) };
        let made = self.simulator.place().number - self.first;
        let due = (self.began.elapsed().as_secs_f64() * rate) as u64 + 1;
        let wait = Duration::from_secs_f64(((made + 1) as f64 / rate - self.began.elapsed().as_secs_f64()).max(0.0));
        (due.saturating_sub(made).min(ROWS_MAX as u64) as usize, wait)
    }

    /// Makes up to `events` of them; `None` behind the last.
    fn make(&mut self, events: usize) -> Result<Option<Intake>, ConnectError> {
        let mut refused = Vec::new();
        let mut made = 0;
        while made < events {
            let Some(payment) = self.simulator.next() else { break };
            made += 1;
            if payment.bad.is_none_or(|bad| bad.readable()) {
                let micros = self.simulator.micros(&payment);
                self.rows.push(&payment, micros);
            } else {
                let mut line = Vec::new();
                self.lines.write(&payment, self.simulator.settings().start, &mut line);
                refused.push(self.refuse(line.trim_ascii_end(), payment.number)?);
            }
        }
        if made == 0 {
            return Ok(None);
        }
        let rows = self.rows.finish()?;
        Ok(Some(Intake { rows, refused, position: Some(self.position()?), extra: Vec::new(), receipt: None }))
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

impl SourceTask for Task {
    fn next(&mut self) -> BoxFuture<'_, Result<SourceRead, ConnectError>> {
        async move {
            loop {
                let (due, wait) = self.due();
                let left = self.simulator.settings().count.map(|c| c.saturating_sub(self.simulator.place().number));
                if due > 0 || left == Some(0) {
                    let intake = self.make(due.max(1))?;
                    return Ok(intake.map_or(SourceRead::Finished, |i| SourceRead::Intake(Box::new(i))));
                }
                sleep(wait.max(TICK)).await;
            }
        }
        .boxed()
    }
}

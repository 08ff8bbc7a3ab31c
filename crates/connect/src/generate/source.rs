//! The `generate` source: a world as a source with an exact position.

use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::sleep;

use super::model::Model;
use super::{Settings, SettingsError, World};
use crate::decode::{Decode, redecode};
use crate::event::{PartitionId, Schema, Unknown};
use crate::service::log::Position;
use crate::service::{ConnectError, Intake, Source, SourceRead, SourceTask};

/// The most events handed over at once.
const ROWS_MAX: u64 = 8192;
/// With a rate: how long events are gathered at most, so that slow rates stay smooth and fast ones do not commit
/// single events.
const TICK: Duration = Duration::from_millis(5);

/// Makes events; see the [module](super). Never finished unless `count` is set.
#[derive(Debug, Clone)]
pub struct GenerateSource {
    world: World,
    schema: Schema,
}

impl GenerateSource {
    /// A source of payments with the columns of `schema`, the topic's.
    pub fn new(settings: Settings, schema: Schema) -> Result<Self, SettingsError> {
        Self::of(World::Payments(settings), schema)
    }

    /// A source of a world's events with the columns of `schema`, the topic's.
    pub fn of(world: World, schema: Schema) -> Result<Self, SettingsError> {
        world.check()?;
        Ok(Self { world, schema })
    }
}

impl Source for GenerateSource {
    fn bounded(&self) -> bool {
        self.world.count().is_some()
    }

    fn open(
        &self,
        _task: PartitionId,
        position: Option<Position>,
    ) -> BoxFuture<'_, Result<Box<dyn SourceTask>, ConnectError>> {
        async move {
            let (world, schema) = (self.world.clone(), self.schema.clone());
            // A large world takes a while to make.
            let made = tokio::task::spawn_blocking(move || Task::new(&world, &schema, position));
            let task = made.await.map_err(|e| ConnectError::permanent(format!("making the world: {e}")))??;
            Ok(Box::new(task) as Box<dyn SourceTask>)
        }
        .boxed()
    }

    fn redecode(&self, raw: &[u8]) -> Option<Result<arrow_array::RecordBatch, crate::service::Refusal>> {
        Some(redecode(&mut Decode::ndjson(&self.schema, Unknown::Drop), raw))
    }
}

struct Task {
    model: Box<dyn Model>,
    rate: Option<f64>,
    count: Option<u64>,
    began: Instant,
    /// The number of the first event since `began`.
    first: u64,
}

impl Task {
    fn new(world: &World, schema: &Schema, position: Option<Position>) -> Result<Self, ConnectError> {
        let model = world.model(schema, position)?;
        let first = model.number();
        Ok(Self { model, rate: world.rate(), count: world.count(), began: Instant::now(), first })
    }

    /// How many numbers are due now, and how long until the next is.
    fn due(&self) -> (u64, Duration) {
        let most = ROWS_MAX * self.model.stride();
        let left = self.count.map_or(u64::MAX, |count| count.saturating_sub(self.model.number()));
        let Some(rate) = self.rate else { return (most.min(left), Duration::ZERO) };
        let made = self.model.number() - self.first;
        let due = (self.began.elapsed().as_secs_f64() * rate) as u64 + 1;
        let wait = Duration::from_secs_f64(((made + 1) as f64 / rate - self.began.elapsed().as_secs_f64()).max(0.0));
        (due.saturating_sub(made).min(most).min(left), wait)
    }

    fn finished(&self) -> bool {
        self.count.is_some_and(|count| self.model.number() >= count)
    }
}

impl SourceTask for Task {
    fn next(&mut self) -> BoxFuture<'_, Result<SourceRead, ConnectError>> {
        async move {
            while !self.finished() {
                let (due, wait) = self.due();
                if due == 0 {
                    sleep(wait.max(TICK)).await;
                    continue;
                }
                let made = self.model.make(due)?;
                // Numbers without an event of this source are passed over without a commit of their own.
                if made.rows.num_rows() > 0 || !made.refused.is_empty() {
                    let position = Some(self.model.position()?);
                    let intake =
                        Intake { rows: made.rows, refused: made.refused, position, extra: Vec::new(), receipt: None };
                    return Ok(SourceRead::Intake(Box::new(intake)));
                }
            }
            Ok(SourceRead::Finished)
        }
        .boxed()
    }
}

//! Models whose events follow from their number, and from a few values that are carried from event to event at most.

use arrow_array::ArrayRef;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::fit::Fit;
use super::model::{Made, Model};
use crate::event::Schema;
use crate::service::ConnectError;
use crate::service::log::Position;

/// The version of the position's form.
const VERSION: u32 = 1;

/// What makes the events.
pub(crate) trait Stream: Send {
    /// Makes the event with this number, if it is one of this stream's. Numbers come in order.
    fn push(&mut self, number: u64);

    /// The columns of the events since the last call.
    fn finish(&mut self) -> Vec<ArrayRef>;

    /// How many numbers there are to an event.
    fn stride(&self) -> u64 {
        1
    }

    /// What is carried to the next event, beside its number.
    fn carried(&self) -> Vec<i64> {
        Vec::new()
    }
}

/// Which world it is: a place in another one means nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The kind, as in the pipeline file.
    pub(crate) kind: String,
    pub(crate) seed: u64,
    /// Days from 1970 to the first simulated day.
    pub(crate) start: i64,
    /// How many there are of what it is made of, by setting.
    pub(crate) sizes: Vec<(String, u32)>,
}

/// A place in a world, as it stands in a position.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    v: u32,
    world: Identity,
    /// The number of the next event.
    pub(crate) number: u64,
    /// What [`Stream::carried`] said.
    pub(crate) carried: Vec<i64>,
}

impl Place {
    /// The place that a position names; the beginning where there is none.
    pub(crate) fn read(position: Option<Position>, world: &Identity) -> Result<Option<Self>, ConnectError> {
        let Some(position) = position else { return Ok(None) };
        let fault = || ConnectError::permanent("the position is not one of such a generator; start with a fresh log");
        let Position::Opaque(bytes) = position else { return Err(fault()) };
        let place: Self = serde_json::from_slice(&bytes).map_err(|_| fault())?;
        if place.v != VERSION {
            return Err(ConnectError::permanent("the position was written by a newer version of millstream"));
        }
        if place.world != *world {
            return Err(ConnectError::permanent(format!(
                "the events so far were made with {} and the pipeline says {}; set them so again, or start with a fresh log",
                place.world, world
            )));
        }
        Ok(Some(place))
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "kind {}, seed {}", self.kind, self.seed)?;
        for (setting, size) in &self.sizes {
            write!(f, ", {setting} {size}")?;
        }
        write!(f, ", {} days from 1970", self.start)
    }
}

/// A model of a [`Stream`].
pub(crate) struct Numbered {
    world: Identity,
    fit: Fit,
    stream: Box<dyn Stream>,
    number: u64,
}

impl Numbered {
    /// A stream that stands before `number`, with these columns, for a topic.
    pub(crate) fn new(
        world: Identity,
        made: Schema,
        topic: &Schema,
        number: u64,
        stream: Box<dyn Stream>,
    ) -> Result<Self, ConnectError> {
        Ok(Self { world, fit: Fit::new(topic, made)?, stream, number })
    }
}

impl Model for Numbered {
    fn number(&self) -> u64 {
        self.number
    }

    fn stride(&self) -> u64 {
        self.stream.stride()
    }

    fn make(&mut self, numbers: u64) -> Result<Made, ConnectError> {
        let end = self.number.saturating_add(numbers);
        (self.number..end).for_each(|number| self.stream.push(number));
        self.number = end;
        Ok(Made { rows: self.fit.rows(self.stream.finish())?, refused: Vec::new() })
    }

    fn position(&self) -> Result<Position, ConnectError> {
        let carried = self.stream.carried();
        let place = Place { v: VERSION, world: self.world.clone(), number: self.number, carried };
        let bytes = serde_json::to_vec(&place)
            .map_err(|e| ConnectError::permanent(format!("the position cannot be written: {e}")))?;
        Ok(Position::Opaque(Bytes::from(bytes)))
    }
}

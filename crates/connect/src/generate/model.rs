//! What a world is while it runs.

use arrow_array::RecordBatch;

use crate::service::log::Position;
use crate::service::{ConnectError, RefusedEvent};

/// Events made.
#[derive(Debug)]
pub(crate) struct Made {
    /// With the topic's columns.
    pub(crate) rows: RecordBatch,
    /// Those that are bad on purpose and cannot be read.
    pub(crate) refused: Vec<RefusedEvent>,
}

/// A stream of numbered events. Equal settings and numbers give equal events.
pub(crate) trait Model: Send {
    /// The number of the next event, from 0.
    fn number(&self) -> u64;

    /// How many numbers there are to an event: more than one where a source makes some of the world's events only.
    fn stride(&self) -> u64 {
        1
    }

    /// Makes the events with the next `numbers` numbers.
    fn make(&mut self, numbers: u64) -> Result<Made, ConnectError>;

    /// Where to go on, to be handed to the world that made this model.
    fn position(&self) -> Result<Position, ConnectError>;
}

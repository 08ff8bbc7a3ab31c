//! Sources: where events enter. The traits live here; files, HTTP and generators implement them elsewhere.
//!
//! A source has a fixed number of tasks. The runner opens each task at its last committed position, asks it for
//! [`Intake`]s, adds the system column, splits rows by the key of the topic and commits rows, refused events, the new
//! position and the source's own appends together. Several commits may be on their way while the source reads on.

use arrow_array::RecordBatch;
use bytes::Bytes;
use futures::future::BoxFuture;
use millstream_event::{Offset, PartitionId};
use millstream_log::{Append, Position, TopicSpec};
use tokio::sync::oneshot;

use crate::ConnectError;

/// The most rows an [`Intake`] should have. Larger ones work, but one commit holds them whole in memory.
pub const INTAKE_ROWS_MAX: usize = 16_384;

/// Where events enter.
pub trait Source: Send + Sync + 'static {
    /// How many tasks read in parallel, at least 1. Each has a position of its own.
    fn tasks(&self) -> u32 {
        1
    }

    /// Whether it ends by itself: its tasks answer [`SourceRead::Finished`] some day.
    fn bounded(&self) -> bool;

    /// Topics of the source's own (idempotency keys …), created before the first task is opened. Their names must start
    /// with the source's name and a dot.
    fn internal_topics(&self) -> Vec<TopicSpec> {
        Vec::new()
    }

    /// Opens a task where its last commit left it; `None`: from the beginning. Called again after every failure, with
    /// the committed position, so an event that was handed out but not committed is handed out again.
    fn open(
        &self,
        task: PartitionId,
        position: Option<Position>,
    ) -> BoxFuture<'_, Result<Box<dyn SourceTask>, ConnectError>>;

    /// Decodes the raw bytes of a refused event again, when its dead letter is replayed: the user columns of one or more
    /// rows, or the code and the reason of a new refusal. `None`: this source cannot.
    fn redecode(&self, _raw: &[u8]) -> Option<Result<RecordBatch, Refusal>> {
        None
    }
}

/// One task of a source.
pub trait SourceTask: Send {
    /// The next events; waits until there are some. Cancel safe: the future may be dropped before it is ready without
    /// losing an event.
    fn next(&mut self) -> BoxFuture<'_, Result<SourceRead, ConnectError>>;

    /// Everything up to this position is committed: it will not be asked for again.
    fn committed(&mut self, _position: &Position) {}
}

/// What a source task has.
#[derive(Debug)]
pub enum SourceRead {
    /// Events. Boxed, because it is much larger than its neighbour.
    Intake(Box<Intake>),
    /// Nothing more will come, now or after a restart at the last position.
    Finished,
}

/// Events on their way in, committed together.
#[derive(Debug)]
pub struct Intake {
    /// The good events: the user columns of the topic's schema, in order. May be empty.
    pub rows: RecordBatch,
    /// Events that could not be decoded; they become dead letters in the same commit.
    pub refused: Vec<RefusedEvent>,
    /// Where to go on after these events; `None` for sources that cannot go back at all (HTTP).
    pub position: Option<Position>,
    /// Appends to the source's own internal topics, in the same commit.
    pub extra: Vec<Append>,
    /// Who wants to know what became of it. An intake with a receipt and without a position is not retried when space is
    /// short: its sender is told instead and asks again.
    pub receipt: Option<oneshot::Sender<Receipt>>,
}

/// An event that the source could not decode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedEvent {
    /// Its bytes as they came in.
    pub raw: Bytes,
    /// A stable word for the kind of fault, e.g. `json`, `type`, `not-null`.
    pub code: &'static str,
    /// What is wrong, with the column where there is one.
    pub reason: String,
    /// Where it came from, e.g. `orders.ndjson:17`.
    pub place: String,
}

/// Why one event was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A stable word for the kind of fault.
    pub code: &'static str,
    /// What is wrong.
    pub reason: String,
}

/// What became of an intake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receipt {
    /// Durable. One entry per row of [`Intake::rows`].
    Durable {
        /// Where each row is now.
        rows: Vec<RowFate>,
    },
    /// Nothing happened, and trying again later may succeed.
    Backpressure {
        /// Whether the disk is full (rather than the backlog of a topic).
        disk_full: bool,
        /// The log's words.
        reason: String,
    },
    /// Nothing happened, and the same intake will not succeed here.
    Refused {
        /// Why.
        reason: String,
    },
    /// It may or may not have happened.
    Unknown {
        /// Why nobody knows.
        reason: String,
    },
}

/// What became of one row of an intake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowFate {
    /// It stands in the topic.
    Placed {
        /// The partition that its key chose.
        partition: PartitionId,
        /// Its offset, where the log knows it.
        offset: Option<Offset>,
    },
    /// It was refused and is a dead letter.
    Refused(Refusal),
}

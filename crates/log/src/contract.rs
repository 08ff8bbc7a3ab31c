//! The contract: what a log promises to services.
//!
//! 1. A commit is atomic over all its appends and positions: after any crash all of it is there or nothing. Its `from`
//!    must equal the position that the task has (its last commit's, also one still on its way). `to` may be behind it:
//!    a task that is set back reads again what is still kept.
//! 2. A commit is visible to readers only when it is durable; one that was answered [`Outcome::Committed`] survives
//!    kill -9 and power loss.
//! 3. Commits of one task take effect in the order of the calls. After any outcome but `Committed`, later commits of
//!    that task and epoch are refused ([`Outcome::Aborted`]) until the task is assigned again ([`Log::restart`]), so
//!    that a pipelined successor cannot slip through.
//! 4. A log may merge commits of one instance; they succeed or fail together.
//! 5. Offsets in a partition grow, need not be dense, and no reader ever sees a gap filled later.
//! 6. A failed write or sync is final: the log stops accepting, says why, and recovers by being opened again.
//! 7. A position is an offset, or up to [`Position::OPAQUE_BYTES_MAX`] bytes that mean something to their source only.
//!
//! Each rule has its tests in the conformance suite, which runs against every implementation.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow_array::RecordBatch;
use bytes::Bytes;
use futures::future::BoxFuture;
use millstream_event::{Batch, Name, Offset, PartitionId, Schema, TopicPartition, Watermark};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::Error;

/// One service, source or sink on one partition: the unit of work, order and ownership.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskId {
    /// The service, source or sink.
    pub service: Name,
    /// The partition of all its inputs.
    pub partition: PartitionId,
}

impl TaskId {
    /// Names the task of `service` on `partition`.
    pub fn new(service: Name, partition: u32) -> Self {
        Self { service, partition: PartitionId(partition) }
    }
}

impl std::fmt::Display for TaskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.service, self.partition)
    }
}

/// The generation of a task's owner. Grows with every assignment, also across restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// A task and the right to commit for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Task {
    /// Which task.
    pub id: TaskId,
    /// The owner's generation.
    pub epoch: Epoch,
}

/// Where a task goes on in an input.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Position {
    /// The next offset to read of a topic partition.
    Offset(Offset),
    /// What a source needs to go on (a file's name and place, an LSN).
    Opaque(Bytes),
}

impl Position {
    /// The longest opaque position, in bytes. Kafka stores 4096 bytes of text beside an offset, which as base64 is 3 KiB.
    pub const OPAQUE_BYTES_MAX: usize = 3072;

    /// The offset, where this is one.
    pub fn offset(&self) -> Option<Offset> {
        match self {
            Self::Offset(offset) => Some(*offset),
            Self::Opaque(_) => None,
        }
    }
}

/// What a commit has read of one input. The order of the entries is the order of reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumed {
    /// The input topic (the task's own partition of it), or the source's own name for an opaque position.
    pub input: Name,
    /// The position before; `None` where none was ever committed.
    pub from: Option<Position>,
    /// The position after.
    pub to: Position,
}

/// Events for one partition of one topic.
#[derive(Debug, Clone)]
pub struct Append {
    /// The topic.
    pub topic: Name,
    /// The partition.
    pub partition: PartitionId,
    /// The version of the topic's schema (see [`TopicInfo::schema_version`]).
    pub schema_version: u32,
    /// The events, with the columns of [`Schema::physical`]. May be empty only where `watermark` is given.
    pub rows: RecordBatch,
    /// What the producer, which is the commit's task, promises behind these events. An append without rows takes one
    /// offset, so that the promise has a place in the order.
    pub watermark: Option<Watermark>,
}

/// Who suffers first when space runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// New events from outside: refused first.
    Intake,
    /// Events on their way through: they may use the reserve.
    Processing,
}

/// The atomic step of a task: events consumed and events produced.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The task.
    pub task: TaskId,
    /// The owner's epoch; an older one than the task's is refused.
    pub epoch: Epoch,
    /// Whether this brings events in from outside.
    pub class: Class,
    /// What was read, in order.
    pub consumed: Vec<Consumed>,
    /// What was made.
    pub appends: Vec<Append>,
}

/// Why nothing happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AbortReason {
    /// No space left on the device or in the log's budget. Trying again later may succeed.
    #[error("the disk is full ({0})")]
    DiskFull(String),
    /// A topic has reached its `max_bytes` of unread events. Trying again later may succeed.
    #[error("topic `{0}` holds as much unread data as it may")]
    BacklogFull(Name),
    /// An earlier commit of this task and epoch did not succeed.
    #[error("an earlier commit of this task did not succeed")]
    Predecessor,
    /// The commit breaks the contract, e.g. its `from` is not the task's position.
    #[error("{0}")]
    Refused(String),
    /// The commit is larger than any that the log takes: a smaller one may succeed.
    #[error("the commit is too large: {0}")]
    TooLarge(String),
    /// The log has stopped before this commit was written.
    #[error("the log has stopped: {0}")]
    Stopped(String),
}

impl AbortReason {
    /// Whether the same commit may succeed later without anybody changing it.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::DiskFull(_) | Self::BacklogFull(_))
    }
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Durable and visible.
    Committed(Committed),
    /// The task has another owner now; nothing happened.
    Fenced,
    /// Nothing happened; the task is still its owner's.
    Aborted(AbortReason),
    /// It may or may not have happened: read the position (after opening again) to learn.
    Unknown(String),
}

/// Where the events of a commit stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The offset of each append's first event, in the order of [`Commit::appends`]. The embedded log always knows it; a
    /// Kafka client that had to resend does not, so nothing but an answer to a caller may depend on it.
    pub offsets: Vec<Option<Offset>>,
}

/// A commit on its way; a future of its [`Outcome`]. Dropping it does not undo the commit.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Outcome>);

impl Pending {
    /// A pending commit and the sender that settles it.
    pub fn new() -> (oneshot::Sender<Outcome>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(receiver))
    }

    /// A commit whose outcome is known.
    pub fn ready(outcome: Outcome) -> Self {
        let (sender, pending) = Self::new();
        // The receiver is alive: it is in `pending`.
        drop(sender.send(outcome));
        pending
    }
}

impl Future for Pending {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|done| done.unwrap_or_else(|_| Outcome::Unknown("the log went away before it answered".into())))
    }
}

/// What a reader found.
#[derive(Debug, Clone)]
pub enum Read {
    /// Events, with the topic's newest columns: one that an event was written without is null. Without rows where there
    /// are marks only: of appends without events, and, first of all, the last mark of each producer that promised
    /// something before the reader's beginning, whether those appends are still kept or not. Marks may come later than
    /// they were appended, then the last of each producer alone, and never before their rows.
    Batch(Batch),
    /// Nothing more now; reading goes on at `next`, which may be greater than the offset behind the last event seen, and
    /// may grow from one `AtEnd` to the following one without a batch between: gaps are skipped. A position that a task
    /// commits after reading to the end is this one, so that its lag is exactly zero.
    AtEnd {
        /// Where to go on.
        next: Offset,
    },
}

/// Reads one topic partition in order: every durable event once, never half a commit's part of this partition.
pub trait Reader: Send {
    /// The next events, or [`Read::AtEnd`] at once where there are none.
    fn next(&mut self) -> BoxFuture<'_, Result<Read, Error>>;

    /// Waits until [`Reader::next`] may have more than its last `AtEnd`. Cancel safe; may wake without need.
    fn changed(&mut self) -> BoxFuture<'_, ()>;
}

/// A request to work for a service.
#[derive(Debug, Clone)]
pub struct Join {
    /// The service, source or sink.
    pub service: Name,
    /// The instance's number, from 0.
    pub instance: u32,
    /// How many tasks there are.
    pub lead: Lead,
}

/// What decides the number of tasks.
#[derive(Debug, Clone)]
pub enum Lead {
    /// One task for each partition of this topic.
    Topic(Name),
    /// This many tasks (a source).
    Tasks(u32),
}

/// An instance's membership in its service's group: which tasks it owns, each with an epoch. Dropping it leaves: its
/// tasks go to the others.
pub trait Membership: Send {
    /// Waits for the next change. Cancel safe.
    fn next(&mut self) -> BoxFuture<'_, Change>;

    /// Gives back tasks that were asked for by [`Change::Revoke`], after their last commit was answered.
    fn release(&mut self, tasks: &[TaskId]);
}

/// A change of what an instance owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// These tasks are its own now.
    Assigned(Vec<Task>),
    /// Finish what is on its way for these tasks, then [`Membership::release`] them.
    Revoke(Vec<TaskId>),
    /// These tasks were taken away already; their commits are fenced.
    Lost(Vec<TaskId>),
}

/// How a topic keeps its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TopicKind {
    /// Only appends.
    Stream,
    /// Holds the latest event per key (compacted).
    Table,
}

/// How long events are kept. An event goes when it is older than `age` **and**, where `until_read`, every consumer
/// has committed past it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Keep what a consumer has not read, whatever its age. A table's tombstones wait for consumers in any case.
    pub until_read: bool,
    /// Keep at least this long after the append; `None`: for ever.
    pub age: Option<Duration>,
    /// At this many bytes of unread events sources are refused ([`AbortReason::BacklogFull`]); `None`: no limit.
    pub max_bytes: Option<u64>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { until_read: true, age: Some(Duration::from_secs(24 * 3600)), max_bytes: None }
    }
}

/// The definition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicSpec {
    /// The name.
    pub name: Name,
    /// The number of partitions, at least 1.
    pub partitions: u32,
    /// The columns that choose an event's partition; empty: none do.
    pub key: Vec<String>,
    /// The columns.
    pub schema: Schema,
    /// Stream or table.
    pub kind: TopicKind,
    /// How long events are kept.
    pub retention: Retention,
    /// Who must have read an event before it may go (with [`Retention::until_read`]).
    pub consumers: Vec<Name>,
}

/// A topic as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicInfo {
    /// Its definition.
    pub spec: TopicSpec,
    /// The version of its schema, from 1; grows when a compatible change of columns is applied.
    pub schema_version: u32,
}

/// A durable event log.
///
/// Methods that do not return a future never wait for a disk or a network for long: they look something up or hand
/// something over.
pub trait Log: Send + Sync + 'static {
    /// Creates a topic, or applies a compatible change (columns added that may be null, another retention, other
    /// consumers); does nothing where it stands so already. Anything else is [`Error::Incompatible`].
    fn create_topic(&self, spec: TopicSpec) -> BoxFuture<'_, Result<TopicInfo, Error>>;

    /// All topics, by name.
    fn topics(&self) -> Vec<TopicInfo>;

    /// One topic.
    fn topic(&self, name: &Name) -> Option<TopicInfo>;

    /// Reads a partition from an offset on; an offset below [`Log::start`] is [`Error::OutOfRange`], one above the end
    /// waits for it.
    fn read(&self, at: &TopicPartition, from: Offset) -> Result<Box<dyn Reader>, Error>;

    /// Starts working for a service.
    fn join(&self, join: Join) -> Result<Box<dyn Membership>, Error>;

    /// Hands a commit over, in order; see the contract above. Encodes on the calling thread.
    fn commit(&self, commit: Commit) -> Pending;

    /// Lets the owner of a task commit again after an outcome other than `Committed`: a new epoch, or `None` where the
    /// task is not this epoch's any more.
    fn restart(&self, task: &Task) -> BoxFuture<'_, Result<Option<Task>, Error>>;

    /// The durable position of a task in an input, once all that was handed over for the task before has been settled:
    /// a new owner must not go on from where the old one is about to leave.
    fn position(&self, task: &TaskId, input: &Name) -> BoxFuture<'_, Result<Option<Position>, Error>>;

    /// The first offset that is kept.
    fn start(&self, at: &TopicPartition) -> BoxFuture<'_, Result<Offset, Error>>;

    /// The offset behind the last durable event.
    fn end(&self, at: &TopicPartition) -> BoxFuture<'_, Result<Offset, Error>>;

    /// Lets go of all events before `before`.
    fn trim(&self, at: &TopicPartition, before: Offset) -> BoxFuture<'_, Result<(), Error>>;

    /// Why the log has stopped accepting, if it has.
    fn stopped(&self) -> Option<String>;

    /// Makes all that was committed durable and lets go of the files. Later commits are refused.
    fn close(&self) -> BoxFuture<'_, Result<(), Error>>;
}

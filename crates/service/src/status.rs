//! How a component and its tasks stand, for people and for the node's HTTP API.

use millstream_event::{Name, Watermark};
use serde::{Deserialize, Serialize};

use crate::meters::Counts;

/// What a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A source.
    Source,
    /// A service.
    Service,
    /// A sink.
    Sink,
}

/// How a task, or a component as a whole, stands. Ordered: of a component's tasks the greatest shows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Stopped, as asked.
    Stopped,
    /// A bounded source has given everything, or a sink has completed what it wrote.
    Finished,
    /// Working, or waiting for events.
    Running,
    /// Paused, as asked.
    Paused,
    /// Not yet working.
    Starting,
    /// Something that it needs is missing or full; it goes on by itself.
    Waiting {
        /// What for.
        reason: String,
    },
    /// It failed and starts again from its last commit, by itself, after a pause.
    Restarting {
        /// Why it failed.
        reason: String,
    },
    /// It failed in a way that somebody must mend; `resume` tries again.
    Failed {
        /// Why.
        reason: String,
    },
}

/// How one task stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// Its partition.
    pub partition: u32,
    /// The instance that runs it.
    pub instance: u32,
    /// How it stands.
    pub state: State,
    /// How far it is in event time, where its topics have that.
    #[serde(default)]
    pub time: Option<TimeStatus>,
    /// What there is to know about it while it works: that it reads again, or has not all of its state.
    #[serde(default)]
    pub note: Option<String>,
    /// Whether it holds results that come out when event time goes on: of windows that are open, of rows that wait for others.
    #[serde(default)]
    pub holds: bool,
}

/// How far a task, or a component as a whole, is in event time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeStatus {
    /// Its watermark, or [`Watermark::OPEN`], [`Watermark::IDLE`], [`Watermark::CLOSED`].
    pub watermark: Watermark,
    /// The greatest time that one of its producers promised, in microseconds since 1970 UTC.
    pub furthest: Option<i64>,
    /// The producer that it waits for (never one of a source).
    pub held_back: Option<HeldBack>,
}

/// The producer that a service waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    /// The input.
    pub topic: Name,
    /// The source or service that writes it.
    pub producer: Name,
    /// Which task of it: its input partition.
    pub partition: u32,
    /// What it promised; [`Watermark::OPEN`]: nothing yet.
    pub promised: Watermark,
}

impl TimeStatus {
    /// Tasks as a whole: the least of them, and how far the furthest of their producers is.
    pub fn least(tasks: impl Iterator<Item = Self>) -> Option<Self> {
        tasks.reduce(|one, other| {
            let furthest = one.furthest.max(other.furthest);
            let least = if other.watermark < one.watermark { other } else { one };
            Self { furthest, ..least }
        })
    }
}

/// How far a component is behind in one input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputLag {
    /// The topic.
    pub topic: Name,
    /// The partition.
    pub partition: u32,
    /// The committed position; `None` where nothing was committed.
    pub position: Option<u64>,
    /// The end of the partition.
    pub end: u64,
    /// How many offsets are between them.
    pub lag: u64,
}

/// How a component stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub name: Name,
    /// What it is.
    pub kind: Kind,
    /// The version of its definition.
    pub version: String,
    /// How it stands as a whole.
    #[serde(flatten)]
    pub state: State,
    /// How many instances share its tasks.
    pub instances: u32,
    /// Its tasks, by partition.
    pub tasks: Vec<TaskStatus>,
    /// How far it is in event time; `None` where its topics have none, or a task has not begun.
    #[serde(default)]
    pub time: Option<TimeStatus>,
    /// Its inputs' partitions (none for a source).
    pub inputs: Vec<InputLag>,
    /// The sum of its lags.
    pub lag: u64,
    /// Its counters.
    pub counts: Counts,
}

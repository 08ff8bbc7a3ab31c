//! Watching the events of a topic.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Where to begin in a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum From {
    /// The first event kept.
    #[default]
    Earliest,
    /// Only what comes from now on.
    Latest,
    /// This offset, in every partition shown.
    Offset(u64),
    /// The last so many events, over all partitions shown.
    Last(u64),
}

/// A text that names no place in a topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no place in a topic: give earliest, latest, an offset such as 1200, or -20 for the last 20 events")]
pub struct ParseFromError(String);

impl FromStr for From {
    type Err = ParseFromError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseFromError(text.to_owned());
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            _ => match text.strip_prefix('-') {
                Some(last) => last.parse().map(Self::Last).map_err(|_| wrong()),
                None => text.parse().map(Self::Offset).map_err(|_| wrong()),
            },
        }
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earliest => f.write_str("earliest"),
            Self::Latest => f.write_str("latest"),
            Self::Offset(offset) => write!(f, "{offset}"),
            Self::Last(events) => write!(f, "-{events}"),
        }
    }
}

impl Serialize for From {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for From {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Which events to show: the query string of [`super::paths::EVENTS`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsQuery {
    /// Where to begin.
    #[serde(default)]
    pub from: From,
    /// Stop after so many events (those that `where` lets through).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// A SQL predicate over the topic's columns.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Stay and show what comes.
    #[serde(default)]
    pub follow: bool,
    /// Only this partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// Of a table topic: only the newest row of each key that is not deleted, as it is now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub table: bool,
}

/// One line of the answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Line", into = "Line")]
pub enum EventLine {
    /// An event and its place.
    Event {
        /// The partition.
        partition: u32,
        /// The offset.
        offset: u64,
        /// When it came in.
        ingested_at: String,
        /// Whether this is the end of its key's row in a table topic: the columns are the last that it had.
        deleted: bool,
        /// Its columns, in order, as text: a decimal keeps all its digits.
        event: Box<RawValue>,
    },
    /// The stream ends here because of this.
    Error {
        /// Why.
        error: super::ApiError,
    },
}

/// A line as it is written: one of the two.
#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ingested_at: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<super::ApiError>,
}

impl TryFrom<Line> for EventLine {
    type Error = &'static str;

    fn try_from(line: Line) -> Result<Self, &'static str> {
        match line {
            Line { error: Some(error), .. } => Ok(Self::Error { error }),
            Line {
                partition: Some(partition),
                offset: Some(offset),
                ingested_at: Some(at),
                deleted,
                event: Some(event),
                ..
            } => Ok(Self::Event { partition, offset, ingested_at: at, deleted, event }),
            _ => Err("a line has an event with its place, or an error"),
        }
    }
}

impl std::convert::From<EventLine> for Line {
    fn from(line: EventLine) -> Self {
        let none = Self { partition: None, offset: None, ingested_at: None, deleted: false, event: None, error: None };
        match line {
            EventLine::Error { error } => Self { error: Some(error), ..none },
            EventLine::Event { partition, offset, ingested_at, deleted, event } => Self {
                partition: Some(partition),
                offset: Some(offset),
                ingested_at: Some(ingested_at),
                deleted,
                event: Some(event),
                error: None,
            },
        }
    }
}

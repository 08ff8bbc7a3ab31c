//! Dead letters: events that a service refused.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Names a dead letter: its partition and offset in `<service>.dlq`, written `3-1042`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LetterId {
    /// The partition of the dead-letter topic.
    pub partition: u32,
    /// The offset there.
    pub offset: u64,
}

/// A text that names no dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no dead letter: an id looks like 3-1042, as `dlq list` prints it")]
pub struct ParseLetterIdError(String);

impl FromStr for LetterId {
    type Err = ParseLetterIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (partition, offset) = text.split_once('-')?;
            Some(Self { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
        };
        parse().ok_or_else(|| ParseLetterIdError(text.to_owned()))
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.partition, self.offset)
    }
}

impl Serialize for LetterId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LetterId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What has become of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LetterState {
    /// Waiting for somebody.
    Open,
    /// Given to its service again.
    Replayed,
    /// Given up by somebody.
    Discarded,
}

/// One dead letter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Letter {
    /// Its name.
    pub id: LetterId,
    /// What has become of it.
    pub state: LetterState,
    /// When it was written.
    pub at: String,
    /// Why, for programs: `check`, `overflow`, `key-null`, `json`, …
    pub code: String,
    /// Why, for people.
    pub reason: String,
    /// The names of all rules broken.
    #[serde(default)]
    pub rules: Vec<String>,
    /// Who refused.
    pub service: String,
    /// The version of its definition.
    pub service_version: String,
    /// Where the event stands: its topic, or the source that could not read it.
    pub topic: String,
    /// Its partition; absent for input that never got into a topic.
    #[serde(default)]
    pub partition: Option<u32>,
    /// Its offset there.
    #[serde(default)]
    pub offset: Option<u64>,
    /// Where it stood outside (`flights.csv:1042`), for a source's letters.
    #[serde(default)]
    pub origin: Option<String>,
    /// How often the service has tried.
    pub attempts: u32,
    /// The event, as text: a decimal keeps all its digits.
    #[serde(default)]
    pub event: Option<Box<RawValue>>,
    /// The input as it came, where it could not be read as an event; replacement characters where it is no UTF-8.
    #[serde(default)]
    pub raw: Option<String>,
}

/// Which letters to show: the query string of [`super::paths::LETTERS`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LettersQuery {
    /// Only with this code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Only those that broke this rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Only in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<LetterState>,
    /// Only this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<LetterId>,
    /// At most so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Which letters to replay or discard. Everything given must hold; at least one of `ids`, `code`, `rule`, `all`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LettersRequest {
    /// These.
    #[serde(default)]
    pub ids: Vec<LetterId>,
    /// All open ones with this code.
    #[serde(default)]
    pub code: Option<String>,
    /// All open ones that broke this rule.
    #[serde(default)]
    pub rule: Option<String>,
    /// All open ones.
    #[serde(default)]
    pub all: bool,
}

/// What became of one letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LetterOutcome {
    /// Given to its service again.
    Replayed,
    /// Given up.
    Discarded,
    /// Refused: it had been replayed before.
    AlreadyReplayed,
    /// Refused: it had been discarded before.
    AlreadyDiscarded,
    /// Refused: there is no such letter.
    Unknown,
    /// Refused: input that cannot be read as an event even now.
    Unreadable,
}

/// The answer about one letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterAnswer {
    /// Which.
    pub id: LetterId,
    /// What became of it.
    pub outcome: LetterOutcome,
}

/// The answer about all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LettersResult {
    /// Done as asked.
    pub done: u64,
    /// Not done.
    pub refused: u64,
    /// One by one; of many letters only the refused ones and the first thousand.
    pub answers: Vec<LetterAnswer>,
}

//! Services: what they read, check, keep and give out.

use std::time::Duration;

use millstream_service::event::Name;
use schemars::JsonSchema;

use super::super::postgres::PostgresSettings;
use super::super::source_text::{Span, Spanned};
use super::super::sql_text::Sql;
use super::*;

/// A step of the pipeline.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ServiceSettings {
    /// The topics that it reads: exactly those that its SQL names.
    #[schemars(with = "Vec<String>")]
    pub from: Vec<Spanned<Name>>,
    /// Rules by name; an event passes only when all are true.
    #[schemars(with = "std::collections::BTreeMap<String, String>", default)]
    pub check: Vec<(Spanned<String>, Sql)>,
    /// What becomes of an event that breaks a rule: `dead_letter` (default), `drop`, `tag`, or a topic.
    #[schemars(rename = "else", with = "Option<String>")]
    pub otherwise: Option<Spanned<Otherwise>>,
    /// One SELECT over the input.
    pub sql: Option<Sql>,
    /// The file that `sql` came from; give one of the two.
    #[schemars(with = "Option<String>")]
    pub sql_file: Option<Spanned<String>>,
    /// A state machine for each key, instead of `sql`.
    pub fold: Option<FoldSettings>,
    /// Where each event goes.
    pub route: Option<RouteSettings>,
    /// The topic that all events go to; `to` or `route`.
    #[schemars(with = "Option<String>")]
    pub to: Option<Spanned<Name>>,
    /// What becomes of an event that comes too late for a window: `dead_letter` (default), `drop` (counted), or `update`
    /// the rows that went out, in a table topic, as long as `state: {ttl}` says.
    #[schemars(with = "Option<LateSettings>")]
    pub late: Option<Spanned<LateSettings>>,
    /// How its state is bounded.
    pub state: Option<StateSettings>,
    /// In which order OVER takes events: `arrival` (default), each answered at once from what came before it, or
    /// `event_time`, each answered when the watermark has passed it.
    pub order: Option<OrderSettings>,
    /// How many workers. Default 1.
    pub instances: Option<u32>,
    /// The most events computed at a time. Default 8192.
    pub batch_max: Option<u32>,
    /// All of it.
    #[schemars(skip)]
    pub span: Span,
}

/// In which order OVER takes events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderSettings {
    /// As they arrive.
    Arrival,
    /// By event time.
    EventTime,
}

/// What a service keeps.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct StateSettings {
    /// How long a key is remembered, by event time, where no window bounds it; with `late: update`, how long a window.
    #[schemars(with = "Option<String>")]
    pub ttl: Option<Duration>,
    /// Where it is kept; default `local`.
    #[schemars(with = "Option<KeepSettings>")]
    pub keep: Option<Spanned<KeepSettings>>,
    /// A database that keeps it, instead of the log.
    pub postgres: Option<PostgresSettings>,
}

/// Where a service's state is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeepSettings {
    /// In the log, in the commit of the events that changed it.
    Local,
    /// In memory alone: at every start it is built anew from what the inputs keep.
    Memory,
}

/// What becomes of an event that comes too late for a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LateSettings {
    /// It becomes a dead letter.
    DeadLetter,
    /// It is counted and forgotten.
    Drop,
    /// It changes the rows that went out.
    Update,
}

/// What becomes of an event that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Otherwise {
    /// It becomes a dead letter.
    DeadLetter,
    /// It is counted and forgotten.
    Drop,
    /// It passes, with the rules that it broke.
    Tag,
    /// It goes to this topic.
    Topic(Name),
}

/// Where each event goes.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RouteSettings {
    /// The first case that matches takes the event.
    pub first: Option<Vec<CaseSettings>>,
    /// Every case that matches gets the event.
    pub all: Option<Vec<CaseSettings>>,
    /// Where events go that match no case: a topic, `drop` or `dead_letter`.
    #[schemars(with = "String")]
    pub otherwise: Spanned<String>,
    /// All topics that `to` may name, where it has a `{column}` in it.
    #[schemars(with = "Option<Vec<String>>")]
    pub targets: Option<Vec<Spanned<Name>>>,
    /// All of it.
    #[schemars(skip)]
    pub span: Span,
}

impl RouteSettings {
    /// The cases, whichever way they are taken.
    pub fn cases(&self) -> &[CaseSettings] {
        self.first.as_deref().or(self.all.as_deref()).unwrap_or_default()
    }

    /// The topic of events that match no case; `None` where they are dropped or become dead letters.
    pub fn otherwise_topic(&self) -> Option<&Spanned<String>> {
        Some(&self.otherwise).filter(|to| !matches!(to.value.as_str(), "drop" | "dead_letter"))
    }
}

/// One case of a route.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct CaseSettings {
    /// The condition; a NULL does not match.
    pub when: Sql,
    /// The topic, or a template such as `orders_{country}`.
    #[schemars(with = "String")]
    pub to: Spanned<String>,
}

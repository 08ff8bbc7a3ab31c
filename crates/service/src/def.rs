//! Definitions: what a service, a source and a sink are, checked and planned, ready to run.
//!
//! Topics that a definition names must exist in the log before it is started; the topics of its own (dead letters and
//! what belongs to them) are made by the runner.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use millstream_event::{Column, ColumnType, Name, Schema, SchemaError};
use millstream_flow::{Fold, Processed, Query, Routes, Rules};

use crate::lookup::LookupHandle;
use crate::store::StateStore;
use crate::{Sink, Source};

/// The most rows a service takes per batch unless told otherwise.
pub const BATCH_ROWS_DEFAULT: usize = 8192;

/// The column that [`Else::Tag`] adds: the names of the rules an event broke, null where it broke none.
pub const BROKEN_RULES: &str = "broken_rules";

/// A step of the pipeline: `check`, then `query`, `fold` or `processor` or nothing, then `output`.
#[derive(Clone)]
pub struct ServiceDef {
    /// The name.
    pub name: Name,
    /// The version: a hash of all that decides what it does.
    pub version: String,
    /// The topics it reads. Several have the same number of partitions, and, but for a query over several topics, the
    /// same columns.
    pub inputs: Vec<Name>,
    /// The names that the query has for the inputs, where they are others.
    pub aliases: BTreeMap<Name, Name>,
    /// The columns of the inputs that it was planned for: further ones, which a topic may have, it does not see. An
    /// input that is not among them is seen with all that it has when the service is started.
    pub columns: BTreeMap<Name, Schema>,
    /// The rules that events must pass.
    pub check: Option<Check>,
    /// What is done with them.
    pub work: Work,
    /// Where the results go.
    pub output: Output,
    /// How many instances share its tasks, at least 1.
    pub instances: u32,
    /// The most rows per batch (see [`BATCH_ROWS_DEFAULT`]).
    pub batch_rows_max: usize,
    /// The lookups that the query joins.
    pub lookups: Vec<LookupHandle>,
    /// What happens to events that come too late for a step that needs event time.
    pub late: Late,
    /// The event time of its topics; `None`: it neither reads nor writes watermarks.
    pub time: Option<ServiceTime>,
    /// Where its state is kept, if it has any.
    pub keep: Keep,
}

/// Where the state of a service is kept.
#[derive(Clone, Default)]
pub enum Keep {
    /// In the log: the table topic `<service>.state`.
    #[default]
    Log,
    /// Nowhere: at every start it is built anew from what the inputs keep.
    Memory,
    /// Outside, where several nodes reach it: strong, shared and slower.
    External(Arc<dyn StateStore>),
}

/// What happens to events that came later than their producer had promised, at a step that needs event time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Late {
    /// They become dead letters with the code `late`.
    #[default]
    DeadLetter,
    /// They are dropped and counted.
    Drop,
    /// They update the results of the query; those that come too late for that become dead letters as well.
    Update,
}

impl ServiceDef {
    /// Whether it only brings events together by another key: then it has the name of its topic.
    pub(crate) fn repartitions(&self) -> bool {
        let own = self.name.as_str().contains(".repartition.");
        own && matches!((&self.work, &self.output), (Work::None, Output::To(topic)) if *topic == self.name)
    }
}

/// What a service knows of event time: whom it waits for, and whom it tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceTime {
    /// By input, in the order of [`ServiceDef::inputs`].
    pub inputs: Vec<InputTime>,
    /// Its output topics that have event time.
    pub outputs: Vec<Name>,
    /// The columns of these that have it, where they are known: what is given out again behind what was promised is
    /// marked as late by them.
    pub columns: BTreeMap<Name, String>,
}

/// An input and everybody who writes it: a reader concludes nothing before each of them has opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputTime {
    /// The topic.
    pub topic: Name,
    /// Its writers.
    pub producers: Vec<Producers>,
}

/// A source or service with its tasks, as writers of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producers {
    /// The source or service.
    pub name: Name,
    /// How many tasks it has.
    pub tasks: u32,
    /// Whether each task writes only the partition with its own number, modulo their count (see
    /// [`crate::writes_in_place`]); otherwise each writes all.
    pub in_place: bool,
}

/// Named rules and what happens to events that break one.
#[derive(Clone)]
pub struct Check {
    /// The rules, planned against the columns of the inputs.
    pub rules: Arc<Rules>,
    /// What happens to events that break one.
    pub otherwise: Else,
}

/// What happens to events that break a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Else {
    /// They become dead letters with the names of all rules they broke.
    DeadLetter,
    /// They are dropped and counted.
    Drop,
    /// They go on, with the names of the rules they broke in a further column, [`BROKEN_RULES`]: the query is planned
    /// against [`tagged`] columns.
    Tag,
    /// They go to this topic, which has the input's columns.
    Topic(Name),
}

/// What a service does between its check and its output.
#[derive(Clone)]
pub enum Work {
    /// Nothing.
    None,
    /// A SQL query.
    Query(Arc<Query>),
    /// A state machine for each key.
    Fold(Arc<Fold>),
    /// Code.
    Processor(Arc<dyn Processor>),
}

/// A step in Rust instead of SQL. It must be deterministic and must treat each row for itself.
pub trait Processor: Send + Sync + 'static {
    /// The columns of its results.
    fn schema(&self) -> &Schema;

    /// Processes rows that have the physical columns of the input.
    fn process(&self, rows: &RecordBatch) -> Processed;
}

/// Where results go.
#[derive(Clone)]
pub enum Output {
    /// All to one topic.
    To(Name),
    /// By conditions.
    Route(Arc<Routes>),
}

/// A source and the topic it fills.
#[derive(Clone)]
pub struct SourceDef {
    /// The name.
    pub name: Name,
    /// The version: a hash of its settings.
    pub version: String,
    /// The source.
    pub source: Arc<dyn Source>,
    /// The topic.
    pub to: Name,
    /// The columns of the topic that the source fills; further ones are null. `None`: those that the topic has when it
    /// is started.
    pub columns: Option<Schema>,
    /// The event time of the topic; `None`: it has none.
    pub event_time: Option<EventTimeDef>,
}

/// How events get their place in time where they enter: lateness is decided here, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventTimeDef {
    /// The column, a timestamp or a date.
    pub column: String,
    /// How much later than its successors an event may come without being late, in microseconds.
    pub max_out_of_orderness_us: i64,
    /// How far ahead of its arrival an event may be, in microseconds; one further ahead becomes a dead letter. `None`: as
    /// far as it likes.
    pub future_us: Option<i64>,
    /// After so long without an event readers do not wait for this source any more; `None`: they always do.
    pub idle: Option<Duration>,
}

/// A sink and the topics it reads.
#[derive(Clone)]
pub struct SinkDef {
    /// The name.
    pub name: Name,
    /// The version: a hash of its settings.
    pub version: String,
    /// The sink.
    pub sink: Arc<dyn Sink>,
    /// The topics it reads; their partition counts may differ.
    pub inputs: Vec<Name>,
    /// The columns that it writes, by topic. Of topics that are not among them it writes all that they have.
    pub columns: BTreeMap<Name, Schema>,
    /// How many instances share its tasks, at least 1.
    pub instances: u32,
}

/// The columns that a query sees behind a check with [`Else::Tag`].
pub fn tagged(schema: &Schema) -> Result<Schema, SchemaError> {
    let kind = ColumnType::Array(Box::new(ColumnType::String));
    let columns = schema.columns().iter().cloned().chain([Column::nullable(BROKEN_RULES, kind)]);
    Schema::new(columns.collect())
}

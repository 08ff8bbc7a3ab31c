//! What keeps state between events: a query at work or a fold at work, with the same calls.

use std::sync::Arc;

use arrow_array::RecordBatch;
use millstream_event::Name;
use millstream_flow::{Broken, ChangeRows, Fold, Folding, LookupSet, Query, Running, Step};

use crate::def::{ServiceDef, Work};

/// The planned work of a service that keeps state.
#[derive(Clone, Copy)]
pub(crate) enum Stateful<'a> {
    Query(&'a Arc<Query>),
    Fold(&'a Arc<Fold>),
}

/// Such work on one partition. Each task has its own.
pub(crate) enum Program {
    Query(Box<Running>),
    Fold(Box<Folding>),
}

impl ServiceDef {
    /// The work, if it keeps state.
    pub(crate) fn stateful(&self) -> Option<Stateful<'_>> {
        match &self.work {
            Work::Query(query) if query.is_stateful() => Some(Stateful::Query(query)),
            Work::Fold(fold) => Some(Stateful::Fold(fold)),
            _ => None,
        }
    }
}

impl<'a> Stateful<'a> {
    /// The topics that it reads, by its own names for them.
    pub(crate) fn inputs(self) -> &'a [Name] {
        match self {
            Self::Query(query) => query.inputs(),
            Self::Fold(fold) => fold.inputs(),
        }
    }

    /// The work on one partition, without state.
    pub(crate) fn open(self) -> Result<Program, Broken> {
        Ok(match self {
            Self::Query(query) => Program::Query(Box::new(query.open()?)),
            Self::Fold(fold) => Program::Fold(Box::new(fold.open()?)),
        })
    }

    /// What decides the form of the state.
    pub(crate) fn signature(self) -> String {
        match self {
            Self::Query(query) => query.state_signature(),
            Self::Fold(fold) => fold.state_signature(),
        }
    }
}

impl Program {
    /// Takes rows of a topic.
    pub(crate) fn push(&mut self, topic: &Name, rows: &RecordBatch, lookups: &LookupSet) -> Result<Step, Broken> {
        match self {
            Self::Query(running) => running.push(topic, rows, lookups),
            Self::Fold(folding) => folding.push(topic, rows, lookups),
        }
    }

    /// Concludes what no event can change any more.
    pub(crate) fn advance(&mut self, watermark: i64, lookups: &LookupSet) -> Result<Step, Broken> {
        match self {
            Self::Query(running) => running.advance(watermark, lookups),
            Self::Fold(folding) => folding.advance(watermark, lookups),
        }
    }

    /// Goes on from restored state where the inputs' watermark was `watermark`. Whether not all was concluded there.
    pub(crate) fn resume(&mut self, watermark: i64) -> bool {
        match self {
            Self::Query(running) => running.resume(watermark),
            // Its timers run in one step.
            Self::Fold(_) => false,
        }
    }

    /// What may still be expected of the output where the inputs' watermark is `watermark`.
    pub(crate) fn output_watermark(&self, watermark: i64) -> i64 {
        match self {
            Self::Query(running) => running.output_watermark(watermark),
            // What a timer gives out has its time, and it has run when the watermark has passed.
            Self::Fold(_) => watermark,
        }
    }

    /// Whether it holds rows that it gives out when event time goes on, without being pushed more.
    pub(crate) fn waits(&self) -> bool {
        match self {
            Self::Query(running) => running.waits(),
            Self::Fold(folding) => folding.waits(),
        }
    }

    /// What has changed in the state since it was asked the last time.
    pub(crate) fn changes(&mut self) -> Option<ChangeRows> {
        match self {
            Self::Query(running) => running.changes(),
            Self::Fold(folding) => folding.changes(),
        }
    }

    /// Brings near what [`Program::restore`] of these keys will need.
    pub(crate) fn touch<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        if let Self::Query(running) = self {
            running.touch(keys);
        }
    }

    /// Takes back a change; `value` is `None` where the key is gone.
    pub(crate) fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Broken> {
        match self {
            Self::Query(running) => running.restore(key, value),
            Self::Fold(folding) => folding.restore(key, value),
        }
    }
}

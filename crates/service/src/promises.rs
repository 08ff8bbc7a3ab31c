//! What a task has promised to each partition that it writes, and when it must say something without having events.
//!
//! An append with events carries the promise at no price. A partition without events is told by an append of its own, at
//! most every [`SAY_EVERY`]; that nothing will come any more is told at once, so that nobody waits at the end. Who is about
//! to leave, or to wait for something else, tells all at once ([`Promises::hurry`]).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use millstream_event::{Name, PartitionId, Watermark};
use millstream_log::Append;

use crate::placing::Outlet;

/// How often a partition without events is told of a new promise.
pub(crate) const SAY_EVERY: Duration = Duration::from_millis(100);

/// The partitions that a task writes.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    topics: Vec<Topic>,
}

#[derive(Debug)]
struct Topic {
    name: Name,
    schema_version: u32,
    /// No rows, with the topic's columns.
    nothing: RecordBatch,
    partitions: BTreeMap<PartitionId, Said>,
}

/// What a partition knows.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    watermark: Option<Watermark>,
    /// When it was told without events.
    alone: Option<Instant>,
}

impl Said {
    fn wait(&self, promise: Watermark, now: Instant) -> Option<Duration> {
        if self.watermark == Some(promise) {
            return None;
        }
        match self.alone {
            Some(then) if promise != Watermark::CLOSED => {
                Some(SAY_EVERY.saturating_sub(now.saturating_duration_since(then)))
            }
            _ => Some(Duration::ZERO),
        }
    }
}

impl Promises {
    /// Adds the partitions that rows from partition `from` may go to.
    pub(crate) fn add(&mut self, outlet: &Outlet, from: PartitionId) {
        let spec = &outlet.info.spec;
        let place = self.topics.iter().position(|t| t.name == spec.name).unwrap_or_else(|| {
            self.topics.push(Topic {
                name: spec.name.clone(),
                schema_version: outlet.info.schema_version,
                nothing: RecordBatch::new_empty(spec.schema.physical().clone()),
                partitions: BTreeMap::new(),
            });
            self.topics.len() - 1
        });
        if let Some(topic) = self.topics.get_mut(place) {
            outlet.partitions(from).for_each(|partition| {
                topic.partitions.entry(partition).or_default();
            });
        }
    }

    /// A commit with these appends did not happen: who was told by it knows nothing.
    pub(crate) fn unsay(&mut self, appends: &[Append]) {
        for append in appends.iter().filter(|append| append.watermark.is_some()) {
            let topic = self.topics.iter_mut().find(|t| t.name == append.topic);
            if let Some(said) = topic.and_then(|t| t.partitions.get_mut(&append.partition)) {
                *said = Said::default();
            }
        }
    }

    /// Whoever does not know yet is to be told now.
    pub(crate) fn hurry(&mut self) {
        self.topics.iter_mut().flat_map(|t| t.partitions.values_mut()).for_each(|said| said.alone = None);
    }

    /// How long until a partition must be told without events; `None`: all know.
    pub(crate) fn wait(&self, promise: Watermark, now: Instant) -> Option<Duration> {
        let all = self.topics.iter().flat_map(|t| t.partitions.values());
        all.filter_map(|said| said.wait(promise, now)).min()
    }

    /// Puts the promise behind the events of a commit, and adds an append for each partition without events whose time
    /// has come.
    pub(crate) fn put(&mut self, appends: &mut Vec<Append>, promise: Watermark, now: Instant) {
        // Behind the last events of a partition: an earlier append would promise what a later one breaks.
        for append in appends.iter_mut().rev() {
            let topic = self.topics.iter_mut().find(|t| t.name == append.topic);
            let said = topic.and_then(|t| t.partitions.get_mut(&append.partition));
            if let Some(said) = said.filter(|said| said.watermark != Some(promise)) {
                said.watermark = Some(promise);
                append.watermark = Some(promise);
            }
        }
        for topic in &mut self.topics {
            let due = topic.partitions.iter_mut().filter(|(_, said)| said.wait(promise, now) == Some(Duration::ZERO));
            for (partition, said) in due {
                *said = Said { watermark: Some(promise), alone: Some(now) };
                appends.push(Append {
                    topic: topic.name.clone(),
                    partition: *partition,
                    schema_version: topic.schema_version,
                    rows: topic.nothing.clone(),
                    watermark: Some(promise),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use millstream_event::{Column, ColumnType, Schema};
    use millstream_log::{Retention, TopicInfo, TopicKind, TopicSpec};

    use super::*;

    const TWICE: Duration = Duration::from_millis(200);

    /// Promises to the three partitions of a topic.
    fn promises() -> Promises {
        let schema = Schema::new(vec![Column::nullable("k", ColumnType::String)]).unwrap();
        let spec = TopicSpec {
            name: Name::new("t").unwrap(),
            partitions: 3,
            key: vec!["k".to_owned()],
            schema: schema.clone(),
            kind: TopicKind::Stream,
            retention: Retention::default(),
            consumers: vec![],
        };
        let outlet = Outlet::new(TopicInfo { spec, schema_version: 1 }, &schema, false).unwrap();
        let mut promises = Promises::default();
        promises.add(&outlet, PartitionId(0));
        promises
    }

    /// A commit with appends to these partitions: which of them carry which promise, in the commit's order.
    fn put(promises: &mut Promises, to: &[u32], promise: Watermark, now: Instant) -> Vec<(u32, Option<i64>)> {
        let nothing = promises.topics[0].nothing.clone();
        let append = |partition: &u32| Append {
            topic: Name::new("t").unwrap(),
            partition: PartitionId(*partition),
            schema_version: 1,
            rows: nothing.clone(),
            watermark: None,
        };
        let mut appends = to.iter().map(append).collect();
        promises.put(&mut appends, promise, now);
        appends.iter().map(|a| (a.partition.0, a.watermark.map(|w| w.0))).collect()
    }

    #[test]
    fn every_partition_is_told_but_those_without_events_not_too_often() {
        let (mut promises, start) = (promises(), Instant::now());
        let open = Some(Watermark::OPEN.0);
        assert_eq!(put(&mut promises, &[], Watermark::OPEN, start), [(0, open), (1, open), (2, open)]);
        assert_eq!(promises.wait(Watermark::OPEN, start), None);
        assert_eq!(
            put(&mut promises, &[1, 1], Watermark(7), start),
            [(1, None), (1, Some(7))],
            "behind all its events"
        );
        assert_eq!(promises.wait(Watermark(7), start), Some(SAY_EVERY));
        assert_eq!(put(&mut promises, &[1], Watermark(7), start), [(1, None)], "it knows");
        let later = start + SAY_EVERY;
        assert_eq!(put(&mut promises, &[2], Watermark(8), later), [(2, Some(8)), (0, Some(8)), (1, Some(8))]);
        assert_eq!(promises.wait(Watermark(8), later), None);
    }

    #[test]
    fn the_end_is_told_at_once() {
        let (mut promises, start) = (promises(), Instant::now());
        put(&mut promises, &[], Watermark(1), start);
        assert_eq!(put(&mut promises, &[0], Watermark(2), start), [(0, Some(2))]);
        let closed = Some(Watermark::CLOSED.0);
        assert_eq!(put(&mut promises, &[], Watermark::CLOSED, start), [(0, closed), (1, closed), (2, closed)]);
        assert_eq!(put(&mut promises, &[], Watermark::CLOSED, start + TWICE), []);
    }

    #[test]
    fn who_is_in_a_hurry_tells_all_at_once() {
        let (mut promises, start) = (promises(), Instant::now());
        put(&mut promises, &[], Watermark(1), start);
        assert_eq!(put(&mut promises, &[1], Watermark(2), start), [(1, Some(2))]);
        promises.hurry();
        assert_eq!(promises.wait(Watermark(2), start), Some(Duration::ZERO));
        assert_eq!(put(&mut promises, &[], Watermark(2), start), [(0, Some(2)), (2, Some(2))]);
        promises.hurry();
        assert_eq!(promises.wait(Watermark(2), start), None, "all know");
    }

    #[test]
    fn what_a_commit_said_that_did_not_happen_is_said_again_and_nothing_else() {
        let (mut promises, start) = (promises(), Instant::now());
        put(&mut promises, &[], Watermark(1), start);
        let lost = |partition| Append {
            topic: Name::new("t").unwrap(),
            partition: PartitionId(partition),
            schema_version: 1,
            rows: promises.topics[0].nothing.clone(),
            watermark: (partition == 1).then_some(Watermark(1)),
        };
        let lost = [lost(0), lost(1)];
        promises.unsay(&lost);
        assert_eq!(put(&mut promises, &[], Watermark(1), start), [(1, Some(1))]);
    }
}

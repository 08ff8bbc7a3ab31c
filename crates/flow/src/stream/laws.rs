//! What the laws of operators are tested with: events of one topic, run in any cuts and with any restarts.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_cast::display::array_value_to_string;
use millstream_event::{Column, Name, Schema, Stamp};
use proptest::prelude::*;

use crate::{Catalog, LookupSet, Query, Running, Step, TimeColumn, plan_query};

/// How far events may be out of order before they are late, in seconds.
pub(crate) const BEHIND: i64 = 20;

/// An event of the topic `t (k string, v bigint, at timestamp)`; `at` in seconds.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) k: Option<u8>,
    pub(crate) v: Option<i64>,
    pub(crate) at: i64,
    pub(crate) late: bool,
    /// The watermark behind it, in seconds.
    pub(crate) watermark: i64,
    /// Whether a batch ends behind it, and whether the query starts again there from its changes.
    pub(crate) cut: Cut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    None,
    Batch,
    Restart,
}

/// The catalog with the topic.
pub(crate) fn catalog() -> Catalog {
    let columns = [("k", "string"), ("v", "bigint"), ("at", "timestamp")];
    let columns = columns.map(|(name, kind)| Column::parse(name, kind).unwrap()).to_vec();
    let name = Name::new("t").unwrap();
    let mut catalog = Catalog::default();
    catalog.topics.insert(name.clone(), Schema::new(columns).unwrap());
    catalog.event_times.insert(name, TimeColumn { name: "at".to_owned(), plus_us: 0 });
    catalog
}

/// A query over it.
pub(crate) fn planned(sql: &str, catalog: &Catalog) -> Arc<Query> {
    Arc::new(plan_query(sql, catalog).unwrap_or_else(|errors| panic!("{sql}: {errors:?}")))
}

/// Up to `n` events, disordered, some of them late, cut anyhow.
pub(crate) fn events(n: usize) -> impl Strategy<Value = Vec<Event>> {
    let cut = prop_oneof![3 => Just(Cut::None), 2 => Just(Cut::Batch), 1 => Just(Cut::Restart)];
    let key = prop::option::weighted(0.9, 0_u8..3);
    let one = (key, prop::option::weighted(0.9, -5_i64..20), 0_i64..30, cut);
    prop::collection::vec(one, 0..n).prop_map(|raw| {
        let mut greatest = 0;
        let events = raw.into_iter().zip(0_i64..).map(|((k, v, jump, cut), i)| {
            let at = i * 6 + jump;
            let late = at < greatest - BEHIND;
            greatest = greatest.max(at);
            Event { k, v, at, late, watermark: greatest - BEHIND, cut }
        });
        events.collect()
    })
}

/// Events as rows of their topic.
pub(crate) fn rows(query: &Query, events: &[Event], catalog: &Catalog) -> RecordBatch {
    let keys: StringArray = events.iter().map(|e| e.k.map(|k| format!("k{k}"))).collect();
    let values: Int64Array = events.iter().map(|e| e.v).collect();
    let zoned =
        |times: Vec<i64>| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(times).with_timezone("+00:00")) };
    let times = zoned(events.iter().map(|e| e.at * 1_000_000).collect());
    let stamp = |e: &Event| Stamp::at(e.at * 1_000_000).with(if e.late { Stamp::LATE } else { 0 }).0;
    let stamps = zoned(events.iter().map(stamp).collect());
    let schema = catalog.topics.get(&query.inputs()[0]).unwrap();
    let columns: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(values), times, stamps];
    RecordBatch::try_new(Arc::clone(schema.physical()), columns).unwrap()
}

/// All that a query gives out for events, row by row as text, and its state at the end.
pub(crate) struct Given {
    /// The columns of each row, and whether it is marked as deleted.
    pub(crate) rows: Vec<(Vec<String>, bool)>,
    /// The rows of the state, before the end of time.
    pub(crate) kept: usize,
}

impl Given {
    /// The rows without marks.
    pub(crate) fn texts(&self) -> Vec<Vec<String>> {
        self.rows.iter().map(|(row, _)| row.clone()).collect()
    }

    /// What a table has that takes these rows by its first `key` columns.
    pub(crate) fn table(&self, key: usize) -> BTreeMap<Vec<String>, Vec<String>> {
        let mut table = BTreeMap::new();
        for (row, deleted) in &self.rows {
            match deleted {
                true => table.remove(&row[..key]),
                false => table.insert(row[..key].to_vec(), row.clone()),
            };
        }
        table
    }
}

/// Runs the query over events in their cuts, up to the end of time.
pub(crate) fn given(query: &Arc<Query>, events: &[Event], catalog: &Catalog) -> Given {
    let lookups = LookupSet::default();
    let topic = query.inputs()[0].clone();
    let mut running = query.open().unwrap();
    let mut kept: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut out = Vec::new();
    let mut first = 0;
    for (at, event) in events.iter().enumerate() {
        if event.cut == Cut::None && at + 1 < events.len() {
            continue;
        }
        let batch = rows(query, &events[first..=at], catalog);
        first = at + 1;
        take(running.push(&topic, &batch, &lookups).unwrap(), &mut out);
        take(running.advance(event.watermark * 1_000_000, &lookups).unwrap(), &mut out);
        keep(&mut running, &mut kept);
        if event.cut == Cut::Restart {
            running = query.open().unwrap();
            kept.iter().for_each(|(key, value)| running.restore(key, Some(value)).unwrap());
        }
    }
    let size = kept.len();
    take(running.advance(i64::MAX, &lookups).unwrap(), &mut out);
    Given { rows: out, kept: size }
}

fn keep(running: &mut Running, kept: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    for (key, value) in running.changes().iter().flat_map(|changes| changes.iter()) {
        match value {
            Some(value) => kept.insert(key.to_vec(), value.to_vec()),
            None => kept.remove(key),
        };
    }
}

fn take(step: Step, out: &mut Vec<(Vec<String>, bool)>) {
    assert!(step.failed.is_empty() && step.derived.is_empty());
    for batch in step.rows {
        let user = batch.num_columns() - 1;
        let stamps = batch.column(user);
        let stamps: &TimestampMicrosecondArray = stamps.as_any().downcast_ref().unwrap();
        for row in 0..batch.num_rows() {
            let texts = batch.columns()[..user].iter().map(|c| array_value_to_string(c, row).unwrap());
            out.push((texts.collect(), Stamp(stamps.value(row)).is_deleted()));
        }
    }
}

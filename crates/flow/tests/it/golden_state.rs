//! Golden tests of queries with state: text files of topics, what arrives, queries and what they yield.
//!
//! `@topic NAME [table] [key COLUMN …] [time COLUMN OUT_OF_ORDERNESS_SECONDS]` declares a topic, with a column in each line.
//! `@feed` says what arrives, in order: `TOPIC {json}`, a tombstone as `-TOPIC {json}`. A row is late where its time is before the greatest so far minus the
//! out-of-orderness; the watermark follows the greatest. When all has arrived, the watermark passes the end of time.
//! `@options [updating] [ttl SECONDS] [late SECONDS]` is for the queries behind it: they may update their results; what is
//! kept for each key is kept for so long; late events update windows for so long. Of a query that updates its results the table is shown that they lead to.
//! `@order event_time | arrival` says in which order OVER takes events from there on.
//! `@case NAME` is followed by a query, `@expect` by what it yields. `UPDATE=1` rewrites what is expected; read the
//! difference before you commit it.
//!
//! Each case runs: at once; event by event; with a restart from its changes after every 1, 2 and 3 events; and, where the
//! topics have a key, on 2 and 5 partitions (by the key that the query groups by, where the topic's own is not among it).
//! All agree, but for the order across partitions. Where what is given out at once mixes with what waits for a watermark,
//! the order depends on when watermarks come: such a case is marked `(in any order)`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray};
use millstream_event::json::{Decimals, Decoder, Encoder};
use millstream_event::{Column, Name, Partitioner, Schema, Stamp, Unknown};
use millstream_flow::{Catalog, LookupSet, Order, Query, Running, Step, TimeColumn, plan_query};

use crate::golden::{blocks, columns, hold, show};

/// The start of 2026 in microseconds.
const START: i64 = 1_767_225_600_000_000;

pub(crate) struct Topic {
    schema: Schema,
    key: Vec<String>,
    time: Option<(usize, i64)>,
}

/// One row on its way in, with the watermark behind it.
pub(crate) struct Event {
    pub(crate) topic: Name,
    pub(crate) rows: RecordBatch,
    pub(crate) watermark: i64,
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) catalog: Catalog,
    topics: BTreeMap<Name, Topic>,
    pub(crate) events: Vec<Event>,
}

#[test]
fn every_golden_file_of_queries_with_state_holds() {
    hold("tests/golden_state", &mut rerun);
}

/// A producer that went back behind its promise, as one does that is opened again, loses no event silently.
#[test]
fn an_unmarked_row_of_a_window_that_was_given_out_is_told_as_late() {
    let mut world = World::default();
    world.declare("t", &["key", "k", "time", "at", "0"], "k: string!\nat: timestamp!");
    world
        .feed("t {\"k\": \"a\", \"at\": \"2026-01-01T00:00:01Z\"}\nt {\"k\": \"a\", \"at\": \"2026-01-01T00:00:02Z\"}");
    let sql = "SELECT k, window_end, count(*) AS n FROM tumble(t, at, INTERVAL '10 seconds') GROUP BY k, window_end";
    let mut running = Arc::new(plan_query(sql, &world.catalog).unwrap()).open().unwrap();
    let lookups = LookupSet::default();
    let [first, second] = world.events.as_slice() else { panic!("two events") };
    running.push(&first.topic, &first.rows, &lookups).unwrap();
    assert_eq!(running.advance(START + 10_000_000, &lookups).unwrap().rows.len(), 1);
    running.changes();
    let step = running.push(&second.topic, &second.rows, &lookups).unwrap();
    assert_eq!((step.late, step.rows.len()), (vec![0], 0));
    assert!(running.changes().is_none());
}

/// A source that finished and finds more later: what it was is over, what comes behind that is concluded again.
#[test]
fn what_ended_and_begins_again_concludes_again_and_tells_what_is_late() {
    let queries = [
        "SELECT k, window_end, count(*) AS n FROM tumble(t, at, INTERVAL '10 seconds') GROUP BY k, window_end",
        "SELECT k, window_end, count(*) AS n FROM session(t, at, INTERVAL '10 seconds') GROUP BY k, window_start, window_end",
        "SELECT DISTINCT k, window_start, window_end FROM tumble(t, at, INTERVAL '10 seconds')",
        "SELECT k, at, window_end FROM tumble(t, at, INTERVAL '10 seconds') \
         QUALIFY ROW_NUMBER() OVER (PARTITION BY k, window_start, window_end ORDER BY at DESC) <= 2",
    ];
    let mut world = World::default();
    world.declare("t", &["key", "k", "time", "at", "0"], "k: string!\nat: timestamp!");
    let line = |second: u32| format!("t {{\"k\": \"a\", \"at\": \"2026-01-01T00:00:{second:02}Z\"}}\n");
    world.feed(&[line(1), line(1), line(40)].concat());
    let [first, again, later] = world.events.as_slice() else { panic!("three events") };
    let lookups = LookupSet::default();
    for sql in queries {
        let query = Arc::new(plan_query(sql, &world.catalog).unwrap());
        let mut running = query.open().unwrap();
        let mut kept = BTreeMap::new();
        let mut rows = running.push(&first.topic, &first.rows, &lookups).unwrap().rows.len();
        rows += running.advance(i64::MAX, &lookups).unwrap().rows.len();
        assert_eq!(rows, 1, "{sql}");
        keep(&mut running, &mut kept);
        let mut reopened = query.open().unwrap();
        kept.iter().for_each(|(key, value)| reopened.restore(key, Some(value)).unwrap());
        for running in [&mut running, &mut reopened] {
            let step = running.push(&again.topic, &again.rows, &lookups).unwrap();
            assert_eq!((step.late, step.rows.len()), (vec![0], 0), "{sql}");
            let step = running.push(&later.topic, &later.rows, &lookups).unwrap();
            assert_eq!(step.late, Vec::<u32>::new(), "{sql}");
            let given = running.advance(START + 100_000_000, &lookups).unwrap();
            assert_eq!(step.rows.len() + given.rows.len(), 1, "{sql}");
        }
    }
}

/// With `late: update` too: what existed is closed, and what happens at new times counts, on time or late.
#[test]
fn windows_that_late_events_update_go_on_where_a_source_that_ended_begins_again() {
    let mut world = World::default();
    world.declare("t", &["key", "k", "time", "at", "0"], "k: string!\nat: timestamp!");
    world.options(&["updating", "late", "100000"]);
    let line = |day: u32, second: u32| format!("t {{\"k\": \"a\", \"at\": \"2026-01-0{day}T00:00:{second:02}Z\"}}\n");
    // The last two are late: one in a window of before the end, one in a window of behind it.
    world.feed(&[line(1, 1), line(2, 1), line(2, 30), line(1, 2), line(2, 3)].concat());
    let lookups = LookupSet::default();
    for (from, windows) in [
        ("tumble(t, at, INTERVAL '10 seconds')", 1),
        ("hop(t, at, INTERVAL '5 seconds', INTERVAL '10 seconds')", 2),
        ("cumulate(t, at, INTERVAL '5 seconds', INTERVAL '10 seconds')", 2),
    ] {
        let sql = format!("SELECT k, window_end, count(*) AS n FROM {from} GROUP BY k, window_start, window_end");
        let query = Arc::new(plan_query(&sql, &world.catalog).unwrap());
        let [first, next, later, late, correcting] = world.events.as_slice() else { panic!("five events") };
        let mut running = query.open().unwrap();
        let mut kept = BTreeMap::new();
        running.push(&first.topic, &first.rows, &lookups).unwrap();
        let ended = running.advance(i64::MAX, &lookups).unwrap();
        assert_eq!(rows_of(&ended), windows, "{sql}");
        keep(&mut running, &mut kept);
        let mut reopened = query.open().unwrap();
        kept.iter().for_each(|(key, value)| reopened.restore(key, Some(value)).unwrap());
        for running in [&mut running, &mut reopened] {
            for event in [next, later] {
                let step = running.push(&event.topic, &event.rows, &lookups).unwrap();
                assert_eq!(step.late, Vec::<u32>::new(), "{sql}");
            }
            let given = running.advance(later.watermark, &lookups).unwrap();
            assert_eq!(rows_of(&given), windows, "{sql}");
            let step = running.push(&late.topic, &late.rows, &lookups).unwrap();
            assert_eq!((step.late.clone(), rows_of(&step)), (vec![0], 0), "{sql}");
            let step = running.push(&correcting.topic, &correcting.rows, &lookups).unwrap();
            assert_eq!((step.late.clone(), rows_of(&step)), (vec![], windows), "{sql}");
            assert_eq!(rows_of(&running.advance(i64::MAX, &lookups).unwrap()), windows, "{sql}");
        }
    }
}

/// The versions of a table are no windows: which of them an event meets does not depend on whether a source has ended.
#[test]
fn an_event_of_a_source_that_begins_again_meets_the_version_of_its_time() {
    let mut world = World::default();
    world.declare("t", &["key", "k", "time", "at", "0"], "k: string!\nat: timestamp!");
    world.declare("v", &["table", "key", "k", "time", "since", "0"], "k: string!\nname: string\nsince: timestamp!");
    let stream = |second: u32| format!("t {{\"k\": \"a\", \"at\": \"2026-01-01T00:00:{second:02}Z\"}}\n");
    let version = |second: u32| {
        format!("v {{\"k\": \"a\", \"name\": \"v{second}\", \"since\": \"2026-01-01T00:00:{second:02}Z\"}}\n")
    };
    world.feed(&[version(1), version(10), stream(2), stream(5)].concat());
    let sql = "SELECT t.k, v.name FROM t LEFT JOIN v FOR SYSTEM_TIME AS OF t.at ON t.k = v.k";
    let mut running = Arc::new(plan_query(sql, &world.catalog).unwrap()).open().unwrap();
    let lookups = LookupSet::default();
    let (again, before) = world.events.split_last().unwrap();
    for event in before {
        running.push(&event.topic, &event.rows, &lookups).unwrap();
        running.advance(event.watermark, &lookups).unwrap();
    }
    running.advance(i64::MAX, &lookups).unwrap();
    running.push(&again.topic, &again.rows, &lookups).unwrap();
    let step = running.advance(i64::MAX, &lookups).unwrap();
    let names = step.rows.iter().flat_map(|rows| rows.column(1).as_string::<i32>().iter().flatten());
    assert_eq!(names.collect::<Vec<_>>(), ["v1"]);
}

/// An event an hour for fifty days, in sixty windows each, and the end: more rows than a step gives out.
#[test]
fn many_windows_that_end_together_come_in_steps_of_few_batches() {
    let mut world = World::default();
    world.declare("t", &["key", "k", "time", "at", "0"], "k: string!\nat: timestamp!");
    let line = |hour: u32| {
        let (month, day) = if hour / 24 < 31 { (1, hour / 24 + 1) } else { (2, hour / 24 - 30) };
        format!("t {{\"k\": \"a\", \"at\": \"2026-{month:02}-{day:02}T{:02}:00:00Z\"}}\n", hour % 24)
    };
    world.feed(&(0..1200).map(line).collect::<String>());
    let from = "SELECT k, window_start, window_end, count(*) AS n FROM hop(t, at, INTERVAL '1 minute', INTERVAL '1 hour') \
                GROUP BY k, window_start, window_end";
    let twice = format!(
        "SELECT 'all' AS k, window_start, window_end, max(n) AS most FROM ({from}) GROUP BY window_start, window_end"
    );
    let lookups = LookupSet::default();
    for sql in [from, &twice] {
        let query = Arc::new(plan_query(sql, &world.catalog).unwrap());
        let mut running = query.open().unwrap();
        let mut kept = BTreeMap::new();
        for run in runs(&world.events.iter().collect::<Vec<_>>()) {
            running.push(&run.topic, &run.rows, &lookups).unwrap();
        }
        let (mut given, mut steps, mut promised) = (0, 1, i64::MIN);
        loop {
            let step = running.advance(i64::MAX, &lookups).unwrap();
            assert!(step.rows.len() <= 2, "{sql}");
            for rows in &step.rows {
                let ends = rows.column(2).as_primitive::<TimestampMicrosecondType>();
                assert!(ends.values().iter().all(|end| *end > promised), "{sql}");
            }
            given += rows_of(&step);
            keep(&mut running, &mut kept);
            if !step.more {
                break;
            }
            promised = running.output_watermark(i64::MAX);
            assert!(promised < i64::MAX, "{sql}");
            running = query.open().unwrap();
            kept.iter().for_each(|(key, value)| running.restore(key, Some(value)).unwrap());
            assert!(running.resume(i64::MAX), "{sql}");
            assert_eq!(running.output_watermark(i64::MAX), promised, "{sql}");
            steps += 1;
        }
        assert_eq!((given, steps), (72_000, 2), "{sql}");
        assert!(!running.resume(i64::MAX) && running.output_watermark(i64::MAX) == i64::MAX, "{sql}");
    }
}

fn rows_of(step: &Step) -> usize {
    step.rows.iter().map(RecordBatch::num_rows).sum()
}

/// The file with every `@expect` as it really is.
fn rerun(text: &str) -> String {
    let mut world = World::default();
    let mut out = String::new();
    for block in blocks(text) {
        let (head, body) = block.split_once('\n').unwrap_or((block, ""));
        let words: Vec<&str> = head.split_whitespace().collect();
        match words.as_slice() {
            ["@topic", name, spec @ ..] => world.declare(name, spec, body),
            ["@order", "event_time"] => world.catalog.order = Order::EventTime,
            ["@order", "arrival"] => world.catalog.order = Order::Arrival,
            ["@feed", ..] => world.feed(body),
            ["@options", options @ ..] => world.options(options),
            ["@case", ..] => {
                out.push_str(block.trim_end());
                write!(out, "\n@expect\n{}\n", world.outcome(head, body.trim())).unwrap();
                continue;
            }
            ["@expect"] => continue,
            _ => {}
        }
        out.push_str(block);
    }
    out
}

impl World {
    pub(crate) fn declare(&mut self, name: &str, spec: &[&str], body: &str) {
        let name = Name::new(name).unwrap();
        let columns = columns(body);
        let columns = columns.iter().map(|c| {
            let (name, kind) = c.split_once(": ").expect("column: type");
            Column::parse(name, kind).unwrap()
        });
        let schema = Schema::new(columns.collect()).unwrap();
        let (mut key, mut time) = (Vec::new(), None);
        let mut words = spec.iter();
        let mut table = false;
        while let Some(word) = words.next() {
            match *word {
                "table" => table = true,
                "key" => key.push((*words.next().unwrap()).to_owned()),
                "time" => {
                    let column = *words.next().unwrap();
                    let behind: f64 = words.next().unwrap().parse().unwrap();
                    time = Some((schema.column(column).unwrap().0, (behind * 1e6) as i64));
                    let time = TimeColumn { name: column.to_owned(), plus_us: 0 };
                    self.catalog.event_times.insert(name.clone(), time);
                }
                other => panic!("{other}"),
            }
        }
        self.catalog.topics.insert(name.clone(), schema.clone());
        if table {
            self.catalog.tables.insert(name.clone(), key.clone());
        }
        self.topics.insert(name, Topic { schema, key, time });
        self.events.clear();
    }

    fn options(&mut self, options: &[&str]) {
        self.catalog.updating = options.contains(&"updating");
        let micros = |name: &str| {
            let at = options.iter().position(|o| *o == name)?;
            Some((options[at + 1].parse::<f64>().unwrap() * 1e6) as i64)
        };
        self.catalog.state_ttl_us = micros("ttl");
        self.catalog.late_us = micros("late");
    }

    pub(crate) fn feed(&mut self, body: &str) {
        self.events.clear();
        let mut greatest: BTreeMap<Name, i64> = BTreeMap::new();
        let lines = body.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        for (row, line) in lines.enumerate() {
            let (name, json) = line.split_once(' ').expect("TOPIC {json}");
            let (name, deleted) = name.strip_prefix('-').map_or((name, false), |name| (name, true));
            let name = Name::new(name).unwrap();
            let topic = &self.topics[&name];
            let decoded = Decoder::new(&topic.schema, Unknown::Reject).decode_lines(json.as_bytes()).unwrap();
            assert!(decoded.refused.is_empty(), "{line}: {:?}", decoded.refused);
            let mut stamp = Stamp::at(START + row as i64 * 1_000_000);
            if let Some((place, behind)) = topic.time {
                let times = decoded.rows.column(place).as_primitive::<TimestampMicrosecondType>();
                if times.is_valid(0) {
                    let time = times.value(0);
                    let before = greatest.get(&name).copied().unwrap_or(i64::MIN);
                    if time < before.saturating_sub(behind) {
                        stamp = stamp.with(Stamp::LATE);
                    }
                    greatest.insert(name.clone(), before.max(time));
                }
            }
            if deleted {
                stamp = stamp.with(Stamp::DELETED);
            }
            let stamps: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![stamp.0]).with_timezone("+00:00"));
            let rows = topic.schema.with_system_column(&decoded.rows, stamps).unwrap();
            let timed = self.topics.iter().filter_map(|(name, topic)| Some((name, topic.time?.1)));
            let of = |(name, behind): (&Name, i64)| greatest.get(name).map_or(i64::MIN, |t| t.saturating_sub(behind));
            let watermark = timed.map(of).min().unwrap_or(i64::MIN);
            self.events.push(Event { topic: name, rows, watermark });
        }
    }

    fn outcome(&self, head: &str, sql: &str) -> String {
        let query = match plan_query(sql, &self.catalog) {
            Ok(query) => Arc::new(query),
            Err(errors) => return errors.iter().map(show).collect(),
        };
        let all: Vec<&Event> = self.events.iter().filter(|e| query.inputs().contains(&e.topic)).collect();
        let whole = Outcome::of(&query, &runs(&all), usize::MAX);
        for every in [usize::MAX, 1, 2, 3] {
            let single: Vec<Event> = all.iter().map(|e| e.one()).collect();
            let one = Outcome::of(&query, &single, every);
            let (mut lines, mut expected) = (one.lines(&query), whole.lines(&query));
            if head.contains("(in any order)") {
                lines.sort();
                expected.sort();
            }
            assert_eq!(lines, expected, "{head}: event by event, restarted after {every}");
        }
        let keys = query.inputs().iter().map(|input| {
            let own = &self.topics[input].key;
            let key = match query.key(input) {
                Some(asked) if !own.iter().all(|column| asked.contains(column)) => asked.to_vec(),
                _ => own.clone(),
            };
            (input.clone(), key)
        });
        let keys: BTreeMap<Name, Vec<String>> = keys.collect();
        if keys.values().all(|key| !key.is_empty()) {
            for partitions in [2, 5] {
                let parts = self.parts(&all, &keys, partitions);
                let outcomes: Vec<Outcome> = parts.iter().map(|p| Outcome::of(&query, p, 2)).collect();
                let mut lines: Vec<String> = outcomes.iter().flat_map(|o| o.lines(&query)).collect();
                let mut expected = whole.lines(&query);
                lines.sort();
                expected.sort();
                assert_eq!(lines, expected, "{head}: on {partitions} partitions");
            }
        }
        format!("{}\n{}", query.schema(), whole.text(&query))
    }

    /// The events of each partition; watermarks are those of the producer, which is one.
    pub(crate) fn parts(
        &self,
        events: &[&Event],
        keys: &BTreeMap<Name, Vec<String>>,
        partitions: u32,
    ) -> Vec<Vec<Event>> {
        let mut parts: Vec<Vec<Event>> = (0..partitions).map(|_| Vec::new()).collect();
        for event in events {
            let topic = &self.topics[&event.topic];
            let by = &keys[&event.topic];
            // An event without a key is in no partition; where it is, it meets none.
            let split = Partitioner::new(&topic.schema, by, partitions).unwrap().split(&event.rows).unwrap();
            for (partition, part) in (0..).zip(&mut parts) {
                let mine = split.parts.iter().find(|p| p.partition.0 == partition);
                let lost = split.parts.is_empty() && partition == 0;
                let rows = if lost { Some(event.rows.clone()) } else { mine.map(|p| p.rows.clone()) };
                let rows = rows.unwrap_or_else(|| RecordBatch::new_empty(event.rows.schema()));
                part.push(Event { topic: event.topic.clone(), rows, watermark: event.watermark });
            }
        }
        parts
    }
}

impl Event {
    pub(crate) fn one(&self) -> Self {
        Self { topic: self.topic.clone(), rows: self.rows.clone(), watermark: self.watermark }
    }
}

/// Events of one topic without a break as one batch, with the last watermark.
pub(crate) fn runs(events: &[&Event]) -> Vec<Event> {
    let mut runs: Vec<Event> = Vec::new();
    for event in events {
        match runs.last_mut() {
            Some(run) if run.topic == event.topic => {
                let both = [&run.rows, &event.rows];
                run.rows = arrow_select::concat::concat_batches(event.rows.schema_ref(), both).unwrap();
                run.watermark = event.watermark;
            }
            _ => runs.push(event.one()),
        }
    }
    runs
}

#[derive(Default)]
struct Outcome {
    rows: Vec<RecordBatch>,
    notes: Vec<String>,
}

impl Outcome {
    /// Runs the query on events; after every so many it is opened again from its changes.
    fn of(query: &Arc<Query>, events: &[Event], every: usize) -> Self {
        let lookups = LookupSet::default();
        let mut outcome = Self::default();
        let mut running = query.open().unwrap();
        let mut kept: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut promised = i64::MIN;
        for (at, event) in events.iter().enumerate() {
            let step = running.push(&event.topic, &event.rows, &lookups).unwrap();
            not_behind(query, &step, promised);
            outcome.take(step, Some(&event.rows));
            let step = running.advance(event.watermark, &lookups).unwrap();
            not_behind(query, &step, promised);
            outcome.take(step, None);
            promised = promised.max(running.output_watermark(event.watermark));
            keep(&mut running, &mut kept);
            if every == 1 {
                legible(query, &kept);
            }
            if (at + 1) % every == 0 {
                running = query.open().unwrap();
                for (key, value) in &kept {
                    running.restore(key, Some(value)).unwrap();
                }
            }
        }
        let step = running.advance(i64::MAX, &lookups).unwrap();
        not_behind(query, &step, promised);
        outcome.take(step, None);
        outcome
    }

    fn take(&mut self, step: Step, rows: Option<&RecordBatch>) {
        self.rows.extend(step.rows);
        let texts = |row: u32| {
            let rows = rows.expect("rows were pushed");
            let user = rows.slice(row as usize, 1);
            let values = user.columns().iter().take(user.num_columns() - 1);
            let values = values.map(|c| arrow_cast::display::array_value_to_string(c, 0).unwrap());
            values.collect::<Vec<_>>().join(" ")
        };
        self.notes.extend(step.failed.iter().map(|f| format!("failed {}: {} {}", texts(f.row), f.code, f.reason)));
        self.notes.extend(step.late.iter().map(|row| format!("late {}", texts(*row))));
        self.notes.extend(step.derived.iter().map(|d| format!("derived {}: {} {}", d.row, d.code, d.reason)));
        self.notes.extend(step.dropped.iter().map(|(name, n)| format!("dropped by {name}: {n}")));
    }

    fn lines(&self, query: &Query) -> Vec<String> {
        let mut lines = Vec::new();
        let encoder = Encoder::new(query.schema(), Decimals::Numbers);
        self.rows.iter().for_each(|rows| encoder.encode(rows, &mut lines).unwrap());
        let text = String::from_utf8(lines).unwrap();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let lines = if query.updates().is_some() { self.table(query, lines) } else { lines };
        lines.into_iter().chain(self.notes.iter().cloned()).collect()
    }

    /// What a table has in the end that takes the rows.
    fn table(&self, query: &Query, lines: Vec<String>) -> Vec<String> {
        let key = query.updates().unwrap();
        let mut table: BTreeMap<Vec<String>, String> = BTreeMap::new();
        let rows = self.rows.iter().flat_map(|rows| (0..rows.num_rows()).map(move |row| (rows, row)));
        for ((rows, row), line) in rows.zip(lines) {
            let of = |name: &&str| {
                arrow_cast::display::array_value_to_string(rows.column_by_name(name).unwrap(), row).unwrap()
            };
            let key = key.iter().map(of).collect();
            let stamps = rows.columns().last().unwrap().as_primitive::<TimestampMicrosecondType>();
            match Stamp(stamps.value(row)).is_deleted() {
                true => table.remove(&key),
                false => table.insert(key, line),
            };
        }
        table.into_values().collect()
    }

    fn text(&self, query: &Query) -> String {
        self.lines(query).iter().map(|line| format!("{line}\n")).collect()
    }
}

/// No row that is not late has an event time before the watermark that was promised.
fn not_behind(query: &Query, step: &Step, promised: i64) {
    let Some((column, plus)) = query.event_time("at") else { return };
    for rows in &step.rows {
        let times = rows.column_by_name(&column).unwrap();
        let Some(times) = times.as_primitive_opt::<TimestampMicrosecondType>() else { return };
        let stamps = rows.columns().last().unwrap().as_primitive::<TimestampMicrosecondType>();
        for (time, stamp) in times.iter().zip(stamps.values()) {
            let behind = time.is_some_and(|time| time + plus < promised) && !Stamp(*stamp).is_late();
            assert!(!behind, "{time:?} is behind the promised {promised}:\n{}", query.explain());
        }
    }
}

/// Whatever is kept can be read by a person.
fn legible(query: &Query, kept: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let legend = query.state_legend().unwrap();
    for (key, value) in kept {
        let row = legend.row(key, value).unwrap_or_else(|e| panic!("{e}\n{}", query.explain()));
        for cell in row.key.iter().chain(&row.value) {
            let json: Result<serde_json::Value, _> = serde_json::from_str(&cell.json);
            assert!(json.is_ok(), "{cell:?}");
        }
        let known = legend.key_columns();
        assert!(row.key.iter().all(|cell| known.contains(&cell.name)), "{row:?}: {known:?}");
    }
}

fn keep(running: &mut Running, kept: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    let Some(changes) = running.changes() else { return };
    for (key, value) in changes.iter() {
        match value {
            Some(value) => {
                kept.insert(key.to_vec(), value.to_vec());
            }
            None => {
                kept.remove(key);
            }
        }
    }
}

//! Pipelines with state: a file of numbered events, a fold that counts them by key or a query that counts them by minute.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_connect::event::json::{Decimals, Encoder};
use millstream_connect::event::{Column, Schema, TopicPartition};
use millstream_connect::service::flow::{
    Catalog, FoldAction, FoldCase, FoldOtherwise, FoldSpec, TimeColumn, plan_fold, plan_query,
};
use millstream_connect::service::log::{Log, Read, Retention, TopicKind, TopicSpec};
use millstream_connect::service::{
    EventTimeDef, InputTime, Keep, Late, Options, Output, Producers, Runner, ServiceDef, ServiceTime, SourceDef, State,
    Work,
};
use millstream_connect::{FileSource, file};

use crate::support::name;

pub(crate) const EVENTS: &[(&str, &str)] = &[("k", "string"), ("n", "bigint!"), ("at", "timestamp")];
const COUNTED: &[(&str, &str)] = &[("k", "string"), ("n", "bigint"), ("count", "bigint!")];
const WINDOWS: &[(&str, &str)] = &[("k", "string"), ("window_start", "timestamp"), ("count", "bigint")];
pub(crate) const PARTITIONS: u32 = 3;

pub(crate) fn schema(columns: &[(&str, &str)]) -> Schema {
    Schema::new(columns.iter().map(|(n, k)| Column::parse(*n, k).unwrap()).collect()).unwrap()
}

/// Polls a condition until it holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what} did not happen in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What the service does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Numbers the events of each key.
    Counting,
    /// The same, with another state.
    CountingOtherwise,
    /// Counts the events of each key and minute.
    Windows,
    /// Passes events on, without state.
    Passing,
}

pub(crate) struct Bed {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) runner: Runner,
    pub(crate) dir: Arc<tempfile::TempDir>,
}

impl Bed {
    pub(crate) fn on(log: Arc<dyn Log>) -> Self {
        let runner = Runner::new(Arc::clone(&log), Options::new(tokio::runtime::Handle::current()));
        Self { log, runner, dir: Arc::new(tempfile::tempdir().unwrap()) }
    }

    /// Another process on the same log.
    pub(crate) fn again(&self) -> Self {
        let runner = Runner::new(Arc::clone(&self.log), Options::new(tokio::runtime::Handle::current()));
        Self { log: Arc::clone(&self.log), runner, dir: Arc::clone(&self.dir) }
    }

    async fn topic(&self, topic: &str, columns: &[(&str, &str)]) {
        let spec = TopicSpec {
            name: name(topic),
            partitions: PARTITIONS,
            key: vec!["k".to_owned()],
            schema: schema(columns),
            kind: TopicKind::Stream,
            retention: Retention::default(),
            consumers: vec![],
        };
        self.log.create_topic(spec).await.unwrap();
    }

    pub(crate) async fn topics(&self) {
        self.topic("raw", EVENTS).await;
        self.topic("out", COUNTED).await;
        self.topic("windows", WINDOWS).await;
    }

    fn events(&self) -> PathBuf {
        self.dir.path().join("events.ndjson")
    }

    /// Starts the source, with events up to `count`.
    pub(crate) async fn source(&self, count: u64) {
        write(&self.events(), count);
        let mut settings = file::Settings::new(self.events().to_string_lossy());
        settings.follow = true;
        settings.poll = Duration::from_millis(5);
        let time =
            EventTimeDef { column: "at".to_owned(), max_out_of_orderness_us: 1_000_000, future_us: None, idle: None };
        let def = SourceDef {
            name: name("events"),
            version: "1".into(),
            source: Arc::new(FileSource::new(settings, schema(EVENTS))),
            to: name("raw"),
            columns: None,
            event_time: Some(time),
        };
        self.runner.start_source(def).await.unwrap();
    }

    /// More events for a source that runs.
    pub(crate) fn more(&self, count: u64) {
        write(&self.events(), count);
    }

    pub(crate) fn def(&self, doing: Doing, keep: Keep) -> ServiceDef {
        let mut catalog = Catalog::default();
        catalog.topics.insert(name("raw"), schema(EVENTS));
        catalog.event_times.insert(name("raw"), TimeColumn { name: "at".to_owned(), plus_us: 0 });
        let work = match doing {
            Doing::Windows => {
                let sql = "SELECT k, window_start, count(*) AS count FROM tumble(raw, at, INTERVAL '1 minute') \
                           GROUP BY k, window_start";
                Work::Query(Arc::new(plan_query(sql, &catalog).unwrap_or_else(|e| panic!("{e:?}"))))
            }
            Doing::Passing => {
                let sql = "SELECT k, n, CAST(0 AS bigint) AS count FROM raw";
                Work::Query(Arc::new(plan_query(sql, &catalog).unwrap_or_else(|e| panic!("{e:?}"))))
            }
            doing => {
                let fold = plan_fold(&counter(doing), &[name("raw")], &catalog);
                Work::Fold(Arc::new(fold.unwrap_or_else(|e| panic!("{e:?}"))))
            }
        };
        let producers = vec![Producers { name: name("events"), tasks: 1, in_place: false }];
        ServiceDef {
            name: name("counter"),
            version: "1".into(),
            inputs: vec![name("raw")],
            aliases: BTreeMap::new(),
            columns: BTreeMap::new(),
            check: None,
            work,
            output: Output::To(name(if doing == Doing::Windows { "windows" } else { "out" })),
            instances: 1,
            batch_rows_max: 50,
            lookups: vec![],
            late: Late::default(),
            time: Some(ServiceTime {
                inputs: vec![InputTime { topic: name("raw"), producers }],
                outputs: Vec::new(),
                columns: BTreeMap::new(),
            }),
            keep,
        }
    }

    /// The rows of a topic, as text, sorted.
    pub(crate) async fn rows(&self, topic: &str) -> Vec<String> {
        let mut rows = Vec::new();
        for partition in 0..self.log.topic(&name(topic)).map_or(0, |info| info.spec.partitions) {
            rows.extend(self.rows_in(topic, partition).await);
        }
        rows.sort_unstable();
        rows
    }

    /// The rows of a partition, as text, sorted.
    pub(crate) async fn rows_in(&self, topic: &str, partition: u32) -> Vec<String> {
        let info = self.log.topic(&name(topic)).unwrap();
        let encoder = Encoder::new(&info.spec.schema, Decimals::Numbers);
        let mut rows = Vec::new();
        let at = TopicPartition::new(name(topic), partition);
        let mut reader = self.log.read(&at, self.log.start(&at).await.unwrap()).unwrap();
        while let Read::Batch(batch) = reader.next().await.unwrap() {
            rows.extend((0..batch.rows.num_rows()).map(|row| encoder.encode_row(&batch.rows, row).unwrap()));
        }
        rows.sort_unstable();
        rows
    }

    /// Waits until the service has read all there is and is where it was.
    pub(crate) async fn settled(&self) {
        let handle = self.runner.handle(&name("counter")).unwrap();
        until("reading again coming to its end", async || {
            let status = handle.status().await.unwrap();
            status.lag == 0 && status.state == State::Running && status.tasks.iter().all(|task| task.note.is_none())
        })
        .await;
    }

    /// Waits until so many rows are there.
    pub(crate) async fn filled(&self, topic: &str, rows: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.rows(topic).await.len() < rows {
            if Instant::now() > deadline {
                for handle in self.runner.handles() {
                    eprintln!("{:?}", handle.status().await.unwrap());
                }
                panic!("{} of {rows} rows came in time", self.rows(topic).await.len());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How the service stands, in words.
    pub(crate) fn said(&self) -> String {
        format!("{:?}", self.runner.handle(&name("counter")).unwrap().state())
    }
}

fn write(path: &Path, count: u64) {
    let lines: String = (0..count).map(|n| format!("{}\n", event(n))).collect();
    // Only the end is new: it is appended, as to a file that is followed.
    let before = std::fs::metadata(path).map_or(0, |m| m.len()) as usize;
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(&lines.as_bytes()[before..]).unwrap();
}

/// Keys of all lengths: some are longer than an index takes.
fn key(n: u64) -> String {
    let k = n % 13;
    if k == 5 { "long".repeat(1_000) } else { format!("k{k}") }
}

fn event(n: u64) -> String {
    let key = key(n);
    format!(
        "{{\"k\": \"{key}\", \"n\": {n}, \"at\": \"1970-01-01T{:02}:{:02}:{:02}Z\"}}",
        n / 3600,
        n / 60 % 60,
        n % 60
    )
}

/// What the counting of so many events must give.
pub(crate) fn expected(count: u64) -> Vec<String> {
    let row = |n: u64| format!("{{\"k\":\"{}\",\"n\":{n},\"count\":{}}}", key(n), n / 13 + 1);
    let mut rows: Vec<String> = (0..count).map(row).collect();
    rows.sort_unstable();
    rows
}

pub(crate) fn counter(doing: Doing) -> FoldSpec {
    let pairs = |of: &[(&str, &str)]| of.iter().map(|(n, s)| ((*n).to_owned(), (*s).to_owned())).collect::<Vec<_>>();
    let state: &[(&str, &str)] = match doing {
        Doing::CountingOtherwise => &[("count", "bigint! = 0"), ("last", "bigint")],
        _ => &[("count", "bigint! = 0")],
    };
    let action = FoldAction {
        set: pairs(&[("count", "state.count + 1")]),
        emit: vec![pairs(&[("k", "k"), ("n", "n"), ("count", "state.count")])],
        forget: false,
    };
    FoldSpec {
        key: vec!["k".to_owned()],
        state: pairs(state),
        cases: vec![FoldCase { when: None, action }],
        otherwise: FoldOtherwise::Drop,
        timer: None,
    }
}

/// How a service's state is kept in a database.
pub(crate) fn keep(url: &str) -> Keep {
    Keep::External(Arc::new(millstream_connect::PostgresState::new(url, "millstream", "shop").unwrap()))
}

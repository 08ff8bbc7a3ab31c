//! A test bed: a pipeline over a memory log, a source that resumes, a sink that behaves like a file, and a log that
//! fails at random.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use bytes::Bytes;
use futures::future::BoxFuture;
use millstream_service::event::json::{Decimals, Decoder, Encoder};
use millstream_service::event::{Batch, Column, Name, Offset, PartitionId, Schema, TopicPartition, Unknown};
use millstream_service::flow::{Catalog, plan_query, plan_rules};
use millstream_service::log::{
    AbortReason, Commit, EmbeddedLog, EmbeddedOptions, Epoch, Error as LogError, Join, Log, Membership, MemoryLog,
    Outcome, Pending, Position, Read, Reader, Retention, Task, TaskId, TopicInfo, TopicKind, TopicSpec,
};
use millstream_service::{
    BATCH_ROWS_DEFAULT, Check, ConnectError, Else, Intake, Late, Options, Output, Refusal, RefusedEvent, Runner,
    ServiceDef, Sink, SinkDef, SinkTask, Source, SourceDef, SourceRead, SourceTask, Work,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn schema(columns: &[(&str, &str)]) -> Schema {
    Schema::new(columns.iter().map(|(n, k)| Column::parse(*n, k).unwrap()).collect()).unwrap()
}

/// Polls a condition until it holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what} did not happen in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) struct Bed {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) runner: Runner,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self::on(Arc::new(MemoryLog::new()))
    }

    /// On an embedded log in `dir`.
    pub(crate) fn embedded(dir: &std::path::Path) -> Self {
        Self::on(Arc::new(EmbeddedLog::open(EmbeddedOptions::new(dir)).unwrap()))
    }

    pub(crate) fn on(log: Arc<dyn Log>) -> Self {
        let options = Options::new(tokio::runtime::Handle::current());
        Self { runner: Runner::new(Arc::clone(&log), options), log }
    }

    pub(crate) async fn topic(&self, topic: &str, columns: &[(&str, &str)], key: &[&str], partitions: u32) {
        let spec = TopicSpec {
            name: name(topic),
            partitions,
            key: key.iter().map(ToString::to_string).collect(),
            schema: schema(columns),
            kind: TopicKind::Stream,
            retention: Retention::default(),
            consumers: vec![],
        };
        self.log.create_topic(spec).await.unwrap();
    }

    /// The rows of a topic, by partition and offset.
    pub(crate) async fn rows(&self, topic: &str) -> Vec<(u32, u64, Value)> {
        rows(self.log.as_ref(), topic).await
    }

    /// One column of a topic as numbers, sorted.
    pub(crate) async fn numbers(&self, topic: &str, column: &str) -> Vec<i64> {
        let mut numbers: Vec<i64> =
            self.rows(topic).await.iter().map(|(_, _, row)| row[column].as_i64().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    }

    pub(crate) async fn drained(&self) {
        let drained = tokio::time::timeout(Duration::from_secs(40), self.runner.drained()).await;
        if drained.is_err() {
            for handle in self.runner.handles() {
                eprintln!("{:?}", handle.status().await.unwrap());
            }
            panic!("the pipeline did not drain in time");
        }
    }
}

pub(crate) async fn rows(log: &dyn Log, topic: &str) -> Vec<(u32, u64, Value)> {
    let info = log.topic(&name(topic)).unwrap_or_else(|| panic!("no topic {topic}"));
    let encoder = Encoder::new(&info.spec.schema, Decimals::Numbers);
    let mut rows = Vec::new();
    for partition in 0..info.spec.partitions {
        let at = TopicPartition::new(name(topic), partition);
        let mut reader = log.read(&at, log.start(&at).await.unwrap()).unwrap();
        while let Read::Batch(batch) = reader.next().await.unwrap() {
            for row in 0..batch.rows.num_rows() {
                let text = encoder.encode_row(&batch.rows, row).unwrap();
                rows.push((partition, batch.offset(row).0, serde_json::from_str(&text).unwrap()));
            }
        }
    }
    rows
}

/// A source of numbered events: `{"k": "k<n % keys>", "n": n}` or whatever `make` says; resumes at its position.
pub(crate) struct Numbers {
    pub(crate) schema: Schema,
    /// How many there will be; grows in tests of endless sources.
    pub(crate) count: Arc<AtomicU64>,
    pub(crate) endless: bool,
    pub(crate) make: Arc<dyn Fn(u64) -> String + Send + Sync>,
    pub(crate) chunk: u64,
}

pub(crate) const COLUMNS: &[(&str, &str)] = &[("k", "string"), ("n", "bigint!")];

impl Numbers {
    pub(crate) fn new(count: u64) -> Self {
        Self {
            schema: schema(COLUMNS),
            count: Arc::new(AtomicU64::new(count)),
            endless: false,
            make: Arc::new(|n| json!({"k": format!("k{}", n % 13), "n": n}).to_string()),
            chunk: 17,
        }
    }

    pub(crate) fn making(mut self, make: impl Fn(u64) -> String + Send + Sync + 'static) -> Self {
        self.make = Arc::new(make);
        self
    }

    pub(crate) fn def(self, to: &str) -> SourceDef {
        SourceDef {
            name: name("numbers"),
            version: "1".into(),
            source: Arc::new(self),
            to: name(to),
            columns: None,
            event_time: None,
        }
    }
}

impl Source for Numbers {
    fn bounded(&self) -> bool {
        !self.endless
    }

    fn open(
        &self,
        _task: PartitionId,
        position: Option<Position>,
    ) -> BoxFuture<'_, Result<Box<dyn SourceTask>, ConnectError>> {
        let next = match position {
            Some(Position::Opaque(bytes)) => std::str::from_utf8(&bytes).unwrap().parse().unwrap(),
            _ => 0,
        };
        let task = NumbersTask {
            next,
            count: Arc::clone(&self.count),
            endless: self.endless,
            make: Arc::clone(&self.make),
            decoder: Decoder::new(&self.schema, Unknown::Drop),
            chunk: self.chunk,
        };
        Box::pin(async move { Ok(Box::new(task) as Box<dyn SourceTask>) })
    }

    fn redecode(&self, raw: &[u8]) -> Option<Result<RecordBatch, Refusal>> {
        let mended = std::str::from_utf8(raw).ok()?.replace(" \"k\"", ", \"k\"");
        let decoded = Decoder::new(&self.schema, Unknown::Drop).decode_lines(mended.as_bytes()).ok()?;
        Some(match decoded.refused.into_iter().next() {
            Some(refused) => Err(Refusal { code: refused.code.as_str(), reason: refused.reason }),
            None => Ok(decoded.rows),
        })
    }
}

struct NumbersTask {
    next: u64,
    count: Arc<AtomicU64>,
    endless: bool,
    make: Arc<dyn Fn(u64) -> String + Send + Sync>,
    decoder: Decoder,
    chunk: u64,
}

impl SourceTask for NumbersTask {
    fn next(&mut self) -> BoxFuture<'_, Result<SourceRead, ConnectError>> {
        Box::pin(async move {
            while self.next >= self.count.load(Ordering::Acquire) {
                if !self.endless {
                    return Ok(SourceRead::Finished);
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let last = (self.next + 1 + self.next % self.chunk).min(self.count.load(Ordering::Acquire));
            let lines: Vec<String> = (self.next..last).map(|n| (self.make)(n)).collect();
            let text = lines.join("\n");
            let decoded = self.decoder.decode_lines(text.as_bytes()).unwrap();
            let refused = decoded.refused.iter().map(|r| RefusedEvent {
                raw: Bytes::copy_from_slice(&text.as_bytes()[r.bytes.clone()]),
                code: r.code.as_str(),
                reason: r.reason.clone(),
                place: format!("numbers:{}", self.next + u64::from(r.row)),
            });
            let refused = refused.collect();
            self.next = last;
            Ok(SourceRead::Intake(Box::new(Intake {
                rows: decoded.rows,
                refused,
                position: Some(Position::Opaque(Bytes::from(last.to_string()))),
                extra: vec![],
                receipt: None,
            })))
        })
    }
}

/// A service over [`COLUMNS`] that passes events on.
pub(crate) fn pass(service: &str, from: &str, to: &str) -> ServiceDef {
    ServiceDef {
        name: name(service),
        version: "1".into(),
        inputs: vec![name(from)],
        aliases: BTreeMap::new(),
        columns: BTreeMap::new(),
        check: None,
        work: Work::None,
        output: Output::To(name(to)),
        instances: 1,
        batch_rows_max: BATCH_ROWS_DEFAULT,
        lookups: vec![],
        late: Late::default(),
        time: None,
        keep: Default::default(),
    }
}

pub(crate) fn checked(mut def: ServiceDef, columns: &[(&str, &str)], rules: &[(&str, &str)], or: Else) -> ServiceDef {
    let rules: Vec<(String, String)> = rules.iter().map(|(n, r)| (n.to_string(), r.to_string())).collect();
    let rules = plan_rules(&rules, &schema(columns)).unwrap_or_else(|e| panic!("{e:?}"));
    def.check = Some(Check { rules: Arc::new(rules), otherwise: or });
    def
}

pub(crate) fn querying(mut def: ServiceDef, columns: &[(&str, &str)], sql: &str) -> ServiceDef {
    let mut catalog = Catalog::default();
    catalog.topics.insert(def.inputs[0].clone(), schema(columns));
    def.work = Work::Query(Arc::new(plan_query(sql, &catalog).unwrap_or_else(|e| panic!("{e:?}"))));
    def
}

/// Topic and offset of each row, by task.
type Files = BTreeMap<u32, Vec<(String, u64)>>;

/// What a "file" sink has: per topic and task the rows written, kept beyond the tasks that wrote them.
#[derive(Clone, Default)]
pub(crate) struct Paper {
    pub(crate) files: Arc<Mutex<Files>>,
    /// So many of the next writes fail, every third.
    pub(crate) failures: Arc<AtomicU64>,
    writes: Arc<AtomicU64>,
    pub(crate) finished: Arc<AtomicU64>,
}

impl Paper {
    pub(crate) fn def(&self, sink: &str, from: &[&str]) -> SinkDef {
        SinkDef {
            name: name(sink),
            version: "1".into(),
            sink: Arc::new(self.clone()),
            inputs: from.iter().map(|f| name(f)).collect(),
            columns: Default::default(),
            instances: 1,
        }
    }

    /// All rows with the offsets they had.
    pub(crate) fn lines(&self) -> Vec<(String, u64)> {
        let mut lines: Vec<_> = self.files.lock().values().flatten().cloned().collect();
        lines.sort();
        lines
    }
}

impl Sink for Paper {
    fn open(&self, task: PartitionId, state: Option<Bytes>) -> BoxFuture<'_, Result<Box<dyn SinkTask>, ConnectError>> {
        Box::pin(async move {
            let length: usize = state.map_or(0, |s| std::str::from_utf8(&s).unwrap().parse().unwrap());
            self.files.lock().entry(task.0).or_default().truncate(length);
            Ok(Box::new(PaperTask { paper: self.clone(), task: task.0 }) as Box<dyn SinkTask>)
        })
    }

    fn commit_every(&self) -> Duration {
        Duration::from_millis(10)
    }
}

struct PaperTask {
    paper: Paper,
    task: u32,
}

impl SinkTask for PaperTask {
    fn write<'a>(&'a mut self, topic: &'a Name, batch: &'a Batch) -> BoxFuture<'a, Result<(), ConnectError>> {
        Box::pin(async move {
            let writes = self.paper.writes.fetch_add(1, Ordering::AcqRel) + 1;
            let fails = writes.is_multiple_of(3) && self.paper.failures.load(Ordering::Acquire) > 0;
            let mut files = self.paper.files.lock();
            let file = files.get_mut(&self.task).unwrap();
            for row in 0..batch.rows.num_rows() {
                file.push((topic.to_string(), batch.offset(row).0));
            }
            // The failure comes after half of the work, as failures do.
            if fails {
                self.paper.failures.fetch_sub(1, Ordering::AcqRel);
                return Err(ConnectError::temporary("out of paper"));
            }
            Ok(())
        })
    }

    fn prepare(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, ConnectError>> {
        let length = self.paper.files.lock()[&self.task].len();
        Box::pin(async move { Ok(Some(Bytes::from(length.to_string()))) })
    }

    fn committed(&mut self) -> BoxFuture<'_, Result<(), ConnectError>> {
        Box::pin(async { Ok(()) })
    }

    fn finish(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, ConnectError>> {
        self.paper.finished.fetch_add(1, Ordering::AcqRel);
        self.prepare()
    }
}

/// A log whose commits fail at random, in every way the contract allows, and are answered late.
pub(crate) struct FaultyLog {
    inner: MemoryLog,
    /// Of a thousand commits so many fail.
    per_mille: AtomicU64,
    random: AtomicU64,
    broken: Mutex<HashSet<(TaskId, Epoch)>>,
    pub(crate) injected: AtomicU64,
    /// What was committed, in its order.
    pub(crate) committed: Mutex<Vec<Commit>>,
}

impl FaultyLog {
    pub(crate) fn new(seed: u64, per_mille: u64) -> Self {
        Self {
            inner: MemoryLog::new(),
            per_mille: AtomicU64::new(per_mille),
            random: AtomicU64::new(seed),
            broken: Mutex::default(),
            injected: AtomicU64::new(0),
            committed: Mutex::default(),
        }
    }

    pub(crate) fn fail(&self, per_mille: u64) {
        self.per_mille.store(per_mille, Ordering::Release);
    }

    pub(crate) fn heal(&self) {
        self.fail(0);
    }

    /// splitmix64 (Steele, Lea, Flood, 2014).
    fn roll(&self, below: u64) -> u64 {
        let mut z = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::AcqRel);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn really(&self, commit: Commit) -> Outcome {
        let outcome = futures::executor::block_on(self.inner.commit(commit.clone()));
        if matches!(outcome, Outcome::Committed(_)) {
            self.committed.lock().push(commit);
        }
        outcome
    }

    fn outcome(&self, commit: Commit) -> Outcome {
        let owner = (commit.task.clone(), commit.epoch);
        if self.broken.lock().contains(&owner) {
            return Outcome::Aborted(AbortReason::Predecessor);
        }
        if self.roll(1000) >= self.per_mille.load(Ordering::Acquire) {
            return self.really(commit);
        }
        self.injected.fetch_add(1, Ordering::AcqRel);
        self.broken.lock().insert(owner);
        match self.roll(6) {
            0 => Outcome::Aborted(AbortReason::DiskFull("injected".into())),
            1 => Outcome::Aborted(AbortReason::BacklogFull(name("injected"))),
            2 => Outcome::Aborted(AbortReason::Refused("injected".into())),
            3 => Outcome::Fenced,
            4 => Outcome::Unknown("it did not happen".into()),
            _ => {
                drop(self.really(commit));
                Outcome::Unknown("it did happen".into())
            }
        }
    }
}

impl Log for FaultyLog {
    fn commit(&self, commit: Commit) -> Pending {
        let outcome = self.outcome(commit);
        let (sender, pending) = Pending::new();
        let delay = Duration::from_micros(self.roll(800));
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            drop(sender.send(outcome));
        });
        pending
    }
    fn create_topic(&self, spec: TopicSpec) -> BoxFuture<'_, Result<TopicInfo, LogError>> {
        self.inner.create_topic(spec)
    }
    fn topics(&self) -> Vec<TopicInfo> {
        self.inner.topics()
    }
    fn topic(&self, name: &Name) -> Option<TopicInfo> {
        self.inner.topic(name)
    }
    fn read(&self, at: &TopicPartition, from: Offset) -> Result<Box<dyn Reader>, LogError> {
        self.inner.read(at, from)
    }
    fn join(&self, join: Join) -> Result<Box<dyn Membership>, LogError> {
        self.inner.join(join)
    }
    fn restart(&self, task: &Task) -> BoxFuture<'_, Result<Option<Task>, LogError>> {
        self.inner.restart(task)
    }
    fn position(&self, task: &TaskId, input: &Name) -> BoxFuture<'_, Result<Option<Position>, LogError>> {
        self.inner.position(task, input)
    }
    fn start(&self, at: &TopicPartition) -> BoxFuture<'_, Result<Offset, LogError>> {
        self.inner.start(at)
    }
    fn end(&self, at: &TopicPartition) -> BoxFuture<'_, Result<Offset, LogError>> {
        self.inner.end(at)
    }
    fn trim(&self, at: &TopicPartition, before: Offset) -> BoxFuture<'_, Result<(), LogError>> {
        self.inner.trim(at, before)
    }
    fn stopped(&self) -> Option<String> {
        self.inner.stopped()
    }
    fn close(&self) -> BoxFuture<'_, Result<(), LogError>> {
        self.inner.close()
    }
}

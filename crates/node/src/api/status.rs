//! How the pipeline is doing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The whole node at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The pipeline's name.
    pub pipeline: String,
    /// Which process answers.
    pub node: NodeInfo,
    /// What the node is doing as a whole.
    pub phase: Phase,
    /// In the order of the file.
    pub sources: Vec<SourceStatus>,
    /// In the order of the data: a service after those whose output it reads.
    pub services: Vec<ServiceStatus>,
    /// In the order of the file.
    pub sinks: Vec<SinkStatus>,
    /// In the order of the file.
    pub lookups: Vec<LookupState>,
    /// The log below.
    pub log: LogState,
    /// Its backups; absent where none are made, and on a stopped node.
    #[serde(default)]
    pub backup: Option<super::BackupState>,
}

/// What only a running node counts, in the statuses of services, sources and sinks.
const COUNTED: [&str; 14] = [
    "events_in",
    "events_out",
    "in_per_s",
    "out_per_s",
    "events",
    "per_s",
    "dropped",
    "restarts",
    "commits",
    "commit_latency",
    "busy",
    "busy_s",
    "outputs",
    "late",
];

impl Status {
    /// The status as JSON; on a stopped node what its log does not tell is null, not zero.
    pub fn known(&self) -> serde_json::Result<serde_json::Value> {
        let mut status = serde_json::to_value(self)?;
        if self.phase != Phase::Stopped {
            return Ok(status);
        }
        for kind in ["sources", "services", "sinks"] {
            let parts = status.get_mut(kind).and_then(|list| list.as_array_mut());
            for part in parts.into_iter().flatten().filter_map(|part| part.as_object_mut()) {
                for (_, value) in part.iter_mut().filter(|(key, _)| COUNTED.contains(&key.as_str())) {
                    *value = serde_json::Value::Null;
                }
            }
        }
        Ok(status)
    }
}

/// The process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The program's version.
    pub version: String,
    /// The process id.
    pub pid: u32,
    /// When it started.
    pub started_at: String,
    /// How long it has run.
    pub uptime_s: f64,
    /// Where it listens, such as `127.0.0.1:7070`; absent on a stopped node.
    pub listen: Option<String>,
    /// The pipeline's file.
    pub file: String,
    /// The directory of the log's files.
    pub data: String,
    /// CPU time used, user and system.
    pub cpu_s: f64,
    /// The most memory ever resident.
    pub rss_peak_bytes: u64,
}

/// What the node is doing as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Opening the log, loading lookups, starting services.
    Starting,
    /// Everything has been started.
    Running,
    /// Bounded sources are being read to their end, and everything after them.
    Draining,
    /// All that came in is processed and out.
    Drained,
    /// Finishing what is in flight before the process ends.
    Stopping,
    /// Nothing runs (read from the log of a stopped node).
    Stopped,
}

/// What a service, source or sink is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Not working yet.
    Starting,
    /// Working, or ready to.
    Running,
    /// Paused by an order; its lag grows.
    Paused,
    /// Held up by something that may pass; `reason` says what.
    Waiting,
    /// A task has failed and comes back; `reason` says why and when.
    Restarting,
    /// It cannot go on until somebody mends what `reason` says; `resume` tries again.
    Failed,
    /// Stopped, as asked.
    Stopped,
    /// A bounded source has been read to its end.
    Finished,
}

/// How long commits took, over the last few seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of them took less.
    pub p50_ms: f64,
    /// 99 of 100 took less.
    pub p99_ms: f64,
}

/// How far a service is behind one of its inputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputLag {
    /// The topic.
    pub topic: String,
    /// Events not read yet.
    pub lag: u64,
}

/// Whom a service waits for in event time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldBack {
    /// The source or service.
    pub producer: String,
    /// Which task of it: its input partition.
    pub partition: u32,
    /// The input through which it is waited for.
    pub topic: String,
    /// How far others are ahead of it; absent where it has promised nothing yet.
    pub behind_s: Option<f64>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// What it is doing; the worst of its tasks.
    pub state: RunState,
    /// Why, unless it simply runs.
    #[serde(default)]
    pub reason: Option<String>,
    /// A hash of its definition.
    pub version: String,
    /// Workers that share its tasks.
    pub instances: u32,
    /// One per partition.
    pub tasks: u32,
    /// Events read.
    pub events_in: u64,
    /// Events written, dead letters apart.
    pub events_out: u64,
    /// Events read per second.
    pub in_per_s: f64,
    /// Events written per second.
    pub out_per_s: f64,
    /// Events not read yet, over all inputs.
    pub lag: u64,
    /// The same, by input.
    #[serde(default)]
    pub inputs: Vec<InputLag>,
    /// How far it is in event time: no event with an earlier time is still expected, of its slowest task. RFC 3339, or
    /// `open` (not everybody that it waits for has begun), `idle` (nobody has events), `closed` (nobody will have). Absent
    /// where its inputs have no event time.
    #[serde(default)]
    pub watermark: Option<String>,
    /// Whom its watermark waits for, while others are further.
    #[serde(default)]
    pub held_back: Option<HeldBack>,
    /// Where its events go, dead letters apart.
    #[serde(default)]
    pub outputs: Vec<TopicCount>,
    /// Dead letters written since the node started; on a stopped node those that are open in its log.
    pub dead_letters: u64,
    /// The same, by code (`check`, `overflow`, …).
    #[serde(default)]
    pub dead_letters_by_code: BTreeMap<String, u64>,
    /// How often each rule of `check` was broken; an event may break several.
    #[serde(default)]
    pub broken_rules: BTreeMap<String, u64>,
    /// Events left out on purpose (`else: drop`, an inner join without a match, `otherwise: drop`).
    pub dropped: u64,
    /// How often a task has been started again after a failure.
    pub restarts: u64,
    /// Commits made.
    pub commits: u64,
    /// How long they took; absent while there were none lately.
    #[serde(default)]
    pub commit_latency: Option<Latency>,
    /// The share of the last few seconds spent computing, in tasks (1.0 is one core).
    pub busy: f64,
    /// Seconds spent working since the node started, summed over its tasks; waiting is not in it.
    #[serde(default)]
    pub busy_s: f64,
}

/// One source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Its name.
    pub name: String,
    /// `http`, `file`, `stdin`, `generate`.
    pub kind: String,
    /// The topic it writes.
    pub to: String,
    /// What it is doing.
    pub state: RunState,
    /// Why, unless it simply runs.
    #[serde(default)]
    pub reason: Option<String>,
    /// Whether it has an end.
    pub bounded: bool,
    /// Events that are durable in the log.
    pub events: u64,
    /// The same, per second.
    pub per_s: f64,
    /// Input that was no event of the topic: dead letters of the source. On a stopped node those that are open in its log.
    pub refused: u64,
    /// The same, by code.
    #[serde(default)]
    pub refused_by_code: BTreeMap<String, u64>,
    /// How far it is in event time, as with services; absent where its topic has none.
    #[serde(default)]
    pub watermark: Option<String>,
    /// Events that came later than `max_out_of_orderness` allows.
    #[serde(default)]
    pub late: u64,
    /// How often it has been started again after a failure.
    pub restarts: u64,
    /// Seconds spent working since the node started, summed over its tasks; waiting is not in it.
    #[serde(default)]
    pub busy_s: f64,
}

/// One sink.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SinkStatus {
    /// Its name.
    pub name: String,
    /// `file`, `stdout`.
    pub kind: String,
    /// Where it writes, for people.
    #[serde(default)]
    pub target: Option<String>,
    /// What it is doing.
    pub state: RunState,
    /// Why, unless it simply runs.
    #[serde(default)]
    pub reason: Option<String>,
    /// Events written and committed.
    pub events: u64,
    /// The same, per second.
    pub per_s: f64,
    /// Events not written yet.
    pub lag: u64,
    /// The same, by input.
    #[serde(default)]
    pub inputs: Vec<InputLag>,
    /// How often it has been started again after a failure.
    pub restarts: u64,
    /// Seconds spent working since the node started, summed over its tasks; waiting is not in it.
    #[serde(default)]
    pub busy_s: f64,
}

/// One lookup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupState {
    /// Its name.
    pub name: String,
    /// The table topic whose rows it has; absent where it is a file.
    #[serde(default)]
    pub topic: Option<String>,
    /// Rows loaded; absent while it was never loaded.
    pub rows: Option<u64>,
    /// About how many bytes of memory they take.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// When the loaded table was read.
    #[serde(default)]
    pub loaded_at: Option<String>,
    /// Why the last attempt failed; the table before it stays in use.
    #[serde(default)]
    pub error: Option<String>,
}

/// The log below.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogState {
    /// Bytes on disk.
    pub bytes: u64,
    /// Journal segments in use.
    pub segments: u64,
    /// Journal segments waiting to be used again.
    #[serde(default)]
    pub segments_free: u64,
    /// Bytes in files per topic partition.
    #[serde(default)]
    pub settled_bytes: u64,
    /// Commits since the log was opened; absent for a stopped node.
    #[serde(default)]
    pub commits: Option<u64>,
    /// Syncs since the log was opened; absent for a stopped node.
    #[serde(default)]
    pub syncs: Option<u64>,
    /// `group`, `interval 50ms`, `never`.
    pub sync: String,
    /// Why it no longer accepts; absent while it does.
    #[serde(default)]
    pub stopped: Option<String>,
}

/// A topic and a number of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicCount {
    /// The topic.
    pub topic: String,
    /// Events.
    pub events: u64,
}

/// What a run that has ended did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Events in from sources, and input refused there.
    pub events_in: u64,
    /// Input that was no event.
    pub refused: u64,
    /// Events out through sinks.
    pub events_out: u64,
    /// Dead letters, those of sources included.
    pub dead_letters: u64,
    /// Wall clock.
    pub elapsed_s: f64,
    /// CPU time used, user and system.
    pub cpu_s: f64,
    /// The most memory ever resident.
    pub rss_peak_bytes: u64,
}

/// A source, service or sink that does not go on by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its name.
    pub name: String,
    /// Why, and what to do.
    pub reason: String,
}

/// A service with results that come out when event time goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Its name.
    pub name: String,
    /// The source or service that it waits for; `None` where all of its inputs have come as far.
    pub waits_for: Option<String>,
}

/// The answer of `run --drain`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrainSummary {
    /// False when it was stopped before all was processed, or when something had failed.
    pub complete: bool,
    /// What had failed and waited for somebody to mend it.
    #[serde(default)]
    pub failed: Vec<Failure>,
    /// Who holds results of open windows, or rows that wait for others, at the end of a drain.
    #[serde(default)]
    pub holding: Vec<Holding>,
    /// The figures of the whole run.
    pub total: Summary,
    /// Events written by services and sources in this run, per topic.
    pub topics: Vec<TopicCount>,
    /// What becomes of events that break a rule, by service, where that is no dead letter: `dropped`, `topic late`, …
    #[serde(default)]
    pub broken: BTreeMap<String, String>,
    /// How each part ended.
    pub status: Status,
}

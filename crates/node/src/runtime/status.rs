//! How everything stands, with rates over the last few seconds.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Weak;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millstream_service::event::{Name, Watermark};
use millstream_service::log::{self, Log, Stat};
use millstream_service::{Counts, Handle, InputLag, Kind, LATENCY_BOUNDS_US, State, TimeStatus};

use super::usage::usage;
use super::{Inner, build};
use crate::api::{
    self, DrainSummary, Failure, HeldBack, Holding, Latency, LogState, LookupState, NodeInfo, RunState, ServiceStatus,
    SinkStatus, SourceStatus, Status, Summary, TopicCount,
};
use crate::config::EmbeddedSettings;

/// How often counters are noted.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
/// How many notes are kept: rates are over the last five seconds.
const SAMPLES_MAX: usize = 10;

/// Counters of the last few seconds.
#[derive(Default)]
pub(crate) struct Samples(VecDeque<(Instant, BTreeMap<Name, Counts>)>);

/// What a component did per second lately.
#[derive(Default)]
struct Rates {
    events_in: f64,
    events_out: f64,
    busy: f64,
    latency: Option<Latency>,
}

/// Notes counters until the node is gone.
pub(crate) async fn sample(node: Weak<Inner>) {
    let mut ticks = tokio::time::interval(SAMPLE_EVERY);
    loop {
        ticks.tick().await;
        let Some(inner) = node.upgrade() else { return };
        let counts = inner.runner.handles().iter().map(|h| (h.name().clone(), h.counts())).collect();
        let mut samples = inner.samples.lock();
        samples.0.push_back((Instant::now(), counts));
        if samples.0.len() > SAMPLES_MAX {
            samples.0.pop_front();
        }
    }
}

impl Samples {
    fn rates(&self, name: &Name, now: &Counts) -> Rates {
        let Some((since, counts)) = self.0.front() else { return Rates::default() };
        let seconds = since.elapsed().as_secs_f64().max(0.001);
        let zero = Counts::default();
        let then = counts.get(name).unwrap_or(&zero);
        // A component that was started anew counts from zero again.
        let per_s = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        let buckets: Vec<u64> = now
            .latency_buckets
            .iter()
            .enumerate()
            .map(|(i, n)| n.saturating_sub(then.latency_buckets.get(i).copied().unwrap_or(0)))
            .collect();
        Rates {
            events_in: per_s(now.events_in, then.events_in),
            events_out: per_s(now.events_out, then.events_out),
            busy: per_s(now.busy_ns, then.busy_ns) / 1e9,
            latency: quantile(&buckets, 0.5)
                .zip(quantile(&buckets, 0.99))
                .map(|(p50_ms, p99_ms)| Latency { p50_ms, p99_ms }),
        }
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// The bound, in milliseconds, below which this share lies.
fn quantile(buckets: &[u64], share: f64) -> Option<f64> {
    let total: u64 = buckets.iter().sum();
    if total == 0 {
        return None;
    }
    let wanted = (total as f64 * share).ceil() as u64;
    let mut seen = 0;
    let place = buckets.iter().position(|n| {
        seen += n;
        seen >= wanted
    })?;
    let bound = LATENCY_BOUNDS_US.get(place).or(LATENCY_BOUNDS_US.last())?;
    Some(*bound as f64 / 1e3)
}

/// The state of a component in the words of the API, and the reason.
pub(crate) fn run_state(state: State) -> (RunState, Option<String>) {
    match state {
        State::Stopped => (RunState::Stopped, None),
        State::Finished => (RunState::Finished, None),
        State::Running => (RunState::Running, None),
        State::Paused => (RunState::Paused, None),
        State::Starting => (RunState::Starting, None),
        State::Waiting { reason } => (RunState::Waiting, Some(reason)),
        State::Restarting { reason } => (RunState::Restarting, Some(reason)),
        State::Failed { reason } => (RunState::Failed, Some(reason)),
    }
}

/// The time of day as RFC 3339, to the second.
pub(crate) fn now_text() -> String {
    api_time(now_us() / 1_000_000 * 1_000_000)
}

/// The time of day in microseconds since 1970 UTC.
pub(crate) fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}

/// Microseconds since 1970 as RFC 3339 in UTC.
pub(crate) fn api_time(micros: i64) -> String {
    let at = chrono::DateTime::from_timestamp_micros(micros).unwrap_or_default();
    at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

/// The log's own figures; `counts` only while it runs.
pub(crate) fn log_state(
    settings: &EmbeddedSettings,
    stat: &Stat,
    counts: Option<log::Counts>,
    stopped: Option<String>,
) -> LogState {
    LogState {
        bytes: disk_use(&settings.dir),
        segments: stat.segments,
        segments_free: stat.segments_free,
        settled_bytes: stat.topics.iter().map(|topic| topic.settled_bytes).sum(),
        commits: counts.map(|counts| counts.commits),
        syncs: counts.map(|counts| counts.syncs),
        sync: build::sync_text(settings.sync),
        stopped,
    }
}

/// Bytes of all files below a directory.
pub(crate) fn disk_use(dir: &std::path::Path) -> u64 {
    let mut left = vec![dir.to_owned()];
    let mut bytes = 0;
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                left.push(entry.path());
            } else if let Ok(meta) = entry.metadata() {
                bytes += meta.len();
            }
        }
    }
    bytes
}

/// Lags by topic instead of by partition.
fn by_topic(inputs: &[InputLag]) -> Vec<api::InputLag> {
    let mut lags: BTreeMap<&Name, u64> = BTreeMap::new();
    for input in inputs {
        *lags.entry(&input.topic).or_default() += input.lag;
    }
    let shown = lags.into_iter().filter(|(topic, lag)| *lag > 0 || !topic.as_str().ends_with(".replay"));
    shown.map(|(topic, lag)| api::InputLag { topic: topic.to_string(), lag }).collect()
}

impl Inner {
    pub(crate) async fn status(&self) -> Status {
        let mut statuses = BTreeMap::new();
        for handle in self.runner.handles() {
            if let Ok(status) = handle.status().await {
                statuses.insert(handle.name().clone(), status);
            }
        }
        let view = self.view();
        let samples = self.samples.lock();
        let pipeline = &view.pipeline;
        let source = |s: &crate::plan::Source| {
            let found = statuses.get(&s.name)?;
            let rates = samples.rates(&s.name, &found.counts);
            let (state, reason) = run_state(found.state.clone());
            let counts = &found.counts;
            Some(SourceStatus {
                name: s.name.to_string(),
                kind: s.kind().to_owned(),
                to: s.settings.to.value.to_string(),
                state,
                reason,
                bounded: s.bounded(),
                events: counts.events_out,
                per_s: rates.events_out,
                refused: counts.dead_letters_total(),
                refused_by_code: counts.dead_letters.clone(),
                watermark: found.time.as_ref().map(|time| watermark_text(time.watermark)),
                late: counts.late,
                restarts: counts.restarts,
                busy_s: seconds(counts.busy_ns),
            })
        };
        let sink = |s: &crate::plan::Sink| {
            let found = statuses.get(&s.name)?;
            let rates = samples.rates(&s.name, &found.counts);
            let (state, reason) = run_state(found.state.clone());
            Some(SinkStatus {
                name: s.name.to_string(),
                kind: s.kind().to_owned(),
                target: s.settings.file.as_ref().map(|f| f.path.value.display().to_string()),
                state,
                reason,
                events: found.counts.events_out,
                per_s: rates.events_out,
                lag: found.lag,
                inputs: by_topic(&found.inputs),
                restarts: found.counts.restarts,
                busy_s: seconds(found.counts.busy_ns),
            })
        };
        let service = |s: &crate::plan::Service| {
            statuses.get(&s.name).map(|found| service_status(found, &samples.rates(&s.name, &found.counts)))
        };
        let lookup = |l: &crate::plan::Lookup| {
            let found = view.lookups.get(&l.name)?.status();
            let loaded_at = found.loaded_at_us.map(api_time);
            let topic = l.topic.as_ref().map(ToString::to_string);
            let (name, rows, bytes) = (l.name.to_string(), found.rows, found.bytes);
            Some(LookupState { name, topic, rows, bytes, loaded_at, error: found.fault })
        };
        let settings = &view.loaded.config.log.embedded;
        let (cpu_s, rss_peak_bytes) = usage();
        Status {
            pipeline: pipeline.name.to_string(),
            node: NodeInfo {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                started_at: self.started_at.clone(),
                uptime_s: self.started.elapsed().as_secs_f64(),
                listen: Some(self.address.to_string()),
                file: view.loaded.path.display().to_string(),
                data: settings.dir.display().to_string(),
                cpu_s,
                rss_peak_bytes,
            },
            phase: *self.phase.lock(),
            sources: pipeline.sources.iter().filter_map(source).collect(),
            services: pipeline.services.iter().filter_map(service).collect(),
            sinks: pipeline.sinks.iter().filter_map(sink).collect(),
            lookups: pipeline.lookups.iter().filter_map(lookup).collect(),
            log: log_state(settings, &self.log.stat(), Some(self.log.counts()), self.log.stopped()),
            backup: self.backup_state(),
        }
    }

    /// One service as the API shows it.
    pub(crate) async fn service_status(&self, handle: &Handle) -> Option<ServiceStatus> {
        let found = handle.status().await.ok()?;
        let rates = self.samples.lock().rates(handle.name(), &found.counts);
        Some(service_status(&found, &rates))
    }

    /// What will not go on until somebody mends it.
    pub(crate) fn failed(&self) -> Vec<Failure> {
        let failed = self.runner.handles().into_iter().filter_map(|handle| match handle.state() {
            State::Failed { reason } => Some(Failure { name: handle.name().to_string(), reason }),
            _ => None,
        });
        failed.collect()
    }

    /// Who holds results that only a later run gives out.
    pub(crate) async fn holding(&self) -> Vec<Holding> {
        let mut holding = Vec::new();
        for handle in self.runner.handles() {
            let Ok(status) = handle.status().await else { continue };
            if status.tasks.iter().any(|task| task.holds) {
                let waits_for = status.time.and_then(|time| time.held_back).map(|held| held.producer.to_string());
                holding.push(Holding { name: status.name.to_string(), waits_for });
            }
        }
        holding
    }

    /// The figures of a run that ends.
    pub(crate) fn summary(
        &self,
        status: Status,
        complete: bool,
        failed: Vec<Failure>,
        holding: Vec<Holding>,
    ) -> DrainSummary {
        let mut topics: BTreeMap<Name, u64> = BTreeMap::new();
        let mut letters = 0;
        for handle in self.runner.handles() {
            let counts = handle.counts();
            letters += counts.dead_letters_total();
            // What a sink writes stands in no topic.
            if handle.kind() == Kind::Sink {
                continue;
            }
            for (topic, events) in counts.out_by_topic {
                *topics.entry(topic).or_default() += events;
            }
        }
        let refused = status.sources.iter().map(|s| s.refused).sum();
        let (cpu_s, rss_peak_bytes) = usage();
        let total = Summary {
            events_in: status.sources.iter().map(|s| s.events).sum::<u64>() + refused,
            refused,
            events_out: status.sinks.iter().map(|s| s.events).sum(),
            dead_letters: letters,
            elapsed_s: self.started.elapsed().as_secs_f64(),
            cpu_s,
            rss_peak_bytes,
        };
        let count = |(topic, events): (Name, u64)| TopicCount { topic: topic.to_string(), events };
        let topics = topics.into_iter().map(count).collect();
        DrainSummary { complete, failed, holding, total, topics, broken: self.view().pipeline.broken(), status }
    }
}

/// A watermark for people.
pub(crate) fn watermark_text(watermark: Watermark) -> String {
    match watermark {
        Watermark::OPEN => "open".to_owned(),
        Watermark::IDLE => "idle".to_owned(),
        Watermark::CLOSED => "closed".to_owned(),
        Watermark(micros) => api_time(micros),
    }
}

/// Whom a service waits for, where others are further than that.
pub(crate) fn held_back(time: &TimeStatus) -> Option<HeldBack> {
    let held = time.held_back.as_ref()?;
    let behind = held.promised.time().map(|promised| time.furthest.unwrap_or(promised).saturating_sub(promised));
    (behind != Some(0)).then(|| HeldBack {
        producer: held.producer.to_string(),
        partition: held.partition,
        topic: held.topic.to_string(),
        behind_s: behind.map(|micros| micros as f64 / 1e6),
    })
}

fn service_status(found: &millstream_service::Status, rates: &Rates) -> ServiceStatus {
    let counts = &found.counts;
    let (state, reason) = run_state(found.state.clone());
    // What there is to know about tasks that work stands where reasons do.
    let reason = reason.or_else(|| found.tasks.iter().find_map(|task| task.note.clone()));
    let outputs = counts.out_by_topic.iter();
    ServiceStatus {
        name: found.name.to_string(),
        state,
        reason,
        version: found.version.clone(),
        instances: found.instances,
        tasks: u32::try_from(found.tasks.len()).unwrap_or(u32::MAX),
        events_in: counts.events_in,
        events_out: counts.events_out,
        in_per_s: rates.events_in,
        out_per_s: rates.events_out,
        lag: found.lag,
        inputs: by_topic(&found.inputs),
        watermark: found.time.as_ref().map(|time| watermark_text(time.watermark)),
        held_back: found.time.as_ref().and_then(held_back),
        outputs: outputs.map(|(topic, events)| TopicCount { topic: topic.to_string(), events: *events }).collect(),
        dead_letters: counts.dead_letters_total(),
        dead_letters_by_code: counts.dead_letters.clone(),
        broken_rules: counts.broken_rules.clone(),
        dropped: counts.dropped_total(),
        restarts: counts.restarts,
        commits: counts.commits,
        commit_latency: rates.latency,
        busy: rates.busy,
        busy_s: seconds(counts.busy_ns),
    }
}

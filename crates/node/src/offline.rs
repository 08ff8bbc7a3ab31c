//! The reading commands on a stopped node: they open its log, answer, and close it.

use millstream_service::dead_letters::{OpenLetters, open_letters};
use millstream_service::event::Name;
use millstream_service::log::{self, EmbeddedLog, EmbeddedOptions, Log};
use millstream_service::rewind::carry_out;
use millstream_service::{SystemClock, lag_of, time_of};

use crate::api::{
    ApiError, EventLine, EventsQuery, InputLag, Letter, LettersQuery, LogStat, NodeInfo, Phase, Plan, RepairReport,
    RewindAnswer, RewindRequest, RunState, ServiceStatus, SinkStatus, SourceStatus, StateAnswer, StateQuery, Status,
    Topics, VerifyFault, VerifyReport, codes,
};
use crate::config::{Config, Loaded};
use crate::diagnostic::names_known;
use crate::http::Ordered;
use crate::plan::{Pipeline, plan as plan_pipeline};
use crate::runtime::{
    build, diff, held_back, log_error, log_state, service_error, stored, tell_unread, watermark_text,
    wrong as change_wrong,
};

fn no_data(loaded: &Loaded) -> ApiError {
    let message = format!("there is no data in {} yet", loaded.config.log.embedded.dir.display());
    ApiError::new("log-missing", message).help("run the pipeline first: `millstream run`")
}

/// Opens the log of a stopped node; there must be one.
async fn open(loaded: &Loaded) -> Result<EmbeddedLog, ApiError> {
    let settings = &loaded.config.log.embedded;
    if !settings.dir.join(stored::FILE).exists() {
        return Err(no_data(loaded));
    }
    let options = build::log_options(settings);
    let opened = tokio::task::spawn_blocking(move || EmbeddedLog::open(options)).await;
    opened.map_err(|e| ApiError::new("log-failed", e.to_string()))?.map_err(log_error)
}

/// Runs a question on the opened log and closes it.
async fn with<T>(
    loaded: &Loaded,
    ask: impl AsyncFnOnce(&EmbeddedLog, &Pipeline) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let pipeline = plan_pipeline(loaded).map_err(change_wrong)?;
    let log = open(loaded).await?;
    let answer = ask(&log, &pipeline).await;
    log.close().await.map_err(log_error)?;
    answer
}

/// The topics.
pub async fn topics(loaded: &Loaded) -> Result<Topics, ApiError> {
    with(loaded, async |log, pipeline| crate::http::topics(log, pipeline).await).await
}

/// Events of a topic.
pub async fn events(loaded: &Loaded, topic: &str, asked: &EventsQuery) -> Result<Vec<EventLine>, ApiError> {
    with(loaded, async |log, _| crate::http::read_events(log, topic, asked).await).await
}

/// Dead letters of a service or source.
pub async fn letters(loaded: &Loaded, service: &str, asked: &LettersQuery) -> Result<Vec<Letter>, ApiError> {
    with(loaded, async |log, pipeline| {
        let names: Vec<&Name> =
            pipeline.services.iter().map(|s| &s.name).chain(pipeline.sources.iter().map(|s| &s.name)).collect();
        let Some(name) = names.iter().find(|n| n.as_str() == service) else {
            let help = names_known(service, "services and sources", names.iter().map(|n| n.as_str()));
            let error = ApiError::new(codes::SERVICE_UNKNOWN, format!("there is no service `{service}`"));
            return Err(error.help(help));
        };
        crate::http::letters(log, name, asked).await
    })
    .await
}

/// What a service keeps.
pub async fn state(loaded: &Loaded, service: &str, asked: &StateQuery) -> Result<StateAnswer, ApiError> {
    with(loaded, async |log, pipeline| crate::http::state_of(log, pipeline, service, asked).await).await
}

/// Sets a service back, or says what that would do.
pub async fn rewind(loaded: &Loaded, service: &str, request: RewindRequest) -> Result<RewindAnswer, ApiError> {
    with(loaded, async |log, pipeline| {
        let preview = request.preview;
        let ordered = Ordered::new(pipeline, service, request)?;
        if preview {
            return ordered.preview(log).await;
        }
        let plan = carry_out(log, &SystemClock, &ordered.order).await.map_err(service_error)?;
        Ok(ordered.answer(plan, true))
    })
    .await
}

/// The log's figures.
pub async fn log_stat(loaded: &Loaded) -> Result<LogStat, ApiError> {
    let settings = &loaded.config.log.embedded;
    with(loaded, async |log, _| {
        // Not from the files: the log that is open may be settling them.
        let figures = log.stat();
        let topics = crate::http::stat_topics(log, &figures).await?;
        Ok(crate::http::stat(settings, log_state(settings, &figures, None, None), &figures, topics))
    })
    .await
}

/// Reads every byte of the log and says what does not read back. Changes nothing.
pub async fn verify(loaded: &Loaded) -> Result<VerifyReport, ApiError> {
    let report = examine(loaded, log::verify).await?;
    let dir = &loaded.config.log.embedded.dir;
    let fault = |problem: &log::Problem, harmless: bool| VerifyFault {
        file: problem.path.strip_prefix(dir).unwrap_or(&problem.path).display().to_string(),
        at_byte: problem.at,
        message: problem.what.clone(),
        harmless,
        topics: vec![problem.affected.clone()],
    };
    let damage = report.problems.iter().map(|p| fault(p, false));
    Ok(VerifyReport {
        dir: dir.display().to_string(),
        files: report.segments + report.files,
        bytes: report.bytes,
        groups: report.groups,
        faults: damage.chain(report.torn_tail.iter().map(|p| fault(p, true))).collect(),
        notes: report.notes,
    })
}

/// Whether somebody could repair the log now: there is one, and nobody uses it.
pub async fn log_is_free(loaded: &Loaded) -> Result<(), ApiError> {
    if !loaded.config.log.embedded.dir.exists() {
        return Err(no_data(loaded));
    }
    examine(loaded, log::is_free).await
}

/// Makes a damaged log open again; what is taken out is kept beside it.
pub async fn repair(loaded: &Loaded) -> Result<RepairReport, ApiError> {
    let report = examine(loaded, |options| log::repair(options, true)).await?;
    let dir = &loaded.config.log.embedded.dir;
    let kept = dir.join("damaged");
    let lost = |l: &log::Lost| format!("lost offsets {} to {} of {}/{}", l.from, l.to, l.topic, l.partition);
    Ok(RepairReport {
        dir: dir.display().to_string(),
        actions: report.notes.iter().cloned().chain(report.lost.iter().map(lost)).collect(),
        events_lost: Some(report.lost.iter().map(|l| l.to.0.saturating_sub(l.from.0)).sum()),
        kept: kept.exists().then(|| kept.display().to_string()),
    })
}

/// Looks at the files of a stopped log, off the runtime.
async fn examine<T: Send + 'static>(
    loaded: &Loaded,
    look: impl FnOnce(&EmbeddedOptions) -> Result<T, log::Error> + Send + 'static,
) -> Result<T, ApiError> {
    let options = build::log_options(&loaded.config.log.embedded);
    let looked = tokio::task::spawn_blocking(move || look(&options)).await;
    looked.map_err(|e| ApiError::new("log-failed", e.to_string()))?.map_err(log_error)
}

/// What differs from what ran last.
pub async fn plan(loaded: &Loaded) -> Result<Plan, ApiError> {
    let after = plan_pipeline(loaded).map_err(change_wrong)?;
    let before = match stored::read(&loaded.config.log.embedded.dir) {
        Some(before) => before.map_err(change_wrong)?,
        None => empty(loaded)?,
    };
    let planned = plan_pipeline(&before).map_err(change_wrong)?;
    let mut plan = diff((&before, &planned), (loaded, &after));
    // A log that cannot be opened is the business of the commands that need it.
    if let Ok(log) = open(loaded).await {
        let told = tell_unread(&log, &mut plan, &planned, &after).await;
        log.close().await.map_err(log_error)?;
        told?;
    }
    Ok(plan)
}

/// The pipeline that does nothing: what has run before the first run.
fn empty(loaded: &Loaded) -> Result<Loaded, ApiError> {
    let disk = crate::config::Disk { dir: loaded.dir.clone() };
    let text = format!("version: 1\npipeline: {}\n", loaded.config.pipeline.value);
    let mut empty = Config::parse(&loaded.path, text, &disk).map_err(change_wrong)?;
    empty.config.server = loaded.config.server.clone();
    empty.config.log = loaded.config.log.clone();
    Ok(empty)
}

/// How services stand: their positions, lags and open dead letters. What no log tells is zero; [`Status::known`] leaves it out.
pub async fn status(loaded: &Loaded) -> Result<Status, ApiError> {
    with(loaded, async |log, pipeline| stopped_status(log, loaded, pipeline).await).await
}

async fn lags(log: &dyn Log, who: &Name, inputs: &[Name]) -> Result<Vec<InputLag>, ApiError> {
    let mut out = Vec::new();
    for topic in inputs {
        let Some(info) = log.topic(topic) else { continue };
        let mut lag = 0;
        for partition in 0..info.spec.partitions {
            lag += lag_of(log, who, topic, partition).await.map_err(service_error)?.lag;
        }
        out.push(InputLag { topic: topic.to_string(), lag });
    }
    Ok(out)
}

async fn stopped_status(log: &EmbeddedLog, loaded: &Loaded, pipeline: &Pipeline) -> Result<Status, ApiError> {
    let settings = &loaded.config.log.embedded;
    let mut services = Vec::new();
    for s in &pipeline.services {
        let inputs = lags(log, &s.name, &s.inputs).await?;
        let letters = open_letters(log, &s.name).await.map_err(service_error)?;
        let tasks = s.inputs.first().and_then(|i| log.topic(i)).map_or(0, |t| t.spec.partitions);
        let time = match &s.time {
            Some(time) => time_of(log, &s.name, time, tasks).await.map_err(service_error)?,
            None => None,
        };
        services.push(ServiceStatus {
            name: s.name.to_string(),
            state: RunState::Stopped,
            reason: None,
            version: s.definition.version(),
            instances: s.instances,
            tasks,
            events_in: 0,
            events_out: 0,
            in_per_s: 0.0,
            out_per_s: 0.0,
            lag: inputs.iter().map(|i| i.lag).sum(),
            inputs,
            watermark: time.as_ref().map(|time| watermark_text(time.watermark)),
            held_back: time.as_ref().and_then(held_back),
            outputs: Vec::new(),
            dead_letters: letters.total,
            dead_letters_by_code: letters.by_code,
            broken_rules: letters.by_rule,
            dropped: 0,
            restarts: 0,
            commits: 0,
            commit_latency: None,
            busy: 0.0,
            busy_s: 0.0,
        });
    }
    let mut sinks = Vec::new();
    for s in &pipeline.sinks {
        let inputs = lags(log, &s.name, &s.inputs).await?;
        sinks.push(SinkStatus {
            name: s.name.to_string(),
            kind: s.kind().to_owned(),
            target: s.settings.file.as_ref().map(|f| f.path.value.display().to_string()),
            state: RunState::Stopped,
            reason: None,
            events: 0,
            per_s: 0.0,
            lag: inputs.iter().map(|i| i.lag).sum(),
            inputs,
            restarts: 0,
            busy_s: 0.0,
        });
    }
    let source = |s: &crate::plan::Source, letters: OpenLetters| SourceStatus {
        name: s.name.to_string(),
        kind: s.kind().to_owned(),
        to: s.settings.to.value.to_string(),
        state: RunState::Stopped,
        reason: None,
        bounded: s.bounded(),
        events: 0,
        per_s: 0.0,
        refused: letters.total,
        refused_by_code: letters.by_code,
        watermark: None,
        late: 0,
        restarts: 0,
        busy_s: 0.0,
    };
    let mut sources = Vec::new();
    for s in &pipeline.sources {
        sources.push(source(s, open_letters(log, &s.name).await.map_err(service_error)?));
    }
    Ok(Status {
        pipeline: pipeline.name.to_string(),
        node: NodeInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: 0,
            started_at: String::new(),
            uptime_s: 0.0,
            listen: None,
            file: loaded.path.display().to_string(),
            data: settings.dir.display().to_string(),
            cpu_s: 0.0,
            rss_peak_bytes: 0,
        },
        phase: Phase::Stopped,
        sources,
        services,
        sinks,
        lookups: Vec::new(),
        log: log_state(settings, &log.stat(), None, None),
        backup: None,
    })
}

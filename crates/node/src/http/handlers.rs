//! The JSON API, one handler per path.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use millstream_service::dead_letters::{Answer, LetterId, LetterStatus, LetterView, Select};
use millstream_service::event::{Offset, TopicPartition};
use millstream_service::log::{Log, Retention, Stat, TopicInfo};
use millstream_service::{Injected, Kind, State as Standing};
use serde_json::value::RawValue;

use super::Refused;
use crate::Node;
use crate::api::{
    self, ApiError, Applied, ColumnInfo, InjectRequest, Letter, LetterAnswer, LetterOutcome, LetterState, LettersQuery,
    LettersRequest, LettersResult, LogStat, LogTopic, PartitionInfo, PipelineText, Plan, ScaleRequest, ServiceAnswer,
    Snapshot, Status, Topic, Topics, codes,
};
use crate::plan::Pipeline;
use crate::runtime::backups::Claim;
use crate::runtime::{log_error, log_state, service_error};

/// How long an order may take to show before its caller is answered all the same.
const ORDER_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);
/// How often that is looked at.
const ORDER_LOOK: std::time::Duration = std::time::Duration::from_millis(5);

type Answered<T> = Result<Json<T>, Refused>;

pub(super) fn body<T>(body: Result<Json<T>, JsonRejection>) -> Result<T, ApiError> {
    body.map(|Json(body)| body).map_err(|e| ApiError::new(codes::REQUEST_WRONG, e.body_text()))
}

pub(super) fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, ApiError> {
    query.map(|Query(query)| query).map_err(|e| ApiError::new(codes::REQUEST_WRONG, e.body_text()))
}

/// 200 while the log accepts and no component has failed.
pub(super) async fn ready(State(node): State<Node>) -> Response {
    let stopped = node.inner.log.stopped().map(|why| format!("the log has stopped: {why}"));
    let failed = node.inner.runner.handles().into_iter().find_map(|handle| match handle.state() {
        millstream_service::State::Failed { reason } => Some(format!("`{}` has failed: {reason}", handle.name())),
        _ => None,
    });
    match stopped.or(failed) {
        None => "ready\n".into_response(),
        Some(why) => Refused(StatusCode::SERVICE_UNAVAILABLE, ApiError::new("not-ready", why)).into_response(),
    }
}

pub(super) async fn status(State(node): State<Node>) -> Json<Status> {
    Json(node.status().await)
}

pub(super) async fn all_topics(State(node): State<Node>) -> Answered<Topics> {
    Ok(Json(topics(&*node.inner.log, &node.inner.view().pipeline).await?))
}

/// The topics of a log with what a pipeline knows of them.
pub(crate) async fn topics(log: &dyn Log, pipeline: &Pipeline) -> Result<Topics, ApiError> {
    let mut topics = Vec::new();
    for info in log.topics() {
        topics.push(topic(log, pipeline, info).await?);
    }
    // In the order of the data; what belongs to a component stands behind the topics of the pipeline.
    let order: Vec<String> = pipeline
        .sources
        .iter()
        .map(|s| s.settings.to.value.to_string())
        .chain(pipeline.services.iter().flat_map(|s| s.outputs.iter().map(ToString::to_string)))
        .collect();
    topics.sort_by_cached_key(|t: &Topic| {
        (order.iter().position(|o| *o == t.name).unwrap_or(usize::MAX), t.internal, t.name.clone())
    });
    Ok(Topics { topics })
}

async fn topic(log: &dyn Log, pipeline: &Pipeline, info: TopicInfo) -> Result<Topic, ApiError> {
    let spec = info.spec;
    let mut partitions = Vec::new();
    for partition in 0..spec.partitions {
        let at = TopicPartition::new(spec.name.clone(), partition);
        let start = log.start(&at).await.map_err(log_error)?.0;
        let end = log.end(&at).await.map_err(log_error)?.0;
        partitions.push(PartitionInfo { partition, start, end });
    }
    let planned = pipeline.topics.get(&spec.name);
    let name = spec.name.to_string();
    let names = |names: Option<&Vec<millstream_service::event::Name>>| -> Vec<String> {
        names.into_iter().flatten().map(ToString::to_string).collect()
    };
    Ok(Topic {
        internal: internal(name.as_str()),
        key: spec.key,
        event_time: planned.and_then(|t| t.event_time.as_ref()).map(|t| t.column.clone()),
        columns: spec
            .schema
            .columns()
            .iter()
            .map(|c| ColumnInfo {
                name: c.name.clone(),
                kind: format!("{}{}", c.kind, if c.nullable { "" } else { "!" }),
            })
            .collect(),
        schema_version: info.schema_version,
        retention: retention(&spec.retention),
        events: partitions.iter().map(|p| p.end.saturating_sub(p.start)).sum(),
        bytes: None,
        writers: match name.strip_suffix(".dlq") {
            Some(owner) => vec![owner.to_owned()],
            None => names(planned.map(|t| &t.writers)),
        },
        readers: names(planned.map(|t| &t.readers)),
        partitions,
        name,
    })
}

/// Whether the system keeps this topic for itself.
pub(super) fn internal(name: &str) -> bool {
    [".dlq.commands", ".dlq.status", ".replay", ".idempotency"].iter().any(|suffix| name.ends_with(suffix))
}

fn retention(retention: &Retention) -> String {
    let age = match retention.age {
        None => "forever".to_owned(),
        Some(age) if age.as_secs() % 86_400 == 0 => format!("{}d", age.as_secs() / 86_400),
        Some(age) if age.as_secs() % 3600 == 0 => format!("{}h", age.as_secs() / 3600),
        Some(age) => format!("{}s", age.as_secs()),
    };
    if retention.until_read && retention.age.is_some() { format!("until read + {age}") } else { age }
}

/// A service by name; sources and sinks are none.
fn service(node: &Node, name: &str) -> Result<millstream_service::Handle, ApiError> {
    let handle = node.handle(name)?;
    match handle.kind() {
        Kind::Service => Ok(handle),
        _ => Err(ApiError::new(codes::SERVICE_UNKNOWN, format!("`{name}` is no service"))),
    }
}

async fn answer(node: &Node, handle: &millstream_service::Handle, changed: bool) -> Answered<ServiceAnswer> {
    let found = node.inner.service_status(handle).await;
    let service = found.ok_or_else(|| ApiError::new("refused", "the service does not answer"))?;
    Ok(Json(ServiceAnswer { changed, service }))
}

/// Waits until an order has taken effect, as long as a caller may be kept waiting: tasks stop at commit boundaries.
async fn settled(handle: &millstream_service::Handle, done: impl Fn(&Standing) -> bool) {
    let until = tokio::time::Instant::now() + ORDER_WITHIN;
    while !done(&handle.state()) && tokio::time::Instant::now() < until {
        tokio::time::sleep(ORDER_LOOK).await;
    }
}

pub(super) async fn pause(State(node): State<Node>, Path(name): Path<String>) -> Answered<ServiceAnswer> {
    let handle = node.handle(&name)?;
    let before = handle.state();
    handle.pause();
    node.keep_paused()?;
    settled(&handle, |state| !matches!(state, Standing::Running | Standing::Starting)).await;
    answer(&node, &handle, before != Standing::Paused).await
}

pub(super) async fn resume(State(node): State<Node>, Path(name): Path<String>) -> Answered<ServiceAnswer> {
    let handle = node.handle(&name)?;
    let before = handle.state();
    handle.resume();
    node.keep_paused()?;
    settled(&handle, |state| *state != Standing::Paused).await;
    answer(&node, &handle, before != Standing::Running).await
}

pub(super) async fn scale(
    State(node): State<Node>,
    Path(name): Path<String>,
    request: Result<Json<ScaleRequest>, JsonRejection>,
) -> Answered<ServiceAnswer> {
    let instances = body(request)?.instances;
    let handle = service(&node, &name)?;
    let before = handle.status().await.map_err(service_error)?;
    let tasks = u32::try_from(before.tasks.len()).unwrap_or(u32::MAX).max(1);
    if instances == 0 || instances > tasks {
        let message = format!("`{name}` can have 1 to {tasks} instances: one per partition of its input at most");
        return Err(ApiError::new(codes::REQUEST_WRONG, message).into());
    }
    handle.scale(instances).await.map_err(service_error)?;
    answer(&node, &handle, before.instances != instances).await
}

pub(super) async fn inject(
    State(node): State<Node>,
    Path(name): Path<String>,
    request: Result<Json<InjectRequest>, JsonRejection>,
) -> Answered<ServiceAnswer> {
    if !node.inner.options.inject_faults {
        let error = ApiError::new("faults-off", "this node does not let faults be injected");
        return Err(error.help("start it for proofs only, with the flag that allows it").into());
    }
    let handle = node.handle(&name)?;
    match body(request)?.fault {
        api::Fault::Panic => handle.inject(Injected::Panic),
    }
    answer(&node, &handle, true).await
}

pub(super) async fn plan(State(node): State<Node>, text: Result<Json<PipelineText>, JsonRejection>) -> Answered<Plan> {
    Ok(Json(node.plan(body(text)?).await?))
}

pub(super) async fn apply(
    State(node): State<Node>,
    text: Result<Json<PipelineText>, JsonRejection>,
) -> Answered<Applied> {
    let text = body(text)?;
    // On a task of its own: a caller that goes away must not leave a change half done.
    let done = tokio::spawn(async move { node.apply(text).await }).await;
    Ok(Json(done.map_err(|e| ApiError::new("apply-failed", e.to_string()))??))
}

pub(super) async fn list_letters(
    State(node): State<Node>,
    Path(name): Path<String>,
    asked: Result<Query<LettersQuery>, QueryRejection>,
) -> Result<Response, Refused> {
    let asked = query(asked)?;
    let handle = node.handle(&name)?;
    let letters = letters(&*node.inner.log, handle.name(), &asked).await?;
    let mut out = String::new();
    for letter in letters {
        out.push_str(&serde_json::to_string(&letter).unwrap_or_default());
        out.push('\n');
    }
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from(out)).into_response())
}

/// The most letters of one answer where no limit is given.
const LETTERS_DEFAULT: u64 = 1000;

/// Dead letters of a service or source, from a log.
pub(crate) async fn letters(
    log: &dyn Log,
    name: &millstream_service::event::Name,
    asked: &LettersQuery,
) -> Result<Vec<Letter>, ApiError> {
    let select = Select {
        ids: asked.id.into_iter().map(id).collect(),
        code: asked.code.clone(),
        rule: asked.rule.clone(),
        status: asked.state.map(|s| match s {
            LetterState::Open => LetterStatus::Open,
            LetterState::Replayed => LetterStatus::Replayed,
            LetterState::Discarded => LetterStatus::Discarded,
        }),
    };
    let limit = usize::try_from(asked.limit.unwrap_or(LETTERS_DEFAULT)).unwrap_or(usize::MAX);
    let views = millstream_service::dead_letters::list(log, name, &select, limit).await.map_err(service_error)?;
    Ok(views.into_iter().map(letter).collect())
}

fn id(id: api::LetterId) -> LetterId {
    LetterId { partition: id.partition, offset: id.offset }
}

/// A letter as the API shows it.
fn letter(view: LetterView) -> Letter {
    let columns: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(view.letter.get()).unwrap_or_default();
    let mut exact: BTreeMap<String, Box<RawValue>> = serde_json::from_str(view.letter.get()).unwrap_or_default();
    let text = |name: &str| columns.get(name).and_then(|v| v.as_str()).map(str::to_owned);
    let number = |name: &str| columns.get(name).and_then(serde_json::Value::as_u64);
    let narrow = |name: &str| number(name).and_then(|n| u32::try_from(n).ok());
    let rules = columns.get("rules").and_then(|r| r.as_array());
    Letter {
        id: api::LetterId { partition: view.id.partition, offset: view.id.offset },
        state: match view.status {
            LetterStatus::Open => LetterState::Open,
            LetterStatus::Replayed => LetterState::Replayed,
            LetterStatus::Discarded => LetterState::Discarded,
        },
        at: text("at").unwrap_or_default(),
        code: text("code").unwrap_or_default(),
        reason: text("reason").unwrap_or_default(),
        rules: rules.into_iter().flatten().filter_map(|r| r.as_str()).map(str::to_owned).collect(),
        service: text("service").unwrap_or_default(),
        service_version: text("service_version").unwrap_or_default(),
        topic: text("topic").unwrap_or_default(),
        partition: narrow("partition"),
        offset: number("offset"),
        origin: text("place"),
        attempts: narrow("attempts").unwrap_or(1),
        event: exact.remove("event").filter(|v| v.get() != "null"),
        raw: text("raw").map(|raw| unbase64(&raw)),
    }
}

/// The text that base64 stands for; replacement characters where it is no UTF-8.
fn unbase64(text: &str) -> String {
    let value = |c: u8| match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bits, mut held, mut out) = (0u32, 0u32, Vec::with_capacity(text.len()));
    for six in text.bytes().filter_map(value) {
        bits = (bits << 6) | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from((bits >> held) & 0xff).unwrap_or_default());
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub(super) async fn replay(
    State(node): State<Node>,
    Path(name): Path<String>,
    request: Result<Json<LettersRequest>, JsonRejection>,
) -> Answered<LettersResult> {
    let select = selection(body(request)?)?;
    let answer = node.handle(&name)?.replay(&select).await.map_err(service_error)?;
    Ok(Json(result(answer, &select, LetterOutcome::Replayed)))
}

pub(super) async fn discard(
    State(node): State<Node>,
    Path(name): Path<String>,
    request: Result<Json<LettersRequest>, JsonRejection>,
) -> Answered<LettersResult> {
    let select = selection(body(request)?)?;
    let answer = node.handle(&name)?.discard(&select).await.map_err(service_error)?;
    Ok(Json(result(answer, &select, LetterOutcome::Discarded)))
}

fn selection(request: LettersRequest) -> Result<Select, ApiError> {
    if request.ids.is_empty() && request.code.is_none() && request.rule.is_none() && !request.all {
        let error = ApiError::new(codes::REQUEST_WRONG, "no letter was selected");
        return Err(error.help("give ids, a code, a rule, or all"));
    }
    // Named letters are taken whatever became of them, so that each is answered; else only the open ones.
    let status = request.ids.is_empty().then_some(LetterStatus::Open);
    let ids = request.ids.into_iter().map(id).collect();
    Ok(Select { ids, code: request.code, rule: request.rule, status })
}

fn result(answer: Answer, select: &Select, done: LetterOutcome) -> LettersResult {
    let shown = |id: LetterId| api::LetterId { partition: id.partition, offset: id.offset };
    let refused = answer.refusals.iter().map(|(id, why)| {
        let outcome = match why {
            why if why.contains("replayed") => LetterOutcome::AlreadyReplayed,
            why if why.contains("discarded") => LetterOutcome::AlreadyDiscarded,
            why if why.contains("no such") || why.contains("no letter") => LetterOutcome::Unknown,
            _ => LetterOutcome::Unreadable,
        };
        LetterAnswer { id: shown(*id), outcome }
    });
    let refusals: Vec<LetterAnswer> = refused.collect();
    let good = select.ids.iter().filter(|id| !answer.refusals.iter().any(|(r, _)| r == *id));
    let good = good.map(|id| LetterAnswer { id: shown(*id), outcome: done });
    let answers = good.take(LETTERS_DEFAULT as usize).chain(refusals.iter().cloned()).collect();
    LettersResult { done: answer.done, refused: answer.refused, answers }
}

/// One round of the backup, now; takes the place over from another process that backs this log up there.
pub(super) async fn snapshot(State(node): State<Node>) -> Answered<Snapshot> {
    Ok(Json(node.inner.back_up(Claim::Anew).await?))
}

pub(super) async fn log_stat(State(node): State<Node>) -> Answered<LogStat> {
    let settings = node.inner.view().loaded.config.log.embedded.clone();
    let log = &node.inner.log;
    let figures = log.stat();
    let state = log_state(&settings, &figures, Some(log.counts()), log.stopped());
    let topics = stat_topics(&**log, &figures).await?;
    Ok(Json(stat(&settings, state, &figures, topics)))
}

/// The log's figures as its files and its index tell them.
pub(crate) fn stat(
    settings: &crate::config::EmbeddedSettings,
    state: api::LogState,
    figures: &Stat,
    topics: Vec<LogTopic>,
) -> LogStat {
    LogStat {
        dir: settings.dir.display().to_string(),
        bytes: state.bytes,
        journal_bytes: figures.segment_bytes,
        segments: state.segments,
        segments_free: state.segments_free,
        settled_bytes: state.settled_bytes,
        sync: state.sync,
        commits: state.commits,
        syncs: state.syncs,
        stopped: state.stopped,
        topics,
    }
}

pub(crate) async fn stat_topics(log: &dyn Log, figures: &Stat) -> Result<Vec<LogTopic>, ApiError> {
    let mut topics = Vec::new();
    for info in log.topics() {
        let mut events = 0;
        for partition in 0..info.spec.partitions {
            let at = TopicPartition::new(info.spec.name.clone(), partition);
            let start: Offset = log.start(&at).await.map_err(log_error)?;
            events += log.end(&at).await.map_err(log_error)?.0.saturating_sub(start.0);
        }
        let found = figures.topics.iter().find(|figures| figures.topic == info.spec.name);
        topics.push(LogTopic {
            topic: info.spec.name.to_string(),
            partitions: info.spec.partitions,
            events,
            settled_bytes: found.map_or(0, |figures| figures.settled_bytes),
            files: found.map_or(0, |figures| figures.files),
            journal_bytes: found.map_or(0, |figures| figures.journal_bytes),
        });
    }
    Ok(topics)
}

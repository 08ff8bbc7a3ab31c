//! From a request to its answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::{Answer, Fate, Fault};
use super::body::{self, busy};
use super::idempotency::{Begin, Done, KEY_BYTES_MAX, Key, other_body};
use super::reply::Watch;
use super::task::{Request, unknown};
use super::{Shared, body::Held};
use crate::decode::{checksum, refused_event};
use crate::event::{Decoded, json};

/// Larger bodies are decoded on a thread of their own.
const INLINE_BYTES_MAX: usize = 128 * 1024;
/// The most decoders kept for the next request.
const DECODERS_MAX: usize = 16;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let path = shared.settings.path.clone();
    let mut router = Router::new().route(&path, post(take).fallback(wrong_method));
    if shared.replies.is_some() {
        router = router.route(&format!("{path}/status/{{place}}"), get(status).fallback(wrong_method));
    }
    router.with_state(shared)
}

async fn wrong_method() -> Fault {
    Fault::new(StatusCode::METHOD_NOT_ALLOWED, "method", "send events with POST; ask for a status with GET")
}

async fn take(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Response {
    match taken(&shared, &headers, body).await {
        Ok(answer) => answer.into_response(),
        Err(fault) => fault.into_response(),
    }
}

async fn taken(shared: &Arc<Shared>, headers: &HeaderMap, body: Body) -> Done {
    let came = Instant::now();
    if shared.draining.load(Ordering::Acquire) || shared.open.load(Ordering::Acquire) == 0 {
        return Err(stopped());
    }
    let _permit = Arc::clone(&shared.requests).try_acquire_owned().map_err(|_| busy())?;
    let limits = &shared.settings.limits;
    no_arrow(headers)?;
    let held = body::read(body, headers, limits, &shared.bodies).await?;
    let key = key(headers, &held.bytes)?;
    let lines = is_lines(headers);
    let (held, decoded) = decode(shared, held, lines).await?;
    let (sender, own) = oneshot::channel();
    let order = order(&decoded);
    if order.is_empty() {
        return Err(Fault::new(StatusCode::BAD_REQUEST, "no-event", "the body has no event"));
    }
    let path = &shared.settings.path;
    let refused = decoded.refused.iter().map(|one| {
        let raw = held.bytes.get(one.bytes.clone()).unwrap_or_default();
        refused_event(raw, one.code.as_str(), one.reason.clone(), format!("POST {path}#{}", one.row))
    });
    let refused = refused.collect();
    drop(held);
    let watch = shared.replies.as_ref().filter(|_| order.len() == 1 && decoded.rows.num_rows() == 1);
    let mut watch = watch.and_then(|replies| replies.watch(&decoded.rows));
    let asked = key.as_ref().map(|key| key.text.clone());
    let begin = key.as_ref().map_or(Begin::New, |key| shared.keys.begin(key));
    let was_there = matches!(begin, Begin::Again(_));
    let answer = match begin {
        Begin::New => {
            queue(shared, Request::new(decoded.rows, refused, order, key, Arc::clone(&shared.keys), sender))?;
            committed(own, came + limits.commit_timeout).await?
        }
        Begin::Wait(first) => committed(first, came + limits.commit_timeout).await?,
        Begin::Again(answer) => answer,
        Begin::Other => return Err(other_body()),
        Begin::Full => return Err(busy()),
    };
    let Some(watch) = watch.as_mut().filter(|_| answer.status == StatusCode::OK) else { return Ok(answer) };
    if was_there {
        if let Some(known) = asked.as_ref().and_then(|key| shared.keys.decision(key)) {
            return Ok(known);
        }
        watch.look_back(&shared.log);
    }
    let answer = decided(shared, watch, answer, came).await;
    if let Some(key) = asked.filter(|_| answer.status != StatusCode::ACCEPTED) {
        shared.keys.decide(&key, &answer);
    }
    Ok(answer)
}

/// What the log made of a request.
async fn committed(done: oneshot::Receiver<Done>, until: Instant) -> Done {
    match timeout_at(until, done).await {
        Ok(Ok(done)) => done,
        Ok(Err(_)) => Err(unknown("the source was stopped")),
        Err(_) => Err(unknown("the commit takes long")),
    }
}

/// The answer of a source that does not work now. Nothing happened.
pub(super) fn stopped() -> Fault {
    Fault::new(StatusCode::SERVICE_UNAVAILABLE, "stopped", "this source takes no events now").retry(1)
}

/// Hands a request to the task, or says why not; nothing waits here.
fn queue(shared: &Arc<Shared>, request: Request) -> Result<(), Fault> {
    match shared.queue.try_send(request) {
        Ok(()) => {
            if left(shared) {
                // The task that emptied the queue as it went may have done so before this request was in it.
                tokio::spawn(empty(Arc::clone(shared)));
            }
            Ok(())
        }
        Err(mpsc::error::TrySendError::Full(request) | mpsc::error::TrySendError::Closed(request)) => {
            request.finish(Err(busy()));
            Err(busy())
        }
    }
}

/// Whether no task is there, nor will follow. Reading by a write puts what was queued before it in sight of a task that
/// counts itself out after it.
fn left(shared: &Shared) -> bool {
    shared.draining.load(Ordering::Acquire) && shared.open.fetch_add(0, Ordering::AcqRel) == 0
}

/// Answers what waits for a task that will not come. A task that does come first takes care of it.
async fn empty(shared: Arc<Shared>) {
    let Ok(mut waiting) = timeout(shared.settings.limits.commit_timeout, shared.waiting.lock()).await else { return };
    while left(&shared)
        && let Ok(request) = waiting.try_recv()
    {
        request.finish(Err(stopped()));
    }
}

/// The decision, or at the time limit where to ask for it.
async fn decided(shared: &Shared, watch: &mut Watch, mut answer: Answer, came: Instant) -> Answer {
    let timeout = shared.settings.reply.as_ref().map(|r| r.timeout).unwrap_or_default();
    let place = place(&answer);
    if let Some(decision) = watch.decision(came + timeout).await {
        let mut body = decision.body;
        if let (Some(body), Some(events)) = (body.as_object_mut(), answer.body.get("events")) {
            body.insert("events".to_owned(), events.clone());
        }
        return Answer { status: decision.status, body, decision: decision.event, again: answer.again };
    }
    answer.status = StatusCode::ACCEPTED;
    if let (Some(place), Some(body)) = (place, answer.body.as_object_mut()) {
        body.insert("status".to_owned(), json!(format!("{}/status/{place}", shared.settings.path)));
        watch.keep(place);
    }
    answer
}

/// The place of a request's one event as its status address has it; `None` where the log does not know it.
fn place(answer: &Answer) -> Option<String> {
    let event = answer.body.get("events")?.get(0)?;
    let offset = event.get("offset")?.as_u64()?;
    Some(format!("{}-{}-{offset}", event.get("topic")?.as_str()?, event.get("partition")?.as_u64()?))
}

async fn status(State(shared): State<Arc<Shared>>, Path(place): Path<String>) -> Response {
    match shared.replies.as_ref().and_then(|replies| replies.status(&place)) {
        Some(Some(decision)) => decision.answer().into_response(),
        Some(None) => {
            let body = json!({"status": format!("{}/status/{place}", shared.settings.path)});
            Answer { status: StatusCode::ACCEPTED, body, decision: None, again: false }.into_response()
        }
        None => {
            let reason = "no status is kept for this event: it was answered at once, or too long ago";
            Fault::new(StatusCode::NOT_FOUND, "status-unknown", reason).into_response()
        }
    }
}

/// The request's key, if it has one.
fn key(headers: &HeaderMap, body: &[u8]) -> Result<Option<Key>, Fault> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| !text.is_empty() && text.len() <= KEY_BYTES_MAX);
    let Some(text) = text else {
        let reason = format!("an Idempotency-Key has 1 to {KEY_BYTES_MAX} visible ASCII characters");
        return Err(Fault::new(StatusCode::BAD_REQUEST, "idempotency-key", reason));
    };
    let body = format!("{}-{:016x}", body.len(), checksum(body));
    Ok(Some(Key { text: text.to_owned(), body }))
}

/// The body's media type without its parameters.
fn media_type(headers: &HeaderMap) -> &str {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|t| t.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim()
}

/// Arrow is refused by name: read as JSON it would be one letter of binary rubbish.
fn no_arrow(headers: &HeaderMap) -> Result<(), Fault> {
    if !media_type(headers).starts_with("application/vnd.apache.arrow") {
        return Ok(());
    }
    let reason = "Arrow is not taken over HTTP; send JSON, or write a file for a `file` source with `format: arrow`";
    Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", reason))
}

fn is_lines(headers: &HeaderMap) -> bool {
    matches!(
        media_type(headers),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines"
    )
}

async fn decode(shared: &Arc<Shared>, held: Held, lines: bool) -> Result<(Held, Decoded), Fault> {
    let fault = |e: String| Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "decode", e);
    if held.bytes.len() <= INLINE_BYTES_MAX {
        let decoded = decode_now(shared, &held.bytes, lines).map_err(fault)?;
        return Ok((held, decoded));
    }
    let shared = Arc::clone(shared);
    let done = tokio::task::spawn_blocking(move || {
        let decoded = decode_now(&shared, &held.bytes, lines);
        (held, decoded)
    });
    let (held, decoded) = done.await.map_err(|e| fault(e.to_string()))?;
    Ok((held, decoded.map_err(fault)?))
}

fn decode_now(shared: &Shared, bytes: &[u8], lines: bool) -> Result<Decoded, String> {
    let settings = &shared.settings;
    let fresh =
        || json::Decoder::new(&shared.schema, settings.unknown).with_line_bytes_max(settings.limits.event_bytes_max);
    let kept = shared.decoders.lock().pop();
    let mut decoder = kept.unwrap_or_else(fresh);
    let decoded = if lines { decoder.decode_lines(bytes) } else { decoder.decode_document(bytes) };
    let mut decoders = shared.decoders.lock();
    if decoders.len() < DECODERS_MAX {
        decoders.push(decoder);
    }
    decoded.map_err(|e| e.to_string())
}

/// The events in the order of the request: refused ones with their fate.
fn order(decoded: &Decoded) -> Vec<Option<Fate>> {
    let rows = decoded.source_rows.iter().map(|row| (*row, None));
    let refused = decoded.refused.iter().map(|one| {
        let fate = Fate::Refused { code: one.code.as_str().to_owned(), reason: one.reason.clone() };
        (one.row, Some(fate))
    });
    let mut all: Vec<(u32, Option<Fate>)> = rows.chain(refused).collect();
    all.sort_by_key(|(row, _)| *row);
    all.into_iter().map(|(_, fate)| fate).collect()
}

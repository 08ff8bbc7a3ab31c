//! What a caller reads.
//!
//! | status | when | body |
//! | --- | --- | --- |
//! | 200 | events are durable | `accepted`, `refused`, `events`: each with its place, or with `error` |
//! | 200 | with `reply` | `decision`: the event that matches, and its topic |
//! | 202 | with `reply`, at the time limit | `events`, `status`: where to ask again |
//! | 400 | no event, or all of them unreadable | `error`, `events` (dead-lettered where there was something to keep) |
//! | 404, 405, 408, 413 | no such place; wrong method; slow body; large body | `error` |
//! | 422 | all events break the topic's columns, or with `reply` a rule; a key was used with another body | `error` |
//! | 429, 503, 507 | busy or backlog full; stopped, draining or outcome unknown; disk full | `error`, `Retry-After` |
//!
//! `error` has a stable `code` and a `reason`.

use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// An answer that can be given again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
    /// The decision's event as it is written elsewhere: not parsed again, so that its decimals keep their digits.
    pub(crate) decision: Option<Arc<str>>,
    /// Given again for an `Idempotency-Key`.
    pub(crate) again: bool,
}

/// A request that was not taken.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    status: StatusCode,
    code: &'static str,
    reason: String,
    retry_s: Option<u32>,
}

impl Fault {
    pub(crate) fn new(status: StatusCode, code: &'static str, reason: impl Into<String>) -> Self {
        Self { status, code, reason: reason.into(), retry_s: None }
    }

    /// With `Retry-After` in seconds.
    pub(crate) fn retry(mut self, seconds: u32) -> Self {
        self.retry_s = Some(seconds);
        self
    }
}

/// The `error` of a body.
pub(crate) fn error(code: &str, reason: &str) -> Value {
    json!({"code": code, "reason": reason})
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let body = axum::Json(json!({"error": error(self.code, &self.reason)}));
        let mut response = (self.status, body).into_response();
        if let Some(seconds) = self.retry_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl Answer {
    /// The body, with the decision first.
    fn text(&self) -> String {
        let mut text = self.body.to_string();
        if let Some(event) = &self.decision
            && text.starts_with('{')
        {
            let comma = if text.len() > 2 { "," } else { "" };
            text.insert_str(1, &format!("\"decision\":{event}{comma}"));
        }
        text
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let mut response = (self.status, json, self.text()).into_response();
        if self.again {
            response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
        }
        response
    }
}

/// What became of one event of a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fate {
    /// It is durable at a place of the topic.
    Placed { partition: u32, offset: Option<u64> },
    /// It is a dead letter.
    Refused { code: String, reason: String },
}

impl Fate {
    fn json(&self, topic: &str) -> Value {
        match self {
            Self::Placed { partition, offset } => json!({"topic": topic, "partition": partition, "offset": offset}),
            Self::Refused { code, reason } => json!({"error": error(code, reason)}),
        }
    }
}

/// Codes of events that could not even be read.
const UNREADABLE: [&str; 4] = ["json-syntax", "utf8-invalid", "nesting-too-deep", "line-too-long"];

/// The answer to a request whose events are durable or dead letters.
pub(crate) fn answer(topic: &str, fates: &[Fate]) -> Answer {
    let events: Vec<Value> = fates.iter().map(|fate| fate.json(topic)).collect();
    let accepted = fates.iter().filter(|f| matches!(f, Fate::Placed { .. })).count();
    let refused = fates.len() - accepted;
    let mut body = json!({"accepted": accepted, "refused": refused, "events": events});
    let mut status = StatusCode::OK;
    if accepted == 0 {
        let mut first = error("refused", "no event was accepted");
        status = StatusCode::BAD_REQUEST;
        if let Some(Fate::Refused { code, reason }) = fates.first() {
            first = error(code, reason);
        }
        let readable = |f: &Fate| matches!(f, Fate::Refused { code, .. } if !UNREADABLE.contains(&code.as_str()));
        if fates.iter().any(readable) {
            status = StatusCode::UNPROCESSABLE_ENTITY;
        }
        if let Some(object) = body.as_object_mut() {
            object.insert("error".to_owned(), first);
        }
    }
    Answer { status, body, decision: None, again: false }
}

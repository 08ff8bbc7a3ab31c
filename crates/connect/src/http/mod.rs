//! The `http` source: `POST path` with one JSON event, an array of them, or lines.
//!
//! The node mounts [`HttpSource::router`]; the runner opens the source's one task. A request waits until its events are
//! **durable** and is answered with their places, or, with [`Reply`], with the decision that the pipeline made on them.
//!
//! 1. The body is read under limits: its size, all bodies' size together, the number of requests, and time.
//! 2. It is decoded. A bad event does not harm its neighbours: the good ones enter, each bad one becomes a dead letter
//!    and is answered with its code and reason.
//! 3. The request joins a bounded queue; the task merges what waits there into one commit.
//! 4. The answer: see `answer.rs`. What the log could not take is refused with 429 or 507 and `Retry-After`: there is no
//!    buffer that could be lost.
//!
//! With an `Idempotency-Key` header a request that is sent again counts once within [`Idempotency::ttl`], also across a
//! restart: the key is part of the commit (see `idempotency.rs`).

mod answer;
mod body;
mod handler;
mod idempotency;
mod reply;
mod task;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arrow_array::RecordBatch;
use axum::Router;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};

use crate::decode::{Decode, redecode};
use crate::event::{ColumnType, Name, PartitionId, Schema, Unknown, json};
use crate::service::log::{Log, Position, TopicSpec};
use crate::service::{ConnectError, Refusal, Source, SourceTask};
use idempotency::Keys;
use reply::Replies;
use task::{HttpTask, Request};

/// What to accept and how to answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The path, e.g. `/transactions`.
    pub path: String,
    /// What happens to fields without a column.
    pub unknown: Unknown,
    /// The decision to answer with; unset: the places of the events.
    pub reply: Option<Reply>,
    /// How long an `Idempotency-Key` is remembered.
    pub idempotency: Idempotency,
    /// What a caller may ask for.
    pub limits: Limits,
}

impl Settings {
    /// Events at a path, answered when they are durable.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            unknown: Unknown::default(),
            reply: None,
            idempotency: Idempotency::default(),
            limits: Limits::default(),
        }
    }
}

/// Answer with the decision instead of the place. Only for requests of one event: others are answered with places.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The topics that decisions appear in.
    pub from: Vec<Name>,
    /// The dead-letter topics in which a refusal appears.
    pub dead_letters: Vec<Name>,
    /// The column (string, int or bigint; in the source's topic and in `from`) whose value an event and its decision
    /// share. Values must be unique among the requests on their way.
    pub matching: String,
    /// How long to wait before 202 with a status address.
    pub timeout: Duration,
}

/// How long an `Idempotency-Key` is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotency {
    /// At least this long after the first request.
    pub ttl: Duration,
    /// The most keys at one time; new ones beyond are refused with 429.
    pub keys_max: usize,
}

impl Default for Idempotency {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(24 * 3600), keys_max: 1_000_000 }
    }
}

/// What a caller may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest body.
    pub body_bytes_max: usize,
    /// All bodies on their way together.
    pub bodies_bytes_max: usize,
    /// The largest event.
    pub event_bytes_max: usize,
    /// The most requests on their way.
    pub requests_max: usize,
    /// The most requests that wait for a commit.
    pub queue_max: usize,
    /// How long a body may take, and how long between two parts of it.
    pub body_timeout: Duration,
    /// How long to wait for the commit.
    pub commit_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 10 << 20,
            bodies_bytes_max: 64 << 20,
            event_bytes_max: 1 << 20,
            requests_max: 1024,
            queue_max: 512,
            body_timeout: Duration::from_secs(15),
            commit_timeout: Duration::from_secs(30),
        }
    }
}

/// Takes events over HTTP; see the [module](self). Cheap to clone.
#[derive(Clone)]
pub struct HttpSource {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    topic: Name,
    schema: Schema,
    log: Arc<dyn Log>,
    queue: mpsc::Sender<Request>,
    /// The other end, for whichever task is open.
    waiting: Arc<tokio::sync::Mutex<mpsc::Receiver<Request>>>,
    keys: Arc<Keys>,
    replies: Option<Arc<Replies>>,
    decoders: Mutex<Vec<json::Decoder>>,
    requests: Arc<Semaphore>,
    /// In units of [`body::UNIT_BYTES`].
    bodies: Arc<Semaphore>,
    open: Arc<AtomicUsize>,
    draining: AtomicBool,
}

impl HttpSource {
    /// A source named `name` for events of `topic` with the columns of `schema`. `log` is read for decisions and
    /// remembered keys.
    pub fn new(
        name: &Name,
        settings: Settings,
        topic: Name,
        schema: Schema,
        log: Arc<dyn Log>,
    ) -> Result<Self, ConnectError> {
        check(&settings, &schema)?;
        let limits = settings.limits;
        let (queue, waiting) = mpsc::channel(limits.queue_max.max(1));
        let keys = Arc::new(Keys::new(name, settings.idempotency)?);
        let replies = settings.reply.clone().map(|reply| Arc::new(Replies::new(reply, limits.requests_max)));
        Ok(Self {
            shared: Arc::new(Shared {
                topic,
                schema,
                log,
                queue,
                waiting: Arc::new(tokio::sync::Mutex::new(waiting)),
                keys,
                replies,
                decoders: Mutex::new(Vec::new()),
                requests: Arc::new(Semaphore::new(limits.requests_max)),
                bodies: Arc::new(Semaphore::new(body::units(limits.bodies_bytes_max))),
                open: Arc::default(),
                draining: AtomicBool::new(false),
                settings,
            }),
        })
    }

    /// The routes to mount: `POST path`, and with [`Reply`] `GET path/status/{place}`.
    pub fn router(&self) -> Router {
        handler::router(Arc::clone(&self.shared))
    }

    /// Refuses new requests with 503 from now on; those on their way are answered.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
    }

    /// Takes requests again after [`HttpSource::drain`].
    pub fn accept(&self) {
        self.shared.draining.store(false, Ordering::Release);
    }
}

fn check(settings: &Settings, schema: &Schema) -> Result<(), ConnectError> {
    let path = &settings.path;
    if !path.starts_with('/') || path.contains(['{', '}', '*', '?', '#']) || path.ends_with('/') || path.contains("//")
    {
        return Err(ConnectError::permanent(format!("`{path}` is no path for events; one is like `/orders`")));
    }
    let Some(reply) = &settings.reply else { return Ok(()) };
    match schema.column(&reply.matching).map(|(_, column)| &column.kind) {
        Some(ColumnType::String | ColumnType::Int | ColumnType::BigInt) => Ok(()),
        Some(kind) => Err(ConnectError::permanent(format!(
            "`match: {}` is a column of type {kind}; it must be string, int or bigint",
            reply.matching
        ))),
        None => Err(ConnectError::permanent(format!("`match: {}` is no column of the topic", reply.matching))),
    }
}

impl Source for HttpSource {
    fn bounded(&self) -> bool {
        false
    }

    fn internal_topics(&self) -> Vec<TopicSpec> {
        vec![self.shared.keys.topic()]
    }

    fn open(&self, _: PartitionId, _: Option<Position>) -> BoxFuture<'_, Result<Box<dyn SourceTask>, ConnectError>> {
        async move { Ok(Box::new(HttpTask::open(&self.shared).await?) as Box<dyn SourceTask>) }.boxed()
    }

    fn redecode(&self, raw: &[u8]) -> Option<Result<RecordBatch, Refusal>> {
        Some(redecode(&mut Decode::ndjson(&self.shared.schema, self.shared.settings.unknown), raw))
    }
}

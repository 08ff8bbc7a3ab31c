//! The source's one task: merges waiting requests into commits and tells each what became of its events.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow_array::RecordBatch;
use axum::http::StatusCode;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{OwnedMutexGuard, mpsc, oneshot};

use super::Shared;
use super::answer::{Answer, Fate, Fault, answer};
use super::handler::stopped;
use super::idempotency::{Done, Key, Keys};
use super::reply::Tails;
use crate::service::{ConnectError, INTAKE_ROWS_MAX, Intake, Receipt, RefusedEvent, RowFate, SourceRead, SourceTask};

/// How long a task that was opened again waits for the one before it to go.
const TURN: Duration = Duration::from_secs(10);

/// A decoded request on its way to a commit. However it ends, its caller and its key learn of it.
pub(crate) struct Request {
    rows: RecordBatch,
    refused: Vec<RefusedEvent>,
    /// For each event of the request in order: nothing where it is a row, its fate where it was refused.
    order: Vec<Option<Fate>>,
    key: Option<Key>,
    keys: Arc<Keys>,
    done: Option<oneshot::Sender<Done>>,
}

impl Request {
    pub(crate) fn new(
        rows: RecordBatch,
        refused: Vec<RefusedEvent>,
        order: Vec<Option<Fate>>,
        key: Option<Key>,
        keys: Arc<Keys>,
        done: oneshot::Sender<Done>,
    ) -> Self {
        Self { rows, refused, order, key, keys, done: Some(done) }
    }

    /// The answer, given the fates of the rows.
    fn answer(&self, topic: &str, rows: impl IntoIterator<Item = Fate>) -> Answer {
        let mut rows = rows.into_iter();
        let lost = || Fate::Placed { partition: 0, offset: None };
        let fates: Vec<Fate> =
            self.order.iter().map(|fate| fate.clone().unwrap_or_else(|| rows.next().unwrap_or_else(lost))).collect();
        answer(topic, &fates)
    }

    pub(crate) fn finish(mut self, done: Done) {
        self.tell(done);
    }

    fn tell(&mut self, done: Done) {
        let Some(caller) = self.done.take() else { return };
        if let Some(key) = &self.key {
            self.keys.settle(key, &done);
        }
        // A caller that went away needs no answer.
        drop(caller.send(done));
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.tell(Err(unknown("the source was opened again")));
    }
}

pub(crate) struct HttpTask {
    shared: Arc<Shared>,
    waiting: OwnedMutexGuard<mpsc::Receiver<Request>>,
    open: Arc<AtomicUsize>,
    _tails: Option<Tails>,
}

impl HttpTask {
    pub(crate) async fn open(shared: &Arc<Shared>) -> Result<Self, ConnectError> {
        let waiting = tokio::time::timeout(TURN, Arc::clone(&shared.waiting).lock_owned()).await;
        let waiting = waiting.map_err(|_| ConnectError::temporary("the source's earlier task has not ended yet"))?;
        shared.keys.load(shared.log.as_ref()).await?;
        // Before the first append, so that no decision is missed.
        let tails = match &shared.replies {
            Some(replies) => Some(Tails::start(replies, &shared.log).await?),
            None => None,
        };
        let open = Arc::clone(&shared.open);
        open.fetch_add(1, Ordering::AcqRel);
        Ok(Self { shared: Arc::clone(shared), waiting, open, _tails: tails })
    }

    /// Takes what waits, up to a commit's size, behind a first request.
    fn gather(&mut self, first: Request) -> Result<Option<Intake>, ConnectError> {
        let (mut requests, mut rows) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(request) = next.take() {
            match request.key.as_ref().and_then(|key| self.shared.keys.committed(key)) {
                Some(done) => request.finish(done),
                None => {
                    rows += request.rows.num_rows() + request.refused.len();
                    requests.push(request);
                }
            }
            if rows < INTAKE_ROWS_MAX {
                next = self.waiting.try_recv().ok();
            }
        }
        if requests.is_empty() { Ok(None) } else { self.merge(requests).map(Some) }
    }

    fn merge(&self, mut requests: Vec<Request>) -> Result<Intake, ConnectError> {
        let shared = &self.shared;
        let parts = requests.iter().map(|r| &r.rows);
        let rows = match requests.as_slice() {
            [one] => one.rows.clone(),
            _ => arrow_select::concat::concat_batches(shared.schema.arrow(), parts)
                .map_err(|e| ConnectError::permanent(format!("merging requests: {e}")))?,
        };
        let keys = requests.iter().filter_map(|request| {
            // The stored answer cannot know partitions and offsets.
            let mut answer = request.answer(shared.topic.as_str(), []);
            for event in answer.body.get_mut("events").and_then(|e| e.as_array_mut()).into_iter().flatten() {
                if let Some(event) = event.as_object_mut().filter(|e| e.contains_key("topic")) {
                    event.retain(|name, _| name == "topic");
                }
            }
            Some((request.key.clone()?, answer))
        });
        let extra = shared.keys.append(shared.log.as_ref(), &keys.collect::<Vec<_>>())?.into_iter().collect();
        let refused = requests.iter_mut().flat_map(|r| std::mem::take(&mut r.refused)).collect();
        let (sender, receipt) = oneshot::channel();
        tokio::spawn(distribute(Arc::clone(shared), requests, receipt));
        Ok(Intake { rows, refused, position: None, extra, receipt: Some(sender) })
    }
}

impl Drop for HttpTask {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
        // No task may follow that would take these.
        if self.shared.draining.load(Ordering::Acquire) {
            while let Ok(request) = self.waiting.try_recv() {
                request.finish(Err(stopped()));
            }
        }
    }
}

impl SourceTask for HttpTask {
    fn next(&mut self) -> BoxFuture<'_, Result<SourceRead, ConnectError>> {
        async move {
            loop {
                // The sender lives as long as the source, so there is always a next request to wait for.
                let Some(first) = self.waiting.recv().await else { return Ok(SourceRead::Finished) };
                if let Some(intake) = self.gather(first)? {
                    return Ok(SourceRead::Intake(Box::new(intake)));
                }
            }
        }
        .boxed()
    }
}

/// Answers the requests of one commit.
async fn distribute(shared: Arc<Shared>, requests: Vec<Request>, receipt: oneshot::Receiver<Receipt>) {
    let gone = |_| Receipt::Unknown { reason: "the source was opened again before the commit was answered".to_owned() };
    let fault = match receipt.await.unwrap_or_else(gone) {
        Receipt::Durable { rows } => {
            let mut rows = rows.into_iter().map(fate);
            for request in requests {
                let fates: Vec<Fate> = rows.by_ref().take(request.rows.num_rows()).collect();
                let done = Ok(request.answer(shared.topic.as_str(), fates));
                request.finish(done);
            }
            return;
        }
        Receipt::Backpressure { disk_full: true, reason } => {
            Fault::new(StatusCode::INSUFFICIENT_STORAGE, "disk-full", reason).retry(5)
        }
        Receipt::Backpressure { disk_full: false, reason } => {
            Fault::new(StatusCode::TOO_MANY_REQUESTS, "backlog-full", reason).retry(1)
        }
        Receipt::Refused { reason } => Fault::new(StatusCode::SERVICE_UNAVAILABLE, "refused", reason).retry(5),
        Receipt::Unknown { reason } => unknown(&reason),
    };
    for request in requests {
        request.finish(Err(fault.clone()));
    }
}

fn fate(row: RowFate) -> Fate {
    match row {
        RowFate::Placed { partition, offset } => Fate::Placed { partition: partition.0, offset: offset.map(|o| o.0) },
        RowFate::Refused(refusal) => Fate::Refused { code: refusal.code.to_owned(), reason: refusal.reason },
    }
}

/// The answer when nobody knows what became of a request.
pub(crate) fn unknown(reason: &str) -> Fault {
    let reason = format!(
        "the events may or may not have been taken ({reason}); send them again with the same \
                          Idempotency-Key, if they had one"
    );
    Fault::new(StatusCode::SERVICE_UNAVAILABLE, "outcome-unknown", reason).retry(1)
}

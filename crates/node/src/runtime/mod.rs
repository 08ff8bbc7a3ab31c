//! A running pipeline.
//!
//! 1. The log is opened and the topics are made or checked.
//! 2. The address is bound, so that a taken port is found before anything runs.
//! 3. Lookups begin to load; services start, then sinks, then sources: nobody writes before its reader can read.
//! 4. [`Node::apply`] stops and starts only what differs, at commit boundaries. What cannot work changes nothing.
//! 5. [`Node::shutdown`] stops sources, services and sinks in this order, each at a commit boundary, makes the last backup
//!    where there are any, and closes the log.
//!
//! Whoever changes the pipeline holds the [`Parts`]; posts, statuses and all other readers look at the [`View`], which is
//! never held across a wait.

mod apply;
pub(crate) mod backups;
pub(crate) mod build;
mod change;
mod parts;
mod paused;
mod start;
mod status;
pub(crate) mod stored;
mod unread;
mod usage;
mod view;
mod world;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_service::log::{EmbeddedLog, Log};
use millstream_service::{Handle, Kind, Runner};
use parking_lot::{Mutex, RwLock};

use crate::api::{ApiError, DrainSummary, Phase, Status, codes};
use crate::diagnostic::names_known;
pub(crate) use backups::backup_error;
pub(crate) use change::{diff, wrong};
pub(crate) use parts::Parts;
pub(crate) use status::{api_time, disk_use, held_back, log_state, now_us, watermark_text};
pub(crate) use unread::tell as tell_unread;
pub(crate) use usage::usage;
use view::View;

/// How a node is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeOptions {
    /// End when bounded sources are read and everything is processed.
    pub drain: bool,
    /// Let faults be injected over HTTP: for proofs, never in production.
    pub inject_faults: bool,
}

/// A running pipeline with its HTTP interface. Cheap to clone: clones share.
#[derive(Clone)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) options: NodeOptions,
    pub(crate) log: Arc<EmbeddedLog>,
    pub(crate) runner: Runner,
    /// Held by the one who changes the pipeline, for as long as that takes.
    parts: tokio::sync::Mutex<Parts>,
    view: RwLock<Arc<View>>,
    address: SocketAddr,
    resumed: bool,
    started: Instant,
    started_at: String,
    phase: Mutex<Phase>,
    samples: Mutex<status::Samples>,
    backups: backups::Backups,
    /// The runtime that services compute on; taken at the end.
    compute: Mutex<Option<tokio::runtime::Runtime>>,
    /// Tasks of the node itself: they end with it.
    tasks: Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

impl Node {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// Whether the log was there already.
    pub fn resumed(&self) -> bool {
        self.inner.resumed
    }

    /// Who is paused.
    pub fn paused(&self) -> Vec<String> {
        let paused = self.inner.runner.handles().into_iter().filter(Handle::paused);
        paused.map(|handle| handle.name().to_string()).collect()
    }

    /// Keeps who is paused, for the next start.
    pub(crate) fn keep_paused(&self) -> Result<(), ApiError> {
        let paused = self.inner.runner.handles().into_iter().filter(Handle::paused);
        let names = paused.map(|handle| handle.name().clone()).collect();
        paused::write(&self.inner.view().loaded.config.log.embedded.dir, &names)
    }

    /// How everything stands.
    pub async fn status(&self) -> Status {
        self.inner.status().await
    }

    /// Waits until there is nothing more to do: with [`NodeOptions::drain`], until everything is processed that
    /// can be (the summary tells what has failed). Without it, only a log that has stopped ends the waiting, with its
    /// reason.
    pub async fn finished(&self) -> Result<(), ApiError> {
        let inner = &self.inner;
        let stopped = async {
            let mut look = tokio::time::interval(Duration::from_millis(200));
            loop {
                look.tick().await;
                if let Some(why) = inner.log.stopped() {
                    return Err(ApiError::new(codes::LOG_STOPPED, format!("the log has stopped: {why}")));
                }
            }
        };
        if !inner.options.drain {
            return stopped.await;
        }
        *inner.phase.lock() = Phase::Draining;
        tokio::select! {
            () = inner.drained() => {
                *inner.phase.lock() = Phase::Drained;
                Ok(())
            }
            ended = stopped => ended,
        }
    }

    /// Finishes what is on its way, within `timeout`, and closes the log.
    pub async fn shutdown(&self, timeout: Duration) -> Result<DrainSummary, ApiError> {
        let inner = &self.inner;
        let drained = *inner.phase.lock() == Phase::Drained;
        if !drained {
            *inner.phase.lock() = Phase::Stopping;
        }
        let failed = inner.failed();
        let holding = if drained { inner.holding().await } else { Vec::new() };
        inner.view().drain();
        let stop = async {
            // A change that is on its way ends first; none begins any more.
            let mut parts = inner.parts.lock().await;
            inner.runner.stop_all(true).await;
            parts.lookups.clear();
        };
        let in_time = tokio::time::timeout(timeout, stop).await.is_ok();
        inner.last_backup().await;
        let status = inner.status().await;
        let summary = inner.summary(status, drained && in_time && failed.is_empty(), failed, holding);
        for task in inner.tasks.lock().drain(..) {
            task.abort();
        }
        let closed = inner.log.close().await;
        if let Some(compute) = inner.compute.lock().take() {
            compute.shutdown_background();
        }
        closed.map_err(log_error)?;
        Ok(summary)
    }

    /// A service, source or sink by name.
    pub(crate) fn handle(&self, name: &str) -> Result<Handle, ApiError> {
        let handles = self.inner.runner.handles();
        if let Some(handle) = handles.iter().find(|h| h.name().as_str() == name) {
            return Ok(handle.clone());
        }
        let names: Vec<&str> = handles.iter().map(|h| h.name().as_str()).collect();
        let error = ApiError::new(codes::SERVICE_UNKNOWN, format!("there is no service `{name}`"));
        Err(error.help(names_known(name, "services, sources and sinks", names)))
    }
}

impl Inner {
    /// What runs now. A change that comes meanwhile shows in the next look.
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
    }

    /// Waits until the sources that have an end are read, stops those that have none, and waits for the rest.
    async fn drained(&self) {
        let endless = self.view().endless();
        let of = |has_end: bool| {
            let handles = self.runner.handles().into_iter().filter(|h| h.kind() == Kind::Source);
            handles.filter(|h| endless.contains(h.name()) != has_end).collect::<Vec<_>>()
        };
        let mut look = tokio::time::interval(Duration::from_millis(50));
        while !of(true).iter().all(Handle::ended) {
            look.tick().await;
        }
        // Whoever still posts is told at once.
        self.view().drain();
        futures::future::join_all(of(false).iter().map(Handle::stop)).await;
        self.runner.drained().await;
    }

    /// Whether the node is about to end.
    fn stopping(&self) -> bool {
        *self.phase.lock() == Phase::Stopping
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        // A runtime must not be dropped where it would have to wait.
        if let Some(compute) = self.compute.lock().take() {
            compute.shutdown_background();
        }
    }
}

/// An error of the log, for the API.
pub(crate) fn log_error(error: millstream_service::log::Error) -> ApiError {
    use millstream_service::log::Error;
    let code = match &error {
        Error::Locked { .. } => "log-locked",
        Error::Corrupt { .. } => "log-damaged",
        Error::Unrestored { .. } => "log-unrestored",
        Error::Stopped { .. } => codes::LOG_STOPPED,
        Error::UnknownTopic(_) | Error::UnknownPartition(_) => codes::TOPIC_UNKNOWN,
        Error::Incompatible { .. } => codes::CHANGE_REFUSED,
        Error::OutOfRange { .. } => "offset-gone",
        Error::TooNew { .. } => "log-too-new",
        Error::Io { .. } | Error::Refused(_) => "log-failed",
    };
    ApiError::new(code, error.to_string())
}

/// An error of the runner, for the API.
pub(crate) fn service_error(error: millstream_service::Error) -> ApiError {
    use millstream_service::Error;
    match error {
        Error::Log(error) => log_error(error),
        Error::Timeout(_) => ApiError::new("timeout", error.to_string()),
        _ => ApiError::new("refused", error.to_string()),
    }
}

//! Starts a node.

use std::sync::Arc;
use std::time::Instant;

use millstream_service::log::{EmbeddedLog, Log};
use millstream_service::{Options, Runner};
use parking_lot::{Mutex, RwLock};

use super::{Inner, Node, NodeOptions, Parts, build, log_error, paused, status, stored};
use crate::api::{ApiError, Phase};
use crate::config::Loaded;
use crate::plan::Pipeline;

/// The name of the threads that services compute on.
const COMPUTE_THREADS: &str = "compute";

impl Node {
    /// Opens the log, binds the address and starts everything.
    pub async fn start(loaded: &Loaded, pipeline: Pipeline, options: NodeOptions) -> Result<Self, ApiError> {
        if options.drain {
            has_an_end(&pipeline)?;
        }
        let settings = &loaded.config.log.embedded;
        let resumed = settings.dir.join(stored::FILE).exists();
        private_dir(&settings.dir)?;
        let listener = bind(loaded.config.server.listen).await?;
        let address = listener.local_addr().map_err(|e| ApiError::new("listen-failed", e.to_string()))?;
        let log_options = build::log_options(settings);
        let opened = tokio::task::spawn_blocking(move || EmbeddedLog::open(log_options)).await;
        let log = opened.map_err(|e| ApiError::new("log-failed", e.to_string()))?.map_err(log_error)?;
        let log = Arc::new(log);
        // Before there is a runtime to give back: a file that does not fit its log is a usual mistake.
        Parts::topics(&pipeline, &*log).await?;
        stored::store(&settings.dir, loaded)?;
        let paused = paused::read(&settings.dir)?;
        let compute = tokio::runtime::Builder::new_multi_thread()
            .thread_name(COMPUTE_THREADS)
            .enable_all()
            .build()
            .map_err(|e| ApiError::new("start-failed", format!("no compute threads: {e}")))?;
        let runner = Runner::new(Arc::clone(&log) as Arc<dyn Log>, Options::new(compute.handle().clone()));
        runner.pause_at_start(paused);
        let mut parts = Parts::new(loaded.clone(), pipeline);
        let started = parts.start(&runner).await;
        let inner = Arc::new(Inner {
            options,
            log,
            runner,
            view: RwLock::new(Arc::new(parts.view())),
            parts: tokio::sync::Mutex::new(parts),
            address,
            resumed,
            started: Instant::now(),
            started_at: status::now_text(),
            phase: Mutex::new(Phase::Running),
            samples: Mutex::default(),
            backups: super::backups::Backups::default(),
            compute: Mutex::new(Some(compute)),
            tasks: Mutex::default(),
        });
        let node = Self { inner };
        if let Err(error) = started {
            // What was started already must let go of the log.
            node.inner.runner.stop_all(false).await;
            let closed = node.inner.log.close().await;
            tracing::debug!(?closed, "closed after a failed start");
            return Err(error);
        }
        let router = crate::http::router(&node);
        let serve = crate::http::serve(listener, router, crate::http::HEAD_TIMEOUT);
        let mut tasks = node.inner.tasks.lock();
        tasks.push(tokio::spawn(serve));
        tasks.push(tokio::spawn(status::sample(Arc::downgrade(&node.inner))));
        tasks.push(tokio::spawn(super::backups::run(Arc::downgrade(&node.inner))));
        drop(tasks);
        Ok(node)
    }
}

/// Refuses to drain what never ends.
fn has_an_end(pipeline: &Pipeline) -> Result<(), ApiError> {
    let sources = &pipeline.sources;
    if sources.is_empty() || sources.iter().any(|source| source.bounded()) {
        return Ok(());
    }
    let names: Vec<String> = sources.iter().map(|source| format!("`{}`", source.name)).collect();
    let message = format!("no source of this pipeline has an end ({}), so it is never drained", names.join(", "));
    Err(ApiError::new("drain-endless", message).help(
        "run it without --drain, or give a source an end: a `file` that is not followed, `generate` with `count`",
    ))
}

/// The data directory belongs to its user alone.
fn private_dir(dir: &std::path::Path) -> Result<(), ApiError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|e| ApiError::new("data-dir", format!("the data directory {} cannot be made: {e}", dir.display())))
}

async fn bind(address: std::net::SocketAddr) -> Result<tokio::net::TcpListener, ApiError> {
    tokio::net::TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            let message = format!("{address} is in use by another process");
            let help =
                format!("stop it (`ss -ltnp 'sport = :{}'` names it), or choose another with --listen", address.port());
            ApiError::new("port-taken", message).help(help)
        }
        _ => ApiError::new("listen-failed", format!("cannot listen at {address}: {error}")),
    })
}

//! Where everything is on the HTTP server.
//!
//! `{…}` stands for a name. [`fill`] puts a name in.

/// 200 while the process lives.
pub const HEALTHZ: &str = "/healthz";
/// 200 while the log accepts and the services run, else 503.
pub const READYZ: &str = "/readyz";
/// Prometheus text.
pub const METRICS: &str = "/metrics";
/// GET -> [`super::Status`].
pub const STATUS: &str = "/api/status";
/// GET -> [`super::Topics`].
pub const TOPICS: &str = "/api/topics";
/// GET with [`super::EventsQuery`] -> one [`super::EventLine`] per line.
pub const EVENTS: &str = "/api/topics/{name}/events";
/// POST -> [`super::ServiceAnswer`].
pub const PAUSE: &str = "/api/services/{name}/pause";
/// POST -> [`super::ServiceAnswer`].
pub const RESUME: &str = "/api/services/{name}/resume";
/// POST [`super::ScaleRequest`] -> [`super::ServiceAnswer`].
pub const SCALE: &str = "/api/services/{name}/scale";
/// POST [`super::RewindRequest`] -> [`super::RewindAnswer`].
pub const REWIND: &str = "/api/services/{name}/rewind";
/// POST [`super::InjectRequest`] -> [`super::ServiceAnswer`]; only where the node was started for testing faults.
pub const INJECT: &str = "/api/services/{name}/inject";
/// POST [`super::PipelineText`] -> [`super::Plan`], or 422 with [`super::Diagnostics`].
pub const PLAN: &str = "/api/plan";
/// POST [`super::PipelineText`] -> [`super::Applied`], or 422 with [`super::Diagnostics`].
pub const APPLY: &str = "/api/apply";
/// GET with [`super::LettersQuery`] -> one [`super::Letter`] per line, oldest first.
pub const LETTERS: &str = "/api/dlq/{name}";
/// POST [`super::LettersRequest`] -> [`super::LettersResult`].
pub const REPLAY: &str = "/api/dlq/{name}/replay";
/// POST [`super::LettersRequest`] -> [`super::LettersResult`].
pub const DISCARD: &str = "/api/dlq/{name}/discard";
/// GET -> [`super::LogStat`].
pub const LOG_STAT: &str = "/api/log/stat";

/// GET with [`super::StateQuery`] -> [`super::StateAnswer`].
pub const STATE_ROWS: &str = "/api/services/{name}/state";
/// POST -> [`super::Snapshot`]: one round of the backup, now.
pub const SNAPSHOT: &str = "/api/state/snapshot";

/// The path with a name in its place. Names have no characters that a URL would have to escape.
pub fn fill(path: &str, name: &str) -> String {
    path.replace("{name}", name)
}

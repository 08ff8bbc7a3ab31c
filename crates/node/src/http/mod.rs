//! The HTTP interface: health, metrics, the JSON API behind the command line, and the routes of HTTP sources.
//!
//! Handlers translate and delegate; every refusal is an [`ApiError`] with a code.

mod events;
mod handlers;
mod metrics;
mod origin;
mod rewind;
mod serve;
mod slow;
mod state;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower::ServiceExt;

use crate::Node;
use crate::api::{ApiError, codes, paths};

pub(crate) use events::read_events;
pub(crate) use handlers::{letters, stat, stat_topics, topics};
pub(crate) use rewind::Ordered;
pub(crate) use serve::{HEAD_TIMEOUT, serve};
pub(crate) use state::state_of;

/// All routes of a node.
pub(crate) fn router(node: &Node) -> Router {
    let routes = Router::new()
        .route(paths::HEALTHZ, get(|| async { "ok\n" }))
        .route(paths::READYZ, get(handlers::ready))
        .route(paths::METRICS, get(metrics::metrics))
        .route(paths::STATUS, get(handlers::status))
        .route(paths::TOPICS, get(handlers::all_topics))
        .route(paths::EVENTS, get(events::events))
        .route(paths::PAUSE, post(handlers::pause))
        .route(paths::RESUME, post(handlers::resume))
        .route(paths::SCALE, post(handlers::scale))
        .route(paths::REWIND, post(rewind::rewind))
        .route(paths::INJECT, post(handlers::inject))
        .route(paths::PLAN, post(handlers::plan))
        .route(paths::APPLY, post(handlers::apply))
        .route(paths::LETTERS, get(handlers::list_letters))
        .route(paths::REPLAY, post(handlers::replay))
        .route(paths::DISCARD, post(handlers::discard))
        .route(paths::LOG_STAT, get(handlers::log_stat))
        .route(paths::STATE_ROWS, get(state::show))
        .route(paths::SNAPSHOT, post(handlers::snapshot));
    // What stands behind it, the sources' routes, has limits of its own.
    slow::bounded(routes, slow::BODY_TIMEOUT)
        .fallback(sources)
        .method_not_allowed_fallback(|| async {
            Refused(StatusCode::METHOD_NOT_ALLOWED, ApiError::new(codes::REQUEST_WRONG, "this path has another method"))
        })
        .with_state(node.clone())
        .layer(axum::middleware::from_fn(origin::local_only))
}

/// What is no path of the node itself may be one of an HTTP source's. These come and go with `apply`.
async fn sources(State(node): State<Node>, request: Request<Body>) -> Response {
    node.inner.view().router().oneshot(request).await.into_response()
}

/// A refusal as an answer.
#[derive(Debug)]
pub(crate) struct Refused(StatusCode, ApiError);

impl Refused {
    pub(crate) fn with(status: StatusCode, error: ApiError) -> Self {
        Self(status, error)
    }
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        let status = match error.code.as_str() {
            codes::TOPIC_UNKNOWN | codes::SERVICE_UNKNOWN => StatusCode::NOT_FOUND,
            codes::PIPELINE_WRONG | codes::WHERE_WRONG => StatusCode::UNPROCESSABLE_ENTITY,
            codes::CHANGE_REFUSED | codes::APPLY_FAILED => StatusCode::CONFLICT,
            codes::LOG_STOPPED | codes::STOPPING => StatusCode::SERVICE_UNAVAILABLE,
            codes::BACKUP_UNSET => StatusCode::CONFLICT,
            codes::BACKUP_FAILED => StatusCode::BAD_GATEWAY,
            "timeout" => StatusCode::GATEWAY_TIMEOUT,
            "faults-off" => StatusCode::FORBIDDEN,
            "log-failed" | "log-damaged" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        Self(status, error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, axum::Json(self.1)).into_response()
    }
}

//! What runs, as everybody but a change sees it: swapped as a whole when a change is done, so that a change that takes
//! long holds up neither a post nor a status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, Uri};
use millstream_connect::HttpSource;
use millstream_service::LookupHandle;
use millstream_service::event::Name;

use crate::api::ApiError;
use crate::config::Loaded;
use crate::http::Refused;
use crate::plan::Pipeline;

/// The running pipeline at one moment.
pub(crate) struct View {
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) lookups: BTreeMap<Name, LookupHandle>,
    http: Vec<HttpSource>,
    router: Router,
}

impl View {
    pub(crate) fn new(
        loaded: Arc<Loaded>,
        pipeline: Arc<Pipeline>,
        lookups: BTreeMap<Name, LookupHandle>,
        http: Vec<HttpSource>,
    ) -> Self {
        let router = http.iter().map(HttpSource::router).fold(Router::new(), Router::merge).fallback(nothing);
        Self { loaded, pipeline, lookups, http, router }
    }

    /// The routes of the HTTP sources.
    pub(crate) fn router(&self) -> Router {
        self.router.clone()
    }

    /// The sources that have no end.
    pub(crate) fn endless(&self) -> BTreeSet<Name> {
        self.pipeline.sources.iter().filter(|source| !source.bounded()).map(|source| source.name.clone()).collect()
    }

    /// Lets HTTP sources answer what they have taken and take nothing more.
    pub(crate) fn drain(&self) {
        self.http.iter().for_each(HttpSource::drain);
    }
}

async fn nothing(uri: Uri) -> Refused {
    let message = format!("there is nothing at `{}`", uri.path());
    Refused::with(StatusCode::NOT_FOUND, ApiError::new("path-unknown", message))
}

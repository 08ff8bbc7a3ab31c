//! What a service keeps, in its log or in a database: of a running node and of a stopped one.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use millstream_service::flow::{StateCell, StateLegend};
use millstream_service::log::Log;
use millstream_service::{StateStore, state, state_rows};
use serde_json::value::RawValue;

use super::{Refused, handlers};
use crate::Node;
use crate::api::{ApiError, Cells, StateAnswer, StateLine, StateQuery, codes};
use crate::diagnostic::names_known;
use crate::plan::{Pipeline, Service};
use crate::runtime::service_error;

/// The most rows of an answer where no limit is given.
const ROWS_DEFAULT: u64 = 100;

pub(super) async fn show(
    State(node): State<Node>,
    Path(name): Path<String>,
    asked: Result<Query<StateQuery>, QueryRejection>,
) -> Result<Json<StateAnswer>, Refused> {
    let asked = handlers::query(asked)?;
    let view = node.inner.view();
    Ok(Json(state_of(&*node.inner.log, &view.pipeline, &name, &asked).await?))
}

/// What a service keeps, as its log or its database has it.
pub(crate) async fn state_of(
    log: &dyn Log,
    pipeline: &Pipeline,
    name: &str,
    asked: &StateQuery,
) -> Result<StateAnswer, ApiError> {
    let service = service_of(pipeline, name)?;
    let (legend, signature) = legend_of(service)?;
    if service.in_memory {
        let message = format!("service `{name}` keeps its state in memory: what it keeps stands in no commit");
        return Err(ApiError::new("state-in-memory", message).help("`state: {keep: local}` keeps it in the log"));
    }
    let wanted = state_rows::Wanted {
        key: key_of(asked.key.as_deref(), &legend)?,
        partition: asked.partition,
        limit: usize::try_from(asked.limit.unwrap_or(ROWS_DEFAULT)).unwrap_or(usize::MAX),
    };
    let (found, kept_in) = match &service.store {
        Some(store) => {
            // A service that has never run has no topic to read, and keeps nothing.
            let partitions = service.inputs.first().and_then(|lead| log.topic(lead)).map_or(0, |t| t.spec.partitions);
            let who = (&service.name, partitions);
            (state_rows::show_stored(store, who, &legend, &signature, &wanted).await, store.place())
        }
        None => {
            let topic = state::topic_name(&service.name);
            let topic = topic.map_err(|e| ApiError::new(codes::REQUEST_WRONG, e.to_string()))?;
            let found = state_rows::show(log, &service.name, &legend, &signature, &wanted).await;
            (found, format!("the topic {topic}"))
        }
    };
    let found = found.map_err(service_error)?;
    let line = |kept: state_rows::Kept| StateLine {
        partition: kept.partition,
        step: kept.row.step,
        what: kept.row.what.to_owned(),
        key: cells(kept.row.key),
        value: cells(kept.row.value),
        bytes: kept.bytes as u64,
        note: kept.row.note,
    };
    Ok(StateAnswer {
        service: service.name.to_string(),
        kept_in,
        steps: legend.steps().map(str::to_owned).collect(),
        key_columns: legend.key_columns(),
        rows: found.rows.into_iter().map(line).collect(),
        more: found.more,
    })
}

/// A service of the pipeline by its name.
pub(super) fn service_of<'a>(pipeline: &'a Pipeline, name: &str) -> Result<&'a Service, ApiError> {
    let found = pipeline.services.iter().find(|service| service.name.as_str() == name);
    found.ok_or_else(|| {
        let names = pipeline.services.iter().map(|service| service.name.as_str());
        let error = ApiError::new(codes::SERVICE_UNKNOWN, format!("there is no service `{name}`"));
        error.help(names_known(name, "services", names))
    })
}

fn legend_of(service: &Service) -> Result<(StateLegend, String), ApiError> {
    let failed = |e: &dyn std::fmt::Display| ApiError::new("state-unreadable", e.to_string());
    match (&service.query, &service.fold) {
        (Some(query), _) if query.is_stateful() => {
            Ok((query.state_legend().map_err(|e| failed(&e))?, query.state_signature()))
        }
        (None, Some(fold)) => Ok((Arc::clone(fold).state_legend().map_err(|e| failed(&e))?, fold.state_signature())),
        _ => {
            let message = format!("service `{}` keeps nothing: it treats each event for itself", service.name);
            Err(ApiError::new("state-none", message))
        }
    }
}

/// The key that was asked for: a JSON object.
fn key_of(key: Option<&str>, legend: &StateLegend) -> Result<Vec<(String, String)>, ApiError> {
    let Some(key) = key else { return Ok(Vec::new()) };
    let wrong = |why: String| ApiError::new(codes::REQUEST_WRONG, why);
    let object: Cells = serde_json::from_str(key)
        .map_err(|e| wrong(format!("the key is no JSON object: {e}")).help("write it as {\"column\": \"value\"}"))?;
    let known = legend.key_columns();
    for (name, _) in &object.0 {
        if !known.contains(name) {
            let help = names_known(name, "key columns", known.iter().map(String::as_str));
            return Err(ApiError::new("column-unknown", format!("the state has no key column `{name}`")).help(help));
        }
    }
    let text = |json: &RawValue| match serde_json::from_str(json.get()) {
        Ok(serde_json::Value::String(text)) => text,
        _ => json.get().to_owned(),
    };
    Ok(object.0.iter().map(|(name, value)| (name.clone(), text(value))).collect())
}

fn cells(cells: Vec<StateCell>) -> Cells {
    let raw = |cell: StateCell| Some((cell.name, RawValue::from_string(cell.json).ok()?));
    Cells(cells.into_iter().filter_map(raw).collect())
}

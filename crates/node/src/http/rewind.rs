//! Setting a service back: what was ordered, what that means, and that it is done.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use millstream_service::StateStore;
use millstream_service::event::Name;
use millstream_service::log::Log;
use millstream_service::rewind::{self, Outputs, Plan, Rewind, To};

use super::{Refused, handlers, state};
use crate::Node;
use crate::api::{ApiError, RewindAnswer, RewindRequest, RewoundInput, codes};
use crate::plan::{Pipeline, Service};
use crate::runtime::service_error;

/// What becomes of outputs: the three ways, where none was said.
const OUTPUTS: &str = "say what becomes of what it makes of these events again:\n\
    --outputs suppress   nothing: its results are there already; state is built anew\n\
    --outputs append     they are appended again: whoever reads them gets them twice\n\
    --outputs TOPIC      they go to this topic instead, to be compared; then it goes on as before";

/// An order and the service that it is for.
pub(crate) struct Ordered {
    pub(crate) order: Rewind,
    request: RewindRequest,
    stateful: bool,
    timed: bool,
}

pub(super) async fn rewind(
    State(node): State<Node>,
    Path(name): Path<String>,
    request: Result<Json<RewindRequest>, JsonRejection>,
) -> Result<Json<RewindAnswer>, Refused> {
    let request = handlers::body(request)?;
    let preview = request.preview;
    let ordered = Ordered::new(&node.inner.view().pipeline, &name, request)?;
    if preview {
        return Ok(Json(ordered.preview(&*node.inner.log).await?));
    }
    let handle = node.handle(&name)?;
    // On a task of its own: a caller that goes away must not leave the service stopped.
    let done = tokio::spawn(async move {
        let plan = handle.rewind(&ordered.order).await.map_err(service_error)?;
        Ok::<_, ApiError>(ordered.answer(plan, true))
    });
    Ok(Json(done.await.map_err(|e| ApiError::new("refused", e.to_string()))??))
}

impl Ordered {
    /// Reads an order for a service of the pipeline.
    pub(crate) fn new(pipeline: &Pipeline, name: &str, request: RewindRequest) -> Result<Self, ApiError> {
        let service = state::service_of(pipeline, name)?;
        let how = outputs(request.outputs.as_deref())?;
        let stateful = service.fold.is_some() || service.query.as_ref().is_some_and(|query| query.is_stateful());
        let order = Rewind {
            service: service.name.clone(),
            inputs: service.inputs.clone(),
            outputs: written(service),
            stateful,
            to: to(&request.to)?,
            how,
            store: service.store.clone().map(|store| Arc::new(store) as Arc<dyn StateStore>),
        };
        let timed = service.time.as_ref().is_some_and(|time| !time.outputs.is_empty());
        Ok(Self { order, request, stateful, timed })
    }

    /// What it would do.
    pub(crate) async fn preview(&self, log: &dyn Log) -> Result<RewindAnswer, ApiError> {
        let plan = rewind::preview(log, &self.order).await.map_err(service_error)?;
        Ok(self.answer(plan, false))
    }

    /// What it does.
    pub(crate) fn answer(&self, plan: Plan, done: bool) -> RewindAnswer {
        let notes = self.notes(&plan);
        let input = |input: &rewind::InputPlan| RewoundInput {
            topic: input.topic.to_string(),
            partitions: input.partitions,
            events: input.events,
            trimmed: input.trimmed,
        };
        let twice = match self.order.how {
            Outputs::Append => self.order.outputs.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        RewindAnswer {
            service: self.order.service.to_string(),
            to: self.request.to.clone(),
            outputs: self.request.outputs.clone().unwrap_or_default(),
            done,
            tasks: plan.tasks,
            rewound: plan.rewound,
            inputs: plan.inputs.iter().map(input).collect(),
            twice,
            notes,
        }
    }

    fn notes(&self, plan: &Plan) -> Vec<String> {
        let mut notes = Vec::new();
        for input in plan.inputs.iter().filter(|input| input.trimmed) {
            let topic = &input.topic;
            notes.push(format!(
                "`{topic}` does not have all that was read once: it begins with the earliest event kept"
            ));
        }
        if self.stateful {
            let place = self.order.store.as_ref().map(|store| format!(" in {}", store.place())).unwrap_or_default();
            notes.push(match self.order.to {
                To::Start => format!("its state{place} is emptied and built anew"),
                _ => format!(
                    "its state{place} is emptied and built anew from there: what it knew of events before that is gone"
                ),
            });
        }
        match &self.order.how {
            Outputs::Suppress => {
                notes.push(
                    "until it is where it was, nothing that it makes is given out, dead letters neither".to_owned(),
                );
            }
            Outputs::Topic(topic) => notes.push(format!(
                "until it is where it was, what it makes goes to `{topic}` alone; dead letters are not written again"
            )),
            Outputs::Append => {
                notes.push("what it makes of these events is appended again, dead letters too".to_owned());
                if self.timed {
                    notes.push(
                        "what is given out again behind its watermark is late: services with event time treat it so"
                            .to_owned(),
                    );
                }
            }
        }
        notes
    }
}

/// The topics that a service writes.
fn written(service: &Service) -> Vec<Name> {
    service.outputs.clone()
}

fn outputs(given: Option<&str>) -> Result<Outputs, ApiError> {
    match given {
        None | Some("") => {
            Err(ApiError::new("outputs-missing", "`--outputs` is missing, and it has no default").help(OUTPUTS))
        }
        Some("suppress") => Ok(Outputs::Suppress),
        Some("append") => Ok(Outputs::Append),
        Some(topic) => {
            let name =
                Name::new(topic).map_err(|e| ApiError::new(codes::REQUEST_WRONG, e.to_string()).help(OUTPUTS))?;
            Ok(Outputs::Topic(name))
        }
    }
}

fn to(text: &str) -> Result<To, ApiError> {
    if text == "start" {
        return Ok(To::Start);
    }
    if let Ok(offset) = text.parse() {
        return Ok(To::Offset(offset));
    }
    let time = chrono::DateTime::parse_from_rfc3339(text);
    time.map(|time| To::Time(time.timestamp_micros())).map_err(|_| {
        let error = ApiError::new(codes::REQUEST_WRONG, format!("`{text}` is no place to go back to"));
        error.help("write `start`, an offset such as 1200, or a time such as 2026-01-31T12:00:00Z")
    })
}

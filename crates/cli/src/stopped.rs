//! Answers from the log of a pipeline that does not run.

use millstream_node::api::{
    EventLine, EventsQuery, Letter, LettersQuery, LogStat, Plan, RepairReport, RewindAnswer, RewindRequest,
    StateAnswer, StateQuery, Status, Topics, VerifyReport,
};
use millstream_node::config::Loaded;
use millstream_node::offline;

use crate::failure::Failure;

/// How the services stand.
pub(crate) async fn status(loaded: &Loaded) -> Result<Status, Failure> {
    Ok(offline::status(loaded).await?)
}

/// The topics.
pub(crate) async fn topics(loaded: &Loaded) -> Result<Topics, Failure> {
    Ok(offline::topics(loaded).await?)
}

/// Events of a topic.
pub(crate) async fn events(loaded: &Loaded, topic: &str, query: &EventsQuery) -> Result<Vec<EventLine>, Failure> {
    Ok(offline::events(loaded, topic, query).await?)
}

/// Dead letters of a service.
pub(crate) async fn letters(loaded: &Loaded, service: &str, query: &LettersQuery) -> Result<Vec<Letter>, Failure> {
    Ok(offline::letters(loaded, service, query).await?)
}

/// What a service keeps.
pub(crate) async fn state(loaded: &Loaded, service: &str, query: &StateQuery) -> Result<StateAnswer, Failure> {
    Ok(offline::state(loaded, service, query).await?)
}

/// Sets a service back, or says what that would do.
pub(crate) async fn rewind(loaded: &Loaded, service: &str, request: RewindRequest) -> Result<RewindAnswer, Failure> {
    Ok(offline::rewind(loaded, service, request).await?)
}

/// What differs from what ran last.
pub(crate) async fn plan(loaded: &Loaded) -> Result<Plan, Failure> {
    Ok(offline::plan(loaded).await?)
}

/// The log's figures.
pub(crate) async fn log_stat(loaded: &Loaded) -> Result<LogStat, Failure> {
    Ok(offline::log_stat(loaded).await?)
}

/// Reads everything again.
pub(crate) async fn verify(loaded: &Loaded) -> Result<VerifyReport, Failure> {
    Ok(offline::verify(loaded).await?)
}

/// Nobody uses the log, and there is one.
pub(crate) async fn log_is_free(loaded: &Loaded) -> Result<(), Failure> {
    Ok(offline::log_is_free(loaded).await?)
}

/// Makes it open again.
pub(crate) async fn repair(loaded: &Loaded) -> Result<RepairReport, Failure> {
    Ok(offline::repair(loaded).await?)
}

//! Answers that need nothing but the log and the plan: for the HTTP server of a running node and for the opened log of a
//! stopped one alike.

mod events;
mod letters;
mod topics;

pub use events::Events;
pub use letters::letters;
pub use topics::{topic_unknown, topics};

use crate::api::{ApiError, codes};

/// What the log says, as the API says it.
pub(crate) fn log_error(error: &dyn std::error::Error) -> ApiError {
    ApiError::new(codes::LOG_FAILED, error.to_string())
}

//! The tests of the crate's public face.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod functions;
mod golden;
mod golden_fold;
mod golden_state;
mod joins;
mod legends;
mod lookups;
mod one_by_one;
mod properties;
mod queries;
mod routes;

//! The connectors as a runner uses them: opened, read, committed, dropped and opened again.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod arrow;
mod file_sink;
mod file_source;
mod generate;
mod http;
mod postgres;
mod support;

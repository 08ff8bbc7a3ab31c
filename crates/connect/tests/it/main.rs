//! The connectors as a runner uses them: opened, read, committed, dropped and opened again.

mod file_sink;
mod file_source;
mod generate;
mod support;

//! Sources, sinks and lookups: where a pipeline touches the outside.
//!
//! | part | guarantee |
//! | --- | --- |
//! | [`generate`] | exactly once: the position is the event's number |
//! | [`file`] | exactly once: the position is a byte of a file |
//! | [`stdin`] | at most once across a crash: a pipe cannot be read again |
//! | [`http`] | answered when durable; with an `Idempotency-Key` a retried request counts once |
//! | [`file_sink`] | exactly once |
//! | [`stdout`] | at least once |
//! | [`postgres`] | the state of services: exactly once with the log |
//! | [`lookup`] | a table is swapped whole; not part of a commit |
//!
//! This crate implements the traits of `millstream_service`. It reads no YAML, opens no listener (the node mounts the
//! router of an HTTP source) and decides nothing about retries: it says whether an error is temporary.

pub mod decode;
mod encode;
pub mod file;
pub mod file_sink;
pub mod generate;
pub mod http;
pub mod lookup;
pub mod postgres;
pub mod stdin;
pub mod stdout;

pub use millstream_service as service;
pub use millstream_service::event;

pub use decode::Format;
pub use file::{Compression, FileSource};
pub use file_sink::FileSink;
pub use generate::GenerateSource;
pub use http::HttpSource;
pub use lookup::FileLookup;
pub use postgres::PostgresState;
pub use stdin::StdinSource;
pub use stdout::StdoutSink;

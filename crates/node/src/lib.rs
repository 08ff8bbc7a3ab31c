//! From YAML to a running pipeline.
//!
//! This crate reads pipeline files ([`config`]), says what is wrong with them ([`diagnostic`]), and is the only one that
//! knows the shapes of the HTTP interface ([`api`]). It does *not* compute anything itself: services, sources and sinks
//! do.

pub mod api;
pub mod backups;
pub mod config;
pub mod diagnostic;
mod http;
pub mod offline;
pub mod plan;
mod runtime;
pub mod testing;

pub use config::{Config, Loaded};
pub use diagnostic::{Diagnostic, Diagnostics};
pub use millstream_connect as connect;
pub use millstream_service as service;
pub use plan::{Pipeline, plan};
pub use runtime::{Node, NodeOptions};

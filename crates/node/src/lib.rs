//! from YAML to a running pipeline; the HTTP API

pub mod api;

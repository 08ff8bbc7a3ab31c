//! Sinks.

use std::path::PathBuf;
use std::time::Duration;

use millstream_service::event::Name;
use schemars::JsonSchema;

use super::super::source_text::{Span, Spanned};
use super::*;

/// Where events go: exactly one of `file`, `stdout`.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SinkSettings {
    /// The topics that it reads.
    #[schemars(with = "Vec<String>")]
    pub from: Vec<Spanned<Name>>,
    /// Files, exactly once.
    pub file: Option<FileSinkSettings>,
    /// The standard output, at least once.
    pub stdout: Option<StdoutSettings>,
    /// All of it.
    #[schemars(skip)]
    pub span: Span,
}

/// Files, exactly once.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FileSinkSettings {
    /// The directory, relative to the pipeline file.
    #[schemars(with = "String")]
    pub path: Spanned<PathBuf>,
    /// How events are written. Default `ndjson`.
    pub format: Option<Format>,
    /// When a file is closed and the next one begun.
    pub roll: Option<RollSettings>,
}

/// When a file is closed and the next one begun.
#[derive(Debug, Clone, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RollSettings {
    /// At this size. Default `256MiB`.
    #[schemars(with = "Option<String>")]
    pub bytes: Option<u64>,
    /// At this age. Default: never.
    #[schemars(with = "Option<String>")]
    pub every: Option<Duration>,
}

/// The standard output.
#[derive(Debug, Clone, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct StdoutSettings {
    /// How events are written. Default `ndjson`.
    pub format: Option<Format>,
}

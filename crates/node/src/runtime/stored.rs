//! The file that runs, kept beside the log, so that `plan` also knows on a stopped node what ran last.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::api::{ApiError, PipelineText};
use crate::config::{Config, Disk, Loaded, Sent};
use crate::diagnostic::Diagnostics;

/// The file's name in the data directory.
pub(crate) const FILE: &str = "applied.json";

#[derive(Serialize, Deserialize)]
struct Stored {
    /// Where the pipeline file was.
    path: PathBuf,
    #[serde(flatten)]
    text: PipelineText,
}

/// The text of what was loaded.
pub(crate) fn text_of(loaded: &Loaded) -> PipelineText {
    PipelineText {
        file: loaded.path.display().to_string(),
        yaml: loaded.text.clone(),
        sql_files: loaded.sql_files.iter().cloned().collect(),
    }
}

/// Keeps what runs.
pub(crate) fn store(dir: &Path, loaded: &Loaded) -> Result<(), ApiError> {
    let path = std::path::absolute(&loaded.path).unwrap_or_else(|_| loaded.path.clone());
    let stored = Stored { path, text: text_of(loaded) };
    let failed =
        |e: String| ApiError::new("data-dir", format!("the applied file cannot be kept in {}: {e}", dir.display()));
    let bytes = serde_json::to_vec_pretty(&stored).map_err(|e| failed(e.to_string()))?;
    let fresh = dir.join(format!("{FILE}.new"));
    std::fs::write(&fresh, bytes)
        .and_then(|()| std::fs::rename(&fresh, dir.join(FILE)))
        .map_err(|e| failed(e.to_string()))
}

/// What ran last, if anything did.
pub(crate) fn read(dir: &Path) -> Option<Result<Loaded, Diagnostics>> {
    let bytes = std::fs::read(dir.join(FILE)).ok()?;
    let stored: Stored = serde_json::from_slice(&bytes).ok()?;
    Some(parse(&stored.path, stored.text))
}

/// Reads a pipeline that was sent, as if it lay at `path`.
pub(crate) fn parse(path: &Path, text: PipelineText) -> Result<Loaded, Diagnostics> {
    let dir = path.parent().map(Path::to_owned).unwrap_or_default();
    let files: BTreeMap<String, String> = text.sql_files;
    Config::parse(path, text.yaml, &Sent { files, disk: Disk { dir } })
}

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

/// The file that is to run, written beside the one that does. Dropping it forgets it.
pub(crate) struct Fresh {
    dir: PathBuf,
}

impl Fresh {
    /// Writes it, so that a full disk is met before anything is changed.
    pub(crate) fn write(dir: &Path, loaded: &Loaded) -> Result<Self, ApiError> {
        let path = std::path::absolute(&loaded.path).unwrap_or_else(|_| loaded.path.clone());
        let stored = Stored { path, text: text_of(loaded) };
        let fresh = Self { dir: dir.to_owned() };
        let written = serde_json::to_vec_pretty(&stored).map_err(std::io::Error::other);
        written.and_then(|bytes| std::fs::write(fresh.path(), bytes)).map_err(|e| fresh.failed(&e))?;
        Ok(fresh)
    }

    /// From now on this is what runs.
    pub(crate) fn keep(&self) -> Result<(), ApiError> {
        std::fs::rename(self.path(), self.dir.join(FILE)).map_err(|e| self.failed(&e))
    }

    fn path(&self) -> PathBuf {
        self.dir.join(format!("{FILE}.new"))
    }

    fn failed(&self, e: &std::io::Error) -> ApiError {
        ApiError::new("data-dir", format!("the applied file cannot be kept in {}: {e}", self.dir.display()))
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // Kept under its name, or never written: then there is nothing to remove.
        drop(std::fs::remove_file(self.path()));
    }
}

/// Keeps what runs.
pub(crate) fn store(dir: &Path, loaded: &Loaded) -> Result<(), ApiError> {
    Fresh::write(dir, loaded)?.keep()
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

//! Who was paused, kept beside the log: what somebody stopped because it did harm must not go on by itself after a restart.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use millstream_service::event::Name;

use crate::api::ApiError;

/// The file's name in the data directory: a JSON list of names.
pub(crate) const FILE: &str = "paused.json";

/// Who was paused when the node was last told. A file that cannot be read is an error: going on might do harm.
pub(crate) fn read(dir: &Path) -> Result<BTreeSet<Name>, ApiError> {
    let path = dir.join(FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(e) => return Err(unreadable(&path, &e.to_string())),
    };
    let names: Vec<String> = serde_json::from_slice(&bytes).map_err(|e| unreadable(&path, &e.to_string()))?;
    names.into_iter().map(|name| Name::new(name).map_err(|e| unreadable(&path, &e.to_string()))).collect()
}

/// Keeps who is paused now.
pub(crate) fn write(dir: &Path, names: &BTreeSet<Name>) -> Result<(), ApiError> {
    let path = dir.join(FILE);
    let new = dir.join(format!("{FILE}.new"));
    let names: Vec<&str> = names.iter().map(Name::as_str).collect();
    let written = serde_json::to_vec(&names).map_err(std::io::Error::other).and_then(|bytes| {
        let mut file = std::fs::File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        std::fs::File::open(dir)?.sync_all()
    });
    written.map_err(|e| {
        let message =
            format!("it is done, but a restart will not know of it: {} cannot be written: {e}", path.display());
        ApiError::new("data-dir", message)
    })
}

fn unreadable(path: &Path, why: &str) -> ApiError {
    let message = format!("{} cannot be read: {why}", path.display());
    ApiError::new("data-dir", message).help("it says what was paused; remove it, and everything runs")
}

//! `--fresh`: forgets what the log holds.

use std::path::Path;

use millstream_node::config::Loaded;

use crate::failure::Failure;
use crate::target::{data_dir, running, shown};
use crate::terminal::{bytes, confirm};

/// What the log and the node put into their directory.
const ENTRIES: [&str; 14] = [
    "LOCK",
    "checkpoint",
    "checkpoint.new",
    "checkpoint.copy",
    "checkpoint.copy.new",
    "journal",
    "topics",
    "damaged",
    "applied.json",
    "applied.json.new",
    "paused.json",
    "paused.json.new",
    "node.json",
    "node.json.part",
];

/// Removes the log's directory after asking. False when the answer was no.
pub(crate) async fn forget(loaded: &Loaded, yes: bool) -> Result<bool, Failure> {
    let dir = data_dir(loaded);
    if !dir.exists() {
        return Ok(true);
    }
    if let Some(client) = running(loaded).await? {
        return Err(Failure::refused(
            "node-running",
            format!("pipeline `{}` is running at {}", loaded.config.pipeline.value, client.address()),
            "stop it first; then --fresh can forget its data",
        ));
    }
    // A mistyped `dir:` must not cost somebody another directory.
    if let Some(stranger) = stranger(&dir)? {
        return Err(Failure::refused(
            "no-log",
            format!("{} is no log of millstream and is left alone: `{stranger}` is in it", shown(&dir)),
            "look at `log.embedded.dir` in the pipeline file",
        ));
    }
    let question = format!(
        "Forget all events and positions of `{}` ({} in {})?",
        loaded.config.pipeline.value,
        bytes(size(&dir)),
        shown(&dir)
    );
    if !confirm(&question, yes)? {
        return Ok(false);
    }
    let said = |error: std::io::Error| Failure::Failed(anyhow::anyhow!("cannot remove {}: {error}", dir.display()));
    std::fs::remove_dir_all(&dir).map_err(said)?;
    Ok(true)
}

/// The first file or directory that no log has.
fn stranger(dir: &Path) -> Result<Option<String>, Failure> {
    let said = |error: std::io::Error| Failure::Failed(anyhow::anyhow!("cannot read {}: {error}", dir.display()));
    for entry in std::fs::read_dir(dir).map_err(said)? {
        let name = entry.map_err(said)?.file_name().to_string_lossy().into_owned();
        if !ENTRIES.contains(&name.as_str()) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Bytes of all files below; what cannot be read counts nothing.
fn size(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => size(&entry.path()),
            _ => entry.metadata().map_or(0, |m| m.len()),
        })
        .sum()
}

//! From a backup to a directory in which the log opens.
//!
//! 1. The directory must be empty, or not be there. `lost+found` does not count: it may be where a disk is mounted.
//! 2. All objects are written to a directory in it, each compared with its length and checksum; synced.
//! 3. The log there is verified, every byte of it.
//! 4. What is in it moves up, the checkpoint last: without that nobody takes the directory for a log, and the next restore
//!    knows that one did not end.

use std::collections::BTreeMap;
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use futures::{StreamExt as _, TryStreamExt as _};
use millstream_log::EmbeddedOptions;
use millstream_log::backup::{CHECKPOINT, MOVING};

use crate::error::io_error;
use crate::manifest::{FOLDER, Manifest, Piece};
use crate::{Error, Store};

/// How many objects are read at a time; each is in memory meanwhile.
const READS_MAX: usize = 4;
/// What a file system makes by itself.
const LOST_AND_FOUND: &str = "lost+found";
/// Where a directory is put together: in its place, which may be a disk's.
const RESTORING: &str = ".restoring";
/// As many digits of a log's number are shown.
const LOG_DIGITS: usize = 8;
/// How many names in a directory a refusal tells.
const NAMES_MAX: usize = 5;

/// A backup with its name.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The manifest's name in its folder.
    pub name: String,
    /// What it says.
    pub manifest: Manifest,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Files that were written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The events that are in the log now.
    pub events: u64,
}

/// The backups of a pipeline, oldest first; those that cannot be read are left out, with a warning.
pub async fn list(store: &Store, pipeline: &str) -> Result<Vec<Chosen>, Error> {
    let folder = store.folder(pipeline);
    let mut found = Vec::new();
    for (path, _) in folder.list(FOLDER).await? {
        // One that went since it was listed is not there.
        let Some(bytes) = folder.find(&path).await? else { continue };
        match Manifest::decode(&path, store.shown(), &bytes) {
            Ok(manifest) => {
                let name = path.strip_prefix(FOLDER).map_or(path.as_str(), |name| name.trim_start_matches('/'));
                found.push(Chosen { name: name.to_owned(), manifest });
            }
            Err(error) => tracing::warn!(%error, "a backup cannot be read"),
        }
    }
    Ok(found)
}

/// The newest backup of a pipeline, or the newest not after a time in microseconds since 1970; of the logs whose number
/// begins with `log`, where that is given.
///
/// # Errors
/// [`Error::Nothing`]; [`Error::SeveralLogs`] where neither a time nor a log says which of several logs is meant: one that
/// was begun anew by mistake, instead of restoring the lost one, would have the newest.
pub async fn choose(store: &Store, pipeline: &str, at_us: Option<i64>, log: Option<&str>) -> Result<Chosen, Error> {
    let mut all = list(store, pipeline).await?;
    all.retain(|chosen| log.is_none_or(|log| chosen.manifest.log.starts_with(log)));
    all.retain(|chosen| at_us.is_none_or(|at| chosen.manifest.time_us <= at));
    let newest: BTreeMap<&str, &Chosen> = all.iter().map(|chosen| (chosen.manifest.log.as_str(), chosen)).collect();
    if newest.len() > 1 && at_us.is_none() {
        let (pipeline, place) = (pipeline.to_owned(), store.shown().to_owned());
        return Err(Error::SeveralLogs { pipeline, place, logs: newest.into_values().map(line).collect() });
    }
    all.pop().ok_or_else(|| {
        let when = at_us.and_then(chrono::DateTime::from_timestamp_micros);
        let when = when.map_or(String::new(), |at| format!("before {} ", at.format("%Y-%m-%dT%H:%M:%SZ")));
        Error::Nothing { pipeline: pipeline.to_owned(), when, place: store.shown().to_owned() }
    })
}

/// A log's newest backup, in a line of a message.
fn line(chosen: &Chosen) -> String {
    let manifest = &chosen.manifest;
    let at = chrono::DateTime::from_timestamp_micros(manifest.time_us).unwrap_or_default();
    let (log, at) = (manifest.log.get(..LOG_DIGITS).unwrap_or(&manifest.log), at.format("%Y-%m-%dT%H:%M:%SZ"));
    format!("\n  --log {log}: the newest of {at}, {} bytes, {} positions", manifest.bytes(), manifest.positions)
}

/// Refuses a directory in which something is.
pub fn refuse_if_used(dir: &Path) -> Result<(), Error> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io_error("reading", dir)(e)),
    };
    let unfinished = is_unfinished(dir);
    let counts = |name: &String| name != LOST_AND_FOUND && name != RESTORING && !unfinished;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(counts);
    let mut names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        return Ok(());
    }
    names.sort();
    let more = names.len().saturating_sub(NAMES_MAX);
    names.truncate(NAMES_MAX);
    let found = if more > 0 { format!("{} and {more} more", names.join(", ")) } else { names.join(", ") };
    Err(Error::Used { dir: dir.to_owned(), found })
}

/// Restores a backup into an empty directory. `progress` is told the bytes that are there, again and again.
pub async fn restore(store: &Store, chosen: &Chosen, dir: &Path, progress: impl Fn(u64)) -> Result<Restored, Error> {
    refuse_if_used(dir)?;
    let dir = std::path::absolute(dir).map_err(io_error("finding", dir))?;
    let was_there = dir.exists();
    let inside = dir.join(RESTORING);
    clear(&dir)?;
    let restored = match put_together(store, &chosen.manifest, &inside, progress).await {
        Ok(restored) => restored,
        Err(error) => {
            // What was fetched is of no use to anybody.
            drop(std::fs::remove_dir_all(&inside));
            if !was_there {
                drop(std::fs::remove_dir(&dir));
            }
            return Err(error);
        }
    };
    move_up(&inside, &dir)?;
    if let Some(parent) = dir.parent() {
        sync_dir(parent)?;
    }
    Ok(restored)
}

/// Whether a restore ended while it moved its files up: what is in the directory besides is its own.
fn is_unfinished(dir: &Path) -> bool {
    dir.join(RESTORING).join(CHECKPOINT).exists() && dir.join(MOVING).exists() && !dir.join(CHECKPOINT).exists()
}

/// Removes what a restore left that did not end.
fn clear(dir: &Path) -> Result<(), Error> {
    let removed = |path: &Path, done: std::io::Result<()>| match done {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io_error("removing", path)(e)),
        _ => Ok(()),
    };
    if is_unfinished(dir) {
        let moving = dir.join(MOVING);
        let names = std::fs::read_to_string(&moving).map_err(io_error("reading", &moving))?;
        for name in names.lines().filter(|name| Path::new(name).components().count() == 1) {
            let path = dir.join(name);
            removed(&path, if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) })?;
        }
    }
    let inside = dir.join(RESTORING);
    removed(&inside, std::fs::remove_dir_all(&inside))?;
    let moving = dir.join(MOVING);
    removed(&moving, std::fs::remove_file(&moving))
}

async fn put_together(
    store: &Store,
    manifest: &Manifest,
    inside: &Path,
    progress: impl Fn(u64),
) -> Result<Restored, Error> {
    for part in ["", "journal", "topics"] {
        make_dir(&inside.join(part))?;
    }
    fill(store, manifest, inside, progress).await
}

/// Gives everything its place, the checkpoint last.
fn move_up(inside: &Path, dir: &Path) -> Result<(), Error> {
    let entries = std::fs::read_dir(inside).map_err(io_error("reading", inside))?.flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let names: Vec<String> = names.filter(|name| name != CHECKPOINT).collect();
    let moving = dir.join(MOVING);
    std::fs::write(&moving, names.join("\n")).map_err(io_error("writing", &moving))?;
    std::fs::File::open(&moving).and_then(|file| file.sync_all()).map_err(io_error("syncing", &moving))?;
    sync_dir(dir)?;
    for name in &names {
        let to = dir.join(name);
        std::fs::rename(inside.join(name), &to).map_err(io_error("renaming to", &to))?;
    }
    sync_dir(dir)?;
    let to = dir.join(CHECKPOINT);
    std::fs::rename(inside.join(CHECKPOINT), &to).map_err(io_error("renaming to", &to))?;
    sync_dir(dir)?;
    // The log is whole; what is left says nothing any more.
    drop((std::fs::remove_dir(inside), std::fs::remove_file(&moving)));
    sync_dir(dir)
}

async fn fill(store: &Store, manifest: &Manifest, dir: &Path, progress: impl Fn(u64)) -> Result<Restored, Error> {
    let folder = &store.folder(&manifest.pipeline);
    let mut bytes = 0;
    for file in &manifest.files {
        let path = dir.join(&file.path);
        if let Some(parent) = path.parent() {
            make_dir(parent)?;
        }
        let mut out = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(io_error("making", &path))?;
        let parts = file.pieces.iter().map(|piece| async move { Ok::<_, Error>((piece, fetch(folder, piece).await?)) });
        let mut parts = futures::stream::iter(parts).buffered(READS_MAX);
        while let Some((piece, part)) = parts.try_next().await? {
            out.seek(std::io::SeekFrom::Start(piece.from)).map_err(io_error("writing", &path))?;
            out.write_all(&part).map_err(io_error("writing", &path))?;
            bytes += part.len() as u64;
            progress(bytes);
        }
        out.sync_all().map_err(io_error("syncing", &path))?;
    }
    sync_dirs(dir)?;
    let events = verify(dir).await?;
    Ok(Restored { files: manifest.files.len() as u64, bytes, events })
}

/// An object, if it is what it was.
async fn fetch(folder: &Store, piece: &Piece) -> Result<Vec<u8>, Error> {
    let bytes = folder.get(&piece.object).await?;
    let why = if bytes.len() as u64 != piece.bytes() {
        format!("it has {} bytes instead of {}", bytes.len(), piece.bytes())
    } else if crc32fast::hash(&bytes) != piece.crc {
        "its checksum is wrong".to_owned()
    } else {
        return Ok(bytes);
    };
    Err(Error::Damaged { object: piece.object.clone(), place: folder.shown().to_owned(), why })
}

/// Reads the whole log and answers how many events it has.
async fn verify(dir: &Path) -> Result<u64, Error> {
    let options = EmbeddedOptions::new(dir);
    let report = tokio::task::spawn_blocking(move || millstream_log::verify(&options)).await;
    let report = report.map_err(|e| Error::Ended(e.to_string()))??;
    match report.problems.first() {
        None => Ok(report.events),
        Some(problem) => Err(Error::Unsound { why: format!("{}: {}", problem.path.display(), problem.what) }),
    }
}

fn make_dir(dir: &Path) -> Result<(), Error> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error("making", dir))
}

fn sync_dir(dir: &Path) -> Result<(), Error> {
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("syncing", dir))
}

/// Makes all names below a directory durable.
fn sync_dirs(dir: &Path) -> Result<(), Error> {
    for entry in std::fs::read_dir(dir).map_err(io_error("reading", dir))?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            sync_dirs(&entry.path())?;
        }
    }
    sync_dir(dir)
}

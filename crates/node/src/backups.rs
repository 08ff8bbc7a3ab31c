//! Backups without a running node: one round of a stopped log, what there is, and back.

use std::path::Path;

use millstream_backup::log::backup::Source;
use millstream_backup::{Backup, Chosen, Place, Store, choose, list as list_backups, restore as restore_backup};

use crate::api::{ApiError, BackupInfo, RestoreReport, Snapshot};
use crate::config::Loaded;
use crate::runtime::{api_time, backup_error, backups, build, log_error, now_us};

/// The place that a command means: an address, reached as the pipeline says, or the pipeline's own.
fn place(loaded: Option<&Loaded>, from: Option<&str>) -> Result<Place, ApiError> {
    let settings = loaded.and_then(|loaded| loaded.config.state.backup.as_ref());
    match (settings, from) {
        (Some(settings), from) => Ok(settings.place(from)),
        (None, Some(from)) => Ok(Place::new(from)),
        (None, None) => Err(backups::unset()),
    }
}

fn open(place: &Place, make: bool) -> Result<Store, ApiError> {
    Store::open(place, make).map_err(|e| backup_error(&e))
}

/// One round of the log of a stopped node.
pub async fn snapshot(loaded: &Loaded) -> Result<Snapshot, ApiError> {
    let config = &loaded.config;
    let settings = config.state.backup.as_ref().ok_or_else(backups::unset)?;
    let options = build::log_options(&config.log.embedded);
    let source = tokio::task::spawn_blocking(move || Source::stopped(options)).await;
    let source = source.map_err(|e| ApiError::new("log-failed", e.to_string()))?.map_err(log_error)?;
    let store = open(&settings.place(None), true)?;
    let mut backup = Backup::new(&store, source, config.pipeline.value.as_str(), settings.keep);
    let beside = backups::beside(&config.log.embedded.dir).map_err(|e| backup_error(&e))?;
    let done = backup.round(beside, now_us()).await.map_err(|e| backup_error(&e))?;
    Ok(backups::snapshot(&settings.to.value, &done))
}

fn info(chosen: &Chosen) -> BackupInfo {
    let manifest = &chosen.manifest;
    BackupInfo {
        pipeline: manifest.pipeline.clone(),
        backup: chosen.name.clone(),
        at: api_time(manifest.time_us),
        bytes: manifest.bytes(),
        positions: manifest.positions,
        log: manifest.log.clone(),
        version: manifest.version.clone(),
    }
}

/// The backups at an address, or where the pipeline's own are; of all pipelines there, each one's oldest first.
pub async fn list(loaded: Option<&Loaded>, from: Option<&str>) -> Result<Vec<BackupInfo>, ApiError> {
    let store = open(&place(loaded, from)?, false)?;
    let mut found = Vec::new();
    for pipeline in store.folders().await.map_err(|e| backup_error(&e))? {
        let backups = list_backups(&store, &pipeline).await.map_err(|e| backup_error(&e))?;
        found.extend(backups.iter().map(info));
    }
    Ok(found)
}

/// Makes the pipeline's data directory, which must be empty, out of its newest backup, or of the newest one not after
/// `at_us`, of the logs whose number begins with `log`. `progress` is told the bytes fetched so far, and of how many.
pub async fn restore(
    loaded: &Loaded,
    from: Option<&str>,
    at_us: Option<i64>,
    log: Option<&str>,
    progress: impl Fn(u64, u64),
) -> Result<RestoreReport, ApiError> {
    let dir: &Path = &loaded.config.log.embedded.dir;
    let place = place(Some(loaded), from)?;
    // Before anything is fetched.
    millstream_backup::refuse_if_used(dir).map_err(|e| backup_error(&e))?;
    let store = open(&place, false)?;
    let pipeline = loaded.config.pipeline.value.as_str();
    let chosen = choose(&store, pipeline, at_us, log).await.map_err(|e| backup_error(&e))?;
    let all = chosen.manifest.bytes();
    let done = restore_backup(&store, &chosen, dir, |bytes| progress(bytes, all)).await;
    let done = done.map_err(|e| backup_error(&e))?;
    let (files, bytes, events) = (done.files, done.bytes, done.events);
    Ok(RestoreReport { dir: dir.display().to_string(), from: info(&chosen), files, bytes, events })
}

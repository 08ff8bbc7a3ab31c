//! Backups of a running pipeline: a round every so often, and a last one when it stops in order. A round that fails is
//! told and tried again; it never stops the pipeline, and services never wait for one.

use std::path::Path;
use std::sync::Weak;
use std::time::{Duration, Instant};

use millstream_backup::log::backup::Source;
use millstream_backup::{Backup, Beside, Done, Place, Store};
use parking_lot::Mutex;

use super::status::{api_time, now_us};
use super::{Inner, paused, stored};
use crate::api::{ApiError, BackupState, Snapshot, codes};
use crate::config::BackupSettings;

/// How often to look whether a round is due.
const LOOK: Duration = Duration::from_millis(50);
/// How soon a round that failed is tried again, where rounds are not made more often anyway.
const RETRY: Duration = Duration::from_secs(10);
/// How long the last round may take.
pub(crate) const LAST_WITHIN: Duration = Duration::from_secs(30);
/// What lies beside the log and belongs to a backup.
const BESIDE: [&str; 2] = [paused::FILE, stored::FILE];

/// Who makes backups, and how it went.
#[derive(Default)]
pub(crate) struct Backups {
    /// Held during a round.
    open: tokio::sync::Mutex<Option<Open>>,
    standing: Mutex<Standing>,
}

/// One that goes on from round to round, and for which settings it was made.
struct Open {
    place: Place,
    keep: usize,
    backup: Backup,
}

/// How it went so far.
#[derive(Default)]
struct Standing {
    last: Option<(Instant, i64)>,
    bytes: Option<u64>,
    rounds: u64,
    failed: u64,
    error: Option<String>,
}

/// Makes backups until the node is gone, as the file that runs says.
pub(crate) async fn run(node: Weak<Inner>) {
    let mut begun: Option<Instant> = None;
    let mut failed = 0;
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let Some(inner) = node.upgrade() else { return };
        let Some(settings) = inner.view().loaded.config.state.backup.clone() else { continue };
        if begun.is_none_or(|begun| begun.elapsed() >= pause(settings.every, failed)) {
            begun = Some(Instant::now());
            // It is told; the next round is the next attempt.
            failed = if inner.back_up(Claim::Kept).await.is_ok() { 0 } else { failed + 1 };
        }
    }
}

/// How long from a round's beginning to the next one's, when so many have failed one after the other: at first soon, so that
/// little more than `every` is not copied.
fn pause(every: Duration, failed: u32) -> Duration {
    match failed {
        0 => every,
        n => RETRY.saturating_mul(2u32.saturating_pow(n - 1)).min(every),
    }
}

/// What a round does where another process backs up the same log to the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It fails, unless it is the first one of this process.
    Kept,
    /// It takes the place over: somebody asked for the round.
    Anew,
}

impl Inner {
    /// One round now.
    pub(crate) async fn back_up(&self, claim: Claim) -> Result<Snapshot, ApiError> {
        let view = self.view();
        let config = &view.loaded.config;
        let settings = config.state.backup.clone().ok_or_else(unset)?;
        let mut open = self.backups.open.lock().await;
        let done = self.round(&mut open, &settings, config.pipeline.value.as_str(), claim).await;
        let mut standing = self.backups.standing.lock();
        standing.rounds += 1;
        match done {
            Ok(done) => {
                standing.last = Some((Instant::now(), now_us()));
                standing.bytes = Some(done.bytes);
                standing.error = None;
                Ok(snapshot(&settings.to.value, &done))
            }
            Err(error) => {
                standing.failed += 1;
                let since = standing.last.map_or(self.started, |(at, _)| at).elapsed().as_secs();
                tracing::warn!(%error, to = %settings.to.value, since_success_s = since, "the backup failed; the pipeline goes on, and so does the next round");
                standing.error = Some(error.to_string());
                Err(backup_error(&error))
            }
        }
    }

    async fn round(
        &self,
        open: &mut Option<Open>,
        settings: &BackupSettings,
        pipeline: &str,
        claim: Claim,
    ) -> Result<Done, millstream_backup::Error> {
        let (beside, now) = (beside(&self.view().loaded.config.log.embedded.dir)?, now_us());
        let (place, keep) = (settings.place(None), settings.keep);
        let current = match open.take() {
            Some(current) if current.place == place && current.keep == keep => current,
            _ => {
                let store = Store::open(&place, true)?;
                Open { backup: Backup::new(&store, Source::of(&self.log), pipeline, keep), place, keep }
            }
        };
        let backup = &mut open.insert(current).backup;
        if claim == Claim::Anew {
            backup.take_over();
        }
        backup.round(beside, now).await
    }

    /// The last round of a pipeline that stops in order; nothing is committed any more.
    pub(crate) async fn last_backup(&self) {
        if self.view().loaded.config.state.backup.is_none() {
            return;
        }
        if tokio::time::timeout(LAST_WITHIN, self.back_up(Claim::Kept)).await.is_err() {
            tracing::warn!(
                within_s = LAST_WITHIN.as_secs(),
                "the last backup did not end in time; the one before it is whole"
            );
        }
    }

    /// How backups stand; `None` where none are made.
    pub(crate) fn backup_state(&self) -> Option<BackupState> {
        let settings = self.view().loaded.config.state.backup.clone()?;
        let standing = self.backups.standing.lock();
        Some(BackupState {
            to: settings.to.value,
            every_s: settings.every.as_secs_f64(),
            last_success: standing.last.map(|(_, at)| api_time(at)),
            seconds_since_success: standing.last.map_or(self.started, |(at, _)| at).elapsed().as_secs_f64(),
            bytes: standing.bytes,
            rounds: standing.rounds,
            rounds_failed: standing.failed,
            error: standing.error.clone(),
        })
    }
}

/// The files beside the log, those that are there.
pub(crate) fn beside(dir: &Path) -> Result<Vec<Beside>, millstream_backup::Error> {
    let mut files = Vec::new();
    for name in BESIDE {
        let path = dir.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => files.push((name.to_owned(), bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => {
                return Err(millstream_backup::Error::Io { doing: "reading", path, reason: e.to_string() });
            }
        }
    }
    Ok(files)
}

/// What a round did, for the API.
pub(crate) fn snapshot(to: &str, done: &Done) -> Snapshot {
    Snapshot {
        to: to.to_owned(),
        backup: done.manifest.clone(),
        at: api_time(done.time_us),
        objects: done.objects,
        written_bytes: done.written,
        bytes: done.bytes,
        positions: done.positions,
    }
}

/// No backup is asked for.
pub(crate) fn unset() -> ApiError {
    let help = "say where to: `state: {backup: {to: file:///path, every: 1m}}`";
    ApiError::new(codes::BACKUP_UNSET, "the pipeline says no place for backups").help(help)
}

/// An error of a backup or a restore, for the API.
pub(crate) fn backup_error(error: &millstream_backup::Error) -> ApiError {
    use millstream_backup::Error;
    match error {
        Error::Log(error) => super::log_error(error.clone()),
        Error::Used { .. } => ApiError::new("data-dir", error.to_string()),
        Error::Nothing { .. } => ApiError::new("backup-missing", error.to_string()),
        Error::Damaged { .. } | Error::Unsound { .. } => ApiError::new("backup-damaged", error.to_string()),
        _ => ApiError::new(codes::BACKUP_FAILED, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_round_is_tried_again_soon_and_then_less_often() {
        let minute = Duration::from_secs(60);
        let pauses: Vec<u64> = (0..6).map(|failed| pause(minute, failed).as_secs()).collect();
        assert_eq!(pauses, [60, 10, 20, 40, 60, 60]);
        let second = Duration::from_secs(1);
        assert!((0..100).all(|failed| pause(second, failed) == second));
    }
}

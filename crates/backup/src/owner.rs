//! Who backs up a log to a place: an object per log that has the number of one process.
//!
//! A copy of a log's directory, and one that was restored from its backups, have the log's number and would write into the
//! same folder; each would remove what only the other needs. So who begins there writes its number, and reads it again
//! around each manifest: where it finds another's, it has been taken over from, and leaves everything alone.

use std::hash::{BuildHasher as _, Hasher as _};

use serde::{Deserialize, Serialize};

use crate::{Error, Store};

/// The folder of these objects, below the pipeline's.
const FOLDER: &str = "owners";

/// What the object says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    owner: String,
    /// Since when, in microseconds since 1970.
    since_us: i64,
}

/// One who backs up.
#[derive(Debug)]
pub(crate) struct Owner {
    /// A number that nobody else has.
    id: String,
    /// Whether the place was taken over.
    has_it: bool,
}

impl Owner {
    pub(crate) fn new() -> Self {
        // The standard library's hasher is the one source of chance at hand here.
        let chance = || std::collections::hash_map::RandomState::new().build_hasher().finish();
        let id = format!("{:08x}{:016x}{:016x}", std::process::id(), chance(), chance());
        Self { id, has_it: false }
    }

    /// From now on the place is taken over, whoever has it.
    pub(crate) fn take_over(&mut self) {
        self.has_it = false;
    }

    /// Takes the place over where that was not done yet; answers whether it was done now. Refuses where somebody else has
    /// taken it over since.
    pub(crate) async fn begin(&mut self, store: &Store, log: &str, now_us: i64) -> Result<bool, Error> {
        if self.has_it {
            return self.check(store, log).await.map(|()| false);
        }
        if let Some(before) = read(store, log).await? {
            tracing::info!(
                place = store.shown(),
                since_us = before.since_us,
                "backups are taken over from an earlier run"
            );
        }
        self.write(store, log, now_us).await?;
        self.has_it = true;
        Ok(true)
    }

    /// Refuses where somebody else has taken the place over.
    pub(crate) async fn check(&self, store: &Store, log: &str) -> Result<(), Error> {
        match read(store, log).await? {
            Some(note) if note.owner == self.id => Ok(()),
            Some(note) => Err(Error::TakenOver {
                place: store.shown().to_owned(),
                since: chrono::DateTime::from_timestamp_micros(note.since_us).unwrap_or_default(),
            }),
            // Removed by hand: what was agreed on is forgotten, not who works here.
            None => self.write(store, log, 0).await,
        }
    }

    async fn write(&self, store: &Store, log: &str, since_us: i64) -> Result<(), Error> {
        let note = Note { owner: self.id.clone(), since_us };
        let json = serde_json::to_vec(&note).map_err(|e| Error::Ended(e.to_string()))?;
        store.put(&object(log), json).await
    }
}

/// What the object says; one that cannot be read is somebody else's.
async fn read(store: &Store, log: &str) -> Result<Option<Note>, Error> {
    let Some(bytes) = store.find(&object(log)).await? else { return Ok(None) };
    Ok(Some(serde_json::from_slice(&bytes).unwrap_or(Note { owner: String::new(), since_us: 0 })))
}

fn object(log: &str) -> String {
    format!("{FOLDER}/{log}.json")
}

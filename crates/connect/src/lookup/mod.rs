//! File lookups: reference data from a CSV or NDJSON file, swapped whole when the file changes.
//!
//! The file is looked at every `refresh` (modification time, size, inode); a new version is read in the background and
//! published at once, or not at all: a file with an undecodable line, a NULL key or a key that stands there twice keeps
//! the table that is there and says why in the lookup's status. While nothing could be loaded yet, services that join the
//! lookup wait with the reason, and the file is tried again every few seconds, also without `refresh`.

mod load;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::decode::Format;
use crate::event::Name;
use crate::file::Compression;
use crate::service::flow::LookupSchema;
use crate::service::{Clock, LookupHandle, LookupPublisher, SystemClock};
use load::{Fingerprint, load};

/// How soon a file that could not be loaded is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Where a lookup's rows come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The file.
    pub path: PathBuf,
    /// Its form. Columns that are not declared are left out.
    pub format: Format,
    /// How it is compressed.
    pub compression: Compression,
    /// How often to look whether it has changed; unset: it is loaded once.
    pub refresh: Option<Duration>,
}

/// Keeps a lookup fresh; dropping it stops that, the last table stays.
#[derive(Debug)]
pub struct FileLookup {
    task: tokio::task::JoinHandle<()>,
}

impl FileLookup {
    /// Starts loading on the current tokio runtime; the handle has a table as soon as the file is read.
    pub fn start(name: Name, settings: Settings, schema: LookupSchema) -> (Self, LookupHandle) {
        let (publisher, handle) = LookupPublisher::new(name.clone());
        let task = tokio::spawn(keep(name, settings, Arc::new(schema), publisher));
        (Self { task }, handle)
    }
}

impl Drop for FileLookup {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(name: Name, settings: Settings, schema: Arc<LookupSchema>, publisher: LookupPublisher) {
    let mut tried: Option<Fingerprint> = None;
    let mut loaded = false;
    // What was said last: the same reason is no news however often it is met.
    let mut said = String::new();
    loop {
        let now = Fingerprint::of(&settings.path);
        let changed = now.is_none() || now != tried;
        if changed {
            let (settings, schema) = (settings.clone(), Arc::clone(&schema));
            let result = tokio::task::spawn_blocking(move || load(&settings, &schema)).await;
            let result = result.unwrap_or_else(|e| Err(format!("loading failed: {e}")));
            match result {
                Ok(table) => {
                    tracing::info!(lookup = %name, rows = table.len(), "lookup loaded");
                    publisher.publish(Arc::new(table), SystemClock.now_us());
                    loaded = true;
                    said.clear();
                }
                Err(reason) => {
                    publisher.failed(&reason);
                    if said != reason {
                        tracing::warn!(lookup = %name, reason, kept = loaded, "lookup not loaded");
                        said = reason;
                    }
                }
            }
            // Noted as it was before reading: a change meanwhile is seen at the next look.
            tried = now;
        }
        match settings.refresh {
            None if loaded => return,
            refresh => tokio::time::sleep(refresh.filter(|_| loaded).unwrap_or(RETRY)).await,
        }
    }
}

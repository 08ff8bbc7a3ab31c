//! Lookups at run time: whoever loads the table publishes it, services take one snapshot per batch.
//!
//! A table is swapped as a whole. A service whose lookup was never loaded waits and says why; a failed refresh keeps the
//! table that is there.

use std::sync::Arc;

use millstream_event::Name;
use millstream_flow::{LookupSet, LookupTable};
use tokio::sync::watch;

/// Where a lookup's table is published.
#[derive(Debug)]
pub struct LookupPublisher {
    sender: watch::Sender<Slot>,
}

/// A lookup as services see it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LookupHandle {
    name: Name,
    slot: watch::Receiver<Slot>,
}

#[derive(Debug, Clone, Default)]
struct Slot {
    table: Option<Arc<LookupTable>>,
    fault: Option<Arc<str>>,
    loads: u64,
    loaded_at_us: Option<i64>,
}

/// How a lookup stands.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LookupStatus {
    /// Its name.
    pub name: Name,
    /// The number of rows; `None` while nothing was loaded.
    pub rows: Option<u64>,
    /// How often a table was published.
    pub loads: u64,
    /// When the table that is there was published, in microseconds since 1970.
    pub loaded_at_us: Option<i64>,
    /// Why the last load failed, where it did.
    pub fault: Option<String>,
}

impl LookupPublisher {
    /// A lookup without a table.
    pub fn new(name: Name) -> (Self, LookupHandle) {
        let (sender, slot) = watch::channel(Slot::default());
        (Self { sender }, LookupHandle { name, slot })
    }

    /// Swaps the table, read at this time (microseconds since 1970); the services' next batches see it.
    pub fn publish(&self, table: Arc<LookupTable>, at_us: i64) {
        self.sender.send_modify(|slot| {
            slot.table = Some(table);
            slot.fault = None;
            slot.loads += 1;
            slot.loaded_at_us = Some(at_us);
        });
    }

    /// Says that loading failed. The table that is there stays.
    pub fn failed(&self, reason: &str) {
        self.sender.send_modify(|slot| slot.fault = Some(reason.into()));
    }
}

impl LookupHandle {
    /// The lookup's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The table as it is now; `None` while nothing was loaded.
    pub fn table(&self) -> Option<Arc<LookupTable>> {
        self.slot.borrow().table.clone()
    }

    /// Waits until a table is there, or loading one has failed, with its reason.
    pub async fn tried(&self) -> Result<(), String> {
        let mut slot = self.slot.clone();
        let tried = slot.wait_for(|slot| slot.table.is_some() || slot.fault.is_some()).await;
        let tried = tried.map_err(|_| "nobody loads it".to_owned())?;
        match (&tried.table, &tried.fault) {
            (None, Some(fault)) => Err(fault.to_string()),
            _ => Ok(()),
        }
    }

    /// How it stands.
    pub fn status(&self) -> LookupStatus {
        let slot = self.slot.borrow();
        LookupStatus {
            name: self.name.clone(),
            rows: slot.table.as_ref().map(|t| t.len() as u64),
            loads: slot.loads,
            loaded_at_us: slot.loaded_at_us,
            fault: slot.fault.as_deref().map(str::to_owned),
        }
    }
}

/// All lookups of a service, with the snapshot of the last look.
pub(crate) struct Lookups {
    handles: Vec<LookupHandle>,
    set: LookupSet,
    complete: bool,
}

impl Lookups {
    pub(crate) fn new(handles: &[LookupHandle]) -> Self {
        let mut handles = handles.to_vec();
        for handle in &mut handles {
            handle.slot.mark_changed();
        }
        Self { complete: handles.is_empty(), handles, set: LookupSet::default() }
    }

    /// The tables as they are now, or the reason why one is missing.
    pub(crate) fn snapshot(&mut self) -> Result<&LookupSet, String> {
        // A publisher that is gone leaves its last table, so an error of `has_changed` means no change.
        let changed = self.handles.iter().any(|h| h.slot.has_changed().unwrap_or(false));
        if changed || !self.complete {
            self.complete = false;
            let mut tables = Vec::with_capacity(self.handles.len());
            for handle in &mut self.handles {
                let slot = handle.slot.borrow_and_update();
                match &slot.table {
                    Some(table) => tables.push((handle.name.clone(), Arc::clone(table))),
                    None => {
                        let why = slot.fault.as_deref().unwrap_or("it is being read");
                        return Err(format!("lookup `{}` has no table yet: {why}", handle.name));
                    }
                }
            }
            self.set = LookupSet::new(tables);
            self.complete = true;
        }
        Ok(&self.set)
    }

    /// Waits until a table or a reason changes. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        let waits = self.handles.iter_mut().map(|h| {
            Box::pin(async {
                if h.slot.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            })
        });
        let waits: Vec<_> = waits.collect();
        if waits.is_empty() {
            return std::future::pending().await;
        }
        futures::future::select_all(waits).await;
    }
}

//! Lookups at run time: whoever loads the table publishes it, services take one snapshot per batch.
//!
//! A table is swapped as a whole. A service whose lookup was never loaded waits and says why; a failed refresh keeps the
//! table that is there. With the table of a topic (see [`crate::TableLookup`]) comes how far that was read: a task commits it
//! with what it has made, and never goes on with a table that was read less far.

use std::sync::Arc;

use millstream_event::Name;
use millstream_flow::{LookupSet, LookupTable};
use millstream_log::{Consumed, Log, Position, TaskId};
use tokio::sync::watch;

use crate::table_lookup::{Past, Places, TableTopic, lookup_input};
use crate::task::Fault;

/// Where a lookup's table is published.
#[derive(Debug)]
pub struct LookupPublisher {
    sender: watch::Sender<Slot>,
}

/// A lookup as services see it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LookupHandle {
    name: Name,
    /// The table topic that it reads, if it does.
    topic: Option<TableTopic>,
    slot: watch::Receiver<Slot>,
}

#[derive(Debug, Clone, Default)]
struct Slot {
    table: Option<Arc<LookupTable>>,
    /// How far the topic was read for it.
    places: Option<Arc<Places>>,
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
    /// About how many bytes of memory its table takes.
    pub bytes: Option<u64>,
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
        (Self { sender }, LookupHandle { name, topic: None, slot })
    }

    /// A lookup of a table topic, without a table.
    pub(crate) fn of_table(name: Name, topic: TableTopic) -> (Self, LookupHandle) {
        let (publisher, handle) = Self::new(name);
        (publisher, LookupHandle { topic: Some(topic), ..handle })
    }

    /// Swaps the table, read at this time (microseconds since 1970); the services' next batches see it.
    pub fn publish(&self, table: Arc<LookupTable>, at_us: i64) {
        self.swap(table, at_us, None);
    }

    /// The same, of a topic that was read so far.
    pub(crate) fn publish_read(&self, table: Arc<LookupTable>, at_us: i64, places: Places) {
        self.swap(table, at_us, Some(Arc::new(places)));
    }

    fn swap(&self, table: Arc<LookupTable>, at_us: i64, places: Option<Arc<Places>>) {
        self.sender.send_modify(|slot| {
            slot.table = Some(table);
            slot.places = places;
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
            bytes: slot.table.as_ref().map(|t| t.bytes() as u64),
            loads: slot.loads,
            loaded_at_us: slot.loaded_at_us,
            fault: slot.fault.as_deref().map(str::to_owned),
        }
    }
}

/// All lookups of a task, with the snapshot of the last look.
pub(crate) struct Lookups {
    all: Vec<Seen>,
    set: LookupSet,
    complete: bool,
}

/// One lookup as a task knows it.
struct Seen {
    handle: LookupHandle,
    /// Of a table topic.
    read: Option<ReadSoFar>,
}

/// How far a task knows a topic.
struct ReadSoFar {
    /// Under which name its position stands.
    input: Name,
    /// The position that the task has handed over last.
    position: Option<Position>,
    /// The same, in places.
    least: Option<Places>,
    /// Those of the last snapshot.
    now: Option<Arc<Places>>,
}

impl ReadSoFar {
    async fn open(lookup: &Name, log: &dyn Log, task: &TaskId) -> Result<Self, Fault> {
        let input = lookup_input(lookup).map_err(|e| Fault::Failed(e.to_string()))?;
        let position = log.position(task, &input).await.map_err(|e| Fault::log(&e))?;
        Ok(Self { least: position.as_ref().and_then(Places::read), input, position, now: None })
    }

    /// Whether all that the task has met before is in what was read for `places`.
    fn fits(&self, places: Option<&Places>) -> bool {
        self.least.as_ref().is_none_or(|least| places.is_some_and(|places| places.covers(least)))
    }

    /// The move of the position to the last snapshot, if that is another one.
    fn moved(&mut self) -> Result<Option<Consumed>, Fault> {
        let Some(places) = self.now.take() else { return Ok(None) };
        // Of a topic that was not there nothing was read.
        if places.next.is_empty() {
            return Ok(None);
        }
        let to = places.position().map_err(Fault::Failed)?;
        if self.position.as_ref() == Some(&to) {
            return Ok(None);
        }
        let from = self.position.replace(to.clone());
        self.least = Some(Places::clone(&places));
        Ok(Some(Consumed { input: self.input.clone(), from, to }))
    }
}

impl Lookups {
    /// The lookups of a task, as far as it knew them when it last committed.
    pub(crate) async fn open(handles: &[LookupHandle], log: &dyn Log, task: &TaskId) -> Result<Self, Fault> {
        let mut all = Vec::with_capacity(handles.len());
        for handle in handles {
            let mut handle = handle.clone();
            handle.slot.mark_changed();
            let read = match &handle.topic {
                Some(_) => Some(ReadSoFar::open(&handle.name, log, task).await?),
                None => None,
            };
            all.push(Seen { handle, read });
        }
        Ok(Self { complete: all.is_empty(), all, set: LookupSet::default() })
    }

    /// The tables as they are now, or the reason why one is missing.
    pub(crate) fn snapshot(&mut self) -> Result<&LookupSet, String> {
        // A publisher that is gone leaves its last table, so an error of `has_changed` means no change.
        let changed = self.all.iter().any(|seen| seen.handle.slot.has_changed().unwrap_or(false));
        if changed || !self.complete {
            (self.complete, self.set) = (false, LookupSet::default());
            let mut tables = Vec::with_capacity(self.all.len());
            for Seen { handle, read } in &mut self.all {
                let slot = handle.slot.borrow_and_update();
                let Some(table) = &slot.table else {
                    let why = slot.fault.as_deref().unwrap_or("it is being read");
                    return Err(format!("lookup `{}` has no table yet: {why}", handle.name));
                };
                if let Some(read) = read {
                    if !read.fits(slot.places.as_deref()) {
                        return Err(format!("lookup `{}` is being read up to where it was", handle.name));
                    }
                    read.now.clone_from(&slot.places);
                }
                tables.push((handle.name.clone(), Arc::clone(table)));
            }
            self.set = LookupSet::new(tables);
            self.complete = true;
        }
        Ok(&self.set)
    }

    /// How far topics were read for the last snapshot, where that is further than what was handed over before: it belongs
    /// to the commit of what met that snapshot.
    pub(crate) fn moved(&mut self) -> Result<Vec<Consumed>, Fault> {
        let reads = self.all.iter_mut().filter_map(|seen| seen.read.as_mut());
        reads.filter_map(|read| read.moved().transpose()).collect()
    }

    /// Whether any of them is a table topic.
    pub(crate) fn has_tables(&self) -> bool {
        self.all.iter().any(|seen| seen.read.is_some())
    }

    /// The tables of topics as they were before the events that are kept, up to where the task had read them.
    pub(crate) async fn past(&self, log: &dyn Log) -> Result<Past, Fault> {
        let table = |seen: &'_ Seen| Some((seen.handle.name.clone(), seen.handle.topic.clone()?));
        let met = |seen: &Seen| seen.read.as_ref().and_then(|read| read.least.clone());
        let tables = self.all.iter().filter_map(|seen| Some((table(seen)?, met(seen))));
        Past::open(tables.collect(), log).await
    }

    /// Lets go of the snapshot, so that a task without work holds no tables that have been replaced.
    pub(crate) fn let_go(&mut self) {
        if self.has_tables() {
            (self.complete, self.set) = (false, LookupSet::default());
        }
    }

    /// Waits until a table or a reason changes. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        let waits = self.all.iter_mut().map(|seen| {
            Box::pin(async {
                if seen.handle.slot.changed().await.is_err() {
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

//! A log and a store that lose a commit at a chosen place, as a crash would.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use millstream_connect::PostgresState;
use millstream_connect::event::{Name, Offset, TopicPartition};
use millstream_connect::service::log::{
    Commit, Error as LogError, Join, Log, Membership, MemoryLog, Outcome, Pending, Position, Reader, Task, TaskId,
    TopicInfo, TopicSpec,
};
use millstream_connect::service::{
    ConnectError, Owner, StateChanges, StateRow, StateStore, StoreError, StoredRows, StoredState,
};

/// Where a commit is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The database never hears of it.
    BeforeStore,
    /// The database has it, and the task does not learn so.
    AfterStore,
    /// The database has it, the log never hears of it.
    BeforeLog,
    /// Both have it, and the task does not learn so.
    AfterLog,
}

/// Loses every `every`-th commit at each of its places.
#[derive(Debug)]
pub(crate) struct Faults {
    pub(crate) places: Vec<Place>,
    pub(crate) every: u64,
    stores: AtomicU64,
    commits: AtomicU64,
    pub(crate) lost: AtomicU64,
}

impl Faults {
    pub(crate) fn new(places: &[Place], every: u64) -> Arc<Self> {
        Arc::new(Self {
            places: places.to_vec(),
            every,
            stores: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        })
    }

    fn meets(&self, count: &AtomicU64, places: [Place; 2]) -> Option<Place> {
        let n = count.fetch_add(1, Ordering::AcqRel) + 1;
        let known: Vec<Place> = self.places.iter().copied().filter(|place| places.contains(place)).collect();
        if known.is_empty() || !n.is_multiple_of(self.every) {
            return None;
        }
        self.lost.fetch_add(1, Ordering::AcqRel);
        Some(known[(n / self.every) as usize % known.len()])
    }
}

pub(crate) struct FaultyLog {
    pub(crate) inner: Arc<MemoryLog>,
    pub(crate) faults: Arc<Faults>,
}

impl Log for FaultyLog {
    fn commit(&self, commit: Commit) -> Pending {
        let of_store = commit.consumed.iter().any(|c| c.input.as_str() == "__outbox");
        let met =
            if of_store { self.faults.meets(&self.faults.commits, [Place::BeforeLog, Place::AfterLog]) } else { None };
        match met {
            None => self.inner.commit(commit),
            Some(Place::AfterLog) => {
                drop(self.inner.commit(commit));
                Pending::ready(Outcome::Unknown("injected: it happened".into()))
            }
            Some(_) => Pending::ready(Outcome::Unknown("injected: it did not happen".into())),
        }
    }
    fn create_topic(&self, spec: TopicSpec) -> BoxFuture<'_, Result<TopicInfo, LogError>> {
        self.inner.create_topic(spec)
    }
    fn topics(&self) -> Vec<TopicInfo> {
        self.inner.topics()
    }
    fn topic(&self, name: &Name) -> Option<TopicInfo> {
        self.inner.topic(name)
    }
    fn read(&self, at: &TopicPartition, from: Offset) -> Result<Box<dyn Reader>, LogError> {
        self.inner.read(at, from)
    }
    fn join(&self, join: Join) -> Result<Box<dyn Membership>, LogError> {
        self.inner.join(join)
    }
    fn restart(&self, task: &Task) -> BoxFuture<'_, Result<Option<Task>, LogError>> {
        self.inner.restart(task)
    }
    fn position(&self, task: &TaskId, input: &Name) -> BoxFuture<'_, Result<Option<Position>, LogError>> {
        self.inner.position(task, input)
    }
    fn start(&self, at: &TopicPartition) -> BoxFuture<'_, Result<Offset, LogError>> {
        self.inner.start(at)
    }
    fn end(&self, at: &TopicPartition) -> BoxFuture<'_, Result<Offset, LogError>> {
        self.inner.end(at)
    }
    fn trim(&self, at: &TopicPartition, before: Offset) -> BoxFuture<'_, Result<(), LogError>> {
        self.inner.trim(at, before)
    }
    fn stopped(&self) -> Option<String> {
        self.inner.stopped()
    }
    fn close(&self) -> BoxFuture<'_, Result<(), LogError>> {
        self.inner.close()
    }
}

pub(crate) struct FaultyStore {
    pub(crate) inner: PostgresState,
    pub(crate) faults: Arc<Faults>,
}

struct FaultyState {
    inner: Box<dyn StoredState>,
    faults: Arc<Faults>,
}

impl StateStore for FaultyStore {
    fn place(&self) -> String {
        self.inner.place()
    }

    fn connect<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<Box<dyn StoredState>, StoreError>> {
        Box::pin(async move {
            let inner = self.inner.connect(task).await?;
            Ok(Box::new(FaultyState { inner, faults: Arc::clone(&self.faults) }) as Box<dyn StoredState>)
        })
    }

    fn look<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<Option<Box<dyn StoredRows>>, StoreError>> {
        self.inner.look(task)
    }
}

impl StoredRows for FaultyState {
    fn rows(&mut self) -> BoxFuture<'_, Result<Vec<StateRow>, StoreError>> {
        self.inner.rows()
    }
}

impl Faults {
    /// What is done to the store, unless this is the time that it is lost or not told.
    async fn meet(&self, work: impl Future<Output = Result<(), StoreError>>) -> Result<(), StoreError> {
        let lost = || Err(ConnectError::temporary("injected").into());
        match self.meets(&self.stores, [Place::BeforeStore, Place::AfterStore]) {
            None => work.await,
            Some(Place::BeforeStore) => lost(),
            Some(_) => {
                work.await?;
                lost()
            }
        }
    }
}

impl StoredState for FaultyState {
    fn staged(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        self.inner.staged()
    }

    fn own(&mut self, owner: Owner) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        self.inner.own(owner)
    }

    fn store<'a>(
        &'a mut self,
        changes: &'a StateChanges<'a>,
        staged: &'a [u8],
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.faults.meet(self.inner.store(changes, staged)))
    }

    fn void<'a>(&'a mut self, staged: &'a [u8]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.faults.meet(self.inner.void(staged)))
    }
}

//! A small log that counts: each commit appends some numbers and moves a position by as many.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use millstream_backup::log::backup::Source;
use millstream_backup::log::conformance::kit::all;
use millstream_backup::log::conformance::kit::{append, commit, consumed, offset, ok, one, topic};
use millstream_backup::log::{EmbeddedLog, EmbeddedOptions, Log, Membership, Task};
use millstream_backup::{Backup, Done, Error, Place, Store, choose, restore};

/// The pipeline's name.
pub(crate) const NAME: &str = "counting";

pub(crate) struct Bed {
    /// Goes with it.
    _own: Option<tempfile::TempDir>,
    pub(crate) root: PathBuf,
    pub(crate) store: Store,
    clock: AtomicI64,
}

/// A log that is open, with its one task.
pub(crate) struct Open {
    pub(crate) log: Arc<EmbeddedLog>,
    dynamic: Arc<dyn Log>,
    task: Task,
    next: u64,
    _member: Box<dyn Membership>,
}

pub(crate) fn options(dir: &Path) -> EmbeddedOptions {
    EmbeddedOptions { segment_bytes: 64 << 10, reserve_bytes: 0, ..EmbeddedOptions::new(dir) }
}

impl Bed {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(format!("file://{}", dir.path().join("store").display()));
        Self::at(dir, &place)
    }

    pub(crate) fn at(dir: tempfile::TempDir, place: &Place) -> Self {
        let store = Store::open(place, true).unwrap();
        Self { root: dir.path().to_owned(), _own: Some(dir), store, clock: AtomicI64::new(1_800_000_000_000_000) }
    }

    /// The bed of another process.
    pub(crate) fn below(root: &Path) -> Self {
        let store = Store::open(&Place::new(format!("file://{}", root.join("store").display())), true).unwrap();
        Self { _own: None, root: root.to_owned(), store, clock: AtomicI64::new(1_800_000_000_000_000) }
    }

    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) async fn open(&self, name: &str) -> Open {
        Open::at(&self.data(name)).await
    }

    /// The next moment, one second after the one before.
    pub(crate) fn now(&self) -> i64 {
        self.clock.fetch_add(1_000_000, Ordering::Relaxed)
    }

    pub(crate) fn backup(&self, open: &Open, keep: usize) -> Backup {
        Backup::new(&self.store, Source::of(&open.log), NAME, keep)
    }

    pub(crate) async fn round(&self, backup: &mut Backup) -> Result<Done, Error> {
        backup.round(vec![("paused.json".into(), b"[]".to_vec())], self.now()).await
    }

    /// Restores, opens, and answers how many numbers there are.
    pub(crate) async fn restored(&self, at_us: Option<i64>, name: &str) -> Result<u64, Error> {
        let chosen = choose(&self.store, NAME, at_us, None).await?;
        let told = restore(&self.store, &chosen, &self.data(name), |_| {}).await?;
        assert_eq!(std::fs::read(self.data(name).join("paused.json")).unwrap(), b"[]");
        let open = self.open(name).await;
        let count = open.count().await;
        assert_eq!(told.events, count);
        Ok(count)
    }

    /// All folders of a directory store.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        let (mut at, mut found) = (0, vec![self.data("store")]);
        while let Some(dir) = found.get(at).cloned() {
            let entries = std::fs::read_dir(dir).unwrap().flatten();
            found.extend(entries.filter(|entry| entry.file_type().unwrap().is_dir()).map(|entry| entry.path()));
            at += 1;
        }
        found
    }

    /// All files of a directory store.
    pub(crate) fn objects(&self) -> Vec<PathBuf> {
        let (mut left, mut files) = (vec![self.data("store")], Vec::new());
        while let Some(dir) = left.pop() {
            for entry in std::fs::read_dir(dir).unwrap().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    left.push(entry.path());
                } else {
                    files.push(entry.path());
                }
            }
        }
        files.sort();
        files
    }
}

impl Open {
    async fn at(dir: &Path) -> Self {
        let log = Arc::new(EmbeddedLog::open(options(dir)).unwrap());
        let dynamic: Arc<dyn Log> = log.clone();
        topic(&dynamic, "numbers", 1).await;
        let (member, task) = one(&dynamic, "counter").await;
        let next = offset(&dynamic, &task, "in").await.unwrap_or(0);
        Self { log, dynamic, task, next, _member: member }
    }

    /// Commits so often, 50 numbers each time.
    pub(crate) async fn add(&mut self, commits: u64) {
        for _ in 0..commits {
            let numbers: Vec<i64> = (self.next..self.next + 50).map(|n| n as i64).collect();
            let from = (self.next > 0).then_some(self.next);
            let moved = consumed("in", from, self.next + 50);
            let done = commit(&self.task, vec![moved], vec![append("numbers", 0, &numbers)]);
            ok(self.dynamic.commit(done)).await;
            self.next += 50;
        }
    }

    /// Waits until what is full is settled.
    pub(crate) fn settle(&self) {
        while self.log.waiting_to_settle() > 0 {
            std::thread::yield_now();
        }
    }

    /// How many numbers there are; they are all that the position says, in order.
    pub(crate) async fn count(&self) -> u64 {
        let numbers = all(&self.dynamic, "numbers", 0).await;
        assert!(numbers.iter().enumerate().all(|(i, n)| i as i64 == *n), "numbers are whole and in order");
        assert_eq!(numbers.len() as u64, self.next, "the position agrees with the numbers");
        self.next
    }
}

//! Tables where room is short: what was superseded makes room before sources are refused for good.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millstream_event::PartitionId;
use millstream_log::conformance::kit::*;
use millstream_log::vfs::sim::SimVfs;
use millstream_log::vfs::{DirEntry, File, Lock, LockError, OpenOptions, Vfs};
use millstream_log::{AbortReason, Append, Class, EmbeddedLog, EmbeddedOptions, Log, Outcome, TopicSpec};

use crate::rig::{disk, options, run};

const PARTITIONS: u32 = 8;
const MAX_BYTES: u64 = 4 << 20;

/// Updates of so many keys in each partition, until `all` bytes went in; whatever is refused is tried again.
fn update_without_end(settings: EmbeddedOptions, keys: i64, all: u64) {
    let log = Arc::new(EmbeddedLog::open(settings).unwrap());
    let shared: Arc<dyn Log> = log.clone();
    run(async {
        shared.create_topic(TopicSpec { partitions: PARTITIONS, ..table("t", &[]) }).await.unwrap();
        let (_m, mut task) = one(&shared, "s").await;
        let (mut bytes, mut round, mut refused) = (0, 0i64, 0);
        let mut last = Instant::now();
        while bytes < all {
            let text = |key: i64| Some(format!("{:0>60}", key.wrapping_mul(round + 7919) as u64));
            let some = (0..50).map(|i| (round * 50 + i) % keys);
            let rows: Vec<_> = some.map(|key| (key, text(key))).collect();
            let appends = (0..PARTITIONS).map(|p| Append { partition: PartitionId(p), ..changes("t", &rows) });
            let mut next = commit(&task, vec![], appends.collect());
            next.class = Class::Intake;
            match shared.commit(next).await {
                Outcome::Committed(_) => {
                    bytes += u64::from(PARTITIONS) * 50 * 76;
                    round += 1;
                    last = Instant::now();
                }
                Outcome::Aborted(AbortReason::DiskFull(why)) => {
                    refused += 1;
                    assert!(last.elapsed() < DEADLINE / 3, "refused for ever: {why}; {:?}", log.counts());
                    task = shared.restart(&task).await.unwrap().unwrap();
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                other => panic!("{other:?}"),
            }
        }
        println!("{refused} refusals, {:?}", log.counts());
        assert!(log.counts().compacted_bytes > 0);
    });
}

/// The default floor of each partition is more than the log may have.
fn settings() -> EmbeddedOptions {
    let vfs = disk();
    EmbeddedOptions {
        max_bytes: Some(MAX_BYTES),
        segment_bytes: 256 << 10,
        compact_bytes: EmbeddedOptions::new("x").compact_bytes,
        ..options(&vfs)
    }
}

#[test]
fn superseded_rows_of_small_tables_never_fill_what_the_log_may_have() {
    update_without_end(settings(), 50, 5 * MAX_BYTES);
}

#[test]
fn superseded_rows_of_tables_that_fill_half_of_it_never_fill_the_rest() {
    // 8 partitions of 2,000 keys of some 130 bytes.
    update_without_end(settings(), 2_000, 5 * MAX_BYTES);
}

/// A disk that has no space to spare, or does not read settled files, while somebody says so.
#[derive(Debug, Clone, Default)]
struct Sick {
    vfs: SimVfs,
    no_space: Arc<AtomicBool>,
    unreadable: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
}

impl Vfs for Sick {
    fn open(&self, path: &Path, options: OpenOptions) -> io::Result<Arc<dyn File>> {
        if !options.write && path.starts_with("/log/topics") && self.unreadable.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(io::Error::other("input/output error"));
        }
        self.vfs.open(path, options)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.vfs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.vfs.remove(path)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.vfs.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.vfs.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.vfs.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Lock>, LockError> {
        self.vfs.lock(path)
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        if self.no_space.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Ok(10 << 10);
        }
        self.vfs.free_space(dir)
    }
}

/// Updates a table on a sick disk until a compaction was held up some times, and then until one has ended.
fn compaction_waits_for(disk: &Sick, sick: &AtomicBool) {
    let log =
        Arc::new(EmbeddedLog::open(EmbeddedOptions { vfs: Arc::new(disk.clone()), ..options(&disk.vfs) }).unwrap());
    let shared: Arc<dyn Log> = log.clone();
    run(async {
        shared.create_topic(table("t", &[])).await.unwrap();
        let (_m, task) = one(&shared, "s").await;
        sick.store(true, Ordering::SeqCst);
        let (begun, mut contents, mut step) = (Instant::now(), Contents::new(), 0);
        while disk.refused.load(Ordering::SeqCst) < 4 || log.counts().compacted_bytes == 0 {
            assert!(begun.elapsed() < DEADLINE, "{} refusals, {:?}", disk.refused.load(Ordering::SeqCst), log.counts());
            let rows: Vec<_> = (0..40).map(|key| (key, Some(format!("step {step}, {key}")))).collect();
            put(&shared, &task, vec![], vec![changes("t", &rows)]).await;
            change(&mut contents, rows);
            step += 1;
            if disk.refused.load(Ordering::SeqCst) >= 4 && sick.load(Ordering::SeqCst) {
                assert_eq!(log.counts().compacted_bytes, 0, "it was begun");
                sick.store(false, Ordering::SeqCst);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(shared.stopped(), None);
        assert_eq!(whole_table(&shared, "t").await.unwrap().0, contents);
    });
}

#[test]
fn without_space_for_a_second_copy_no_compaction_begins() {
    let sick = Sick { vfs: disk(), ..Sick::default() };
    compaction_waits_for(&sick, &sick.no_space);
}

#[test]
fn a_compaction_that_cannot_read_stops_nobody_and_is_tried_again() {
    let sick = Sick { vfs: disk(), ..Sick::default() };
    compaction_waits_for(&sick, &sick.unreadable);
}

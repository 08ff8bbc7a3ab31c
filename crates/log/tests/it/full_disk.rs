//! A full disk, simulated and real: sources are refused with a clear word, what is on its way goes on, nothing that was
//! acknowledged is lost, and when there is space again the log goes on by itself.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millstream_log::conformance::kit::*;
use millstream_log::vfs::sim::{Rng, SimVfs};
use millstream_log::vfs::{DirEntry, File, Lock, LockError, OpenOptions, Vfs};
use millstream_log::{AbortReason, Class, EmbeddedLog, EmbeddedOptions, Log, Outcome, Task};

use crate::flips::{PLAN, closed_log};
use crate::rig::{Witness, disk, find, options, run, work};

/// A disk on which there is no space for settled events, while somebody says so.
#[derive(Debug, Clone)]
struct NoSettling {
    vfs: SimVfs,
    full: Arc<AtomicBool>,
    /// Whoever settles waits.
    held: Arc<AtomicBool>,
}

impl NoSettling {
    fn on(vfs: &SimVfs) -> Self {
        Self { vfs: vfs.clone(), full: Arc::default(), held: Arc::default() }
    }

    fn judge(&self, path: &Path) -> io::Result<()> {
        if !path.components().any(|part| part.as_os_str() == "topics") {
            return Ok(());
        }
        while self.held.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.full.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Vfs for NoSettling {
    fn open(&self, path: &Path, options: OpenOptions) -> io::Result<Arc<dyn File>> {
        if options.write {
            self.judge(path)?;
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
        self.judge(dir)?;
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
        self.vfs.free_space(dir)
    }
}

/// A source that numbers its events and remembers which were acknowledged.
struct Source {
    task: Task,
    rng: Rng,
    acknowledged: Vec<i64>,
}

impl Source {
    /// Hands some events in; `Err` with the words of a refusal because the disk is full.
    async fn put(&mut self, log: &Arc<dyn Log>, class: Class) -> Result<(), String> {
        let numbers: Vec<i64> = (0..100).map(|_| (self.rng.next_u64() >> 1) as i64).collect();
        let mut commit = commit(&self.task, vec![], vec![append("t", 0, &numbers)]);
        commit.class = class;
        match log.commit(commit).await {
            Outcome::Committed(_) => {
                self.acknowledged.extend(numbers);
                Ok(())
            }
            Outcome::Aborted(reason @ AbortReason::DiskFull(_)) => {
                self.task = log.restart(&self.task).await.unwrap().unwrap();
                Err(reason.to_string())
            }
            other => panic!("{other:?}; stopped: {:?}", log.stopped()),
        }
    }

    async fn put_until(&mut self, log: &Arc<dyn Log>, refused: bool) -> Option<String> {
        let begun = Instant::now();
        loop {
            let words = self.put(log, Class::Intake).await.err();
            if words.is_some() == refused {
                return words;
            }
            assert!(begun.elapsed() < DEADLINE, "for {DEADLINE:?} the answer was {words:?}");
            if !refused {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }
}

/// Fills the disk, sees it refuse, makes room, sees it go on; then everything acknowledged is there, also after opening.
async fn fill_and_free(settings: EmbeddedOptions, fill: impl FnOnce(), free: impl FnOnce()) {
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(settings.clone()).unwrap());
    topic(&log, "t", 1).await;
    let (member, task) = one(&log, "source").await;
    let mut source = Source { task, rng: Rng::new(1), acknowledged: Vec::new() };
    fill();
    let words = source.put_until(&log, true).await.unwrap();
    assert!(words.starts_with("the disk is full ("), "{words}");
    assert_eq!(log.stopped(), None);
    // The reserve is for what is on its way.
    source.put(&log, Class::Processing).await.unwrap();
    assert_eq!(all(&log, "t", 0).await, source.acknowledged);
    free();
    source.put_until(&log, false).await;
    for _ in 0..10 {
        source.put_until(&log, false).await;
    }
    assert_eq!(all(&log, "t", 0).await, source.acknowledged);
    log.close().await.unwrap();
    drop((member, log));
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(settings).unwrap());
    assert_eq!(all(&log, "t", 0).await, source.acknowledged);
}

#[test]
fn no_space_to_settle_refuses_sources_and_settling_goes_on_by_itself() {
    let vfs = disk();
    let settling = NoSettling::on(&vfs);
    let full = Arc::clone(&settling.full);
    let settings = EmbeddedOptions { vfs: Arc::new(settling), ..options(&vfs) };
    run(fill_and_free(settings, || full.store(true, Ordering::SeqCst), || full.store(false, Ordering::SeqCst)));
    assert!(vfs.files().iter().any(|(path, len)| path.starts_with("/log/topics") && *len > 0), "it settled in the end");
}

#[test]
fn sources_wait_while_settling_is_behind_and_the_rest_goes_on() {
    let vfs = disk();
    let settling = NoSettling::on(&vfs);
    let held = Arc::clone(&settling.held);
    let settings = EmbeddedOptions { vfs: Arc::new(settling), ..options(&vfs) };
    run(async {
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(settings.clone()).unwrap());
        topic(&log, "t", 1).await;
        let (_member, task) = one(&log, "source").await;
        let mut source = Source { task, rng: Rng::new(1), acknowledged: Vec::new() };
        held.store(true, Ordering::SeqCst);
        // As many segments as may wait are full at some time.
        let mut commits = 0;
        let waits = loop {
            let before = source.acknowledged.len();
            let put = source.put(&log, Class::Intake);
            if tokio::time::timeout(Duration::from_millis(500), put).await.is_err() {
                break before;
            }
            commits += 1;
            assert!(commits < 10_000, "a source never waits");
        };
        let (_other, task) = one(&log, "service").await;
        let mut service = Source { task, rng: Rng::new(2), acknowledged: Vec::new() };
        for _ in 0..200 {
            service.put(&log, Class::Processing).await.unwrap();
        }
        let (seen, written) = (all(&log, "t", 0).await, service.acknowledged.len());
        assert_eq!(seen.len(), waits + written, "the source's last commit waits, and 200 of a service went past it");
        held.store(false, Ordering::SeqCst);
        // Its answer was not waited for, but it goes through as the next one does.
        source.put(&log, Class::Intake).await.unwrap();
        assert_eq!(all(&log, "t", 0).await.len(), waits + written + 200);
        log.close().await.unwrap();
        drop(log);
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(settings).unwrap());
        assert_eq!(all(&log, "t", 0).await.len(), waits + written + 200);
    });
}

#[test]
fn sources_that_wait_for_settling_are_refused_when_that_finds_no_space() {
    let vfs = disk();
    let settling = NoSettling::on(&vfs);
    let (held, full) = (Arc::clone(&settling.held), Arc::clone(&settling.full));
    let settings = EmbeddedOptions { vfs: Arc::new(settling), ..options(&vfs) };
    run(async {
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(settings).unwrap());
        topic(&log, "t", 1).await;
        let (_member, task) = one(&log, "source").await;
        let mut source = Source { task, rng: Rng::new(1), acknowledged: Vec::new() };
        held.store(true, Ordering::SeqCst);
        let waiting = loop {
            let mut put = Box::pin(source.put(&log, Class::Intake));
            if tokio::time::timeout(Duration::from_millis(500), &mut put).await.is_err() {
                break put;
            }
            drop(put);
        };
        // Nobody else has anything to write, and the last word is said.
        full.store(true, Ordering::SeqCst);
        held.store(false, Ordering::SeqCst);
        let outcome = tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it is told");
        assert!(outcome.is_err(), "it was written");
        full.store(false, Ordering::SeqCst);
    });
}

#[test]
fn a_simulated_disk_that_is_full_is_waited_for() {
    let vfs = disk();
    let settings = options(&vfs);
    run(fill_and_free(settings, || vfs.set_capacity(Some(512 << 10)), || vfs.set_capacity(None)));
}

/// A small file system in memory, gone when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, loudly, where mounting is not permitted.
    fn mount(bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={bytes},mode=0700");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).output();
        let why = match done {
            Ok(output) if output.status.success() => return Some(Self(dir)),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        // Not through `eprintln`, which a test that passes keeps to itself.
        let left_out = format!("LEFT OUT, a real full disk: no file system can be mounted here ({why})\n");
        io::stderr().write_all(left_out.as_bytes()).unwrap();
        None
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(self.0.path()).output());
    }
}

#[test]
fn a_real_disk_that_is_full_is_waited_for() {
    let Some(disk) = SmallDisk::mount(8 << 20) else { return };
    let ballast = disk.path("ballast");
    std::fs::write(&ballast, vec![1; 2 << 20]).unwrap();
    let settings = EmbeddedOptions {
        segment_bytes: 512 << 10,
        reserve_bytes: 256 << 10,
        tail_cache_bytes: 64 << 10,
        tidy_every: Duration::from_millis(20),
        ..EmbeddedOptions::new(disk.path("log"))
    };
    run(fill_and_free(settings, || {}, || std::fs::remove_file(&ballast).unwrap()));
}

#[test]
fn a_log_on_a_real_full_disk_opens_again() {
    let Some(disk) = SmallDisk::mount(4 << 20) else { return };
    let settings = EmbeddedOptions {
        segment_bytes: 256 << 10,
        reserve_bytes: 256 << 10,
        tidy_every: Duration::from_millis(20),
        ..EmbeddedOptions::new(disk.path("log"))
    };
    run(async {
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(settings.clone()).unwrap());
        topic(&log, "t", 1).await;
        let (member, task) = one(&log, "source").await;
        let mut source = Source { task, rng: Rng::new(1), acknowledged: Vec::new() };
        source.put_until(&log, true).await.unwrap();
        drop((member, log));
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(settings).unwrap());
        assert_eq!(all(&log, "t", 0).await, source.acknowledged);
    });
}

#[test]
fn a_log_on_a_full_disk_opens_although_its_checkpoint_needs_another_copy() {
    let (vfs, want) = closed_log();
    vfs.remove(Path::new("/log/checkpoint.copy")).unwrap();
    assert!(vfs.files().iter().any(|(path, len)| path.ends_with("journal/reserve") && *len > 0));
    vfs.set_capacity(Some(vfs.used()));
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(options(&vfs)).unwrap());
    assert_eq!(run(find(&log, PLAN.tasks)).unwrap(), want);
    // Settling replaces both, one after the other.
    run(log.close()).unwrap();
    assert_eq!(vfs.content(Path::new("/log/checkpoint.copy")), vfs.content(Path::new("/log/checkpoint")));
}

/// Leaves no space on the disk, and neither a reserve nor segments to be used again.
fn fill_without_reserve(vfs: &SimVfs) {
    let of_nobody = |path: &Path| path.starts_with("/log/journal") && path.extension().is_none_or(|e| e != "seg");
    for (path, _) in vfs.files().into_iter().filter(|(path, _)| of_nobody(path)) {
        vfs.remove(&path).unwrap();
    }
    vfs.set_capacity(Some(vfs.used()));
}

fn segments(vfs: &SimVfs) -> impl Iterator<Item = PathBuf> {
    vfs.files().into_iter().map(|(path, _)| path).filter(|path| path.extension().is_some_and(|e| e == "seg"))
}

#[test]
fn a_full_disk_without_reserve_has_the_space_of_a_pass_that_did_not_end() {
    let vfs = disk();
    // Its segments have nothing behind their groups.
    let log = EmbeddedLog::open(EmbeddedOptions { prepare_ahead: false, ..options(&vfs) }).unwrap();
    let log = Arc::new(log);
    let (mut witness, shared) = (Witness::default(), Arc::clone(&log) as Arc<dyn Log>);
    let want = run(async {
        work(&shared, PLAN, &mut witness).await;
        let want = find(&shared, PLAN.tasks).await.unwrap();
        while !log.is_at_rest() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        shared.close().await.unwrap();
        want
    });
    assert_eq!(witness.refusals, Vec::<String>::new());
    let vfs = vfs.copy();
    fill_without_reserve(&vfs);
    let refused = EmbeddedLog::open(options(&vfs)).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(refused.contains("space"), "there is space: {refused:?}");
    vfs.set_capacity(None);
    let settled = vfs.files().into_iter().rfind(|(path, _)| path.starts_with("/log/topics")).unwrap().0;
    let (bytes, another) = (vfs.content(&settled).unwrap(), settled.with_file_name("00000000000009999999.ev"));
    // It had begun another file, or gone on in the last one.
    for (left, content) in [(&another, vec![1; 64 << 10]), (&settled, [&bytes[..], &[1; 64 << 10]].concat())] {
        let vfs = vfs.copy();
        vfs.put(left, &content);
        fill_without_reserve(&vfs);
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(options(&vfs)).unwrap());
        assert_eq!(run(find(&log, PLAN.tasks)).unwrap(), want);
        assert!(vfs.content(&another).is_none() && vfs.content(&settled).unwrap().starts_with(&bytes));
    }
}

#[test]
fn a_full_disk_without_reserve_has_the_space_behind_the_last_group() {
    let vfs = disk();
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(options(&vfs)).unwrap());
    let mut witness = Witness::default();
    run(work(&log, PLAN, &mut witness));
    assert_eq!(witness.refusals, Vec::<String>::new());
    let want = run(find(&log, PLAN.tasks)).unwrap();
    drop(log);
    let vfs = vfs.copy();
    let last = segments(&vfs).last().unwrap();
    let prepared = [vfs.content(&last).unwrap(), vec![0; 16 << 10]].concat();
    vfs.put(&last, &prepared);
    fill_without_reserve(&vfs);
    let before = vfs.used();
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(options(&vfs)).unwrap());
    assert!(vfs.used() <= before);
    assert_eq!(run(find(&log, PLAN.tasks)).unwrap(), want);
}

//! A disk that cannot read some files any more: what stands elsewhere as well is taken from there.

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use millstream_log::vfs::sim::SimVfs;
use millstream_log::vfs::{DirEntry, File, Lock, LockError, OpenOptions, Vfs};
use millstream_log::{EmbeddedLog, EmbeddedOptions, Log, repair, verify};

use crate::flips::{PLAN, closed_log};
use crate::rig::{Found, find, options, run};

/// A disk with bad sectors under some files. Another file that gets the name of one is sound.
#[derive(Debug, Clone)]
struct BadSectors {
    vfs: SimVfs,
    bad: Arc<Mutex<BTreeSet<PathBuf>>>,
}

#[derive(Debug)]
struct BadFile(Arc<dyn File>);

impl File for BadFile {
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Err(io::Error::other("input/output error"))
    }

    fn write_vectored_at(&self, from: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.0.write_vectored_at(from, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

impl Vfs for BadSectors {
    fn open(&self, path: &Path, options: OpenOptions) -> io::Result<Arc<dyn File>> {
        let file = self.vfs.open(path, options)?;
        if self.bad.lock().unwrap().contains(path) { Ok(Arc::new(BadFile(file))) } else { Ok(file) }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.vfs.rename(from, to)?;
        let mut bad = self.bad.lock().unwrap();
        bad.remove(to);
        if bad.remove(from) {
            bad.insert(to.to_owned());
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.vfs.remove(path)?;
        self.bad.lock().unwrap().remove(path);
        Ok(())
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
        self.vfs.free_space(dir)
    }
}

/// A closed log of which this file cannot be read, and what is in it.
fn bad(path: &str) -> (EmbeddedOptions, SimVfs, Found) {
    let (vfs, want) = closed_log();
    let bad = Arc::new(Mutex::new(BTreeSet::from([PathBuf::from(path)])));
    (EmbeddedOptions { vfs: Arc::new(BadSectors { vfs: vfs.clone(), bad }), ..options(&vfs) }, vfs, want)
}

fn found(settings: &EmbeddedOptions) -> Found {
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(settings.clone()).unwrap());
    run(find(&log, PLAN.tasks)).unwrap()
}

#[test]
fn a_copy_that_cannot_be_read_is_made_anew_by_opening() {
    let (settings, _, want) = bad("/log/checkpoint.copy");
    assert!(!verify(&settings).unwrap().is_sound());
    assert_eq!(found(&settings), want);
    assert!(verify(&settings).unwrap().is_sound());
}

#[test]
fn a_repair_makes_a_copy_that_cannot_be_read_anew_and_says_what_it_could_not_keep() {
    let (settings, _, want) = bad("/log/checkpoint.copy");
    let report = repair(&settings, true).unwrap();
    assert_eq!(report.lost, []);
    assert!(report.notes.iter().any(|note| note.contains("cannot be read")), "{:?}", report.notes);
    assert!(verify(&settings).unwrap().is_sound());
    assert_eq!(found(&settings), want);
}

#[test]
fn a_checkpoint_that_cannot_be_read_is_taken_from_its_copy() {
    let (settings, _, want) = bad("/log/checkpoint");
    assert!(EmbeddedLog::open(settings.clone()).is_err());
    let report = repair(&settings, true).unwrap();
    assert_eq!(report.lost, []);
    assert!(verify(&settings).unwrap().is_sound());
    assert_eq!(found(&settings), want);
}

#[test]
fn a_settled_file_that_cannot_be_read_is_moved_out_and_the_log_opens() {
    let (_, vfs, _) = bad("");
    let path = vfs.files().into_iter().map(|(path, _)| path).find(|path| path.starts_with("/log/topics")).unwrap();
    let (settings, vfs, _) = bad(path.to_str().unwrap());
    let report = repair(&settings, true).unwrap();
    assert!(!report.lost.is_empty());
    assert!(vfs.files().iter().any(|(path, _)| path.starts_with("/log/damaged")));
    assert!(verify(&settings).unwrap().is_sound());
    found(&settings);
}

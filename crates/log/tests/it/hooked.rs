//! A disk whose calls a test sees before they are carried out: to refuse one, to cut the power at it, to hold a thread up.

use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millstream_log::vfs::sim::{Op, SimVfs};
use millstream_log::vfs::{DirEntry, File, Lock, LockError, OpenOptions, Vfs};

/// A call that is about to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) op: Op,
    pub(crate) path: &'a Path,
    /// Whether it may change something.
    pub(crate) changes: bool,
}

impl Call<'_> {
    /// Whether a thread of this name makes it.
    pub(crate) fn is_by(&self, thread: &str) -> bool {
        std::thread::current().name() == Some(thread)
    }

    /// Whether it belongs to a compaction: to the thread that merges, or to the settler where that names files in a
    /// checkpoint or removes them.
    pub(crate) fn is_of_a_compaction(&self) -> bool {
        let names = self.path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("checkpoint"));
        let settler = names || self.path == Path::new(crate::rig::DIR) || self.op == Op::Remove;
        self.is_by("log-compact") || self.is_by("log-settle") && settler && self.changes
    }
}

type Hook = dyn Fn(Call<'_>) -> io::Result<()> + Send + Sync;

/// The disk, with what sees its calls.
#[derive(Clone)]
pub(crate) struct Hooked {
    vfs: SimVfs,
    hook: Arc<Hook>,
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooked").finish_non_exhaustive()
    }
}

impl Hooked {
    pub(crate) fn new(vfs: &SimVfs, hook: impl Fn(Call<'_>) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { vfs: vfs.clone(), hook: Arc::new(hook) }
    }

    fn see(&self, op: Op, path: &Path, changes: bool) -> io::Result<()> {
        (self.hook)(Call { op, path, changes })
    }
}

#[derive(Debug)]
struct HookedFile {
    disk: Hooked,
    path: PathBuf,
    file: Arc<dyn File>,
}

impl File for HookedFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.see(Op::Read, &self.path, false)?;
        self.file.read_at(into, offset)
    }

    fn write_vectored_at(&self, from: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.disk.see(Op::Write, &self.path, true)?;
        self.file.write_vectored_at(from, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.see(Op::Sync, &self.path, true)?;
        self.file.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.see(Op::SetLen, &self.path, true)?;
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.see(Op::Stat, &self.path, false)?;
        self.file.len()
    }
}

impl Vfs for Hooked {
    fn open(&self, path: &Path, options: OpenOptions) -> io::Result<Arc<dyn File>> {
        self.see(Op::Open, path, options.write)?;
        let file = self.vfs.open(path, options)?;
        Ok(Arc::new(HookedFile { disk: self.clone(), path: path.to_owned(), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.see(Op::Rename, from, true)?;
        self.vfs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.see(Op::Remove, path, true)?;
        self.vfs.remove(path)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.see(Op::CreateDir, dir, true)?;
        self.vfs.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.see(Op::List, dir, false)?;
        self.vfs.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.see(Op::SyncDir, dir, true)?;
        self.vfs.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Lock>, LockError> {
        self.vfs.lock(path)
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        self.see(Op::FreeSpace, dir, false)?;
        self.vfs.free_space(dir)
    }
}

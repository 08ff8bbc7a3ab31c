//! A file system in memory that loses what a real disk may lose. Built only with the feature `testing`.
//!
//! What a power cut ([`SimVfs::crash`]) may do, decided by a seed:
//! - each 512-byte sector written since the file's last sync is, on its own, as it was or as any write since left it;
//! - a length changed since then is the old one or the new one;
//! - each name made, changed or removed since its directory's last sync is lost or kept, whatever became of others
//!   (one rename happens whole or not at all).
//!
//! What a sick disk may do ([`SimVfs::fail`]): refuse the k-th call of a kind, take only a part of a write, or fail a
//! sync after which, as on Linux, the pages count as clean although they are not on the disk.

mod disk;
mod faults;
mod names;
mod record;
mod rng;
mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use self::disk::{Content, Inode};
pub use self::faults::{Fault, FaultKind, Op};
use self::faults::{Faults, Verdict};
use self::names::{Names, Node};
use self::record::About;
pub use self::record::Record;
pub use self::rng::Rng;
use self::turns::Turns;
use super::{DirEntry, File, Lock, LockError, OpenOptions, Vfs};

/// A file system in memory. Cheap to clone: clones share.
#[derive(Debug, Clone, Default)]
pub struct SimVfs(Arc<Mutex<Sim>>);

#[derive(Debug, Default)]
struct Sim {
    names: Names,
    inodes: BTreeMap<Inode, Content>,
    inode_last: u64,
    locks: BTreeSet<PathBuf>,
    faults: Faults,
    capacity: Option<u64>,
    /// From then on every call fails, so that nothing changes any more.
    power_off: bool,
    record: Record,
    turns: Option<Turns>,
}

impl SimVfs {
    /// An empty file system.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a power cut at this moment leaves; this file system goes on as if nothing had happened.
    pub fn crash(&self, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().after_crash(seed))))
    }

    /// Cuts the power when `calls` more calls were carried out: each later call fails, and
    /// [`SimVfs::after_power_off`] has what may have been left.
    pub fn power_off_after(&self, calls: u64) {
        self.0.lock().faults.power_off_after(calls);
    }

    /// What was left when the power went, if it went; another seed, another outcome of the same cut.
    pub fn after_power_off(&self, seed: u64) -> Option<Self> {
        let sim = self.0.lock();
        sim.power_off.then(|| Self(Arc::new(Mutex::new(sim.after_crash(seed)))))
    }

    /// A copy of all files as they read now, all of it durable, without locks and faults.
    pub fn copy(&self) -> Self {
        let mut sim = self.0.lock().copy();
        sim.names.sync_all();
        sim.inodes.values_mut().for_each(Content::settle);
        Self(Arc::new(Mutex::new(sim)))
    }

    /// Makes everything durable, names too.
    pub fn sync_all(&self) {
        let mut sim = self.0.lock();
        sim.names.sync_all();
        sim.inodes.values_mut().for_each(Content::settle);
    }

    /// Lets a call fail.
    pub fn fail(&self, fault: Fault) {
        self.0.lock().faults.add(fault);
    }

    /// From now on threads are held up before their calls as the seed says, so that rare turns are taken often.
    pub fn hold_up(&self, seed: u64) {
        self.0.lock().turns = Some(Turns::new(seed));
    }

    /// What was asked of this disk since it was made, newest last; an image of a crash begins anew.
    pub fn record(&self) -> Record {
        self.0.lock().record.clone()
    }

    /// Adds what a test saw to the record.
    pub fn remark(&self, text: impl Into<String>) {
        self.0.lock().record.remark(text.into());
    }

    /// Takes all faults back.
    pub fn heal(&self) {
        self.0.lock().faults.clear();
    }

    /// Whether a fault has struck.
    pub fn struck(&self) -> bool {
        self.0.lock().faults.struck()
    }

    /// How many calls of a kind were made so far.
    pub fn calls(&self, op: Op) -> u64 {
        self.0.lock().faults.calls(op)
    }

    /// How many calls were made so far.
    pub fn calls_in_all(&self) -> u64 {
        Op::ALL.iter().map(|op| self.calls(*op)).sum()
    }

    /// How many bytes all files may have together; `None`: any number.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// The bytes that all files have together.
    pub fn used(&self) -> u64 {
        self.0.lock().used()
    }

    /// All files with their lengths, sorted.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let sim = self.0.lock();
        let length = |inode| sim.inodes.get(&inode).map_or(0, |content| content.len());
        sim.names.files().map(|(path, inode)| (path.clone(), length(inode))).collect()
    }

    /// Changes the bits `mask` of a byte, durably.
    pub fn flip(&self, path: &Path, at: u64, mask: u8) {
        let mut sim = self.0.lock();
        if let Some(Node::File(inode)) = sim.names.get(path)
            && let Some(content) = sim.inodes.get_mut(&inode)
        {
            content.flip(at, mask);
        }
    }

    /// The content of a file.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let sim = self.0.lock();
        match sim.names.get(path) {
            Some(Node::File(inode)) => sim.inodes.get(&inode).map(Content::bytes),
            _ => None,
        }
    }

    /// Puts a file there with this content, durably.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut sim = self.0.lock();
        let inode = sim.new_inode();
        sim.names.insert(path.to_owned(), Node::File(inode));
        if let Some(content) = sim.inodes.get_mut(&inode) {
            content.write(bytes, 0);
            content.settle();
        }
        sim.names.sync_all();
    }

    fn begin(&self, op: Op, about: About<'_>) -> io::Result<(parking_lot::MutexGuard<'_, Sim>, Verdict)> {
        let mut sim = self.0.lock();
        if let Some(pause) = sim.turns.as_mut().and_then(Turns::next) {
            parking_lot::MutexGuard::unlocked(&mut sim, || pause.take());
        }
        let verdict = sim.begin(op);
        sim.record.call(op, about, verdict.is_ok());
        Ok((sim, verdict?))
    }
}

impl Sim {
    /// Counts a call and says what is to happen to it.
    fn begin(&mut self, op: Op) -> io::Result<Verdict> {
        if self.power_off {
            return Err(io::Error::other("the power is off"));
        }
        let verdict = self.faults.judge(op);
        if matches!(verdict, Verdict::PowerOff) {
            self.power_off = true;
            return Err(io::Error::other("the power is off"));
        }
        verdict.refuse()?;
        Ok(verdict)
    }

    fn new_inode(&mut self) -> Inode {
        self.inode_last += 1;
        let inode = Inode(self.inode_last);
        self.inodes.insert(inode, Content::default());
        inode
    }

    fn used(&self) -> u64 {
        self.names.files().filter_map(|(_, inode)| self.inodes.get(&inode)).map(Content::len).sum()
    }

    fn after_crash(&self, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let names = self.names.after_crash(&mut rng);
        let kept = names.files().filter_map(|(_, inode)| Some((inode, self.inodes.get(&inode)?)));
        let mut kept: Vec<_> = kept.collect();
        kept.sort_by_key(|(inode, _)| *inode);
        let odds = rng.odds();
        let inodes = kept.into_iter().map(|(inode, content)| (inode, content.after_crash(&mut rng, odds))).collect();
        Self { names, inodes, inode_last: self.inode_last, capacity: self.capacity, ..Self::default() }
    }

    fn copy(&self) -> Self {
        let (names, inodes) = (self.names.clone(), self.inodes.clone());
        Self { names, inodes, inode_last: self.inode_last, capacity: self.capacity, ..Self::default() }
    }

    /// How many bytes fit of a file's growth to `len`.
    fn room(&self, inode: Inode, len: u64) -> u64 {
        let Some(capacity) = self.capacity else { return len };
        let have = self.inodes.get(&inode).map_or(0, Content::len);
        have.max(len.min(have + capacity.saturating_sub(self.used())))
    }
}

#[derive(Debug)]
struct SimFile {
    vfs: SimVfs,
    /// Its name when it was opened.
    path: PathBuf,
    inode: Inode,
    write: bool,
}

#[derive(Debug)]
struct SimLock {
    vfs: SimVfs,
    path: PathBuf,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.vfs.0.lock().locks.remove(&self.path);
    }
}

fn gone() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl SimFile {
    fn with<T>(&self, sim: &mut Sim, work: impl FnOnce(&mut Content) -> T) -> io::Result<T> {
        sim.inodes.get_mut(&self.inode).map(work).ok_or_else(gone)
    }

    fn begin(&self, op: Op, at: u64, len: usize) -> io::Result<(parking_lot::MutexGuard<'_, Sim>, Verdict)> {
        self.vfs.begin(op, About { at, len: len as u64, ..About::name(&self.path) })
    }

    fn writable(&self) -> io::Result<()> {
        if self.write { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl File for SimFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let (mut sim, _) = self.begin(Op::Read, offset, into.len())?;
        self.with(&mut sim, |content| content.read(into, offset))
    }

    fn write_vectored_at(&self, from: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.writable()?;
        let bytes = from.iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<u8>>();
        let (mut sim, verdict) = self.begin(Op::Write, offset, bytes.len())?;
        let fits = sim.room(self.inode, offset + bytes.len() as u64).saturating_sub(offset);
        let mut taken = bytes.len().min(usize::try_from(fits).unwrap_or(usize::MAX));
        if matches!(verdict, Verdict::Part) {
            taken = taken.min(bytes.len().div_ceil(2));
        }
        if taken == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let bytes = bytes.get(..taken).unwrap_or_default();
        self.with(&mut sim, |content| content.write(bytes, offset))?;
        Ok(taken)
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut sim, verdict) = self.begin(Op::Sync, 0, 0)?;
        if let Verdict::LoseAndRefuse(seed) = verdict {
            self.with(&mut sim, |content| content.failed_sync(&mut Rng::new(seed)))?;
            return Err(io::Error::other("input/output error"));
        }
        self.with(&mut sim, Content::sync)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.writable()?;
        let (mut sim, _) = self.begin(Op::SetLen, len, 0)?;
        if sim.room(self.inode, len) < len {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.with(&mut sim, |content| content.set_len(len))
    }

    fn len(&self) -> io::Result<u64> {
        let (mut sim, _) = self.begin(Op::Stat, 0, 0)?;
        self.with(&mut sim, |content| content.len())
    }
}

impl Vfs for SimVfs {
    fn open(&self, path: &Path, options: OpenOptions) -> io::Result<Arc<dyn File>> {
        let (mut sim, _) = self.begin(Op::Open, About::name(path))?;
        let inode = match sim.names.get(path) {
            Some(Node::Dir) => return Err(io::ErrorKind::IsADirectory.into()),
            Some(Node::File(_)) if options.create_new => return Err(io::ErrorKind::AlreadyExists.into()),
            Some(Node::File(inode)) => inode,
            None if options.create || options.create_new => {
                sim.names.need_parent(path)?;
                let inode = sim.new_inode();
                sim.names.insert(path.to_owned(), Node::File(inode));
                inode
            }
            None => return Err(gone()),
        };
        if options.truncate
            && let Some(content) = sim.inodes.get_mut(&inode)
        {
            content.set_len(0);
        }
        Ok(Arc::new(SimFile { vfs: self.clone(), path: path.to_owned(), inode, write: options.write }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut sim, _) = self.begin(Op::Rename, About { to: Some(to), ..About::name(from) })?;
        sim.names.need_parent(to)?;
        sim.names.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (mut sim, _) = self.begin(Op::Remove, About::name(path))?;
        sim.names.remove(path)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let (mut sim, _) = self.begin(Op::CreateDir, About::name(dir))?;
        sim.names.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let (sim, _) = self.begin(Op::List, About::name(dir))?;
        sim.names.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let (mut sim, verdict) = self.begin(Op::SyncDir, About::name(dir))?;
        if let Verdict::LoseAndRefuse(_) = verdict {
            return Err(io::Error::other("input/output error"));
        }
        sim.names.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Lock>, LockError> {
        let (mut sim, _) = self.begin(Op::Lock, About::name(path)).map_err(LockError::Io)?;
        if !sim.locks.insert(path.to_owned()) {
            return Err(LockError::Held { pid: std::process::id() });
        }
        if sim.names.get(path).is_none() {
            let inode = sim.new_inode();
            sim.names.insert(path.to_owned(), Node::File(inode));
        }
        Ok(Box::new(SimLock { vfs: self.clone(), path: path.to_owned() }))
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        let (sim, _) = self.begin(Op::FreeSpace, About::name(dir))?;
        Ok(sim.capacity.map_or(1 << 40, |capacity| capacity.saturating_sub(sim.used())))
    }
}

#[cfg(test)]
mod tests;

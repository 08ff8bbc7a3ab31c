//! The operating system's files.

use std::fs;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FlockOperation;

use super::{DirEntry, File, Lock, LockError, OpenOptions, Vfs};

/// The most slices handed to the kernel in one call (Linux refuses more than 1024).
const SLICES_MAX: usize = 1024;

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealVfs;

#[derive(Debug)]
struct RealFile(fs::File);

#[derive(Debug)]
struct RealLock {
    /// Closing the file unlocks it.
    _file: fs::File,
}

impl Lock for RealLock {}

impl File for RealFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }

    fn write_at(&self, from: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(from, offset)
    }

    fn write_vectored_at(&self, from: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let from = from.get(..SLICES_MAX.min(from.len())).unwrap_or(from);
        Ok(rustix::io::pwritev(&self.0, from, offset)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

impl Vfs for RealVfs {
    fn open(&self, path: &Path, options: OpenOptions) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(options.write)
            .create(options.create)
            .create_new(options.create_new)
            .truncate(options.truncate)
            .mode(0o600)
            .open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }

    fn is_open_to_others(&self, dir: &Path) -> io::Result<bool> {
        Ok(fs::metadata(dir)?.permissions().mode() & 0o077 != 0)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let entry = |entry: io::Result<fs::DirEntry>| {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            Ok(DirEntry { name, is_dir: entry.file_type()?.is_dir() })
        };
        let mut entries = fs::read_dir(dir)?.map(entry).collect::<io::Result<Vec<_>>>()?;
        entries.sort();
        Ok(entries)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Lock>, LockError> {
        let mut file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(LockError::Io)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // Who holds it is a courtesy; without it the lock is still held.
                let read = file.read_to_string(&mut text);
                let pid = read.ok().and_then(|_| text.trim().parse().ok()).unwrap_or(0);
                return Err(LockError::Held { pid });
            }
            Err(e) => return Err(LockError::Io(e.into())),
        }
        let pid = std::process::id();
        file.set_len(0).and_then(|()| writeln!(file, "{pid}")).map_err(LockError::Io)?;
        Ok(Box::new(RealLock { _file: file }))
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_written_in_slices_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        RealVfs.create_dir_all(&path).unwrap();
        let file = RealVfs.open(&path.join("x"), OpenOptions::CREATE_NEW).unwrap();
        let many = vec![[7u8; 3]; 2000];
        let mut slices: Vec<IoSlice<'_>> = many.iter().map(|s| IoSlice::new(s)).collect();
        slices.insert(0, IoSlice::new(b""));
        file.write_all_vectored_at(&mut slices, 5).unwrap();
        file.sync_data().unwrap();
        RealVfs.sync_dir(&path).unwrap();
        assert_eq!(file.len().unwrap(), 6005);
        let mut back = vec![0; 6005];
        file.read_exact_at(&mut back, 0).unwrap();
        assert_eq!(back[..5], [0; 5]);
        assert!(back[5..].iter().all(|b| *b == 7));
        assert_eq!(file.read_exact_at(&mut back, 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(RealVfs.list(&path).unwrap(), [DirEntry { name: "x".into(), is_dir: false }]);
        assert!(RealVfs.open(&path.join("x"), OpenOptions::CREATE_NEW).is_err());
        assert!(RealVfs.free_space(&path).unwrap() > 0);
    }

    #[test]
    fn a_second_lock_names_who_has_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = RealVfs.lock(&path).unwrap();
        match RealVfs.lock(&path) {
            Err(LockError::Held { pid }) => assert_eq!(pid, std::process::id()),
            other => panic!("{other:?}"),
        }
        drop(first);
        assert!(RealVfs.lock(&path).is_ok());
    }
}

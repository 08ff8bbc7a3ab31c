//! Files as the embedded log sees them: the few calls it needs, so that a test can put a disk of its own beneath it.
//!
//! What a caller may rely on is what POSIX promises and no more: bytes are durable after [`File::sync_data`] returned
//! `Ok`; a new, renamed or removed name is durable after [`Vfs::sync_dir`] of its directory; a file's length is durable
//! with its data. After a failed sync nothing is known, and a second sync that succeeds proves nothing.

mod real;
#[cfg(feature = "testing")]
pub mod sim;

use std::fmt;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

pub use real::RealVfs;

/// How to open a file. A file is always opened for reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenOptions {
    /// Also for writing.
    pub write: bool,
    /// Make it where it does not exist (readable and writable by its owner only).
    pub create: bool,
    /// Make it, and fail where it exists.
    pub create_new: bool,
    /// Cut it to nothing.
    pub truncate: bool,
}

impl OpenOptions {
    /// An existing file, for reading.
    pub const READ: Self = Self { write: false, create: false, create_new: false, truncate: false };
    /// An existing file, for reading and writing.
    pub const WRITE: Self = Self { write: true, ..Self::READ };
    /// A file for reading and writing, made where it does not exist.
    pub const CREATE: Self = Self { create: true, ..Self::WRITE };
    /// A new file, for reading and writing.
    pub const CREATE_NEW: Self = Self { create_new: true, ..Self::WRITE };
    /// An empty file, for reading and writing, made where it does not exist.
    pub const TRUNCATE: Self = Self { truncate: true, ..Self::CREATE };
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name, without the directory.
    pub name: String,
    /// Whether it is a directory itself.
    pub is_dir: bool,
}

/// A lock on a directory; dropping it unlocks.
pub trait Lock: Send + Sync + fmt::Debug {}

/// Why a lock could not be had.
#[derive(Debug)]
pub enum LockError {
    /// Another process has it (0 where its number could not be read).
    Held {
        /// The process.
        pid: u32,
    },
    /// The lock file could not be made.
    Io(io::Error),
}

/// An open file. Calls may come from several threads at once.
pub trait File: Send + Sync + fmt::Debug {
    /// Reads at `offset` and says how much; 0 at the end of the file.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes the slices one behind the other at `offset` and says how much was taken, which may be less than all.
    fn write_vectored_at(&self, from: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;

    /// Makes all bytes written so far durable, and the length.
    fn sync_data(&self) -> io::Result<()>;

    /// Cuts the file or lengthens it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Writes at `offset` and says how much was taken, which may be less than all.
    fn write_at(&self, from: &[u8], offset: u64) -> io::Result<usize> {
        self.write_vectored_at(&[IoSlice::new(from)], offset)
    }

    /// Fills `into` from `offset` on.
    fn read_exact_at(&self, mut into: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !into.is_empty() {
            match self.read_at(into, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    into = into.get_mut(n..).unwrap_or_default();
                    offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes all of `from` at `offset`.
    fn write_all_at(&self, from: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_vectored_at(&mut [IoSlice::new(from)], offset)
    }

    /// Writes all slices one behind the other at `offset`; the slices are used up.
    fn write_all_vectored_at(&self, mut from: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        // Slices without bytes would look like a disk that takes nothing.
        IoSlice::advance_slices(&mut from, 0);
        while !from.is_empty() {
            match self.write_vectored_at(from, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    offset += n as u64;
                    IoSlice::advance_slices(&mut from, n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// A file system.
pub trait Vfs: Send + Sync + fmt::Debug + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, options: OpenOptions) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name, taking the place of what has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name; who has it open may go on using it.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a directory and its parents, for the owner only (0700); does nothing where it exists.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Whether others than the owner may read or write a directory.
    fn is_open_to_others(&self, _dir: &Path) -> io::Result<bool> {
        Ok(false)
    }

    /// The names in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Locks by way of a file that names this process; fails at once where another has it.
    fn lock(&self, path: &Path) -> Result<Box<dyn Lock>, LockError>;

    /// The bytes that can still be written below `dir`.
    fn free_space(&self, dir: &Path) -> io::Result<u64>;
}

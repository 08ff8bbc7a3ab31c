//! What a repair takes out, kept in `damaged/`.
//!
//! A file that goes as a whole is moved there, which needs neither space nor a disk that can read it. Of a file that
//! stays in part there is a copy; what of it cannot be read is zeros in the copy, and is said.

use std::io;
use std::path::{Path, PathBuf};

use super::layout::Layout;
use super::options::Options;
use super::walk::io_error;
use crate::Error;
use crate::vfs::{File, OpenOptions};

/// How much is copied at once.
const COPY_BYTES: u64 = 1 << 20;

/// Copies `len` bytes from `at` on to the beginning of a file, and syncs it.
pub(super) fn copy(from: &dyn File, to: &dyn File, at: u64, len: u64) -> io::Result<()> {
    copy_with(to, len, |buffer, done| from.read_exact_at(buffer, at + done))
}

fn copy_with(to: &dyn File, len: u64, mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>) -> io::Result<()> {
    let mut done = 0;
    let mut buffer = Vec::new();
    while done < len {
        buffer.resize(COPY_BYTES.min(len - done) as usize, 0);
        read(&mut buffer, done)?;
        to.write_all_at(&buffer, done)?;
        done += buffer.len() as u64;
    }
    to.sync_data()
}

/// Where a file is kept; the directory is there afterwards.
fn place(options: &Options, layout: &Layout, path: &Path) -> Result<PathBuf, Error> {
    let inside = path.strip_prefix(&layout.dir).unwrap_or(path);
    let name = inside.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("-");
    let dir = layout.damaged();
    options.vfs.create_dir_all(&dir).map_err(io_error("making", &dir))?;
    options.vfs.sync_dir(&layout.dir).map_err(io_error("syncing", &layout.dir))?;
    Ok(dir.join(name))
}

/// Keeps a copy of the file as it is, as far as it can be read; notes what cannot. Nothing is kept of a file that is
/// missing, and what an earlier repair kept of it stays.
///
/// # Errors
/// Where the copy cannot be written: then what it was made for must not go on.
pub(super) fn keep_copy(options: &Options, layout: &Layout, path: &Path, notes: &mut Vec<String>) -> Result<(), Error> {
    let vfs = options.vfs.as_ref();
    let old = match vfs.open(path, OpenOptions::READ).and_then(|file| Ok((file.len()?, file))) {
        Ok(old) => old,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => {
            notes.push(format!("{} cannot be opened ({e}), so nothing of it is kept", path.display()));
            return Ok(());
        }
    };
    let (len, old) = old;
    let to = place(options, layout, path)?;
    let new = vfs.open(&to, OpenOptions::TRUNCATE).map_err(io_error("making", &to))?;
    let (mut unread, mut why) = (0, None);
    let copied = copy_with(new.as_ref(), len, |buffer, at| {
        if let Err(error) = old.read_exact_at(buffer, at) {
            buffer.fill(0);
            unread += buffer.len();
            why = Some(error);
        }
        Ok(())
    });
    copied.map_err(io_error("writing", &to))?;
    if let Some(why) = why {
        let (path, to) = (path.display(), to.display());
        notes.push(format!("{unread} bytes of {path} cannot be read ({why}); they are zeros in {to}"));
    }
    let dir = layout.damaged();
    vfs.sync_dir(&dir).map_err(io_error("syncing", &dir))
}

/// Moves the file there. The caller syncs the directory that it was in.
pub(super) fn move_out(options: &Options, layout: &Layout, path: &Path) -> Result<(), Error> {
    let (vfs, to, dir) = (options.vfs.as_ref(), place(options, layout, path)?, layout.damaged());
    match vfs.rename(path, &to) {
        // An earlier repair came as far as this.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io_error("moving", path)(e)),
        Ok(()) => vfs.sync_dir(&dir).map_err(io_error("syncing", &dir)),
    }
}

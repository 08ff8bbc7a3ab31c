//! Running checksums of files, and whether bytes agree with them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Step;
use crate::Error;
use crate::embedded::block::{Block, HEADER_BYTES};
use crate::embedded::settled_file::BlockAt;
use crate::embedded::walk::{Found, Walker};
use crate::vfs::File;

/// Bytes that are not what the checkpoint says.
pub(super) struct Mismatch {
    what: String,
    path: PathBuf,
    at: u64,
}

impl Mismatch {
    pub(super) fn new(what: String, path: &Path, at: u64) -> Self {
        Self { what, path: path.to_owned(), at }
    }

    /// The same, out of an error of who read the file.
    pub(super) fn of(error: Error, path: &Path) -> Self {
        match error {
            Error::Corrupt { what, path, at, .. } => Self { what, path, at },
            other => Self::new(other.to_string(), path, 0),
        }
    }

    /// What it is where the checkpoint still says so.
    pub(super) fn damage(self) -> Error {
        Error::Corrupt { what: self.what, path: self.path, at: self.at, affected: "unknown".into() }
    }
}

/// The steps of a settled file: behind each block. The mark covers the headers, which have the checksums of the events.
pub(super) fn steps_of_blocks(blocks: &[BlockAt]) -> Vec<Step> {
    let mut mark = 0;
    let step = |at: &BlockAt| {
        mark = behind_block(mark, &at.block);
        Step { to: at.end(), mark }
    };
    blocks.iter().map(step).collect()
}

fn behind_block(mark: u32, block: &Block) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(mark);
    hasher.update(&block.base.to_le_bytes());
    hasher.update(&block.next.to_le_bytes());
    for field in [block.rows, block.schema_version, block.stored_len, block.crc] {
        hasher.update(&field.to_le_bytes());
    }
    hasher.finalize()
}

/// Computes all checksums of blocks again; they stand between two steps of a file.
pub(super) fn check_blocks(bytes: Vec<u8>, path: &Path, from: Step, to: Step) -> Result<Vec<u8>, Mismatch> {
    let (mut at, mut mark) = (0, from.mark);
    let wrong = |what: &str, at: usize| Mismatch::new(what.to_owned(), path, from.to + at as u64);
    while at < bytes.len() {
        let header = bytes.get(at..at + HEADER_BYTES).unwrap_or_default();
        let block = Block::decode(header).map_err(|damage| wrong(&damage.0, at))?;
        let begin = at + HEADER_BYTES;
        let events = bytes.get(begin..begin + block.stored_len as usize);
        let events = events.ok_or_else(|| wrong("a block that is cut off", at))?;
        if crc32fast::hash(events) != block.crc {
            return Err(wrong("a block whose checksum is wrong", at));
        }
        mark = behind_block(mark, &block);
        at = begin + (block.stored_len as usize).next_multiple_of(HEADER_BYTES);
    }
    if mark != to.mark {
        return Err(wrong("other blocks than before", at));
    }
    Ok(bytes)
}

/// Computes all checksums of groups again: heads, events, and the chain up to the last one's.
pub(super) fn check_groups(
    bytes: Vec<u8>,
    path: &Path,
    log: u128,
    segment: u64,
    from: u64,
    to: Step,
) -> Result<Vec<u8>, Mismatch> {
    let memory = Arc::new(Memory(bytes));
    let mut walker = Walker::over(memory.clone(), path, log, segment, memory.0.len() as u64);
    let (mut at, mut mark) = (0, None);
    while at < memory.0.len() as u64 {
        let wrong = |what: String| Mismatch::new(what, path, from + at);
        let group = match walker.group(at).map_err(|error| Mismatch::of(error, path))? {
            Found::Group(group) => group,
            Found::Bad(what) => return Err(wrong(what)),
        };
        if mark.is_some_and(|before| before != group.header.prev_crc) {
            return Err(wrong("a group that follows another group than the one before it".into()));
        }
        if let Some(what) = walker.verify_bodies(&group).map_err(|error| Mismatch::of(error, path))? {
            return Err(wrong(what));
        }
        mark = Some(group.crc);
        at = group.end();
    }
    if at + from != to.to || mark != Some(to.mark) {
        return Err(Mismatch::new("other groups than before".into(), path, from));
    }
    drop(walker);
    Ok(Arc::try_unwrap(memory).map(|memory| memory.0).unwrap_or_else(|shared| shared.0.clone()))
}

/// Bytes that were read already, as a file.
#[derive(Debug)]
struct Memory(Vec<u8>);

impl File for Memory {
    fn read_at(&self, into: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let from = self.0.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let n = from.len().min(into.len());
        if let (Some(into), Some(from)) = (into.get_mut(..n), from.get(..n)) {
            into.copy_from_slice(from);
        }
        Ok(n)
    }

    fn write_vectored_at(&self, _from: &[std::io::IoSlice<'_>], _offset: u64) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _len: u64) -> std::io::Result<()> {
        Err(std::io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn len(&self) -> std::io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

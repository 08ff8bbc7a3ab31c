//! Settled events: a file per partition and range of offsets, made of blocks of up to [`super::Options`]' `block_bytes`.
//!
//! The blocks' headers are the sparse index (offsets, newest time). Files only grow; how much of one is valid stands in the checkpoint, and
//! what follows is of a pass of the settler that did not end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_buffer::{Buffer, MutableBuffer};
use arrow_schema::SchemaRef;

use super::block::{Block, Events, HEADER_BYTES};
use super::checkpoint::SettledMeta;
use super::walk::io_error;
use crate::Error;
use crate::vfs::{File, OpenOptions, Vfs};

/// A block and where its bytes begin.
#[derive(Debug, Clone)]
pub(super) struct BlockAt {
    pub(super) block: Block,
    pub(super) at: u64,
}

impl BlockAt {
    /// Where its header begins.
    pub(super) fn header_at(&self) -> u64 {
        self.at - HEADER_BYTES as u64
    }

    /// Where the next block begins.
    pub(super) fn end(&self) -> u64 {
        self.at + u64::from(self.block.stored_len).next_multiple_of(HEADER_BYTES as u64)
    }
}

/// A settled file, closed.
#[derive(Debug)]
pub(super) struct SettledFile {
    pub(super) path: PathBuf,
    pub(super) meta: SettledMeta,
}

impl SettledFile {
    pub(super) fn next(&self) -> u64 {
        self.meta.next
    }

    /// About how many bytes of columns are at or behind an offset.
    pub(super) fn raw_from(&self, from: u64) -> u64 {
        let (base, next) = (self.meta.base, self.meta.next);
        let (kept, all) = (next.saturating_sub(from.max(base)), (next - base).max(1));
        (u128::from(self.meta.raw) * u128::from(kept) / u128::from(all)) as u64
    }
}

/// A settled file, open for reading, with its index.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: Arc<dyn File>,
    pub(super) path: PathBuf,
    len: u64,
    blocks: Vec<BlockAt>,
}

impl OpenFile {
    /// Opens the file and reads its index.
    pub(super) fn open(vfs: &dyn Vfs, settled: &SettledFile) -> Result<Self, Error> {
        let path = settled.path.clone();
        let file = vfs.open(&path, OpenOptions::READ).map_err(io_error("opening", &path))?;
        let mut open = Self { file, path, len: 0, blocks: Vec::new() };
        open.extend(settled.meta.len)?;
        Ok(open)
    }

    /// Opens a file that may be damaged: blocks are looked for on every boundary. `None` where it cannot be opened.
    pub(super) fn salvage(vfs: &dyn Vfs, settled: &SettledFile) -> Option<Self> {
        let path = settled.path.clone();
        let file = vfs.open(&path, OpenOptions::READ).ok()?;
        let len = file.len().ok()?.min(settled.meta.len);
        let mut open = Self { file, path, len: 0, blocks: Vec::new() };
        while open.len < len {
            let mut header = [0; HEADER_BYTES];
            let block = open.read(&mut header, open.len).ok().and_then(|()| Block::decode(&header).ok());
            let at = open.len + HEADER_BYTES as u64;
            open.len = at;
            if let Some(block) = block {
                let found = BlockAt { block, at };
                if found.end() <= len {
                    open.len = found.end();
                    open.blocks.push(found);
                }
            }
        }
        Some(open)
    }

    /// Whether this is that file, as far as it goes now.
    pub(super) fn follows(&mut self, settled: &SettledFile) -> Result<bool, Error> {
        if self.path != settled.path || self.len > settled.meta.len {
            return Ok(false);
        }
        self.extend(settled.meta.len)?;
        Ok(true)
    }

    fn extend(&mut self, len: u64) -> Result<(), Error> {
        while self.len < len {
            let mut header = [0; HEADER_BYTES];
            self.read(&mut header, self.len)?;
            let block = Block::decode(&header).map_err(|d| self.corrupt(d.0, self.len))?;
            let at = self.len + HEADER_BYTES as u64;
            self.len = at + u64::from(block.stored_len).next_multiple_of(HEADER_BYTES as u64);
            self.blocks.push(BlockAt { block, at });
        }
        Ok(())
    }

    fn read(&self, into: &mut [u8], at: u64) -> Result<(), Error> {
        self.file.read_exact_at(into, at).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => self.corrupt("a file that is cut off".into(), at),
            _ => io_error("reading", &self.path)(e),
        })
    }

    pub(super) fn corrupt(&self, what: String, at: u64) -> Error {
        Error::Corrupt { what, path: self.path.clone(), at, affected: affected(&self.path) }
    }

    /// The block with the first event at or behind an offset.
    pub(super) fn find(&self, from: u64) -> Option<&BlockAt> {
        let at = self.blocks.partition_point(|b| b.block.next <= from);
        self.blocks.get(at)
    }

    pub(super) fn blocks(&self) -> &[BlockAt] {
        &self.blocks
    }

    /// The Arrow IPC bytes of a block.
    pub(super) fn load(&self, at: &BlockAt) -> Result<Buffer, Error> {
        let block = &at.block;
        let mut stored = MutableBuffer::from_len_zeroed(block.stored_len as usize);
        self.read(stored.as_slice_mut(), at.at)?;
        if crc32fast::hash(stored.as_slice()) != block.crc {
            return Err(self.corrupt(format!("the block of offset {} has a wrong checksum", block.base), at.at));
        }
        if !block.compressed {
            return Ok(stored.into());
        }
        let mut raw = MutableBuffer::from_len_zeroed(block.raw_len as usize);
        match lz4_flex::block::decompress_into(stored.as_slice(), raw.as_slice_mut()) {
            Ok(n) if n == block.raw_len as usize => Ok(raw.into()),
            _ => Err(self.corrupt(format!("the block of offset {} does not decompress", block.base), at.at)),
        }
    }

    /// The events of a block.
    pub(super) fn decode(&self, at: &BlockAt, schema: &SchemaRef) -> Result<Events, Error> {
        at.block.events(&self.load(at)?, schema).map_err(|d| self.corrupt(d.0, at.at))
    }
}

/// `topic/partition` out of a settled file's path.
fn affected(path: &Path) -> String {
    let mut parents = path.ancestors().skip(1).filter_map(|p| p.file_name()).map(|n| n.to_string_lossy());
    let (partition, topic) = (parents.next().unwrap_or_default(), parents.next().unwrap_or_default());
    format!("{topic}/{partition}")
}

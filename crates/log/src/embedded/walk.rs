//! Walking through a segment, group by group. Only reads, and judges nothing but bytes: what a bad group means is
//! decided in `recover`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{Content, HeadError, decode_head};
use super::group_header::{BLOCK, GroupHeader, HEADER_BYTES, HeaderError, META_BYTES_MAX, decode_table};
use crate::Error;
use crate::vfs::{File, OpenOptions, Vfs};
use millstream_event::Offset;

/// How much is read at once while walking.
const WINDOW_BYTES: usize = 16 << 10;
/// How much is read at once while scanning for headers.
const SCAN_BYTES: usize = 1 << 20;

/// An [`Error::Io`].
pub(super) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |e| Error::Io { doing, path: path.to_owned(), reason: e.to_string() }
}

/// A frame in its file.
#[derive(Debug, Clone)]
pub(super) struct FrameAt {
    pub(super) content: Content,
    /// The offset of each append's first event.
    pub(super) offsets: Vec<u64>,
    /// Where the body begins in the file.
    pub(super) body_at: u64,
}

/// A group in its file.
#[derive(Debug, Clone)]
pub(super) struct GroupAt {
    pub(super) header: GroupHeader,
    /// The header's CRC: the next group's `prev_crc`.
    pub(super) crc: u32,
    pub(super) at: u64,
    pub(super) frames: Vec<FrameAt>,
}

impl GroupAt {
    /// Where the next group begins.
    pub(super) fn end(&self) -> u64 {
        self.at.saturating_add(self.header.total_len())
    }
}

/// What stands at a place.
#[derive(Debug)]
pub(super) enum Found {
    Group(GroupAt),
    /// No group; with what does not agree.
    Bad(String),
}

/// A segment's file, open for walking.
#[derive(Debug)]
pub(super) struct Walker {
    pub(super) file: Arc<dyn File>,
    pub(super) path: PathBuf,
    log: u128,
    segment: u64,
    pub(super) len: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl Walker {
    pub(super) fn open(vfs: &dyn Vfs, path: &Path, log: u128, segment: u64) -> Result<Self, Error> {
        let file = vfs.open(path, OpenOptions::READ).map_err(io_error("opening", path))?;
        let len = file.len().map_err(io_error("reading", path))?;
        Ok(Self::over(file, path, log, segment, len))
    }

    /// Walks over an open file.
    pub(super) fn over(file: Arc<dyn File>, path: &Path, log: u128, segment: u64, len: u64) -> Self {
        Self { file, path: path.to_owned(), log, segment, len, window: Vec::new(), window_at: 0 }
    }

    /// Bytes `at..at + len`, shorter at the end of the file.
    fn bytes(&mut self, at: u64, len: usize) -> Result<&[u8], Error> {
        let inside = at >= self.window_at && at + len as u64 <= self.window_at + self.window.len() as u64;
        if !inside {
            let want = len.max(WINDOW_BYTES).min(usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX));
            self.window.clear();
            self.window.resize(want, 0);
            self.window_at = at;
            self.file.read_exact_at(&mut self.window, at).map_err(io_error("reading", &self.path))?;
        }
        let from = (at - self.window_at) as usize;
        let to = (from + len).min(self.window.len());
        Ok(self.window.get(from..to).unwrap_or_default())
    }

    /// The group at `at`. Its bodies are not looked at.
    pub(super) fn group(&mut self, at: u64) -> Result<Found, Error> {
        if at >= self.len {
            return Ok(Found::Bad("the end of the file".into()));
        }
        let (log, segment, path) = (self.log, self.segment, self.path.clone());
        let (header, crc) = match GroupHeader::decode(self.bytes(at, HEADER_BYTES)?) {
            Ok(found) => found,
            Err(HeaderError::TooNew(what)) => return Err(Error::TooNew { path, what }),
            Err(HeaderError::Damaged(what)) => return Ok(Found::Bad(what.into())),
        };
        if header.log != log || header.segment != segment {
            return Ok(Found::Bad("a group of another segment".into()));
        }
        let meta = header.meta_len();
        if meta > META_BYTES_MAX as u64 || at.saturating_add(header.bodies_at() + header.body_len) > self.len {
            return Ok(Found::Bad("a group that is cut off".into()));
        }
        let bytes = self.bytes(at, meta as usize)?;
        let table = bytes.get(HEADER_BYTES..HEADER_BYTES + header.table_len as usize).unwrap_or_default();
        let heads = bytes.get(HEADER_BYTES + header.table_len as usize..).unwrap_or_default();
        if crc32fast::hash(table) != header.table_crc {
            return Ok(Found::Bad("a group's table whose checksum is wrong".into()));
        }
        match frames(&header, at, table, heads) {
            Ok(frames) => Ok(Found::Group(GroupAt { header, crc, at, frames })),
            Err(HeadError::Damaged(what)) => Ok(Found::Bad(what)),
            Err(HeadError::TooNew(what)) => Err(Error::TooNew { path, what }),
        }
    }

    /// Whether all events of a group read as they were written; else what does not agree.
    pub(super) fn verify_bodies(&self, group: &GroupAt) -> Result<Option<String>, Error> {
        let mut bytes = Vec::new();
        for frame in &group.frames {
            for append in frame.content.appends() {
                bytes.clear();
                bytes.resize(append.len as usize, 0);
                let at = frame.body_at + u64::from(append.at);
                if at + u64::from(append.len) > self.len {
                    return Ok(Some("events that are cut off".into()));
                }
                self.file.read_exact_at(&mut bytes, at).map_err(io_error("reading", &self.path))?;
                if crc32fast::hash(&bytes) != append.crc {
                    return Ok(Some("events whose checksum is wrong".into()));
                }
            }
        }
        Ok(None)
    }

    /// The last group that any valid header of this segment from `from` on proves to have been synced, if there is any.
    pub(super) fn scan_proof(&self, from: u64) -> Result<Option<u64>, Error> {
        let mut greatest = None;
        let mut buffer = vec![0; SCAN_BYTES];
        let mut at = from.next_multiple_of(BLOCK);
        while at < self.len {
            let n = SCAN_BYTES.min(usize::try_from(self.len - at).unwrap_or(SCAN_BYTES));
            let part = buffer.get_mut(..n).unwrap_or_default();
            self.file.read_exact_at(part, at).map_err(io_error("reading", &self.path))?;
            for block in part.chunks(BLOCK as usize) {
                if let Ok((header, _)) = GroupHeader::decode(block.get(..HEADER_BYTES).unwrap_or(block))
                    && header.log == self.log
                    && header.segment == self.segment
                {
                    greatest = greatest.max(Some(header.proves()));
                }
            }
            at += n as u64;
        }
        Ok(greatest)
    }
}

fn frames(header: &GroupHeader, at: u64, table: &[u8], mut heads: &[u8]) -> Result<Vec<FrameAt>, HeadError> {
    let mut body_at = at + header.bodies_at();
    let mut frames = Vec::new();
    for line in decode_table(table, header.frames)? {
        let Some((head, rest)) = heads.split_at_checked(line.head_len as usize) else {
            return Err(HeadError::Damaged("a frame's head that is cut off".into()));
        };
        heads = rest;
        if crc32fast::hash(head) != line.head_crc {
            return Err(HeadError::Damaged("a frame's head whose checksum is wrong".into()));
        }
        let content = decode_head(head)?;
        if content.appends().len() != line.offsets.len() {
            return Err(HeadError::Damaged("a frame with more or fewer appends than offsets".into()));
        }
        frames.push(FrameAt { content, offsets: line.offsets, body_at });
        body_at += u64::from(line.body_len);
    }
    Ok(frames)
}

/// The topics and partitions that a group appends to, with their offsets, for messages.
pub(super) fn ranges(group: &GroupAt) -> Vec<(u32, u32, Offset, Offset)> {
    let mut ranges = Vec::new();
    for frame in &group.frames {
        for (append, base) in frame.content.appends().iter().zip(&frame.offsets) {
            let next = Offset(base + append.span());
            ranges.push((append.topic, append.partition, Offset(*base), next));
        }
    }
    ranges
}

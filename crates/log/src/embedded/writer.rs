//! The journal's pen: writes groups one behind the other and makes them durable. Owned by the committer alone.

use std::io::{self, IoSlice};
use std::sync::Arc;

use super::frame::ALIGNMENT;
use super::group_header::{BLOCK, GroupHeader, HEADER_BYTES, Kind, encode_table};
use super::prepare::Preparer;
use super::segment::{Sealed, Segment};
use super::stage::Waiting;
use crate::Error;

const ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];

/// Why a group was not written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// No space. Nothing of the group will ever be seen.
    NoSpace(String),
    /// Nothing is known about what reached the disk.
    Broken(String),
}

/// A group that was written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) segment: Arc<Segment>,
    pub(super) time: i64,
    /// Where each frame's body begins.
    pub(super) bodies: Vec<u64>,
}

/// Where the journal goes on.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) log: u128,
    pub(super) incarnation: u64,
    pub(super) segment: Arc<Segment>,
    pub(super) at: u64,
    /// Groups end before this; behind it the next segment begins.
    pub(super) capacity: u64,
    /// The last group written.
    pub(super) seq: u64,
    pub(super) prev_crc: u32,
    pub(super) durable_through: u64,
    /// Segments that were filled and not yet handed over to the settler.
    pub(super) sealed: Vec<Sealed>,
    /// How many syncs there were.
    pub(super) syncs: u64,
}

/// Whether an error says that there is no space.
pub(super) fn is_no_space(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

impl Writer {
    /// Writes a group; it is durable after [`Writer::sync`].
    pub(super) fn write(
        &mut self,
        kind: Kind,
        time: i64,
        frames: &[Waiting],
        offsets: &[Vec<u64>],
        preparer: &Preparer,
    ) -> Result<Written, WriteError> {
        let table = encode_table(frames.iter().map(|w| &w.frame).zip(offsets.iter().map(Vec::as_slice)));
        let mut header = GroupHeader {
            features_required: 0,
            features_optional: 0,
            log: self.log,
            segment: self.segment.id,
            seq: self.seq + 1,
            durable_through: self.durable_through,
            incarnation: self.incarnation,
            time,
            prev_crc: self.prev_crc,
            frames: frames.len() as u32,
            table_len: table.len() as u32,
            heads_len: frames.iter().map(|w| w.frame.head.len() as u32).sum(),
            body_len: frames.iter().map(|w| w.frame.body.len() as u64).sum(),
            table_crc: crc32fast::hash(&table),
            kind,
        };
        let total = header.total_len();
        if self.at + total > self.capacity {
            self.roll(total, preparer)?;
            header.segment = self.segment.id;
            header.durable_through = self.durable_through;
        }
        let (head, crc) = header.encode();
        let gap = (header.bodies_at() - header.meta_len()) as usize;
        let tail = (total - header.bodies_at() - header.body_len) as usize;
        let mut slices = Vec::with_capacity(frames.len() * 2 + 4);
        slices.push(IoSlice::new(&head));
        slices.push(IoSlice::new(&table));
        slices.extend(frames.iter().map(|w| IoSlice::new(&w.frame.head)));
        slices.push(IoSlice::new(ZEROS.get(..gap).unwrap_or_default()));
        slices.extend(frames.iter().map(|w| IoSlice::new(&w.frame.body)));
        slices.push(IoSlice::new(ZEROS.get(..tail).unwrap_or_default()));
        self.put(&mut slices, total, preparer)?;
        let mut body_at = self.at + header.bodies_at();
        let mut bodies = Vec::with_capacity(frames.len());
        for waiting in frames {
            bodies.push(body_at);
            body_at += waiting.frame.body.len() as u64;
        }
        self.at += total;
        self.seq += 1;
        self.prev_crc = crc;
        preparer.written(self.at);
        Ok(Written { segment: self.segment.clone(), time, bodies })
    }

    fn put(&mut self, slices: &mut [IoSlice<'_>], total: u64, preparer: &Preparer) -> Result<(), WriteError> {
        preparer.claim(self.at + total).map_err(WriteError::NoSpace)?;
        match self.segment.file.write_all_vectored_at(slices, self.at) {
            Ok(()) => Ok(()),
            Err(e) if is_no_space(&e) => {
                // The group may be there but for its padding: it is cut off before it is called undone.
                match self.segment.file.set_len(self.at).and_then(|()| self.segment.file.sync_data()) {
                    Ok(()) => Err(WriteError::NoSpace(e.to_string())),
                    Err(again) => Err(self.broken("cutting", &again)),
                }
            }
            Err(e) => Err(self.broken("writing", &e)),
        }
    }

    /// Makes all that was written durable.
    pub(super) fn sync(&mut self) -> Result<(), WriteError> {
        self.segment.file.sync_data().map_err(|e| self.broken("syncing", &e))?;
        self.syncs += 1;
        self.durable_through = self.seq;
        Ok(())
    }

    /// Writes the next group to another segment.
    pub(super) fn leave_segment(&mut self) {
        self.capacity = self.at;
    }

    /// Goes on in the next segment; the full one is sealed, and durable before anything follows it.
    fn roll(&mut self, total: u64, preparer: &Preparer) -> Result<(), WriteError> {
        if self.durable_through < self.seq {
            self.sync()?;
        }
        let next = preparer.next_segment(total)?;
        let full = std::mem::replace(&mut self.segment, next);
        self.sealed.push(Sealed { segment: full, end: self.at });
        self.at = 0;
        self.capacity = self.segment.capacity;
        Ok(())
    }

    fn broken(&self, doing: &'static str, e: &io::Error) -> WriteError {
        let error = Error::Io { doing, path: self.segment.path.clone(), reason: e.to_string() };
        WriteError::Broken(error.to_string())
    }
}

const _: () = assert!(HEADER_BYTES.is_multiple_of(ALIGNMENT));

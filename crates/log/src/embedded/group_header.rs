//! A group: the frames that one write and one sync made durable together.
//!
//! ```text
//! 4 KiB boundary | header (128 bytes) | table | heads of all frames | bodies of all frames | zeros to 4 KiB
//! ```
//! The header has its own CRC and the table's; the table has each head's CRC; a head has the CRC of each part of its
//! body. So every byte is hashed once, on the thread that made it, and `prev_crc` (the CRC of the header before) chains
//! all of it.

use super::bytes_io::{Damage, In, Out, damage};
use super::frame::{ALIGNMENT, Frame};

/// Groups begin on this boundary.
pub(super) const BLOCK: u64 = 4096;
/// The bytes of a header.
pub(super) const HEADER_BYTES: usize = 128;
const MAGIC: &[u8; 8] = b"MSGROUP\n";
/// The version of the journal's format.
pub(super) const VERSION: u32 = 1;
/// The required features that this version knows: none yet.
const FEATURES_KNOWN: u64 = 0;
/// The most bytes of table and heads together.
pub(super) const META_BYTES_MAX: usize = 64 << 20;

/// Why a group is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Commits.
    Data = 0,
    /// The first group after an opening.
    Opening = 1,
    /// Nothing but `durable_through`, when idle.
    Idle = 2,
    /// The last group before an orderly end.
    Closing = 3,
}

/// A header's fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupHeader {
    pub(super) features_required: u64,
    pub(super) features_optional: u64,
    pub(super) log: u128,
    pub(super) segment: u64,
    /// Consecutive over all segments, from 1.
    pub(super) seq: u64,
    /// The last group whose sync had returned when this was written.
    pub(super) durable_through: u64,
    /// How often the log has been opened for writing.
    pub(super) incarnation: u64,
    /// When the group was made, in microseconds since 1970.
    pub(super) time: i64,
    pub(super) prev_crc: u32,
    pub(super) frames: u32,
    pub(super) table_len: u32,
    pub(super) heads_len: u32,
    pub(super) body_len: u64,
    pub(super) table_crc: u32,
    pub(super) kind: Kind,
}

/// Why bytes are no usable header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// No header was ever here, or it is damaged.
    Damaged(&'static str),
    /// A later version wrote it.
    TooNew(String),
}

impl GroupHeader {
    /// The bytes, and their CRC, which the next group's `prev_crc` repeats.
    pub(super) fn encode(&self) -> (Vec<u8>, u32) {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(MAGIC);
        out.put_u32(VERSION);
        out.put_u32(HEADER_BYTES as u32);
        out.put_u64(self.features_required);
        out.put_u64(self.features_optional);
        out.extend_from_slice(&self.log.to_le_bytes());
        out.put_u64(self.segment);
        out.put_u64(self.seq);
        out.put_u64(self.durable_through);
        out.put_u64(self.incarnation);
        out.put_i64(self.time);
        out.put_u32(self.prev_crc);
        out.put_u32(self.frames);
        out.put_u32(self.table_len);
        out.put_u32(self.heads_len);
        out.put_u64(self.body_len);
        out.put_u32(self.table_crc);
        out.put_u32(self.kind as u32);
        let crc = crc32fast::hash(&out);
        out.put_u32(crc);
        out.resize(HEADER_BYTES, 0);
        (out, crc)
    }

    /// Reads a header and its CRC.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, u32), HeaderError> {
        let parsed = Self::parse(bytes).map_err(|_| HeaderError::Damaged("a cut group header"))?;
        let (header, version, magic, stored, computed) = parsed;
        if !magic {
            return Err(HeaderError::Damaged("no group header"));
        }
        if stored != computed {
            return Err(HeaderError::Damaged("a group header whose checksum is wrong"));
        }
        if version != VERSION {
            return Err(HeaderError::TooNew(format!("journal version {version}")));
        }
        let unknown = header.features_required & !FEATURES_KNOWN;
        if unknown != 0 {
            return Err(HeaderError::TooNew(format!("required feature bits {unknown:#x}")));
        }
        Ok((header, stored))
    }

    fn parse(bytes: &[u8]) -> Result<(Self, u32, bool, u32, u32), Damage> {
        let mut read = In::new(bytes);
        let magic = read.bytes(MAGIC.len())? == MAGIC;
        let version = read.u32()?;
        let header_len = read.u32()?;
        let features_required = read.u64()?;
        let features_optional = read.u64()?;
        let log = u128::from(read.u64()?) | u128::from(read.u64()?) << 64;
        let (segment, seq, durable_through, incarnation) = (read.u64()?, read.u64()?, read.u64()?, read.u64()?);
        let time = read.i64()?;
        let (prev_crc, frames, table_len, heads_len) = (read.u32()?, read.u32()?, read.u32()?, read.u32()?);
        let body_len = read.u64()?;
        let table_crc = read.u32()?;
        let kind = match read.u32()? {
            0 => Kind::Data,
            1 => Kind::Opening,
            2 => Kind::Idle,
            3 => Kind::Closing,
            // A later version's kind is data to us; the CRC vouches for it.
            _ => Kind::Data,
        };
        let crc_at = HEADER_BYTES - 8;
        let stored = read.u32()?;
        let computed = crc32fast::hash(bytes.get(..crc_at).unwrap_or_default());
        if magic && header_len as usize != HEADER_BYTES && stored == computed && version == VERSION {
            return damage("a header of another length");
        }
        let header = Self {
            features_required,
            features_optional,
            log,
            segment,
            seq,
            durable_through,
            incarnation,
            time,
            prev_crc,
            frames,
            table_len,
            heads_len,
            body_len,
            table_crc,
            kind,
        };
        Ok((header, version, magic, stored, computed))
    }

    /// The last group of which this header's presence proves that it was synced: a segment that an opening begins gets
    /// its name when it is on the disk, up to its opening group.
    pub(super) fn proves(&self) -> u64 {
        if self.kind == Kind::Opening { self.seq } else { self.durable_through }
    }

    /// Bytes of header, table and heads.
    pub(super) fn meta_len(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.table_len) + u64::from(self.heads_len)
    }

    /// Where the bodies begin, from the group's start.
    pub(super) fn bodies_at(&self) -> u64 {
        self.meta_len().next_multiple_of(ALIGNMENT as u64)
    }

    /// The bytes from this group to the next.
    pub(super) fn total_len(&self) -> u64 {
        (self.bodies_at().saturating_add(self.body_len)).checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX)
    }
}

/// A frame's line in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableLine {
    pub(super) head_len: u32,
    pub(super) head_crc: u32,
    pub(super) body_len: u32,
    /// The offset of each append's first event.
    pub(super) offsets: Vec<u64>,
}

/// The table of a group of frames; `offsets` has each frame's.
pub(super) fn encode_table<'a>(frames: impl Iterator<Item = (&'a Frame, &'a [u64])>) -> Vec<u8> {
    let mut out = Vec::new();
    for (frame, offsets) in frames {
        out.put_u32(frame.head.len() as u32);
        out.put_u32(frame.head_crc);
        out.put_u32(frame.body.len() as u32);
        out.put_u32(offsets.len() as u32);
        offsets.iter().for_each(|offset| out.put_u64(*offset));
    }
    out
}

/// Reads a table whose CRC was found right.
pub(super) fn decode_table(table: &[u8], frames: u32) -> Result<Vec<TableLine>, Damage> {
    let mut read = In::new(table);
    let mut lines = Vec::new();
    for _ in 0..frames {
        let (head_len, head_crc, body_len, n) = (read.u32()?, read.u32()?, read.u32()?, read.u32()?);
        let offsets = (0..n).map(|_| read.u64()).collect::<Result<_, _>>()?;
        lines.push(TableLine { head_len, head_crc, body_len, offsets });
    }
    if !read.is_empty() {
        return damage("a table that is longer than its frames");
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> GroupHeader {
        GroupHeader {
            features_required: 0,
            features_optional: 1 << 63,
            log: 1 << 100 | 7,
            segment: 3,
            seq: 9,
            durable_through: 8,
            incarnation: 2,
            time: -5,
            prev_crc: 77,
            frames: 1,
            table_len: 24,
            heads_len: 100,
            body_len: 4000,
            table_crc: 11,
            kind: Kind::Closing,
        }
    }

    #[test]
    fn a_header_reads_back_and_every_flipped_bit_is_seen() {
        let (bytes, crc) = header().encode();
        assert_eq!(bytes.len(), HEADER_BYTES);
        assert_eq!(GroupHeader::decode(&bytes), Ok((header(), crc)));
        for bit in 0..(HEADER_BYTES - 4) * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(GroupHeader::decode(&bad), Err(HeaderError::Damaged(_))), "bit {bit}");
        }
        for cut in 0..HEADER_BYTES - 4 {
            assert!(GroupHeader::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn an_unknown_required_feature_is_refused_and_an_optional_one_not() {
        let required = GroupHeader { features_required: 2, ..header() };
        assert!(matches!(GroupHeader::decode(&required.encode().0), Err(HeaderError::TooNew(_))));
        assert_eq!(header().total_len(), 8192);
    }
}

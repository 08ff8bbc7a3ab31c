//! A block of settled events: a header of 64 bytes with a CRC of its own, then the events' columns, compressed where that
//! saves space.
//!
//! A block covers the offsets `base..next`: its rows, and what stood between and behind them and is not kept. Where there
//! is more to say than that its rows begin at `base` and are dense, or where it carries marks, its *extra* follows the
//! columns: the marks, the rows' offsets as runs, and its own length in the last 4 bytes. Version 1 had no extra.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_schema::SchemaRef;
use millstream_event::{Mark, PartitionId, Producer, Watermark, ipc};

use super::bytes_io::{Damage, In, Out, damage};
use super::frame::LIST_MAX;

/// The bytes of a block's header; blocks begin on a multiple of it.
pub(super) const HEADER_BYTES: usize = 64;
const MAGIC: u32 = u32::from_le_bytes(*b"MSEV");
const VERSION: u16 = 2;
/// A block larger than this was not written by us.
const RAW_BYTES_MAX: usize = 256 << 20;
/// Compression must save at least one part in this many.
const WORTH_IT: usize = 16;
/// The flag of a block with an extra; no other is known.
const EXTRA: u8 = 1;
/// Where the header's CRC stands.
const CRC_AT: usize = 52;

/// A block as its header tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) base: u64,
    pub(super) next: u64,
    /// 0 where it holds marks only, or nothing that is kept.
    pub(super) rows: u32,
    pub(super) schema_version: u32,
    /// When the newest event was appended.
    pub(super) newest: i64,
    pub(super) compressed: bool,
    extra: bool,
    pub(super) raw_len: u32,
    pub(super) stored_len: u32,
    pub(super) crc: u32,
}

/// The events of a block.
#[derive(Debug, Clone)]
pub(super) struct Events {
    /// The offset of row 0.
    pub(super) base: u64,
    pub(super) rows: RecordBatch,
    /// The offset of each row, where they are not dense.
    pub(super) offsets: Option<Arc<[u64]>>,
    pub(super) marks: Arc<[Mark]>,
}

impl Events {
    /// The offset of a row.
    pub(super) fn offset(&self, row: usize) -> u64 {
        let given = self.offsets.as_ref().and_then(|offsets| offsets.get(row)).copied();
        given.unwrap_or(self.base + row as u64)
    }
}

/// The offsets of rows: ascending runs of (first, length).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Runs(Vec<(u64, u64)>);

impl Runs {
    /// Adds rows with offsets from `first` on, behind all that are there.
    pub(super) fn push(&mut self, first: u64, len: u64) {
        match self.0.last_mut() {
            _ if len == 0 => {}
            Some((start, before)) if *start + *before == first => *before += len,
            _ => self.0.push((first, len)),
        }
    }

    fn are_dense_from(&self, base: u64) -> bool {
        matches!(self.0.as_slice(), [] | [_]) && self.0.iter().all(|(first, _)| *first == base)
    }
}

/// The offset of row 0, and each row's where they are not dense.
type Offsets = (u64, Option<Arc<[u64]>>);

/// What a block is about, besides its columns.
#[derive(Debug, Clone, Default)]
pub(super) struct BlockInfo {
    pub(super) base: u64,
    pub(super) next: u64,
    pub(super) rows: u32,
    pub(super) schema_version: u32,
    pub(super) newest: i64,
    pub(super) runs: Runs,
    pub(super) marks: Arc<[Mark]>,
}

impl Block {
    /// The bytes of its events in columns.
    pub(super) fn raw_len(&self) -> u64 {
        u64::from(self.raw_len)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.put_u32(MAGIC);
        out.put_u16(VERSION);
        out.put_u8(self.compressed as u8);
        out.put_u8(if self.extra { EXTRA } else { 0 });
        out.put_u64(self.base);
        out.put_u64(self.next);
        out.put_u32(self.rows);
        out.put_u32(self.schema_version);
        out.put_i64(self.newest);
        out.put_u32(self.raw_len);
        out.put_u32(self.stored_len);
        out.put_u32(self.crc);
        let crc = crc32fast::hash(&out);
        out.put_u32(crc);
        out.resize(HEADER_BYTES, 0);
        out
    }

    /// Reads a header.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let mut read = In::new(bytes);
        let (magic, version) = (read.u32()?, read.u16()?);
        let sum = crc32fast::hash(bytes.get(..CRC_AT).unwrap_or_default());
        let told = In::new(bytes.get(CRC_AT..).unwrap_or_default()).u32()?;
        if magic != MAGIC || told != sum {
            return damage("a block's header that is damaged");
        }
        let block = Self::decode_fields(version, &mut read)?;
        if block.raw_len as usize > RAW_BYTES_MAX {
            return damage("a block larger than any that is written");
        }
        if block.next < block.base.saturating_add(u64::from(block.rows)) {
            return damage("a block with more events than offsets");
        }
        Ok(block)
    }

    fn decode_fields(version: u16, read: &mut In<'_>) -> Result<Self, Damage> {
        let (compressed, flags) = (read.u8()?, read.u8()?);
        let later = || damage(format!("a block of version {version}, codec {compressed}, which a later version wrote"));
        if compressed > 1 {
            return later();
        }
        let (compressed, base) = (compressed == 1, read.u64()?);
        let (next, rows, schema_version) = match version {
            1 => {
                let (rows, schema_version) = (read.u32()?, read.u32()?);
                // A watermark without a producer: nobody wrote one, and nobody could count it.
                read.i64()?;
                (base.saturating_add(u64::from(rows.max(1))), rows, schema_version)
            }
            VERSION if flags & !EXTRA == 0 => (read.u64()?, read.u32()?, read.u32()?),
            _ => return later(),
        };
        let (newest, raw_len, stored_len, crc) = (read.i64()?, read.u32()?, read.u32()?, read.u32()?);
        let extra = version == VERSION && flags & EXTRA != 0;
        Ok(Self { base, next, rows, schema_version, newest, compressed, extra, raw_len, stored_len, crc })
    }

    /// The events of the block out of its bytes, decompressed.
    pub(super) fn events(&self, raw: &Buffer, schema: &SchemaRef) -> Result<Events, Damage> {
        let (columns, extra) = self.parts(raw)?;
        let rows = ipc::decode(schema, &columns).map_err(|e| Damage(e.to_string()))?;
        if rows.num_rows() != self.rows as usize {
            return damage(format!("a block of {} events that says {}", rows.num_rows(), self.rows));
        }
        let Some(extra) = extra else {
            return Ok(Events { base: self.base, rows, offsets: None, marks: Arc::default() });
        };
        let mut read = In::new(&extra);
        let marks = decode_marks(&mut read)?;
        let (base, offsets) = self.offsets(&mut read, rows.num_rows())?;
        Ok(Events { base, rows, offsets, marks })
    }

    /// The marks alone.
    pub(super) fn marks(&self, raw: &Buffer) -> Result<Arc<[Mark]>, Damage> {
        match self.parts(raw)?.1 {
            Some(extra) => decode_marks(&mut In::new(&extra)),
            None => Ok(Arc::default()),
        }
    }

    /// The columns and the extra.
    fn parts(&self, raw: &Buffer) -> Result<(Buffer, Option<Buffer>), Damage> {
        if !self.extra {
            return Ok((raw.clone(), None));
        }
        let cut_off = || Damage("a block whose extra is cut off".into());
        let len_at = raw.len().checked_sub(4).ok_or_else(cut_off)?;
        let len = In::new(raw.get(len_at..).unwrap_or_default()).u32()? as usize;
        let at = len_at.checked_sub(len).ok_or_else(cut_off)?;
        Ok((raw.slice_with_length(0, at), Some(raw.slice_with_length(at, len))))
    }

    /// Reads the rows' offsets. So many `rows` are there, so that no number is believed.
    fn offsets(&self, read: &mut In<'_>, rows: usize) -> Result<Offsets, Damage> {
        let runs = read.u32()?;
        if runs == 0 {
            return Ok((self.base, None));
        }
        let wrong = || Damage("a block whose offsets do not fit its events".into());
        let (mut offsets, mut next) = (Vec::with_capacity(rows), self.base);
        for _ in 0..runs {
            let (skip, len) = (read.var()?, read.var()?);
            let first = next.checked_add(skip).ok_or_else(wrong)?;
            next = first.checked_add(len).filter(|next| *next <= self.next).ok_or_else(wrong)?;
            if len > (rows - offsets.len()) as u64 {
                return Err(wrong());
            }
            offsets.extend(first..next);
        }
        if offsets.len() != rows {
            return Err(wrong());
        }
        let base = offsets.first().copied().unwrap_or(self.base);
        let dense = offsets.last().is_none_or(|last| last - base + 1 == rows as u64);
        Ok((base, (!dense).then(|| offsets.into())))
    }
}

fn encode_extra(info: &BlockInfo, out: &mut Vec<u8>) {
    let from = out.len();
    out.put_u32(info.marks.len() as u32);
    for Mark { producer, watermark } in info.marks.iter() {
        out.put_text(producer.name.as_str());
        out.put_u32(producer.partition.0);
        out.put_i64(watermark.0);
    }
    let runs: &[(u64, u64)] = if info.runs.are_dense_from(info.base) { &[] } else { &info.runs.0 };
    out.put_u32(runs.len() as u32);
    let mut next = info.base;
    for (first, len) in runs {
        out.put_var(first.saturating_sub(next));
        out.put_var(*len);
        next = first + len;
    }
    out.put_u32((out.len() - from) as u32);
}

fn decode_marks(read: &mut In<'_>) -> Result<Arc<[Mark]>, Damage> {
    let n = read.u32()? as usize;
    if n > LIST_MAX {
        return damage("more marks than any block has");
    }
    let mark = |_| {
        let producer = Producer { name: read.name()?, partition: PartitionId(read.u32()?) };
        Ok(Mark { producer, watermark: Watermark(read.i64()?) })
    };
    (0..n).map(mark).collect()
}

/// Makes the CRC of a header right, whatever it says.
#[cfg(feature = "testing")]
pub(super) fn seal_header(header: &mut [u8]) {
    let crc = crc32fast::hash(header.get(..CRC_AT).unwrap_or_default()).to_le_bytes();
    if let Some(place) = header.get_mut(CRC_AT..CRC_AT + crc.len()) {
        place.copy_from_slice(&crc);
    }
}

/// Appends a block's header, then its columns and its extra as they are before compression: for tests of the decoder.
#[cfg(feature = "testing")]
pub(super) fn encode_plain_block(info: &BlockInfo, columns: &[u8], out: &mut Vec<u8>) {
    let mut block = Vec::new();
    encode_block(info, columns, &mut block);
    out.extend_from_slice(block.get(..HEADER_BYTES).unwrap_or_default());
    out.extend_from_slice(columns);
    encode_extra(info, out);
}

/// Appends a block with these columns (as [`ipc::encode`] writes them) to `out`; answers its bytes before compression.
pub(super) fn encode_block(info: &BlockInfo, columns: &[u8], out: &mut Vec<u8>) -> u64 {
    let extra = !info.marks.is_empty() || !info.runs.are_dense_from(info.base);
    let mut with_extra = Vec::new();
    let raw = if extra {
        with_extra.extend_from_slice(columns);
        encode_extra(info, &mut with_extra);
        &with_extra
    } else {
        columns
    };
    let packed = lz4_flex::block::compress(raw);
    let compressed = packed.len() + raw.len() / WORTH_IT < raw.len();
    let stored = if compressed { packed.as_slice() } else { raw };
    let block = Block {
        base: info.base,
        next: info.next,
        rows: info.rows,
        schema_version: info.schema_version,
        newest: info.newest,
        compressed,
        extra,
        raw_len: raw.len() as u32,
        stored_len: stored.len() as u32,
        crc: crc32fast::hash(stored),
    };
    out.extend_from_slice(&block.encode());
    out.extend_from_slice(stored);
    out.resize(out.len().next_multiple_of(HEADER_BYTES), 0);
    raw.len() as u64
}

#[cfg(test)]
mod tests {
    use arrow_array::{ArrayRef, Int32Array, TimestampMicrosecondArray};
    use millstream_event::{Column, ColumnType, Name, Schema};
    use proptest::prelude::*;

    use super::*;

    fn schema() -> Schema {
        Schema::new(vec![Column::required("n", ColumnType::Int)]).unwrap()
    }

    fn rows(n: usize) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int32Array::from_iter_values(0..n as i32));
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0; n]).with_timezone("+00:00"));
        RecordBatch::try_new(schema().physical().clone(), vec![numbers, times]).unwrap()
    }

    /// The block as it stands in a file: its header, and its bytes decompressed.
    fn read(out: &[u8]) -> (Block, Buffer) {
        let block = Block::decode(&out[..HEADER_BYTES]).unwrap();
        let stored = &out[HEADER_BYTES..HEADER_BYTES + block.stored_len as usize];
        let raw = match block.compressed {
            true => lz4_flex::block::decompress(stored, block.raw_len as usize).unwrap(),
            false => stored.to_vec(),
        };
        (block, Buffer::from(raw))
    }

    proptest! {
        #[test]
        fn a_block_reads_back_whatever_its_offsets_and_marks(
            base in 0..u64::MAX / 2,
            gaps in proptest::collection::vec(prop_oneof![4 => Just(0u64), 1 => 0..1_000_000u64], 0..200),
            behind in 0..100u64,
            marks in proptest::collection::btree_map(0..500u32, any::<i64>(), 0..20),
        ) {
            let (mut next, mut runs, mut offsets) = (base, Runs::default(), Vec::new());
            for gap in &gaps {
                runs.push(next + gap, 1);
                offsets.push(next + gap);
                next += gap + 1;
            }
            let producer = |partition| Producer { name: Name::new("s").unwrap(), partition: PartitionId(partition) };
            let marks: Arc<[Mark]> =
                marks.into_iter().map(|(p, w)| Mark { producer: producer(p), watermark: Watermark(w) }).collect();
            let next = next + behind;
            let info = BlockInfo {
                base, next, rows: gaps.len() as u32, schema_version: 1, newest: 7, runs, marks: marks.clone(),
            };
            let (mut columns, mut out) = (Vec::new(), Vec::new());
            ipc::encode(&rows(gaps.len()), &mut columns).unwrap();
            encode_block(&info, &columns, &mut out);
            let (block, raw) = read(&out);
            prop_assert_eq!((block.base, block.next, block.rows as usize), (base, next, gaps.len()));
            let events = block.events(&raw, schema().physical()).unwrap();
            prop_assert_eq!(&events.rows, &rows(gaps.len()));
            let told: Vec<u64> = (0..gaps.len()).map(|row| events.offset(row)).collect();
            prop_assert_eq!(told, offsets);
            prop_assert_eq!(&events.marks, &marks);
            prop_assert_eq!(block.marks(&raw).unwrap(), marks);
        }
    }
}

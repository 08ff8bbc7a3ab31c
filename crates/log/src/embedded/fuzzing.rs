//! The decoders of bytes from outside, for fuzzing without the checksums that guard them.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array, RecordBatch, TimestampMicrosecondArray};
use arrow_buffer::Buffer;
use bytes::Bytes;
use millstream_event::{Column, ColumnType, Mark, Name, Offset, PartitionId, Producer, Schema, Watermark, ipc};

use super::block::{Block, BlockInfo, HEADER_BYTES, Runs, encode_plain_block, seal_header};
use super::frame::{AppendHead, CommitHead, Content, Frame, decode_head};
use super::group_header::{GroupHeader, decode_table};
use crate::{Class, Epoch, Position, TaskId};

/// Hands bytes to each decoder of the journal; what they answer does not matter, that they answer does.
pub fn decode(bytes: &[u8]) {
    drop(decode_head(bytes));
    block(bytes);
    drop(GroupHeader::decode(bytes));
    for frames in [0, 1, 3, u32::MAX] {
        drop(decode_table(bytes, frames));
    }
}

/// A block whose header and contents are `bytes`, whatever checksums they would need.
fn block(bytes: &[u8]) {
    let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) else { return };
    let mut header = header.to_vec();
    seal_header(&mut header);
    let Ok(block) = Block::decode(&header) else { return };
    let raw = Buffer::from(rest);
    let schema = Schema::new(vec![Column::required("n", ColumnType::Int)]);
    if let Ok(schema) = schema {
        drop(block.events(&raw, schema.physical()));
    }
    drop(block.marks(&raw));
}

/// A block with marks and with offsets that are not dense, not compressed, to begin from.
pub fn sample_block() -> Vec<u8> {
    let Ok(schema) = Schema::new(vec![Column::required("n", ColumnType::Int)]) else { return Vec::new() };
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, -200, 30_000]));
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1, 2, 3]).with_timezone("+00:00"));
    let Ok(rows) = RecordBatch::try_new(schema.physical().clone(), vec![numbers, times]) else { return Vec::new() };
    let (mut columns, mut out, mut runs) = (Vec::new(), Vec::new(), Runs::default());
    if ipc::encode(&rows, &mut columns).is_err() {
        return Vec::new();
    }
    runs.push(11, 2);
    runs.push(400, 1);
    let Ok(name) = Name::new("enrich") else { return Vec::new() };
    let producer = Producer { name, partition: PartitionId(3) };
    let marks = [Mark { producer, watermark: Watermark(77) }].into();
    let info = BlockInfo { base: 10, next: 500, rows: 3, schema_version: 1, newest: 5, runs, marks };
    encode_plain_block(&info, &columns, &mut out);
    out
}

/// The head of a frame with something in every part, to begin from.
pub fn sample() -> Vec<u8> {
    let Ok(name) = Name::new("enrich") else { return Vec::new() };
    let opaque = |bytes: &'static [u8]| Position::Opaque(Bytes::from_static(bytes));
    let append = |topic, watermark| AppendHead {
        topic,
        partition: 2,
        schema_version: 3,
        rows: 4,
        at: 64,
        len: 100,
        crc: 5,
        watermark,
    };
    let commit = CommitHead {
        task: TaskId::new(name.clone(), 3),
        epoch: Epoch(1 << 40),
        class: Class::Processing,
        consumed: vec![
            (name.clone(), None, Position::Offset(Offset(7))),
            (name, Some(opaque(b"a place")), opaque(b"another place")),
        ],
        appends: vec![append(1, None), append(2, Some(Watermark(-1)))],
    };
    Frame::of_content(Content::Commit(commit)).map(|frame| frame.head).unwrap_or_default()
}

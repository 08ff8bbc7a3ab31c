//! The decoders of bytes from outside, for fuzzing without the checksums that guard them.

use bytes::Bytes;
use millstream_event::{Name, Offset, Watermark};

use super::frame::{AppendHead, CommitHead, Content, Frame, decode_head};
use super::group_header::{GroupHeader, decode_table};
use crate::{Class, Epoch, Position, TaskId};

/// Hands bytes to each decoder of the journal; what they answer does not matter, that they answer does.
pub fn decode(bytes: &[u8]) {
    drop(decode_head(bytes));
    drop(GroupHeader::decode(bytes));
    for frames in [0, 1, 3, u32::MAX] {
        drop(decode_table(bytes, frames));
    }
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

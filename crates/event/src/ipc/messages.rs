//! Where the messages of an Arrow IPC stream or file begin and end, and whether the lengths that they claim can be
//! true: arrow-ipc allocates what a message asks for, and asserts the rest.
//!
//! A file is a stream between its magic (padded with zeros) and a footer that only serves random access, so one reader
//! does for both. Bytes come in parts; nothing is held here.

use arrow_ipc::{BodyCompression, CompressionType, Message, MessageHeader};

use super::Error;

/// What an Arrow IPC *file* starts and ends with; a stream does not.
pub(super) const MAGIC: &[u8] = b"ARROW1";
/// The magic with its padding, and the unit of further padding.
const UNIT: usize = 8;
/// The most padding behind the magic; writers align to 8 or 64.
const PADDING_MAX: usize = 64;
/// The longest description of a message.
const METADATA_BYTES_MAX: usize = 16 << 20;
/// The most bytes of one record batch or dictionary as it is stored.
pub const BODY_BYTES_MAX: usize = 256 << 20;
/// The most bytes of one record batch or dictionary as it is in memory.
pub(super) const UNPACKED_BYTES_MAX: u64 = 512 << 20;
/// The most events of one record batch.
pub(super) const BATCH_ROWS_MAX: u64 = 1 << 26;
/// The most bytes that LZ4 makes of one.
const LZ4_RATIO_MAX: u64 = 255;
/// The bytes before a packed buffer that tell its length.
const PACKED_HEAD: usize = 8;

/// What stands at the start of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// At least so many bytes are needed to tell.
    More(usize),
    /// So many bytes that mean nothing.
    Padding(usize),
    /// A message of so many bytes that belongs to what follows: the columns or a dictionary.
    Preface(usize),
    /// A record batch.
    Batch {
        /// Its bytes.
        bytes: usize,
        /// Its events.
        rows: u64,
    },
    /// Nothing follows.
    End,
}

/// What was read of the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Place {
    #[default]
    Start,
    /// Behind a file's magic, so many bytes of padding ago.
    Padding(usize),
    Messages,
}

pub(super) fn damaged(what: impl Into<String>) -> Error {
    Error::File(what.into())
}

/// Tells what `bytes` start with and what the place is behind that.
pub(super) fn look(place: Place, bytes: &[u8]) -> Result<(Look, Place), Error> {
    match place {
        Place::Start if bytes.len() < UNIT => Ok((Look::More(UNIT), place)),
        Place::Start if bytes.starts_with(MAGIC) => Ok((Look::Padding(UNIT), Place::Padding(0))),
        Place::Padding(_) if bytes.len() < UNIT => Ok((Look::More(UNIT), place)),
        Place::Padding(before) if before < PADDING_MAX && bytes.starts_with(&[0; UNIT]) => {
            Ok((Look::Padding(UNIT), Place::Padding(before + UNIT)))
        }
        _ => Ok((message(bytes)?, Place::Messages)),
    }
}

fn message(bytes: &[u8]) -> Result<Look, Error> {
    let Some((head, metadata)) = frame(bytes) else { return Ok(Look::More(UNIT)) };
    let Ok(metadata) = usize::try_from(metadata) else { return Err(damaged("a length is below zero")) };
    if metadata == 0 {
        return Ok(Look::End);
    }
    if metadata > METADATA_BYTES_MAX {
        return Err(damaged(format!("a message describes itself in {metadata} bytes; its structure is damaged")));
    }
    let Some(description) = bytes.get(head..head + metadata) else { return Ok(Look::More(head + metadata)) };
    let message = arrow_ipc::root_as_message(description).map_err(|e| damaged(e.to_string()))?;
    let body = usize::try_from(message.bodyLength()).map_err(|_| damaged("a length is below zero"))?;
    if body > BODY_BYTES_MAX {
        return Err(damaged(format!(
            "a record batch has {body} bytes, at most {BODY_BYTES_MAX} are read; write smaller record batches"
        )));
    }
    let bytes = head + metadata + body;
    match message.header_as_record_batch() {
        None => Ok(Look::Preface(bytes)),
        Some(batch) => match u64::try_from(batch.length()) {
            Ok(rows) if rows <= BATCH_ROWS_MAX => Ok(Look::Batch { bytes, rows }),
            _ => Err(damaged(format!("a record batch of {} events; write smaller record batches", batch.length()))),
        },
    }
}

/// The bytes before a message's description, and its length; older writers leave out the mark before it.
fn frame(bytes: &[u8]) -> Option<(usize, i32)> {
    let (first, rest) = bytes.split_first_chunk::<4>()?;
    if *first != [0xFF; 4] {
        return Some((4, i32::from_le_bytes(*first)));
    }
    let (len, _) = rest.split_first_chunk::<4>()?;
    Some((8, i32::from_le_bytes(*len)))
}

/// The description and the body of a whole message.
pub(super) fn parts(bytes: &[u8]) -> Result<(Message<'_>, &[u8]), Error> {
    let short = || damaged("a message is not whole");
    let (head, metadata) = frame(bytes).ok_or_else(short)?;
    let rest = bytes.get(head..).ok_or_else(short)?;
    let (description, body) =
        usize::try_from(metadata).ok().and_then(|n| rest.split_at_checked(n)).ok_or_else(short)?;
    let message = arrow_ipc::root_as_message(description).map_err(|e| damaged(e.to_string()))?;
    let body = usize::try_from(message.bodyLength()).ok().and_then(|n| body.get(..n)).ok_or_else(short)?;
    Ok((message, body))
}

/// Whether the lengths in a record batch or dictionary can be true.
pub(super) fn check(message: &Message<'_>, body: &[u8]) -> Result<(), Error> {
    let batch = match message.header_type() {
        MessageHeader::RecordBatch => message.header_as_record_batch(),
        MessageHeader::DictionaryBatch => message.header_as_dictionary_batch().and_then(|d| d.data()),
        _ => return Ok(()),
    };
    let batch = batch.ok_or_else(|| damaged("a message has no columns"))?;
    let counts = |n: i64| (0..=i64::from(i32::MAX)).contains(&n);
    if batch.nodes().into_iter().flatten().any(|n| !counts(n.length()) || !counts(n.null_count())) {
        return Err(damaged("a column claims more values than there can be"));
    }
    let mut unpacked = 0;
    for buffer in batch.buffers().into_iter().flatten() {
        let place = usize::try_from(buffer.offset()).ok().zip(usize::try_from(buffer.length()).ok());
        let bytes = place.and_then(|(at, len)| body.get(at..at.checked_add(len)?));
        let bytes = bytes.ok_or_else(|| damaged("a column lies outside its message"))?;
        unpacked += match batch.compression() {
            Some(packed) if !bytes.is_empty() => unpacked_len(packed, bytes)?,
            _ => bytes.len() as u64,
        };
        if unpacked > UNPACKED_BYTES_MAX {
            return Err(damaged(format!(
                "a record batch unpacks to more than {UNPACKED_BYTES_MAX} bytes; write smaller record batches"
            )));
        }
    }
    Ok(())
}

/// The most bytes that a packed buffer can become; what it claims must not be more.
fn unpacked_len(packed: BodyCompression<'_>, bytes: &[u8]) -> Result<u64, Error> {
    if packed.codec() != CompressionType::LZ4_FRAME {
        return Err(damaged("it is packed with Zstandard; write it with LZ4 or unpacked"));
    }
    let (claimed, frame) =
        bytes.split_first_chunk::<PACKED_HEAD>().ok_or_else(|| damaged("a packed column is cut off"))?;
    match i64::from_le_bytes(*claimed) {
        -1 => Ok(frame.len() as u64),
        0 => Ok(0),
        claimed => {
            let most = lz4_most(frame).ok_or_else(|| damaged("a column is no LZ4 frame"))?;
            let most = most.min(frame.len() as u64 * LZ4_RATIO_MAX);
            match u64::try_from(claimed) {
                Ok(claimed) if claimed <= most => Ok(most),
                _ => Err(damaged("a packed column claims more bytes than it has")),
            }
        }
    }
}

/// The most bytes that one LZ4 frame can become by its blocks; `None` where it is no frame, or more than one.
fn lz4_most(frame: &[u8]) -> Option<u64> {
    let (magic, rest) = frame.split_first_chunk::<4>()?;
    let (flags, rest) = rest.split_first_chunk::<2>()?;
    let [flags, sizes] = *flags;
    let block = match (sizes >> 4) & 7 {
        n @ 4..=7 => 1_u64 << (8 + 2 * n),
        _ => return None,
    };
    let has = |bit: u8, bytes: usize| if flags & bit != 0 { bytes } else { 0 };
    // Behind the flags: the content's size, a dictionary's id, a checksum of the head.
    let mut rest = rest.get(has(8, 8) + has(1, 4) + 1..)?;
    if *magic != [0x04, 0x22, 0x4D, 0x18] {
        return None;
    }
    let mut most = 0;
    loop {
        let (len, behind) = rest.split_first_chunk::<4>()?;
        // The highest bit marks a block that is stored as it is.
        let len = (u32::from_le_bytes(*len) & 0x7FFF_FFFF) as usize;
        if len == 0 {
            return (behind.len() == has(4, 4)).then_some(most);
        }
        most += block;
        rest = behind.get(len.checked_add(has(16, 4))?..)?;
    }
}

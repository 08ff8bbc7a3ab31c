//! A frame: one commit (or one change of the log's own) as it stands in the journal.
//!
//! A frame has a *head* (who, what was read, what is in the body) and a *body* (the events as Arrow IPC, one part per
//! append, each on a 64-byte boundary with a CRC of its own in the head). The head is small and is read when the log is
//! opened; the body is read only by readers and the settler.
//!
//! A head is a list of sections, each with an id, flags and a length, so that later versions can add to it: a section
//! that is not known is skipped, unless it is marked as required, which refuses to open. Reserved ids, with their place
//! kept: [`RESERVED`].

use std::fmt;

use arrow_array::RecordBatch;
use millstream_event::{Mark, Name, Offset, Producer, Watermark, ipc};

use super::bytes_io::{Damage, In, Out, damage};
use crate::{AbortReason, Class, Commit, Epoch, Position, TaskId, TopicSpec};

/// The version of the layout of a head.
const HEAD_VERSION: u16 = 1;
/// A section that must be understood.
const REQUIRED: u16 = 1;
/// The parts of a body begin on this boundary, so that columns can be used where they were read.
pub(super) const ALIGNMENT: usize = 64;
/// The largest body of a frame.
pub(crate) const FRAME_BYTES_MAX: usize = 128 << 20;
/// The most appends, and the most inputs, in a frame.
pub(super) const LIST_MAX: usize = 65_536;

const TASK: u16 = 1;
const CONSUMED: u16 = 2;
const APPENDS: u16 = 3;
const TOPIC: u16 = 4;
const TRIM: u16 = 5;

/// Section ids that later features have: they are never used for anything else.
pub(crate) const RESERVED: [(u16, &str); 8] = [
    (16, "compression"),
    (17, "encryption: key id and nonce"),
    (18, "producer"),
    (19, "event headers (trace context)"),
    (20, "input runs"),
    (21, "causal dependencies"),
    (22, "tombstones"),
    (23, "idempotency keys"),
];

/// Why a head cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HeadError {
    Damaged(String),
    TooNew(String),
}

impl From<Damage> for HeadError {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage.0)
    }
}

/// One append, as its frame's head describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AppendHead {
    /// The topic's number.
    pub(super) topic: u32,
    pub(super) partition: u32,
    pub(super) schema_version: u32,
    pub(super) rows: u32,
    /// Where the events begin in the body, and how many bytes they are.
    pub(super) at: u32,
    pub(super) len: u32,
    pub(super) crc: u32,
    pub(super) watermark: Option<Watermark>,
}

impl AppendHead {
    /// How many offsets the append takes: one without rows takes one, so that its watermark has a place.
    pub(super) fn span(&self) -> u64 {
        u64::from(self.rows.max(1))
    }
}

/// What a commit's frame says besides its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CommitHead {
    pub(super) task: TaskId,
    pub(super) epoch: Epoch,
    pub(super) class: Class,
    pub(super) consumed: Vec<(Name, Option<Position>, Position)>,
    pub(super) appends: Vec<AppendHead>,
}

impl CommitHead {
    /// What the task promises with one of its appends.
    pub(super) fn mark(&self, append: &AppendHead) -> Option<Mark> {
        let producer = || Producer { name: self.task.service.clone(), partition: self.task.partition };
        append.watermark.map(|watermark| Mark { producer: producer(), watermark })
    }
}

/// What a frame is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    Commit(CommitHead),
    /// A topic is made or changed.
    Topic {
        id: u32,
        schema_version: u32,
        spec: Box<TopicSpec>,
    },
    /// Events before an offset may go.
    Trim {
        topic: u32,
        partition: u32,
        before: Offset,
    },
    /// Something that this version does not know and may skip.
    Other,
}

impl Content {
    /// The appends; none where this is no commit.
    pub(super) fn appends(&self) -> &[AppendHead] {
        match self {
            Self::Commit(commit) => &commit.appends,
            _ => &[],
        }
    }
}

/// A frame, ready to be written: everything that costs time is done.
pub(super) struct Frame {
    pub(super) content: Content,
    pub(super) head: Vec<u8>,
    pub(super) head_crc: u32,
    pub(super) body: Vec<u8>,
    /// The events themselves, in the order of the appends, for readers that keep up.
    pub(super) batches: Vec<RecordBatch>,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({:?}, {} bytes)", self.content, self.body.len())
    }
}

impl Frame {
    /// A frame without events.
    pub(super) fn of_content(content: Content) -> Result<Self, String> {
        let head = encode_head(&content)?;
        let head_crc = crc32fast::hash(&head);
        Ok(Self { content, head, head_crc, body: Vec::new(), batches: Vec::new() })
    }

    /// Encodes a commit. `topics` has the number of the topic of each append. `body` is an empty buffer to use.
    pub(super) fn of_commit(commit: Commit, topics: &[u32], mut body: Vec<u8>) -> Result<Self, AbortReason> {
        let long = commit.appends.len().max(commit.consumed.len());
        if long > LIST_MAX {
            return Err(AbortReason::TooLarge(format!("{long} appends or inputs, at most {LIST_MAX} fit")));
        }
        let mut appends = Vec::with_capacity(commit.appends.len());
        let mut batches = Vec::with_capacity(commit.appends.len());
        for (append, topic) in commit.appends.into_iter().zip(topics) {
            let at = body.len();
            let refused = |e| AbortReason::Refused(format!("cannot encode events: {e}"));
            ipc::encode(&append.rows, &mut body).map_err(refused)?;
            if body.len() > FRAME_BYTES_MAX {
                return Err(AbortReason::TooLarge(format!("its events have more than {FRAME_BYTES_MAX} bytes")));
            }
            let part = body.get(at..).unwrap_or_default();
            appends.push(AppendHead {
                topic: *topic,
                partition: append.partition.0,
                schema_version: append.schema_version,
                rows: append.rows.num_rows() as u32,
                at: at as u32,
                len: part.len() as u32,
                crc: crc32fast::hash(part),
                watermark: append.watermark,
            });
            body.resize(body.len().next_multiple_of(ALIGNMENT), 0);
            batches.push(append.rows);
        }
        let consumed = commit.consumed.into_iter().map(|c| (c.input, c.from, c.to)).collect();
        let head = CommitHead { task: commit.task, epoch: commit.epoch, class: commit.class, consumed, appends };
        let mut frame = Self::of_content(Content::Commit(head)).map_err(AbortReason::TooLarge)?;
        frame.body = body;
        frame.batches = batches;
        Ok(frame)
    }
}

fn section(out: &mut Vec<u8>, id: u16, flags: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    out.put_u16(id);
    out.put_u16(flags);
    let len_at = out.len();
    out.put_u32(0);
    let from = out.len();
    fill(out);
    let len = (out.len() - from) as u32;
    if let Some(place) = out.get_mut(len_at..from) {
        place.copy_from_slice(&len.to_le_bytes());
    }
}

fn encode_head(content: &Content) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(256);
    out.put_u16(HEAD_VERSION);
    match content {
        Content::Commit(commit) => {
            section(&mut out, TASK, REQUIRED, |out| {
                out.put_text(commit.task.service.as_str());
                out.put_u32(commit.task.partition.0);
                out.put_u64(commit.epoch.0);
                out.put_u8(matches!(commit.class, Class::Processing) as u8);
            });
            section(&mut out, CONSUMED, REQUIRED, |out| {
                out.put_u32(commit.consumed.len() as u32);
                for (input, from, to) in &commit.consumed {
                    out.put_text(input.as_str());
                    out.put_position(from.as_ref());
                    out.put_position(Some(to));
                }
            });
            section(&mut out, APPENDS, REQUIRED, |out| {
                out.put_u32(commit.appends.len() as u32);
                for append in &commit.appends {
                    encode_append(append, out);
                }
            });
        }
        Content::Topic { id, schema_version, spec } => {
            let spec = serde_json::to_string(spec).map_err(|e| format!("cannot write the topic down: {e}"))?;
            section(&mut out, TOPIC, REQUIRED, |out| {
                out.put_u32(*id);
                out.put_u32(*schema_version);
                out.put_text(&spec);
            });
        }
        Content::Trim { topic, partition, before } => section(&mut out, TRIM, REQUIRED, |out| {
            out.put_u32(*topic);
            out.put_u32(*partition);
            out.put_u64(before.0);
        }),
        Content::Other => {}
    }
    Ok(out)
}

fn encode_append(append: &AppendHead, out: &mut Vec<u8>) {
    out.put_u32(append.topic);
    out.put_u32(append.partition);
    out.put_u32(append.schema_version);
    out.put_u32(append.rows);
    out.put_u32(append.at);
    out.put_u32(append.len);
    out.put_u32(append.crc);
    out.put_u8(append.watermark.is_some() as u8);
    out.put_i64(append.watermark.map_or(0, |w| w.0));
}

fn decode_append(read: &mut In<'_>) -> Result<AppendHead, Damage> {
    let topic = read.u32()?;
    let partition = read.u32()?;
    let schema_version = read.u32()?;
    let rows = read.u32()?;
    let at = read.u32()?;
    let len = read.u32()?;
    let crc = read.u32()?;
    let watermark = (read.u8()? != 0).then_some(());
    let time = read.i64()?;
    let watermark = watermark.map(|()| Watermark(time));
    Ok(AppendHead { topic, partition, schema_version, rows, at, len, crc, watermark })
}

fn list<T>(read: &mut In<'_>, item: impl Fn(&mut In<'_>) -> Result<T, Damage>) -> Result<Vec<T>, Damage> {
    let n = read.u32()? as usize;
    if n > LIST_MAX {
        return damage("a list longer than any that is written");
    }
    (0..n).map(|_| item(read)).collect()
}

/// Reads a head whose CRC was found right.
pub(super) fn decode_head(head: &[u8]) -> Result<Content, HeadError> {
    let mut read = In::new(head);
    let version = read.u16()?;
    if version != HEAD_VERSION {
        return Err(HeadError::TooNew(format!("a frame of version {version}")));
    }
    let (mut task, mut consumed, mut appends, mut other) = (None, Vec::new(), Vec::new(), None);
    while !read.is_empty() {
        let (id, flags, len) = (read.u16()?, read.u16()?, read.u32()?);
        let mut body = In::new(read.bytes(len as usize)?);
        match id {
            TASK => {
                let id = TaskId::new(body.name()?, body.u32()?);
                let epoch = Epoch(body.u64()?);
                let class = if body.u8()? == 0 { Class::Intake } else { Class::Processing };
                task = Some((id, epoch, class));
            }
            CONSUMED => {
                consumed = list(&mut body, |read| {
                    let (input, from) = (read.name()?, read.position()?);
                    let to = read.position()?.ok_or_else(|| Damage("a missing position".into()))?;
                    Ok((input, from, to))
                })?;
            }
            APPENDS => appends = list(&mut body, decode_append)?,
            TOPIC => {
                let (id, schema_version) = (body.u32()?, body.u32()?);
                let spec = serde_json::from_str(body.text()?).map_err(|e| Damage(format!("a topic: {e}")))?;
                other = Some(Content::Topic { id, schema_version, spec: Box::new(spec) });
            }
            TRIM => {
                let (topic, partition, before) = (body.u32()?, body.u32()?, Offset(body.u64()?));
                other = Some(Content::Trim { topic, partition, before });
            }
            _ if flags & REQUIRED != 0 => return Err(HeadError::TooNew(unknown_section(id))),
            _ => {}
        }
    }
    Ok(match (task, other) {
        (Some((task, epoch, class)), _) => Content::Commit(CommitHead { task, epoch, class, consumed, appends }),
        (None, Some(other)) => other,
        (None, None) => Content::Other,
    })
}

fn unknown_section(id: u16) -> String {
    match RESERVED.iter().find(|(reserved, _)| *reserved == id) {
        Some((_, name)) => format!("a frame with {name}"),
        None => format!("a frame with section {id}"),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn commit() -> Content {
        let name = |text: &str| Name::new(text).unwrap();
        Content::Commit(CommitHead {
            task: TaskId::new(name("enrich"), 3),
            epoch: Epoch(1 << 40),
            class: Class::Processing,
            consumed: vec![
                (name("valid"), None, Position::Offset(Offset(7))),
                (name("file"), Some(Position::Opaque(Bytes::from_static(b"x"))), Position::Opaque(Bytes::new())),
            ],
            appends: vec![AppendHead {
                topic: 1,
                partition: 2,
                schema_version: 3,
                rows: 4,
                at: 64,
                len: 100,
                crc: 5,
                watermark: Some(Watermark(-1)),
            }],
        })
    }

    #[test]
    fn a_head_reads_back() {
        let trim = Content::Trim { topic: 1, partition: 0, before: Offset(9) };
        for content in [commit(), trim, Content::Other] {
            assert_eq!(decode_head(&encode_head(&content).unwrap()), Ok(content));
        }
    }

    #[test]
    fn an_unknown_section_is_skipped_and_a_required_one_refused() {
        let mut head = encode_head(&commit()).unwrap();
        section(&mut head, 99, 0, |out| out.put_u64(1));
        assert_eq!(decode_head(&head), Ok(commit()));
        section(&mut head, 17, REQUIRED, |out| out.put_u64(1));
        let Err(HeadError::TooNew(what)) = decode_head(&head) else { panic!() };
        assert!(what.contains("encryption"), "{what}");
    }

    #[test]
    fn a_cut_head_is_damage_and_never_a_panic() {
        let head = encode_head(&commit()).unwrap();
        for cut in 0..head.len() {
            // A cut at a section's end reads as less, which the CRC of the head excludes.
            drop(decode_head(&head[..cut]));
        }
    }
}

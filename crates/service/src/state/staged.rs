//! A commit as bytes: what is kept beside the state until the log has it.
//!
//! Version 1, little-endian; events as [`ipc`] writes them, each append's at a multiple of 64:
//!
//! ```text
//! "MSSC" | u32 version | u32 CRC-32 of all that follows | u32 bytes of the head | head | padding | events
//! head:     u32 count of consumed | consumed … | u32 count of appends | appends …
//! consumed: text input | position from | position to
//! append:   text topic | u32 partition | u8 whether promised, i64 promise | u32 count of columns, texts | u64 at, u64 len
//! position: u8 0 (none) | u8 1, u64 offset | u8 2, text (opaque bytes)
//! text:     u32 bytes | bytes
//! ```
//! The columns' names are kept because a topic may have gained columns until the commit is read back.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_schema::Schema as ArrowSchema;
use bytes::Bytes;
use millstream_event::{Name, Offset, PartitionId, Watermark, ipc};
use millstream_log::{Append, Commit, Consumed, Position, TopicInfo, upgrade};

const MAGIC: &[u8; 4] = b"MSSC";
const VERSION: u32 = 1;
/// The bytes before the head.
const FIXED: usize = 16;
const ALIGNMENT: usize = 64;

/// What a staged commit holds: a commit without its task.
#[derive(Debug, Clone)]
pub(super) struct Staged {
    pub(super) consumed: Vec<Consumed>,
    pub(super) appends: Vec<Append>,
}

/// A commit's positions and events as bytes.
pub(super) fn encode(commit: &Commit) -> Result<Vec<u8>, String> {
    let mut events = Vec::new();
    let mut head = Vec::with_capacity(256);
    count(&mut head, commit.consumed.len());
    for consumed in &commit.consumed {
        text(&mut head, consumed.input.as_str().as_bytes());
        position(&mut head, consumed.from.as_ref());
        position(&mut head, Some(&consumed.to));
    }
    count(&mut head, commit.appends.len());
    for append in &commit.appends {
        let at = events.len();
        ipc::encode(&append.rows, &mut events).map_err(|e| format!("cannot encode events: {e}"))?;
        text(&mut head, append.topic.as_str().as_bytes());
        head.extend(append.partition.0.to_le_bytes());
        head.push(u8::from(append.watermark.is_some()));
        head.extend(append.watermark.map_or(0, |w| w.0).to_le_bytes());
        let columns = append.rows.schema_ref().fields();
        count(&mut head, columns.len());
        columns.iter().for_each(|column| text(&mut head, column.name().as_bytes()));
        head.extend((at as u64).to_le_bytes());
        head.extend(((events.len() - at) as u64).to_le_bytes());
        events.resize(events.len().next_multiple_of(ALIGNMENT), 0);
    }
    let behind = (FIXED + head.len()).next_multiple_of(ALIGNMENT);
    let mut out = Vec::with_capacity(behind + events.len());
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend([0; 4]);
    count(&mut out, head.len());
    out.extend(head);
    out.resize(behind, 0);
    out.extend(events);
    let crc = crc32fast::hash(out.get(12..).unwrap_or_default());
    if let Some(place) = out.get_mut(8..12) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
    Ok(out)
}

/// Reads a commit back; `topic` finds a topic as it is now.
pub(super) fn decode(bytes: &Bytes, topic: &dyn Fn(&Name) -> Option<TopicInfo>) -> Result<Staged, String> {
    let mut read = In(bytes);
    if read.bytes(4)? != MAGIC {
        return Err("it does not begin as one".into());
    }
    let version = read.u32()?;
    if version != VERSION {
        return Err(format!("it has version {version}, and this program reads {VERSION}"));
    }
    let crc = read.u32()?;
    if crc != crc32fast::hash(read.0) {
        return Err("its checksum does not agree".into());
    }
    let len = read.u32()? as usize;
    let mut head = In(read.bytes(len)?);
    let events = bytes.get((FIXED + len).next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    let mut consumed = Vec::new();
    for _ in 0..head.u32()? {
        let (input, from) = (head.name()?, head.position()?);
        let to = head.position()?.ok_or("a position is missing")?;
        consumed.push(Consumed { input, from, to });
    }
    let mut appends = Vec::new();
    for _ in 0..head.u32()? {
        appends.push(append(&mut head, events, topic)?);
    }
    Ok(Staged { consumed, appends })
}

fn append(head: &mut In<'_>, events: &[u8], topic: &dyn Fn(&Name) -> Option<TopicInfo>) -> Result<Append, String> {
    let name = head.name()?;
    let partition = PartitionId(head.u32()?);
    let promised = head.bytes(1)? != [0];
    let watermark = Watermark(i64::from_le_bytes(head.array()?));
    let mut columns = Vec::new();
    for _ in 0..head.u32()? {
        columns.push(head.text()?);
    }
    let (at, len) = (head.u64()?, head.u64()?);
    let place = |at: u64, len: u64| Some(usize::try_from(at).ok()?..usize::try_from(at.checked_add(len)?).ok()?);
    let part = place(at, len).and_then(|place| events.get(place)).ok_or("its events are cut short")?;
    let info = topic(&name).ok_or_else(|| format!("there is no topic `{name}` any more"))?;
    let rows = rows(part, &columns, &info).map_err(|e| format!("topic `{name}`: {e}"))?;
    let watermark = promised.then_some(watermark);
    Ok(Append { topic: name, partition, schema_version: info.schema_version, rows, watermark })
}

/// Events with the columns that the topic has now.
fn rows(part: &[u8], columns: &[&str], info: &TopicInfo) -> Result<RecordBatch, String> {
    let now = info.spec.schema.physical();
    let field = |column: &&str| {
        let found = now.fields().iter().find(|field| field.name() == column);
        found.cloned().ok_or_else(|| format!("there is no column `{column}` any more"))
    };
    let fields: Vec<_> = columns.iter().map(field).collect::<Result<_, _>>()?;
    let same = fields.len() == now.fields().len();
    let schema = if same { Arc::clone(now) } else { Arc::new(ArrowSchema::new(fields)) };
    let rows = ipc::decode(&schema, &Buffer::from(part)).map_err(|e| e.to_string())?;
    if same { Ok(rows) } else { upgrade(&rows, &info.spec.schema).map_err(|e| e.to_string()) }
}

fn count(out: &mut Vec<u8>, n: usize) {
    out.extend(u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes());
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    count(out, text.len());
    out.extend(text);
}

fn position(out: &mut Vec<u8>, position: Option<&Position>) {
    match position {
        None => out.push(0),
        Some(Position::Offset(offset)) => {
            out.push(1);
            out.extend(offset.0.to_le_bytes());
        }
        Some(Position::Opaque(bytes)) => {
            out.push(2);
            text(out, bytes);
        }
    }
}

/// A reader over bytes that may be damaged: nothing here panics or trusts a length.
struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    fn bytes(&mut self, n: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or("it is cut short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.bytes(N)?.try_into().map_err(|_| "it is cut short".to_owned())
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn block(&mut self) -> Result<&'a [u8], String> {
        let len = self.u32()? as usize;
        self.bytes(len)
    }

    fn text(&mut self) -> Result<&'a str, String> {
        std::str::from_utf8(self.block()?).map_err(|_| "a text is not UTF-8".to_owned())
    }

    fn name(&mut self) -> Result<Name, String> {
        Name::new(self.text()?).map_err(|e| e.to_string())
    }

    fn position(&mut self) -> Result<Option<Position>, String> {
        Ok(match self.array::<1>()? {
            [0] => None,
            [1] => Some(Position::Offset(Offset(self.u64()?))),
            [2] => Some(Position::Opaque(Bytes::copy_from_slice(self.block()?))),
            [other] => return Err(format!("a position is of the unknown kind {other}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use millstream_event::{Column, Schema};
    use millstream_log::{Class, Epoch, Retention, TaskId, TopicKind, TopicSpec};

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn info(columns: &[(&str, &str)], schema_version: u32) -> TopicInfo {
        let columns = columns.iter().map(|(name, kind)| Column::parse(*name, kind).unwrap()).collect();
        let spec = TopicSpec {
            name: name("out"),
            partitions: 3,
            key: Vec::new(),
            schema: Schema::new(columns).unwrap(),
            kind: TopicKind::Stream,
            retention: Retention::default(),
            consumers: Vec::new(),
        };
        TopicInfo { spec, schema_version }
    }

    fn commit(out: &TopicInfo) -> Commit {
        use arrow_array::{Int32Array, StringArray, TimestampMicrosecondArray};
        let times = TimestampMicrosecondArray::from(vec![6, 8]).with_timezone("+00:00");
        let columns: Vec<arrow_array::ArrayRef> = vec![
            Arc::new(Int32Array::from(vec![1, 2])),
            Arc::new(StringArray::from(vec![None, Some("x")])),
            Arc::new(times),
        ];
        let rows = RecordBatch::try_new(Arc::clone(out.spec.schema.physical()), columns).unwrap();
        let append = |rows: RecordBatch, watermark| Append {
            topic: name("out"),
            partition: PartitionId(2),
            schema_version: 1,
            rows,
            watermark,
        };
        let opaque = |text: &'static str| Position::Opaque(Bytes::from_static(text.as_bytes()));
        Commit {
            task: TaskId::new(name("count"), 2),
            epoch: Epoch(7),
            class: Class::Processing,
            consumed: vec![
                Consumed { input: name("in"), from: None, to: Position::Offset(Offset(9)) },
                Consumed { input: name("__time"), from: Some(opaque("a")), to: opaque("b") },
            ],
            appends: vec![append(rows.clone(), None), append(rows.slice(0, 0), Some(Watermark(-5)))],
        }
    }

    #[test]
    fn a_staged_commit_reads_back_also_after_its_topic_has_gained_a_column() {
        let before = info(&[("id", "int!"), ("text", "string")], 1);
        let commit = commit(&before);
        let bytes = Bytes::from(encode(&commit).unwrap());
        let back = decode(&bytes, &|_| Some(before.clone())).unwrap();
        assert_eq!(back.consumed, commit.consumed);
        assert_eq!(back.appends[0].rows, commit.appends[0].rows);
        assert_eq!(back.appends[1].watermark, Some(Watermark(-5)));
        assert_eq!((back.appends[1].partition, back.appends[1].rows.num_rows()), (PartitionId(2), 0));
        let after = info(&[("id", "int!"), ("more", "double"), ("text", "string")], 2);
        let back = decode(&bytes, &|_| Some(after.clone())).unwrap();
        assert_eq!((back.appends[0].schema_version, back.appends[0].rows.num_columns()), (2, 4));
        assert_eq!(back.appends[0].rows.column(2), commit.appends[0].rows.column(1));
    }

    #[test]
    fn damage_is_found_and_never_a_panic() {
        let out = info(&[("id", "int!"), ("text", "string")], 1);
        let bytes = encode(&commit(&out)).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            assert!(decode(&Bytes::from(flipped), &|_| Some(out.clone())).is_err(), "byte {at}");
            assert!(decode(&Bytes::from(bytes[..at].to_vec()), &|_| Some(out.clone())).is_err(), "cut at {at}");
        }
        assert!(decode(&Bytes::from(bytes), &|_| None).unwrap_err().contains("`out`"));
    }

    /// A staged commit of version 1 that must stay readable: see the module's layout.
    #[test]
    fn the_first_version_stays_readable() {
        let bytes = Bytes::from_static(include_bytes!("staged.v1.bin"));
        let out = info(&[("id", "int!"), ("text", "string")], 1);
        let back = decode(&bytes, &|_| Some(out.clone())).unwrap();
        assert_eq!(back.consumed, commit(&out).consumed);
        assert_eq!(back.appends[0].rows, commit(&out).appends[0].rows);
    }
}

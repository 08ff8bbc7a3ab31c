//! The checkpoint: what is true after the last segment that was settled. Opening starts here, so that its time does
//! not grow with the log.
//!
//! One line with format, length and CRC, then JSON. It is replaced as a whole: written beside, synced, renamed, and the
//! directory synced. A copy is replaced with it, because much of what it says (topics, positions) stands nowhere else
//! once a segment was given back: where the one is damaged, a repair takes the other. Opening reads the checkpoint alone.
//! A crash may leave the copy one step behind or ahead; the next opening makes it equal before it removes anything, so
//! both are always true of the files that are there.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::state::State;
use super::walk::io_error;
use crate::Error;
use crate::vfs::{OpenOptions, Vfs};

/// The version of the checkpoint's format.
const VERSION: u32 = 1;
/// The required features that this version knows: none yet.
const FEATURES_KNOWN: u64 = 0;

/// A settled file, as far as it is valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SettledMeta {
    /// The offset in its name: of its first event.
    pub(super) base: u64,
    /// The offset behind its last event.
    pub(super) next: u64,
    /// The bytes that are valid; what follows is of a pass that did not end.
    pub(super) len: u64,
    /// When the oldest of its events was appended, in microseconds since 1970.
    pub(super) oldest: i64,
    /// When the newest of its events was appended, in microseconds since 1970.
    pub(super) newest: i64,
    /// The events' bytes in columns, before compression.
    pub(super) raw: u64,
    /// Which compaction made it; 0: none did.
    #[serde(default)]
    pub(super) generation: u64,
    /// How many events it has; `None`: one for each offset.
    #[serde(default)]
    pub(super) rows: Option<u64>,
    /// Of what a compaction made: events before an offset were appended no later than a time. Blocks tell the time of
    /// their newest event only, with which an old tombstone may stand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) times: Vec<(u64, i64)>,
}

impl SettledMeta {
    /// A file without events.
    pub(super) fn empty(base: u64, generation: u64, time: i64) -> Self {
        Self {
            base,
            next: base,
            len: 0,
            oldest: time,
            newest: time,
            raw: 0,
            generation,
            rows: Some(0),
            times: Vec::new(),
        }
    }

    /// How many events it has.
    pub(super) fn rows(&self) -> u64 {
        self.rows.unwrap_or(self.next - self.base)
    }
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    version: u32,
    features_required: u64,
    #[serde(with = "hex")]
    pub(super) log: u128,
    /// The last settled group, its CRC and its segment.
    pub(super) seq: u64,
    pub(super) crc: u32,
    pub(super) segment: u64,
    /// The greatest incarnation known.
    pub(super) incarnation: u64,
    /// What the frames up to that group say.
    pub(super) state: State,
    /// The settled files, by topic number, by partition.
    pub(super) files: BTreeMap<u32, BTreeMap<u32, Vec<SettledMeta>>>,
}

impl Checkpoint {
    /// A log's first.
    pub(super) fn first(log: u128) -> Self {
        Self {
            version: VERSION,
            features_required: 0,
            log,
            seq: 0,
            crc: 0,
            segment: 0,
            incarnation: 0,
            state: State::default(),
            files: BTreeMap::new(),
        }
    }

    /// A checkpoint that was worked out anew: true before the first group of `segment`'s successor.
    pub(super) fn rebuilt(log: u128, segment: u64, seq: u64, crc: u32) -> Self {
        Self { segment, seq, crc, ..Self::first(log) }
    }

    /// Reads the checkpoint; `None` where there is none.
    pub(super) fn load(vfs: &dyn Vfs, layout: &Layout) -> Result<Option<Self>, Error> {
        Self::load_from(vfs, &layout.checkpoint())
    }

    /// Reads a checkpoint's copy; `None` where there is none.
    pub(super) fn load_copy(vfs: &dyn Vfs, layout: &Layout) -> Result<Option<Self>, Error> {
        Self::load_from(vfs, &layout.checkpoint_copy())
    }

    fn load_from(vfs: &dyn Vfs, path: &Path) -> Result<Option<Self>, Error> {
        let bytes = bytes_of(vfs, path).map_err(io_error("reading", path))?;
        bytes.map(|bytes| Self::decode(&bytes, path)).transpose()
    }

    /// Reads the checkpoint, and its bytes as they stand in the file.
    pub(super) fn load_with_bytes(vfs: &dyn Vfs, layout: &Layout) -> Result<Option<(Self, Vec<u8>)>, Error> {
        let path = layout.checkpoint();
        let bytes = bytes_of(vfs, &path).map_err(io_error("reading", &path))?;
        bytes.map(|bytes| Ok((Self::decode(&bytes, &path)?, bytes))).transpose()
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<Self, Error> {
        let corrupt = |what: String| Error::Corrupt { what, path: path.to_owned(), at: 0, affected: "unknown".into() };
        let too_new = |what: String| Error::TooNew { path: path.to_owned(), what };
        let (version, json) = open_envelope(bytes).map_err(corrupt)?;
        if version != VERSION {
            return Err(too_new(format!("checkpoint version {version}")));
        }
        let read: Self = serde_json::from_slice(json).map_err(|e| corrupt(format!("a checkpoint that says {e}")))?;
        let unknown = read.features_required & !FEATURES_KNOWN;
        if unknown != 0 {
            return Err(too_new(format!("required feature bits {unknown:#x}")));
        }
        Ok(read)
    }

    /// Replaces the checkpoint and its copy durably.
    ///
    /// # Errors
    /// One that says "no space" comes only before the checkpoint has changed, so that the caller may try again.
    pub(super) fn save(&self, vfs: &dyn Vfs, layout: &Layout) -> io::Result<()> {
        let json = serde_json::to_vec(self).map_err(io::Error::other)?;
        let mut bytes =
            format!("millstream-checkpoint {VERSION} {} {:08x}\n", json.len(), crc32fast::hash(&json)).into_bytes();
        bytes.extend_from_slice(&json);
        // A name is given only to bytes that are on the disk.
        write(vfs, &layout.checkpoint_new(), &bytes)?;
        write(vfs, &layout.checkpoint_copy_new(), &bytes)?;
        vfs.rename(&layout.checkpoint_new(), &layout.checkpoint())?;
        // From here on the new one may be what the next opening finds: files it names must not be written again.
        let late = |e: io::Error| io::Error::other(format!("{e}, when the checkpoint had its name already"));
        vfs.rename(&layout.checkpoint_copy_new(), &layout.checkpoint_copy()).map_err(late)?;
        vfs.sync_dir(&layout.dir).map_err(late)
    }

    /// Makes the copy say what the checkpoint says; its name is durable after the directory's next sync. A copy that
    /// cannot be read is one that says something else.
    pub(super) fn renew_copy(vfs: &dyn Vfs, layout: &Layout) -> io::Result<()> {
        let bytes = bytes_of(vfs, &layout.checkpoint())?;
        let copy = bytes_of(vfs, &layout.checkpoint_copy()).unwrap_or_default();
        match bytes {
            Some(bytes) if copy.as_ref() != Some(&bytes) => {
                write(vfs, &layout.checkpoint_copy_new(), &bytes)?;
                vfs.rename(&layout.checkpoint_copy_new(), &layout.checkpoint_copy())
            }
            _ => Ok(()),
        }
    }
}

fn write(vfs: &dyn Vfs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = vfs.open(path, OpenOptions::TRUNCATE)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()
}

/// A file's bytes; `None` where it does not exist.
fn bytes_of(vfs: &dyn Vfs, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match vfs.open(path, OpenOptions::READ) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(Some(bytes))
}

fn open_envelope(bytes: &[u8]) -> Result<(u32, &[u8]), String> {
    let bad = || "a checkpoint whose first line is damaged".to_owned();
    let line_len = bytes.iter().position(|b| *b == b'\n').ok_or_else(bad)?;
    let (line, json) = bytes.split_at(line_len);
    let json = json.get(1..).unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| bad())?;
    let mut words = line.split(' ');
    if words.next() != Some("millstream-checkpoint") {
        return Err(bad());
    }
    let version = words.next().and_then(|w| w.parse().ok()).ok_or_else(bad)?;
    if version != VERSION {
        return Ok((version, json));
    }
    let len: usize = words.next().and_then(|w| w.parse().ok()).ok_or_else(bad)?;
    let crc = words.next().and_then(|w| u32::from_str_radix(w, 16).ok()).ok_or_else(bad)?;
    if json.len() != len || crc32fast::hash(json) != crc {
        return Err("a checkpoint whose checksum is wrong".into());
    }
    Ok((version, json))
}

mod hex {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(n: &u128, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{n:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
        let text = String::deserialize(from)?;
        u128::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}

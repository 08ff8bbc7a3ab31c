//! The checkpoint: what is true after the last segment that was settled. Opening starts here, so that its time does
//! not grow with the log.
//!
//! One line with format, length and CRC, then JSON. It is replaced as a whole: written beside, synced, renamed, and the
//! directory synced.

use std::collections::BTreeMap;

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

    /// Reads the checkpoint; `None` where there is none.
    pub(super) fn load(vfs: &dyn Vfs, layout: &Layout) -> Result<Option<Self>, Error> {
        let path = layout.checkpoint();
        let file = match vfs.open(&path, OpenOptions::READ) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_error("opening", &path)(e)),
        };
        let len = file.len().map_err(io_error("reading", &path))?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, 0).map_err(io_error("reading", &path))?;
        let corrupt = |what: String| Error::Corrupt { what, path: path.clone(), at: 0, affected: "unknown".into() };
        let too_new = |what: String| Error::TooNew { path: path.clone(), what };
        let (version, json) = open_envelope(&bytes).map_err(corrupt)?;
        if version != VERSION {
            return Err(too_new(format!("checkpoint version {version}")));
        }
        let read: Self = serde_json::from_slice(json).map_err(|e| corrupt(format!("a checkpoint that says {e}")))?;
        let unknown = read.features_required & !FEATURES_KNOWN;
        if unknown != 0 {
            return Err(too_new(format!("required feature bits {unknown:#x}")));
        }
        Ok(Some(read))
    }

    /// Replaces the checkpoint durably.
    pub(super) fn save(&self, vfs: &dyn Vfs, layout: &Layout) -> std::io::Result<()> {
        let json = serde_json::to_vec(self).map_err(std::io::Error::other)?;
        let line = format!("millstream-checkpoint {VERSION} {} {:08x}\n", json.len(), crc32fast::hash(&json));
        let file = vfs.open(&layout.checkpoint_new(), OpenOptions::TRUNCATE)?;
        // The name is given only to bytes that are on the disk.
        file.write_all_at(line.as_bytes(), 0)?;
        file.write_all_at(&json, line.len() as u64)?;
        file.sync_data()?;
        vfs.rename(&layout.checkpoint_new(), &layout.checkpoint())?;
        vfs.sync_dir(&layout.dir)
    }
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

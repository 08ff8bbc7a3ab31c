//! Where a file source stands: which files are read to what byte.
//!
//! A position has a bounded size. It names the files that may still hold something new, and one name `before`: every
//! matching file whose name is not greater and which is not listed counts as read. So a directory may collect any
//! number of files, as long as new ones sort behind those that were forgotten.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::service::ConnectError;
use crate::service::log::Position;

/// The longest file name (behind the fixed part of the pattern) in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 1024;
/// The version of the position's form.
const VERSION: u32 = 1;

/// How far one file is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FilePlace {
    /// The name behind the fixed part of the pattern.
    #[serde(rename = "f")]
    pub(crate) name: String,
    /// The file's inode, by which a renamed file is found again.
    #[serde(rename = "i")]
    pub(crate) inode: u64,
    /// How many of the first bytes (as stored, not decompressed) are in `head`.
    #[serde(rename = "n")]
    pub(crate) head_bytes: u32,
    /// A checksum of the first bytes: the same file is known by its beginning.
    #[serde(rename = "h")]
    pub(crate) head: u64,
    /// The byte (decompressed) behind the last event that was taken.
    #[serde(rename = "o")]
    pub(crate) offset: u64,
    /// The number of lines before that byte.
    #[serde(rename = "l")]
    pub(crate) lines: u64,
    /// Whether it is read to its end for good (a compressed file does not grow).
    #[serde(rename = "d", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) done: bool,
}

/// How far all files are read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Places {
    #[serde(rename = "v")]
    version: u32,
    /// Files up to this name count as read unless listed.
    #[serde(rename = "b", default)]
    pub(crate) before: Option<String>,
    /// In order of their names.
    #[serde(rename = "p", default)]
    pub(crate) files: Vec<FilePlace>,
}

impl Places {
    pub(crate) fn decode(position: Option<&Position>) -> Result<Self, ConnectError> {
        let Some(position) = position else { return Ok(Self { version: VERSION, ..Self::default() }) };
        let Position::Opaque(bytes) = position else {
            return Err(ConnectError::permanent("the position of this source is an offset, not one of a file source"));
        };
        let places: Self = serde_json::from_slice(bytes)
            .map_err(|e| ConnectError::permanent(format!("the position is not one of a file source: {e}")))?;
        if places.version != VERSION {
            return Err(ConnectError::permanent(format!(
                "the position was written by a newer version of millstream (form {}, this one knows {VERSION})",
                places.version
            )));
        }
        Ok(places)
    }

    /// The position to commit. [`Places::fits`] holds before.
    pub(crate) fn encode(&self) -> Result<Position, ConnectError> {
        match serde_json::to_vec(self) {
            Ok(bytes) if bytes.len() <= Position::OPAQUE_BYTES_MAX => Ok(Position::Opaque(Bytes::from(bytes))),
            Ok(bytes) => Err(ConnectError::permanent(format!(
                "the file names are too long to be kept in a position ({} bytes); use shorter ones",
                bytes.len()
            ))),
            Err(e) => Err(ConnectError::permanent(format!("the position cannot be written: {e}"))),
        }
    }

    /// Whether the position stays within its limit when offsets have grown to their longest form.
    pub(crate) fn fits(&self) -> bool {
        const FIXED: usize = 144;
        let text = |s: &str| s.len() + s.bytes().filter(|b| *b < b' ' || *b == b'"' || *b == b'\\').count() * 5;
        let files: usize = self.files.iter().map(|f| text(&f.name) + FIXED).sum();
        files + self.before.as_deref().map_or(0, text) + FIXED <= Position::OPAQUE_BYTES_MAX
    }

    pub(crate) fn place(&self, name: &str) -> Option<&FilePlace> {
        self.files.iter().find(|f| f.name == name)
    }

    /// Whether a file that is not listed counts as read.
    pub(crate) fn is_forgotten(&self, name: &str) -> bool {
        self.place(name).is_none() && self.before.as_deref().is_some_and(|before| name <= before)
    }

    /// Notes how far a file is read.
    pub(crate) fn set(&mut self, place: FilePlace) {
        match self.files.iter_mut().find(|f| f.name == place.name) {
            Some(known) => *known = place,
            None => {
                let at = self.files.partition_point(|f| f.name < place.name);
                self.files.insert(at, place);
            }
        }
    }

    /// Forgets the first file but `keep`, which from now on counts as read. Answers its name.
    pub(crate) fn forget_first(&mut self, keep: &str) -> Option<String> {
        let first = self.files.iter().find(|f| f.name != keep)?.name.clone();
        self.finish(&first);
        Some(first)
    }

    /// Notes that a file is read and will not be looked at again.
    pub(crate) fn finish(&mut self, name: &str) {
        self.files.retain(|f| f.name != name);
        if self.before.as_deref().is_none_or(|before| before < name) {
            self.before = Some(name.to_owned());
        }
    }

    /// Forgets a file that is gone, without moving `before`.
    pub(crate) fn drop_file(&mut self, name: &str) {
        self.files.retain(|f| f.name != name);
    }
}

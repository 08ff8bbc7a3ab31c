//! The `file` source: NDJSON and CSV files, plain, gzip or zstd, one or many, once or followed as they grow.
//!
//! **Exactly once.** The position (see `position.rs`) names the file by its beginning and its inode, and the byte behind
//! the last event; it is committed with the events. A task that is opened again goes on at that byte. Bytes are those
//! after decompression.
//!
//! **Once** (the default): files in the order of their names, each to its end; a last line without line end is taken.
//! When none is left the source is finished. Files that appear meanwhile are read if they sort behind those that were
//! read. A file that was replaced or removed while it was being read is an error that stops the source.
//!
//! **Follow**: all matching files are watched. A last line without line end is waited for. A renamed file (log rotation)
//! is read to its end under its new name, also where the new name does not match the pattern, as long as it stays in its
//! directory; the file that takes its name begins anew. A truncated file begins anew. A removed file is forgotten; what
//! was not read of it is lost, and that is said. Some twenty files are watched at once (as many as the position can
//! name); where there are more, those that sort first are read to their end and then not looked at again.
//!
//! **Arrow** (files and streams, not compressed as a whole): the place is an event within a record batch. A followed file
//! is read once it is whole. What of it is damaged stops the source; a row that does not fit is refused alone.

mod arrow;
mod follow;
mod input;
mod once;
mod pattern;
mod position;
mod reader;
mod source;

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::decode::Format;
use crate::event::Unknown;
use crate::service::ConnectError;

pub(crate) use input::Input;
pub use source::FileSource;

/// How often a followed file is looked at.
pub const POLL_DEFAULT: Duration = Duration::from_millis(200);

/// What to read.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// A path or a glob (`*` and `?` do not cross a `/`, `**` does), absolute or relative to the working directory.
    pub path: String,
    /// The form of the events.
    pub format: Format,
    /// How the files are compressed.
    pub compression: Compression,
    /// Whether to wait for more.
    pub follow: bool,
    /// What happens to fields without a column.
    pub unknown: Unknown,
    /// How often to look for more.
    pub poll: Duration,
}

impl Settings {
    /// Reads a path once, the format by its suffix.
    pub fn new(path: impl Into<String>) -> Self {
        let path = path.into();
        let plain = path.trim_end_matches(".gz").trim_end_matches(".zst");
        let format = Format::of(Path::new(plain)).unwrap_or_default();
        let (compression, poll) = (Compression::Auto, POLL_DEFAULT);
        Self { path, format, compression, follow: false, unknown: Unknown::default(), poll }
    }
}

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// By the suffix: `.gz`, `.zst`, else not.
    #[default]
    Auto,
    /// Not.
    None,
    /// gzip, also several members behind each other.
    Gzip,
    /// Zstandard, also several frames behind each other.
    Zstd,
}

impl Compression {
    /// What [`Compression::Auto`] means for a path.
    pub(crate) fn of(self, path: &Path) -> Self {
        match (self, path.extension().and_then(|e| e.to_str())) {
            (Self::Auto, Some("gz")) => Self::Gzip,
            (Self::Auto, Some("zst")) => Self::Zstd,
            (Self::Auto, _) => Self::None,
            (known, _) => known,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

impl std::str::FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            "gzip" | "gz" => Ok(Self::Gzip),
            "zstd" | "zst" => Ok(Self::Zstd),
            _ => Err(format!("`{text}` is no compression; there are `auto`, `none`, `gzip` and `zstd`")),
        }
    }
}

/// What the system says about a file, with what to do. Only what may pass by itself is retryable.
pub(crate) fn io_error(doing: &str, path: &Path, e: &io::Error) -> ConnectError {
    let path = path.display();
    match e.kind() {
        io::ErrorKind::NotFound => ConnectError::permanent(format!("{doing} {path}: it does not exist")),
        io::ErrorKind::PermissionDenied => {
            ConnectError::permanent(format!("{doing} {path}: permission denied for the user that runs this"))
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ConnectError::temporary(format!("{doing} {path}: no space is left; it goes on when there is some"))
        }
        io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => {
            ConnectError::permanent(format!("{doing} {path}: {e}"))
        }
        _ => ConnectError::temporary(format!("{doing} {path}: {e}")),
    }
}

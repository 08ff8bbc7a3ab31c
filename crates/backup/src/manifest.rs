//! What one backup consists of: a JSON object, written when all that it names is there.

use std::collections::HashSet;

use millstream_log::backup::Step;
use serde::{Deserialize, Serialize};

use crate::Error;

/// The version of the manifest's format.
const FORMAT: u32 = 1;
/// The folder of manifests, below the pipeline's.
pub(crate) const FOLDER: &str = "manifests";
/// The folder of objects, below the pipeline's.
pub(crate) const DATA: &str = "data";

/// A part of a file, in an object of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Where it begins in the file.
    pub from: u64,
    /// Where it ends.
    pub to: u64,
    /// The running checksum of the file up to its end, by which the log knows it again.
    pub mark: u32,
    /// The CRC-32 of its bytes.
    pub crc: u32,
    /// The object, below the pipeline's folder.
    pub object: String,
}

impl Piece {
    /// Its bytes.
    pub fn bytes(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }

    /// Its end, as the log says it.
    pub(crate) fn end(&self) -> Step {
        Step { to: self.to, mark: self.mark }
    }
}

/// A file below the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its name, with `/` between the parts.
    pub path: String,
    /// Its parts, in order.
    pub pieces: Vec<Piece>,
}

/// One backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format.
    pub format: u32,
    /// The version of the program that wrote it.
    pub version: String,
    /// The pipeline.
    pub pipeline: String,
    /// The log's own number, in hexadecimal.
    pub log: String,
    /// When the round began, in microseconds since 1970: what was committed before is in it.
    pub time_us: i64,
    /// The last group of commits in it.
    pub group: u64,
    /// How many positions of tasks are in it.
    pub positions: u64,
    /// All files.
    pub files: Vec<ManifestFile>,
}

impl Manifest {
    /// One of this version.
    pub(crate) fn new(pipeline: &str, log: u128, time_us: i64, group: u64, positions: u64) -> Self {
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pipeline: pipeline.to_owned(),
            log: format!("{log:032x}"),
            time_us,
            group,
            positions,
            files: Vec::new(),
        }
    }

    /// Reads one, and refuses what a later version wrote or what could lead out of the directory.
    pub(crate) fn decode(name: &str, place: &str, bytes: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let damaged = |why: String| Error::Damaged { object: name.to_owned(), place: place.to_owned(), why };
        let Format { format } = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
        if format != FORMAT {
            return Err(Error::TooNew { object: name.to_owned(), format });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
        if let Some(file) = manifest.files.iter().find(|file| !is_inside(&file.path)) {
            return Err(damaged(format!("it names the file `{}`", file.path)));
        }
        if let Some(file) = manifest.files.iter().find(|file| !is_whole(file)) {
            return Err(damaged(format!("the parts of `{}` do not follow each other", file.path)));
        }
        Ok(manifest)
    }

    /// Its name among manifests: in the order of time.
    pub(crate) fn name(&self) -> String {
        let at = chrono::DateTime::from_timestamp_micros(self.time_us).unwrap_or_default();
        format!("{}.json", at.format("%Y%m%dT%H%M%S%.6fZ"))
    }

    /// The objects that it needs.
    pub fn objects(&self) -> HashSet<&str> {
        self.pieces().map(|piece| piece.object.as_str()).collect()
    }

    /// All parts of all files.
    pub fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.files.iter().flat_map(|file| &file.pieces)
    }

    /// The bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.pieces().map(Piece::bytes).sum()
    }
}

/// Whether a path stays below the directory that it is relative to.
fn is_inside(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0']))
}

fn is_whole(file: &ManifestFile) -> bool {
    let mut at = 0;
    file.pieces.iter().all(|piece| {
        let follows = piece.from == at && piece.to > piece.from;
        at = piece.to;
        follows
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(path: &str, pieces: &[(u64, u64)]) -> Vec<u8> {
        let piece = |(from, to): &(u64, u64)| Piece { from: *from, to: *to, mark: 1, crc: 2, object: "data/x".into() };
        let mut manifest = Manifest::new("p", 7, 1_700_000_000_000_000, 3, 4);
        manifest.files = vec![ManifestFile { path: path.into(), pieces: pieces.iter().map(piece).collect() }];
        serde_json::to_vec(&manifest).unwrap()
    }

    #[test]
    fn a_manifest_reads_back_and_one_that_leads_elsewhere_does_not() {
        let read = Manifest::decode("m", "here", &manifest("topics/a/0/1.ev", &[(0, 5), (5, 9)])).unwrap();
        assert_eq!((read.bytes(), read.objects().len(), read.name().as_str()), (9, 1, "20231114T221320.000000Z.json"));
        for path in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a\\..\\b"] {
            assert!(Manifest::decode("m", "here", &manifest(path, &[(0, 1)])).is_err(), "{path}");
        }
        for pieces in [&[(1, 5)][..], &[(0, 5), (6, 7)], &[(0, 5), (5, 5)], &[(5, 0)]] {
            assert!(Manifest::decode("m", "here", &manifest("a", pieces)).is_err(), "{pieces:?}");
        }
    }

    #[test]
    fn a_later_format_is_named() {
        let error = Manifest::decode("m", "here", br#"{"format": 9, "all": "else"}"#).unwrap_err();
        assert!(matches!(error, Error::TooNew { format: 9, .. }), "{error}");
    }
}

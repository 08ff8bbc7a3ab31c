//! The names of the log's files.
//!
//! ```text
//! LOCK                              who has the log open
//! checkpoint                        what is true after the last settled segment
//! checkpoint.copy                   the same again, for a repair
//! journal/0000000000000001.seg      segments, by number
//! journal/reserve                   space set aside for a full disk
//! topics/<topic>/<partition>/<offset>.ev   settled events
//! topics/<topic>/<partition>/<offset>-<n>.ev   the same of a table, after the n-th compaction
//! damaged/                          what a repair took out
//! ```

use std::path::{Path, PathBuf};

use millstream_event::{Name, Offset};

/// What the name of a settled segment that is kept begins with.
const SPARE: &str = "spare-";

/// Where the files of a log are.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) dir: PathBuf,
}

impl Layout {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.dir.join("LOCK")
    }

    pub(super) fn checkpoint(&self) -> PathBuf {
        self.dir.join("checkpoint")
    }

    pub(super) fn checkpoint_new(&self) -> PathBuf {
        self.dir.join("checkpoint.new")
    }

    pub(super) fn checkpoint_copy(&self) -> PathBuf {
        self.dir.join("checkpoint.copy")
    }

    pub(super) fn checkpoint_copy_new(&self) -> PathBuf {
        self.dir.join("checkpoint.copy.new")
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    pub(super) fn segment(&self, id: u64) -> PathBuf {
        self.journal().join(format!("{id:016x}.seg"))
    }

    /// The segment that an opening is about to add.
    pub(super) fn segment_new(&self) -> PathBuf {
        self.journal().join("new")
    }

    /// A settled segment, kept to be used again.
    pub(super) fn spare(&self, id: &str) -> PathBuf {
        self.journal().join(format!("{SPARE}{id}"))
    }

    pub(super) fn reserve(&self) -> PathBuf {
        self.journal().join("reserve")
    }

    pub(super) fn topics(&self) -> PathBuf {
        self.dir.join("topics")
    }

    pub(super) fn damaged(&self) -> PathBuf {
        self.dir.join("damaged")
    }

    pub(super) fn partition(&self, topic: &Name, partition: u32) -> PathBuf {
        self.topics().join(topic.as_str()).join(partition.to_string())
    }

    pub(super) fn settled(&self, topic: &Name, partition: u32, base: Offset, generation: u64) -> PathBuf {
        self.partition(topic, partition).join(settled_name(base, generation))
    }
}

/// The number in a segment's file name.
pub(super) fn segment_id(name: &str) -> Option<u64> {
    name.strip_suffix(".seg").filter(|n| n.len() == 16).and_then(|n| u64::from_str_radix(n, 16).ok())
}

/// Whether a file's name is that of a settled segment that is kept.
pub(super) fn is_spare(name: &str) -> bool {
    name.starts_with(SPARE)
}

/// The first offset and the generation in a settled file's name.
pub(super) fn settled_base(name: &str) -> Option<(u64, u64)> {
    let name = name.strip_suffix(".ev")?;
    let (base, generation) = name.split_once('-').unwrap_or((name, "0"));
    let base = Some(base).filter(|n| n.len() == 20)?;
    Some((base.parse().ok()?, generation.parse().ok()?))
}

/// The name of a settled file; of generation 0 where no compaction has made it.
pub(super) fn settled_name(base: Offset, generation: u64) -> String {
    match generation {
        0 => format!("{:020}.ev", base.0),
        generation => format!("{:020}-{generation}.ev", base.0),
    }
}

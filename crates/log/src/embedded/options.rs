//! What a user of the embedded log can set.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::vfs::{RealVfs, Vfs};
use crate::{Clock, SystemClock};

/// When a commit is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncMode {
    /// After a sync, which it shares with all commits that waited.
    #[default]
    Group,
    /// After the write; a sync follows within this time. A power failure may lose that much.
    Interval(Duration),
    /// After the write. A power failure may lose what the system had not written yet.
    Never,
}

/// A line of code that a test may break, to see that the tests would notice.
#[cfg(any(test, feature = "sabotage"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Groups are written and not synced.
    NoSync,
    /// Commits are answered before the sync.
    EarlyAcknowledgement,
    /// Commits of an older epoch are let through.
    NoEpochCheck,
    /// A group is taken for the next whatever group it says it follows.
    NoChainCheck,
    /// Compactions wait for columns that the checkpoint does not know yet, and write them, as early builds may have.
    CompactAhead,
    /// What a compaction made gets its name without a sync.
    CompactUnsynced,
    /// A compaction leaves the newest row of some keys out.
    CompactForgetful,
    /// A compaction leaves the promises of producers out.
    CompactSilent,
    /// What a compaction was made of goes before the checkpoint names what it made.
    CompactHasty,
}

/// The settings of an embedded log. [`Options::new`] has the defaults.
#[derive(Clone)]
pub struct Options {
    /// Where the files are.
    pub dir: PathBuf,
    /// How large a part of the journal is before it is settled. At least [`Options::SEGMENT_BYTES_MIN`], and at most a
    /// sixteenth of `max_bytes`.
    pub segment_bytes: u64,
    /// How large a settled file of a partition grows before the next begins.
    pub settled_file_bytes: u64,
    /// How many bytes of columns make a block of a settled file: what is read, and lost by damage, at once.
    pub block_bytes: usize,
    /// A partition of a table is compacted when as many bytes of columns have come since the last time, and more than were
    /// left then. All partitions together have at most a sixteenth of `max_bytes` for it.
    pub compact_bytes: u64,
    /// When a commit is answered.
    pub sync: SyncMode,
    /// How many bytes of the newest events are kept in memory.
    pub tail_cache_bytes: u64,
    /// How many bytes one sync makes durable at most (a single larger commit is written alone).
    pub group_bytes: usize,
    /// The most bytes that journal and settled files may have together; `None`: what the disk has. A segment's worth of
    /// it is kept for settling, so sources are refused that much earlier.
    pub max_bytes: Option<u64>,
    /// Bytes set aside so that events on their way can still be processed when the disk is full.
    pub reserve_bytes: u64,
    /// Whether a thread makes segments ready ahead of the writer.
    pub prepare_ahead: bool,
    /// How long after the last commit the log notes that all is durable.
    pub idle_after: Duration,
    /// How often to look for events past their retention, and for space on a full disk.
    pub tidy_every: Duration,
    /// The files.
    pub vfs: Arc<dyn Vfs>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is broken on purpose.
    #[cfg(any(test, feature = "sabotage"))]
    pub sabotage: Option<Sabotage>,
}

impl Options {
    /// The smallest segment.
    pub const SEGMENT_BYTES_MIN: u64 = 16 << 10;

    /// A segment is at most one part in this many of what the log may use: what is in one is neither settled nor let go
    /// of before it is full, and a few of them are always there.
    const SEGMENT_PART: u64 = 16;

    /// The defaults, for a log in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 32 << 20,
            settled_file_bytes: 256 << 20,
            block_bytes: 1 << 20,
            compact_bytes: 8 << 20,
            sync: SyncMode::Group,
            tail_cache_bytes: 64 << 20,
            group_bytes: 8 << 20,
            max_bytes: None,
            reserve_bytes: 16 << 20,
            prepare_ahead: true,
            idle_after: Duration::from_millis(200),
            tidy_every: Duration::from_secs(1),
            vfs: Arc::new(RealVfs),
            clock: Arc::new(SystemClock),
            #[cfg(any(test, feature = "sabotage"))]
            sabotage: None,
        }
    }

    /// How large a segment becomes.
    pub(super) fn segment_len(&self) -> u64 {
        let most = self.max_bytes.map_or(u64::MAX, |max| max / Self::SEGMENT_PART);
        self.segment_bytes.min(most).max(Self::SEGMENT_BYTES_MIN)
    }

    /// How many bytes must have come to a partition of a table before it is compacted, where there are so many partitions.
    pub(super) fn compact_floor(&self, partitions: u64) -> u64 {
        let share = self.max_bytes.map_or(u64::MAX, |max| max / Self::SEGMENT_PART / partitions.max(1));
        self.compact_bytes.min(share)
    }

    /// Whether a group must say that it follows the one before it.
    pub(super) fn checks_chain(&self) -> bool {
        #[cfg(any(test, feature = "sabotage"))]
        if self.broken(Sabotage::NoChainCheck) {
            return false;
        }
        true
    }

    /// Whether a line is broken on purpose; never in a build for users.
    #[cfg(any(test, feature = "sabotage"))]
    pub(super) fn broken(&self, sabotage: Sabotage) -> bool {
        self.sabotage == Some(sabotage)
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("dir", &self.dir)
            .field("segment_bytes", &self.segment_bytes)
            .field("sync", &self.sync)
            .finish_non_exhaustive()
    }
}

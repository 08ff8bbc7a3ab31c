//! A segment of the journal: a file of groups.

use std::path::PathBuf;
use std::sync::Arc;

use crate::vfs::File;

/// An open segment. It is written front to back by the committer alone.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    /// Groups end before this.
    pub(super) capacity: u64,
}

/// A sealed segment: nothing is written to it any more.
#[derive(Debug, Clone)]
pub(super) struct Sealed {
    pub(super) segment: Arc<Segment>,
    /// Where its groups end.
    pub(super) end: u64,
}

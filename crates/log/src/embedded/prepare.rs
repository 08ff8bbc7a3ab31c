//! Segments made ready ahead of the writer.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::layout::Layout;
use super::segment::Segment;
use super::space::Room;
use super::writer::{WriteError, is_no_space};
use crate::vfs::{OpenOptions, Vfs};

/// Makes segments ready.
#[derive(Debug)]
pub(super) struct Preparer {
    vfs: Arc<dyn Vfs>,
    layout: Layout,
    segment_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    next_id: u64,
}

impl Preparer {
    pub(super) fn new(vfs: Arc<dyn Vfs>, layout: Layout, segment_bytes: u64, next_id: u64) -> Self {
        Self { vfs, layout, segment_bytes, state: Mutex::new(State { next_id }) }
    }

    /// Says that the writer is about to write up to `end` of its segment.
    pub(super) fn claim(&self, _end: u64) -> Result<(), String> {
        Ok(())
    }

    /// Says that the writer has written up to `end`.
    pub(super) fn written(&self, _end: u64) {}

    /// Who may write now.
    pub(super) fn room(&self) -> Room {
        Room::Plenty
    }

    /// Says that a write found no space; answers who may go on.
    pub(super) fn no_space(&self, _why: &str) -> Room {
        Room::None
    }

    /// The next segment, with room for a group of `min` bytes.
    pub(super) fn next_segment(&self, min: u64) -> Result<Arc<Segment>, WriteError> {
        let mut state = self.state.lock();
        let path = self.layout.segment(state.next_id);
        let fail = |e: std::io::Error| match is_no_space(&e) {
            true => WriteError::NoSpace(e.to_string()),
            false => WriteError::Broken(format!("making {}: {e}", path.display())),
        };
        let file = self.vfs.open(Path::new(&path), OpenOptions::TRUNCATE).map_err(fail)?;
        self.vfs.sync_dir(&self.layout.journal()).map_err(fail)?;
        let id = state.next_id;
        state.next_id += 1;
        Ok(Arc::new(Segment { id, path, file, capacity: self.segment_bytes.max(min) }))
    }
}

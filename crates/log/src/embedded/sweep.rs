//! What an opening finds and nothing names: files of passes and compactions that did not end, or past their retention,
//! and what was to become a checkpoint.
//!
//! By then the checkpoint that was read is durable, and so is its copy: nothing that either speaks of goes. What cannot
//! be removed stays, with a warning.

use std::io;

use millstream_event::{Name, Offset};

use super::checkpoint::{Checkpoint, SettledMeta};
use super::layout::{Layout, settled_name};
use crate::vfs::Vfs;

/// Removes all of it, in these partitions: the number of the topic, its name, the number of the partition.
pub(super) fn sweep<'a>(
    vfs: &dyn Vfs,
    layout: &Layout,
    checkpoint: &Checkpoint,
    partitions: impl Iterator<Item = (u32, &'a Name, u32)>,
) {
    for path in [layout.checkpoint_new(), layout.checkpoint_copy_new()] {
        match vfs.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "a checkpoint that was not finished stays");
            }
            _ => {}
        }
    }
    for (topic, name, partition) in partitions {
        let dir = layout.partition(name, partition);
        let Ok(entries) = vfs.list(&dir) else { continue };
        let files = checkpoint.files.get(&topic).and_then(|partitions| partitions.get(&partition));
        for entry in entries {
            let known = |file: &SettledMeta| entry.name == settled_name(Offset(file.base), file.generation);
            if !files.is_some_and(|files| files.iter().any(known))
                && let Err(error) = vfs.remove(&dir.join(&entry.name))
            {
                tracing::warn!(dir = %dir.display(), %error, "a file that is not needed stays");
            }
        }
    }
}

//! What an opening finds and nothing names: files of passes and compactions that did not end, or past their retention,
//! and what was to become a checkpoint.
//!
//! By then the checkpoint that was read is durable, and so is its copy: nothing that either speaks of is among them.

use std::path::PathBuf;

use millstream_event::{Name, Offset};

use super::checkpoint::{Checkpoint, SettledMeta};
use super::layout::{Layout, settled_name};
use crate::vfs::{OpenOptions, Vfs};

/// All of it in these partitions: the number of the topic, its name, the number of the partition.
pub(super) fn leftovers<'a>(
    vfs: &dyn Vfs,
    layout: &Layout,
    checkpoint: &Checkpoint,
    partitions: impl Iterator<Item = (u32, &'a Name, u32)>,
) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in [layout.checkpoint_new(), layout.checkpoint_copy_new()] {
        if vfs.open(&path, OpenOptions::READ).is_ok() {
            found.push(path);
        }
    }
    for (topic, name, partition) in partitions {
        let dir = layout.partition(name, partition);
        let Ok(entries) = vfs.list(&dir) else { continue };
        let files = checkpoint.files.get(&topic).and_then(|partitions| partitions.get(&partition));
        for entry in entries {
            let known = |file: &SettledMeta| entry.name == settled_name(Offset(file.base), file.generation);
            if !files.is_some_and(|files| files.iter().any(known)) {
                found.push(dir.join(&entry.name));
            }
        }
    }
    found
}

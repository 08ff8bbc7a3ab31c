//! What an opening finds and nothing names: files of passes and compactions that did not end, or past their retention,
//! and what was to become a checkpoint.
//!
//! By then the checkpoint that was read is durable, and so is its copy: nothing that either speaks of goes.

use std::io;

use millstream_event::Offset;

use super::checkpoint::SettledMeta;
use super::layout::settled_name;
use super::settler::Settler;

impl Settler {
    /// Removes all of it.
    pub(super) fn sweep(&self) {
        self.sweep_checkpoints();
        self.sweep_topics();
    }

    fn sweep_checkpoints(&self) {
        let (vfs, layout) = (self.shared.options.vfs.as_ref(), &self.shared.layout);
        for path in [layout.checkpoint_new(), layout.checkpoint_copy_new()] {
            match vfs.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "a checkpoint that was not finished stays");
                }
                _ => {}
            }
        }
    }

    fn sweep_topics(&self) {
        let (vfs, layout) = (self.shared.options.vfs.as_ref(), &self.shared.layout);
        let topics = self.shared.topics.read();
        for partition in topics.by_id.values().flat_map(|topic| &topic.partitions) {
            let dir = layout.partition(&partition.at.topic, partition.at.partition.0);
            let Ok(entries) = vfs.list(&dir) else { continue };
            let files = self.checkpoint.files.get(&partition.topic).and_then(|p| p.get(&partition.at.partition.0));
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
}

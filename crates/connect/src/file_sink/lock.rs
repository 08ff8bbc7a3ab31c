//! One writer for the files of a topic, partition and format: of this process or another.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::event::{Name, PartitionId};
use crate::file::io_error;
use crate::service::ConnectError;

/// Takes the lock, which is held as long as the file is open. It stands beside the topics' directories, in which there is
/// nothing but events.
pub(super) fn lock(directory: &Path, topic: &Name, partition: PartitionId, suffix: &str) -> Result<File, ConnectError> {
    let path = directory.join(format!(".{topic}.{partition}.{suffix}.lock"));
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| io_error("opening", &path, &e))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ConnectError::temporary(format!(
            "{} is locked: {} writes partition {partition} of topic `{topic}` here as {suffix}; waiting for it to end",
            path.display(),
            holder(&file)
        ))),
        Err(e) => Err(io_error("locking", &path, &e.into())),
    }
}

/// Who holds a lock, as far as the system tells.
fn holder(file: &File) -> String {
    let inode = file.metadata().map_or(0, |m| m.ino());
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    match locks.lines().find_map(|line| pid(line, inode)) {
        Some(pid) if pid == std::process::id() => "another sink of this process".to_owned(),
        Some(pid) => format!("process {pid}"),
        None => "another writer".to_owned(),
    }
}

/// The process of a line like `1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF`, where the line is about this inode.
fn pid(line: &str, inode: u64) -> Option<u32> {
    let mut fields = line.split_whitespace().skip_while(|field| *field != "FLOCK");
    let pid = fields.nth(3)?.parse().ok()?;
    (fields.next()?.rsplit_once(':')?.1.parse() == Ok(inode)).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let take = |topic: &str| lock(dir.path(), &Name::new(topic).unwrap(), PartitionId(3), "csv");
        let held = take("a").unwrap();
        let error = take("a").unwrap_err();
        assert!(error.retryable() && error.to_string().contains("writes partition 3 of topic `a` here"), "{error}");
        take("b").unwrap();
        drop(held);
        take("a").unwrap();
        assert_eq!(pid("1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF", 1234), Some(4711));
        assert_eq!(pid("1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF", 1235), None);
        assert_eq!(pid("2: POSIX  ADVISORY  WRITE 4711 08:01:1234 0 EOF", 1234), None);
    }
}

//! The machine that was measured.

use std::path::Path;

use serde::Serialize;

/// What a figure means nothing without.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Machine {
    cpu: String,
    cores: usize,
    memory_bytes: u64,
    kernel: String,
    /// The file system of the directory that was worked in.
    file_system: String,
    /// Whether this program was built for speed.
    release_build: bool,
}

impl Machine {
    pub(super) fn of(dir: &Path) -> Self {
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let unknown = || "unknown".to_owned();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = field(&file("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let memory = memory.split(' ').next().and_then(|kib| kib.parse::<u64>().ok());
        let kernel = file("/proc/sys/kernel/osrelease").trim().to_owned();
        Self {
            cpu: field(&file("/proc/cpuinfo"), "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory.unwrap_or(0) * 1024,
            kernel: if kernel.is_empty() { unknown() } else { format!("{} {kernel}", std::env::consts::OS) },
            file_system: file_system(&file("/proc/self/mountinfo"), dir).unwrap_or_else(unknown),
            release_build: !cfg!(debug_assertions),
        }
    }

    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let memory = crate::terminal::bytes(self.memory_bytes);
        let build = if self.release_build { "release" } else { "debug: these figures mean nothing" };
        vec![
            ("machine", format!("{}, {} cores, {memory}, {}", self.cpu, self.cores, self.kernel)),
            ("file system", self.file_system.clone()),
            ("build", format!("millstream {} ({build})", env!("CARGO_PKG_VERSION"))),
        ]
    }
}

/// The mount with the longest path that `dir` lies in, as `ext4 on /dev/vda`.
fn file_system(mounts: &str, dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let (place, device) = line.split_once(" - ")?;
        let point = place.split(' ').nth(4)?;
        let mut device = device.split(' ');
        dir.starts_with(point).then_some((point.len(), device.next()?, device.next()?))
    });
    let (_, kind, device) = mounts.max_by_key(|(len, ..)| *len)?;
    Some(format!("{kind} on {device}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_is_that_of_the_deepest_mount() {
        let mounts = "22 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n23 22 0:5 / /proc rw - proc proc rw\n";
        assert_eq!(file_system(mounts, Path::new("/proc/self")).unwrap(), "proc on proc");
        assert_eq!(file_system(mounts, Path::new("/")).unwrap(), "ext4 on /dev/vda");
    }
}

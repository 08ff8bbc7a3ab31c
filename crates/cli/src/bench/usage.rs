//! What a child process uses, by the kernel's own count.
//!
//! CPU time comes from the counters that a parent has of the children it waited for, so that nothing is lost at the end.
//! The peak of the memory and the CPU time by thread are looked up while the child runs; `VmHWM` is a high-water mark
//! that the kernel keeps, so only what happens in the last few milliseconds can be missed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often a child is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// The kernel tells user programs of CPU time in hundredths of a second, on every architecture.
const TICKS_PER_S: f64 = 100.0;

/// What a child used.
#[derive(Debug, Clone, Default)]
pub(super) struct Usage {
    /// User and system.
    pub(super) cpu_s: f64,
    pub(super) rss_peak_bytes: u64,
    /// CPU seconds by the names of threads, numbers at the end of a name left out.
    pub(super) threads: BTreeMap<String, f64>,
}

/// CPU seconds of all children that were waited for.
pub(super) fn children_cpu_s() -> f64 {
    stat(Path::new("/proc/self/stat")).map_or(0.0, |fields| ticks(&fields, 13) + ticks(&fields, 14))
}

/// CPU seconds of this process.
pub(super) fn own_cpu_s() -> f64 {
    stat(Path::new("/proc/self/stat")).map_or(0.0, |fields| ticks(&fields, 11) + ticks(&fields, 12))
}

/// The most memory that this process ever had resident.
pub(super) fn own_rss_peak() -> u64 {
    rss_peak(Path::new("/proc/self")).unwrap_or(0)
}

/// Watches a process until it is told to stop.
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Usage>,
}

impl Watch {
    pub(super) fn start(pid: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || watch(&PathBuf::from(format!("/proc/{pid}")), &stopped));
        Self { stop, thread }
    }

    /// What was seen; the CPU time is not filled in.
    pub(super) fn end(self) -> Usage {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

fn watch(process: &Path, stop: &AtomicBool) -> Usage {
    let mut usage = Usage::default();
    let mut threads: BTreeMap<String, (String, f64)> = BTreeMap::new();
    let mut looks = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        usage.rss_peak_bytes = usage.rss_peak_bytes.max(rss_peak(process).unwrap_or(0));
        // Threads are many; five looks a second at them are enough.
        if looks.is_multiple_of(10) {
            look_at_threads(process, &mut threads);
        }
        looks += 1;
        std::thread::sleep(LOOK);
    }
    for (name, cpu_s) in threads.into_values() {
        *usage.threads.entry(name).or_default() += cpu_s;
    }
    usage
}

fn look_at_threads(process: &Path, threads: &mut BTreeMap<String, (String, f64)>) {
    let Ok(tasks) = std::fs::read_dir(process.join("task")) else { return };
    for task in tasks.flatten() {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).ok();
        let (Some(name), Some(times)) = (read("comm"), read("schedstat")) else { continue };
        let ran_ns = times.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0);
        let name = name.trim().trim_end_matches(|c: char| c.is_ascii_digit() || c == '-').to_owned();
        threads.insert(task.file_name().to_string_lossy().into_owned(), (name, ran_ns / 1e9));
    }
}

/// The fields behind the name in a `stat` file.
fn stat(path: &Path) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(path).ok()?;
    // The name stands in brackets and may have any character in it.
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}

fn ticks(fields: &[String], at: usize) -> f64 {
    fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0) / TICKS_PER_S
}

fn rss_peak(process: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(process.join("status")).ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(kib.trim().split(' ').next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_its_own_memory_and_threads() {
        let usage = Watch::start(std::process::id());
        std::thread::sleep(LOOK * 2);
        let usage = usage.end();
        assert!(usage.rss_peak_bytes > 1 << 20);
        assert!(!usage.threads.is_empty());
        assert!(own_cpu_s() >= 0.0 && own_rss_peak() > 0);
    }
}

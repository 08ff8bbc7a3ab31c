//! What the process has used: CPU time and memory, as the operating system counts them.

/// CPU seconds, user and system, and the most bytes ever resident; zeros where the system does not say.
pub(crate) fn usage() -> (f64, u64) {
    let cpu = std::fs::read_to_string("/proc/self/stat").ok().and_then(|stat| cpu_seconds(&stat)).unwrap_or(0.0);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0);
    (cpu, kib * 1024)
}

/// User and system time of `/proc/self/stat`, in clock ticks of 10 ms (fixed in the kernel's interface).
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The process's name stands in brackets and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_behind_any_name() {
        let stat = "7 (a) b) S 1 1 1 0 -1 0 0 0 0 0 250 50 0 0 20 0 1 0";
        assert_eq!(cpu_seconds(stat), Some(3.0));
    }
}

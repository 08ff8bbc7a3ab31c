//! The disk's own figures, to hold ours against.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use serde::Serialize;

use super::quantiles::Quantiles;
use crate::failure::Failure;

/// How many small writes are synced.
const SYNCS: u64 = 400;
/// The bytes of a small write.
const SMALL: usize = 4096;
/// The bytes of a large write.
const LARGE: usize = 1 << 20;

/// What the disk can do without us.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Disk {
    /// `fdatasync` after 4 KiB written into space that was written before.
    pub(super) fdatasync_p50_us: f64,
    pub(super) fdatasync_p99_us: f64,
    /// Many MiB written one after the other into a new file, and one `fdatasync`.
    pub(super) write_mb_per_s: f64,
}

impl Disk {
    pub(super) fn measure(dir: &Path, write_mb: u64) -> Result<Self, Failure> {
        let path = dir.join("disk");
        let failed = || format!("measuring the disk of {}", dir.display());
        let syncs = Quantiles::of(syncs(&path).with_context(failed)?);
        let write_mb_per_s = sequential(&path, write_mb.max(1)).with_context(failed)?;
        std::fs::remove_file(&path).with_context(failed)?;
        Ok(Self { fdatasync_p50_us: syncs.at(0.5), fdatasync_p99_us: syncs.at(0.99), write_mb_per_s })
    }

    pub(super) fn line(&self) -> String {
        format!(
            "fdatasync of 4 KiB p50 {:.0} us, p99 {:.0} us; sequential write {:.0} MB/s",
            self.fdatasync_p50_us, self.fdatasync_p99_us, self.write_mb_per_s
        )
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)
}

fn syncs(path: &Path) -> io::Result<Vec<f64>> {
    let file = open(path)?;
    let mut bytes = vec![0_u8; SMALL];
    for i in 0..SYNCS {
        file.write_all_at(&bytes, i * SMALL as u64)?;
    }
    file.sync_all()?;
    bytes.fill(1);
    let mut took = Vec::with_capacity(SYNCS as usize);
    for i in 0..SYNCS {
        let began = Instant::now();
        file.write_all_at(&bytes, i * SMALL as u64)?;
        file.sync_data()?;
        took.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(took)
}

/// Megabytes per second of writing so many MiB.
fn sequential(path: &Path, mb: u64) -> io::Result<f64> {
    let file = open(path)?;
    // Not zeros: some disks do not write those.
    let bytes: Vec<u8> = (0..LARGE).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let began = Instant::now();
    for i in 0..mb {
        file.write_all_at(&bytes, i * LARGE as u64)?;
    }
    file.sync_data()?;
    Ok(mb as f64 * LARGE as f64 / 1e6 / began.elapsed().as_secs_f64())
}

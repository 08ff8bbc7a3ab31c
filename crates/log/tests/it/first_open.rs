//! A new log's own directory is as durable as what is in it.

use std::sync::Arc;

use millstream_log::conformance::kit::*;
use millstream_log::vfs::sim::SimVfs;
use millstream_log::{EmbeddedLog, EmbeddedOptions, Log};

use crate::rig::{options, run};

/// Directories that nobody has made yet.
const DIR: &str = "/srv/pipelines/data";

fn open(vfs: &SimVfs) -> Arc<dyn Log> {
    Arc::new(EmbeddedLog::open(EmbeddedOptions { dir: DIR.into(), ..options(vfs) }).unwrap())
}

#[test]
fn a_new_log_does_not_go_with_its_directory_when_the_power_does() {
    for seed in 0..300 {
        let vfs = SimVfs::new();
        let log = open(&vfs);
        let left = run(async {
            topic(&log, "t", 1).await;
            let (_member, task) = one(&log, "s").await;
            put(&log, &task, vec![], vec![append("t", 0, &[1, 2, 3])]).await;
            vfs.crash(seed)
        });
        drop(log);
        let log = open(&left);
        assert!(log.topic(&name("t")).is_some(), "seed {seed}: the directory went with all that was acknowledged");
        assert_eq!(run(all(&log, "t", 0)), [1, 2, 3], "seed {seed}");
    }
}

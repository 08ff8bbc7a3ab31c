//! A disk that fills up under a running node, and has room again.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use millstream_node::Node;
use millstream_node::api::{RunState, Status};
use serde_json::Value;

use crate::world::{PIPELINE, World, http, until};

/// Room for the log's reserve (16 MiB), its first segment and the files of the sink.
const DISK_MIB: u32 = 48;

/// A file system of its own in memory, unmounted when dropped.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    /// `None` where this user may not mount.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={DISK_MIB}m,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).output();
        match mounted {
            Ok(done) if done.status.success() => Some(Self { dir }),
            other => {
                // Not through `eprintln`, which a test that passes keeps to itself.
                let why = "LEFT OUT, the test of a full disk: mounting a small file system is not permitted";
                std::io::stderr().write_all(format!("{why} ({other:?})\n").as_bytes()).unwrap();
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Takes all space that is left, down to the last block.
    fn fill(&self) {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(self.path().join("filler")).unwrap();
        for size in [1 << 20, 64 << 10, 4096] {
            let bytes = vec![1_u8; size];
            while file.write_all(&bytes).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.dir.path()).status());
    }
}

/// Posts so many orders at once; gives the status and the body.
async fn post(node: &Node, from: u64, to: u64) -> (u16, Value) {
    let name = "x".repeat(200);
    let orders: Vec<String> =
        (from..to).map(|i| format!("{{\"id\":\"o{i}-{name}\",\"country\":\"de\",\"amount\":1}}")).collect();
    let (code, body) = http(node, "POST", "/orders", &format!("[{}]", orders.join(","))).await;
    (code, serde_json::from_str(&body).unwrap())
}

fn numbers(lines: &[String]) -> Vec<u64> {
    let number = |line: &String| {
        let row: Value = serde_json::from_str(line).unwrap();
        row["id"].as_str().unwrap()[1..].split('-').next().unwrap().parse().unwrap()
    };
    let mut numbers: Vec<u64> = lines.iter().map(number).collect();
    numbers.sort_unstable();
    numbers
}

fn source(status: &Status) -> (RunState, String) {
    (status.sources[0].state, status.sources[0].reason.clone().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_posts_loses_nothing_and_goes_on_when_there_is_space() {
    let Some(disk) = Disk::mount() else { return };
    let world = World::new(0);
    let yaml = PIPELINE
        .replace("file: {path: orders.ndjson}", "http: {path: /orders}")
        .replace("dir: log, segment: 1MiB", &format!("dir: {}, segment: 64MiB", disk.path().join("log").display()))
        .replace("file: {path: out}", &format!("file: {{path: {}}}", disk.path().join("out").display()));
    std::fs::write(world.dir.path().join("pipeline.yaml"), yaml).unwrap();
    let node = world.start(false).await;
    let mut accepted = BTreeSet::new();
    let (code, body) = post(&node, 0, 100).await;
    assert_eq!(code, 200, "{body}");
    accepted.extend(0..100);
    until("the reserve is made", async || disk.path().join("log/journal/reserve").exists()).await;
    until("the first orders are written", async || node.status().await.sinks[0].events == 100).await;

    disk.fill();
    let mut next = 100;
    let refusal = loop {
        let (code, body) = post(&node, next, next + 100).await;
        match code {
            200 => accepted.extend(next..next + 100),
            507 => break body,
            _ => panic!("{code}: {body}"),
        }
        next += 100;
        assert!(next < 1_000_000, "the disk is full and everything is taken");
    };
    assert_eq!(refusal["error"]["code"], "disk-full", "{refusal}");
    assert!(refusal["error"]["reason"].as_str().unwrap().contains("the disk is full"), "{refusal}");
    let status = node.status().await;
    let (state, reason) = source(&status);
    assert_eq!(state, RunState::Waiting, "{status:?}");
    assert!(reason.contains("the disk is full"), "{reason}");
    assert_eq!(status.log.stopped, None);
    // What was taken is processed all the same: the reserve is for that.
    let through = async || node.status().await.services.iter().map(|s| s.lag).sum::<u64>() == 0;
    until("what was accepted goes through the services", through).await;
    assert_eq!(post(&node, next, next + 100).await.0, 507, "still full");

    disk.free();
    until("posts are taken again", async || {
        let (code, body) = post(&node, next, next + 100).await;
        assert!(code == 200 || code == 507, "{code}: {body}");
        if code == 200 {
            accepted.extend(next..next + 100);
        }
        code == 200
    })
    .await;
    assert_eq!(source(&node.status().await).0, RunState::Running);
    let through = async || {
        let status = node.status().await;
        status.services.iter().map(|s| s.lag).sum::<u64>() == 0 && status.sinks[0].lag == 0
    };
    until("all are written", through).await;
    let status = node.status().await;
    assert_eq!((status.sinks[0].state, status.log.stopped), (RunState::Running, None));
    node.shutdown(Duration::from_secs(30)).await.unwrap();
    let mut lines = Vec::new();
    crate::world::collect(&disk.path().join("out"), &mut lines);
    assert_eq!(numbers(&lines), accepted.into_iter().collect::<Vec<_>>(), "what was acknowledged, once");
}

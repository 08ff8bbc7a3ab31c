//! The drill: a pipeline runs, is killed, its log is lost, and it comes back from its backup.

use serde_json::Value;

use crate::support::{Dir, wait};

const PIPELINE: &str = r#"version: 1
pipeline: drill
log: {embedded: {dir: log, segment: 1MiB}}
server: {listen: 127.0.0.1:0}
state: {backup: BACKUP}
defaults: {topic: {partitions: 2, key: [k]}}
topics:
  movements:
    event_time: {column: at}
    columns: {k: string!, amount: bigint!, at: timestamp!}
sources:
  input: {file: {path: input.ndjson, follow: FOLLOW}, to: movements}
services:
  sums:
    from: movements
    sql: |
      SELECT k, window_start, sum(amount) AS total, count(*) AS n
      FROM tumble(movements, at, INTERVAL '1 hour') GROUP BY k, window_start
    to: totals
sinks:
  out: {from: [totals], file: {path: out}}
"#;

/// Movement `i` moves `i % 97`; ten thousand of them make some three hours.
fn movements(range: std::ops::Range<u64>) -> String {
    let line = |i: u64| {
        let (h, m, s) = (i / 3600, i / 60 % 60, i % 60);
        format!("{{\"k\":\"k{}\",\"amount\":{},\"at\":\"2026-01-01T{h:02}:{m:02}:{s:02}Z\"}}\n", i % 7, i % 97)
    };
    range.map(line).collect()
}

fn drill(dir: &Dir, backup: &str) {
    let pipeline = PIPELINE.replace("BACKUP", backup);
    dir.write("pipeline.yaml", &pipeline.replace("FOLLOW", "true"));
    dir.write("input.ndjson", &movements(0..10_000));
    let mut node = dir.start(&[]);
    // Marks of time take offsets too, so events are counted one by one.
    let count = |topic: &str| {
        dir.run(&["tap", topic, "--from", "earliest", "--limit", "1000000"]).exits(0).stdout().lines().count()
    };
    wait("the first movements", || count("movements") == 10_000);
    let snapshot = dir.run(&["state", "snapshot", "--json"]).exits(0).json();
    assert!(snapshot["positions"].as_u64().unwrap() > 0, "{snapshot}");
    // What comes from here on may be lost with the log, as much as an interval.
    dir.write("input.ndjson", &movements(0..30_000));
    wait("more movements", || count("movements") > 10_000);
    assert!(dir.run(&["services"]).exits(0).stdout().contains("backup: "), "services tells of it");
    node.signal("-KILL");
    node.ended();
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();

    let listed = dir.run(&["state", "list", "--json"]).exits(0).json_lines();
    assert!(listed.iter().any(|b| b["at"] == snapshot["at"] && b["pipeline"] == "drill"), "{listed:?}");
    let restored = dir.run(&["state", "restore", "--json"]).exits(0).json();
    assert!(restored["events"].as_u64().unwrap() >= 10_000, "{restored}");
    dir.run(&["state", "restore"]).exits(1).says("is not empty");
    assert!(count("movements") >= 10_000, "what was durable before the snapshot is there");
    assert!(dir.run(&["log", "verify"]).exits(0).stdout().contains("sound"));

    dir.write("pipeline.yaml", &pipeline.replace("FOLLOW", "false"));
    dir.run(&["run", "--drain"]).exits(0);
    assert_eq!(count("movements"), 30_000);
    let rows = dir.out();
    let sum = |column: &str| rows.iter().map(|row| row[column].as_i64().unwrap()).sum::<i64>();
    assert_eq!((sum("n"), sum("total")), (30_000, (0..30_000).map(|i| i % 97).sum()));
    // The last round was made when it stopped.
    let again = dir.run(&["state", "snapshot", "--json"]).exits(0).json();
    let newest = dir.run(&["state", "list", "--json"]).exits(0).json_lines().pop().unwrap();
    assert_eq!(newest["at"], again["at"]);
}

fn in_directory(dir: &Dir) -> String {
    format!("{{to: \"file://{}\", every: 200ms}}", dir.path().join("backups").display())
}

#[test]
fn a_pipeline_whose_log_is_lost_comes_back_from_a_directory() {
    let dir = Dir::empty();
    let backup = in_directory(&dir);
    drill(&dir, &backup);
}

#[test]
fn an_earlier_backup_can_be_chosen_and_one_that_never_was_cannot() {
    let dir = Dir::empty();
    dir.write("input.ndjson", &movements(0..100));
    dir.write("pipeline.yaml", &PIPELINE.replace("BACKUP", &in_directory(&dir)).replace("FOLLOW", "false"));
    dir.run(&["state", "list"]).exits(1);
    dir.run(&["run", "--drain"]).exits(0);
    let first: Value = dir.run(&["state", "list", "--json"]).exits(0).json_lines().remove(0);
    let at = first["at"].as_str().unwrap();
    std::fs::rename(dir.path().join("log"), dir.path().join("lost")).unwrap();
    dir.run(&["state", "restore", "--at", "2020-01-01T00:00:00Z"]).exits(1).says("no backup");
    dir.run(&["state", "restore", "--at", "yesterday"]).exits(2).says("latest");
    let restored = dir.run(&["state", "restore", "--at", at, "--json"]).exits(0).json();
    assert_eq!(restored["from"]["at"], first["at"]);
    dir.edit("every: 200ms", "every: 10us");
    dir.run(&["validate"]).exits(78);
    dir.edit("every: 10us", "evry: 1m");
    dir.run(&["validate"]).exits(78).says("every");
    dir.edit("evry: 1m", "every: 1m");
    dir.edit("file://", "gs://");
    dir.run(&["validate"]).exits(78).says("backup-place");
}

#[test]
fn a_backup_that_fails_is_told_and_stops_nothing() {
    let dir = Dir::empty();
    dir.write("input.ndjson", &movements(0..100));
    dir.write("pipeline.yaml", &PIPELINE.replace("BACKUP", &in_directory(&dir)).replace("FOLLOW", "true"));
    dir.write("backups", "a file where a directory belongs");
    let node = dir.start(&[]);
    wait("the failure", || dir.run(&["services"]).exits(0).stdout().contains("backup: none for"));
    dir.run(&["state", "snapshot"]).exits(1).says("backups");
    std::fs::remove_file(dir.path().join("backups")).unwrap();
    wait("a success", || {
        let status = dir.run(&["services", "--json"]).exits(0).json();
        status["backup"]["last_success"].is_string() && status["backup"]["error"].is_null()
    });
    node.stop();
}

/// In a bucket of a server that speaks S3: `moto`, which `scripts/test` installs and names in `MILLSTREAM_MOTO`.
#[cfg(feature = "s3")]
mod bucket {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::process::{Child, Command, Stdio};

    use super::*;

    struct Server(Child, u16);

    impl Drop for Server {
        fn drop(&mut self) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }

    /// Starts the server on a free port and makes a bucket.
    fn start(program: &std::ffi::OsStr) -> Server {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let args = ["-H", "127.0.0.1", "-p", &port.to_string()];
        let server = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Server(server, port);
        wait("the server", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let request = "PUT /drills HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        server
    }

    #[test]
    fn a_pipeline_whose_log_is_lost_comes_back_from_a_bucket() {
        let Some(program) = std::env::var_os("MILLSTREAM_MOTO") else {
            println!("LEFT OUT: MILLSTREAM_MOTO does not name the program moto_server");
            return;
        };
        let server = start(&program);
        let place = format!(
            "{{to: \"s3://drills/a/b\", every: 500ms, endpoint: \"http://127.0.0.1:{}\", region: us-east-1, \
             allow_http: true, access_key_id: testing, secret_access_key: testing}}",
            server.1
        );
        drill(&Dir::empty(), &place);
    }
}

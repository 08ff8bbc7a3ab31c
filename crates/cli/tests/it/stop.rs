//! Stopping in order and starting again: files are whole, and every event is there once.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Dir, part, wait, wait_for};

/// Files that are still being written.
fn open_files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(open_files(&entry.path()));
        } else if entry.path().extension().is_some_and(|e| e == "part") {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

/// The lines in all files, also in those that are being written.
fn whole_lines(dir: &Path) -> u64 {
    let lines = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| match entry.path() {
        path if path.is_dir() => whole_lines(&path),
        path => std::fs::read(path).map_or(0, |bytes| bytes.iter().filter(|b| **b == b'\n').count() as u64),
    });
    lines.sum()
}

fn ids(rows: &[Value]) -> Vec<u64> {
    let mut ids: Vec<u64> = rows.iter().map(|row| row["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    ids
}

fn lines(from: u64, to: u64) -> String {
    (from..to).map(|i| format!("{{\"id\":{i},\"k\":\"k{}\",\"amount\":1}}\n", i % 7)).collect()
}

#[test]
fn a_signal_completes_the_files_and_the_next_run_goes_on_exactly() {
    let dir = Dir::new(0, true);
    let mut written = 0;
    // Stopped while events flow, each time a little later.
    for round in 0..4_u64 {
        let mut node = dir.start(&[]);
        let mut input = std::fs::OpenOptions::new().append(true).open(dir.path().join("input.ndjson")).unwrap();
        input.write_all(lines(written, written + 5_000).as_bytes()).unwrap();
        written += 5_000;
        wait_for(&dir, "twice", "some events", |s| s["events_out"].as_u64() >= Some(round * 1_000 + 1));
        node.signal(if round % 2 == 0 { "-TERM" } else { "-INT" });
        assert_eq!(node.ended(), Some(0));
        assert_eq!(open_files(&dir.path().join("out")), Vec::<String>::new(), "a stop in order leaves no open file");
    }
    let node = dir.start(&[]);
    wait("the rest", || {
        let status = dir.run(&["services", "--json"]).exits(0).json();
        part(&status, "sinks", "out")["lag"] == 0 && whole_lines(&dir.path().join("out")) == written
    });
    node.stop();
    assert_eq!(open_files(&dir.path().join("out")), Vec::<String>::new());
    assert_eq!(ids(&dir.out()), (0..written).collect::<Vec<_>>());
}

#[test]
fn a_stop_at_once_leaves_an_open_file_that_the_next_run_goes_on_with() {
    let dir = Dir::new(2_000, true);
    let mut node = dir.start(&[]);
    wait("events in an open file", || whole_lines(&dir.path().join("out")) > 0);
    node.signal("-KILL");
    node.ended();
    assert!(!open_files(&dir.path().join("out")).is_empty());
    let node = dir.start(&[]);
    wait("all", || whole_lines(&dir.path().join("out")) == 1_800);
    node.stop();
    assert_eq!(open_files(&dir.path().join("out")), Vec::<String>::new());
    assert_eq!(ids(&dir.out()), (0..2_000).filter(|i| i % 10 != 0).collect::<Vec<_>>());
}

#[test]
fn a_source_of_standard_input_loses_nothing_when_its_task_dies() {
    let dir = Dir::new(0, false);
    dir.edit("file: {path: input.ndjson, follow: false}", "stdin: {}");
    let mut command = dir.command(&["run", "--drain"]);
    command.env("MILLSTREAM_ALLOW_FAULTS", "1").stdin(Stdio::piped());
    let mut node = dir.start_command(command);
    let at = node.hear("http://").rsplit_once("http://").unwrap().1.trim().to_owned();
    let mut input = node.child.stdin.take().unwrap();
    let mut sent = 0;
    for panics in 1..=8 {
        input.write_all(lines(sent, sent + 500).as_bytes()).unwrap();
        sent += 500;
        let (code, answer) = post(&at, "/api/services/input/inject", r#"{"fault":"panic"}"#);
        assert_eq!(code, 200, "{answer}");
        // One after the other: panics without a commit between them are answered with longer and longer pauses.
        wait("the task to start again", || {
            let status = dir.run(&["services", "--json"]).exits(0).json();
            part(&status, "sources", "input")["restarts"].as_u64() >= Some(panics)
        });
    }
    input.write_all(lines(sent, sent + 500).as_bytes()).unwrap();
    sent += 500;
    drop(input);
    assert_eq!(node.ended(), Some(0));
    assert_eq!(ids(&dir.out()), (0..sent).collect::<Vec<_>>(), "none lost, none twice");
}

/// A request that waits for its answer.
fn post(address: &str, path: &str, body: &str) -> (u16, String) {
    use std::io::Read;
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let length = body.len();
    let head = "host: localhost\r\nconnection: close\r\ncontent-type: application/json";
    write!(stream, "POST {path} HTTP/1.1\r\n{head}\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

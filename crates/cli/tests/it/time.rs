//! How far a pipeline is in event time, as `services` and `/metrics` tell it.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::{Dir, wait_for};

/// An event that happened so many seconds after noon.
fn event(id: u64, seconds: u64) -> String {
    let at = format!("2026-01-01T12:{:02}:{:02}Z", seconds / 60, seconds % 60);
    format!("{{\"id\":{id},\"k\":\"k{}\",\"amount\":1,\"at\":\"{at}\"}}\n", id % 7)
}

/// A pipeline with event time and a second source that has nothing yet.
fn timed() -> Dir {
    let dir = Dir::new(0, true);
    let columns = "columns: {id: bigint!, k: string!, amount: int!";
    dir.edit(columns, &format!("event_time: {{column: at, max_out_of_orderness: 10s}}, {columns}, at: timestamp"));
    dir.edit("amount * 2 AS twice FROM", "amount * 2 AS twice, at FROM");
    dir.edit("services:\n", "  slow: {file: {path: slow.ndjson, follow: true}, to: events}\nservices:\n");
    dir.write("slow.ndjson", "");
    dir.write("input.ndjson", &(0..100).map(|i| event(i, i)).collect::<String>());
    dir
}

fn metrics(address: &str) -> String {
    let host = address.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn services_tell_how_far_they_are_and_who_holds_them_back() {
    let dir = timed();
    let mut node = dir.start(&[]);
    wait_for(&dir, "check", "its watermark to wait for `slow`", |s| {
        s["events_in"] == 100 && s["watermark"] == "open" && s["held_back"]["producer"] == "slow"
    });
    let table = dir.run(&["services"]).exits(0).stdout();
    assert!(table.contains("WATERMARK") && table.contains("`slow` partition 0 in topic `events`"), "{table}");

    dir.write("slow.ndjson", &event(100, 60));
    for service in ["check", "twice"] {
        wait_for(&dir, service, "the time of the slow source", |s| s["watermark"] == "2026-01-01T12:00:50Z");
    }
    let table = dir.run(&["services"]).exits(0).stdout();
    assert!(table.contains("2026-01-01T12:00:50Z") && table.contains("39.0 s behind"), "{table}");
    let said = node.hear("http://");
    let address = said.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
    let metrics = metrics(address.trim_end_matches('/'));
    for line in [
        "millstream_watermark_seconds{service=\"check\"} 1767268850",
        "millstream_watermark_lag_seconds{service=\"twice\"}",
        "millstream_late_events_total{name=\"slow\"} 0",
        "millstream_future_events_total{name=\"input\"} 0",
    ] {
        assert!(metrics.contains(line), "no `{line}` in {metrics}");
    }
    node.stop();
    let status = dir.run(&["services", "--json"]).exits(0).json();
    assert_eq!(crate::support::part(&status, "services", "twice")["watermark"], "2026-01-01T12:00:50Z");
}

#[test]
fn what_is_read_to_its_end_is_closed_in_time_too() {
    let dir = timed();
    dir.edit("follow: true}, to: events}\n  slow", "follow: false}, to: events}\n  slow");
    dir.edit("slow.ndjson, follow: true", "slow.ndjson, follow: false");
    dir.run(&["run", "--drain"]).exits(0);
    let status = dir.run(&["services", "--json"]).exits(0).json();
    for service in ["check", "twice"] {
        assert_eq!(crate::support::part(&status, "services", service)["watermark"], "closed", "{service}");
    }
    assert_eq!(dir.out().len(), 100);
    let again = dir.run(&["run", "--drain", "--json"]).exits(0).json();
    assert_eq!(again["total"]["events_in"], 0);
}

//! Commands on a running pipeline.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::support::{Dir, part, wait_for};

#[test]
fn one_service_is_paused_scaled_and_resumed() {
    let dir = Dir::new(100, true);
    let node = dir.start(&[]);
    wait_for(&dir, "twice", "all events", |s| s["events_in"] == 90);
    let paused = dir.run(&["services", "pause", "twice"]).exits(0).stdout();
    assert!(paused.contains("twice: paused"), "{paused}");
    assert!(dir.run(&["services", "pause", "twice"]).exits(0).stdout().contains("already"));
    let more: String = (100..200).map(|i| format!("{{\"id\":{i},\"k\":\"k\",\"amount\":1}}\n")).collect();
    dir.write("input.ndjson", &(dir.read("input.ndjson") + &more));
    wait_for(&dir, "twice", "the lag of the paused service", |s| s["lag"] == 100 && s["state"] == "paused");
    wait_for(&dir, "check", "the other service to go on", |s| s["events_in"] == 200 && s["lag"] == 0);
    dir.run(&["services", "resume", "twice"]).exits(0);
    wait_for(&dir, "twice", "the rest", |s| s["events_in"] == 190 && s["lag"] == 0);
    let scaled = dir.run(&["services", "scale", "twice", "2"]).exits(0).stdout();
    assert!(scaled.contains("2 instances"), "{scaled}");
    let table = dir.run(&["services"]).exits(0).stdout();
    assert!(table.starts_with("SERVICE") && table.contains("twice"), "{table}");
    node.stop();
}

#[test]
fn what_was_paused_stays_paused_through_a_kill_until_it_is_resumed() {
    let dir = Dir::new(100, true);
    let mut node = dir.start(&[]);
    wait_for(&dir, "twice", "all events", |s| s["events_in"] == 90);
    dir.run(&["services", "pause", "twice"]).exits(0);
    node.signal("-KILL");
    node.ended();
    let more: String = (100..200).map(|i| format!("{{\"id\":{i},\"k\":\"k\",\"amount\":1}}\n")).collect();
    dir.write("input.ndjson", &(dir.read("input.ndjson") + &more));
    let mut node = dir.start(&[]);
    node.hear("paused   twice as before");
    wait_for(&dir, "check", "the other service to go on", |s| s["events_in"] == 100 && s["lag"] == 0);
    wait_for(&dir, "twice", "the paused one", |s| s["lag"] == 100 && s["state"] == "paused");
    dir.run(&["services", "resume", "twice"]).exits(0);
    wait_for(&dir, "twice", "the rest", |s| s["lag"] == 0);
    node.stop();
    let node = dir.start(&[]);
    wait_for(&dir, "twice", "it to run", |s| s["state"] == "running");
    node.stop();
}

#[test]
fn a_wrong_name_is_answered_with_a_suggestion_and_the_list() {
    let dir = Dir::new(10, true);
    let node = dir.start(&[]);
    for command in [&["services", "pause", "twise"][..], &["dlq", "list", "twise"]] {
        dir.run(command).exits(1).says("`twice`").says("check");
    }
    for command in [&["topics", "douled"][..], &["tap", "douled"]] {
        dir.run(command).exits(1).says("`doubled`").says("good");
    }
    dir.run(&["tap", "doubled", "--where", "twise > 1"]).exits(1).says("`twice`");
    node.stop();
}

#[test]
fn topics_are_listed_and_tapped() {
    let dir = Dir::new(100, true);
    let node = dir.start(&[]);
    wait_for(&dir, "twice", "all events", |s| s["events_out"] == 90);
    let topics = dir.run(&["topics", "--json"]).exits(0).json();
    let names: Vec<&str> = topics["topics"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    for name in ["events", "good", "doubled", "check.dlq"] {
        assert!(names.contains(&name), "no {name} in {names:?}");
    }
    assert_eq!(dir.run(&["topics", "good", "--json"]).exits(0).json()["events"], 90);
    let detail = dir.run(&["topics", "doubled"]).exits(0).stdout();
    assert!(detail.contains("twice") && detail.contains("PARTITION"), "{detail}");
    let rows = dir.run(&["tap", "doubled", "--limit", "5"]).exits(0).json_lines();
    assert_eq!(rows.len(), 5);
    assert!(rows[0]["twice"].is_i64(), "{}", rows[0]);
    let rows = dir.run(&["tap", "doubled", "--where", "twice = 2", "--json"]).exits(0).json_lines();
    assert_eq!(rows.len(), 10);
    assert_eq!(rows[0]["event"]["twice"], 2);
    assert_eq!(dir.run(&["tap", "doubled", "--from", "-3"]).exits(0).json_lines().len(), 3);
    let all = dir.run(&["tap", "doubled"]).exits(0).json_lines().len();
    let halves = ["0", "1"].map(|p| dir.run(&["tap", "doubled", "--partition", p]).exits(0).json_lines().len());
    assert_eq!((all, halves.iter().sum::<usize>()), (90, 90));
    node.stop();
}

#[test]
fn a_follower_sees_what_comes() {
    let dir = Dir::new(0, true);
    let node = dir.start(&[]);
    let mut tap = dir
        .command(&["tap", "doubled", "--follow", "--from", "earliest", "--limit", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    dir.write("input.ndjson", "{\"id\":7,\"k\":\"k\",\"amount\":3}\n");
    let line = BufReader::new(tap.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap()["twice"], 6);
    assert_eq!(tap.wait().unwrap().code(), Some(0), "the limit ends it");
    node.stop();
}

#[test]
fn the_log_and_the_status_can_be_read_by_programs() {
    let dir = Dir::new(100, true);
    let node = dir.start(&[]);
    wait_for(&dir, "twice", "all events", |s| s["events_out"] == 90);
    let stat = dir.run(&["log", "stat", "--json"]).exits(0).json();
    assert!(stat["bytes"].as_u64() > Some(0), "{stat}");
    assert_eq!(stat["sync"], "group");
    assert!(dir.run(&["log", "stat"]).exits(0).stdout().contains("journal"));
    let status = dir.run(&["services", "--json"]).exits(0).json();
    assert_eq!(part(&status, "sources", "input")["events"], 100);
    assert_eq!(part(&status, "services", "check")["dead_letters"], 10);
    node.stop();
}

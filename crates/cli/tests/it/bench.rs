//! `bench`: that it measures the right thing and says when what came out is wrong; not how fast that was.

use serde_json::{Value, json};

use crate::support::Dir;

/// Small enough for a test.
const SMALL: [&str; 6] = ["--json", "--disk-mb", "1", "--work", ".", "--events"];

fn bench(dir: &Dir, args: &[&str]) -> Value {
    let result = dir.run(&[&["bench"][..], args].concat()).exits(0).json();
    assert_eq!(result["faults"], json!([]));
    assert!(result["figures"]["CPU, user and system"]["value"].as_f64().unwrap() > 0.0);
    assert!(result["figures"]["peak RSS"]["value"].as_f64().unwrap() > 1e6);
    assert!(result["disk"]["fdatasync_p50_us"].as_f64().unwrap() > 0.0);
    result
}

#[test]
fn a_pipeline_with_files_is_measured_as_it_is_and_left_alone() {
    let dir = Dir::new(1000, false);
    let result = bench(&dir, &["--json", "--disk-mb", "1", "--work", "."]);
    assert_eq!(result["figures"]["events"]["value"], 1000.0);
    assert_eq!(result["figures"]["lines written"]["value"], 900.0);
    assert!(!dir.path().join("log").exists() && !dir.path().join("out").exists());
}

#[test]
fn events_are_made_up_for_a_pipeline_that_generates() {
    let dir = Dir::empty();
    dir.run(&["init", "hello"]).exits(0);
    let result = bench(&dir, &[&["pipeline", "hello"][..], &SMALL, &["2000"]].concat());
    assert_eq!(result["figures"]["events"]["value"], 2000.0);
}

#[test]
fn a_hop_is_measured_by_adding_services() {
    let result = bench(&Dir::empty(), &[&["hop", "--services", "1,2"][..], &SMALL, &["1000"]].concat());
    assert_eq!(result["tables"]["runs"].as_array().unwrap().len(), 2);
}

#[test]
fn the_log_alone_is_measured() {
    let args = ["log", "--mb", "8", "--partitions", "4", "--json", "--disk-mb", "1", "--work", "."];
    let result = bench(&Dir::empty(), &args);
    assert!(result["figures"]["append"]["value"].as_f64().unwrap() > 0.0);
}

#[test]
fn latency_needs_a_source_that_answers() {
    let dir = Dir::new(10, false);
    dir.run(&["bench", "latency"]).exits(2).says("`reply`");
}

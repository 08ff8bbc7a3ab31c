//! `run --drain`: from a file to files, with a summary.

use crate::support::{Dir, part};

#[test]
fn everything_is_processed_once_and_the_summary_counts_it() {
    let dir = Dir::new(1000, false);
    let ran = dir.run(&["run", "--drain"]).exits(0);
    let summary = ran.stdout();
    for text in ["all processed: 1,000 events in, 900 out, 100 dead letters", "positive", "doubled", "events per CPU s"]
    {
        assert!(summary.contains(text), "no `{text}` in {summary}");
    }
    let mut ids: Vec<u64> = dir.out().iter().map(|row| row["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..1000).filter(|i| i % 10 != 0).collect::<Vec<_>>());
    assert!(!dir.path().join("log/node.json").exists(), "the note is gone with the node");
}

#[test]
fn broken_rules_that_make_no_dead_letters_are_counted_apart() {
    let dir = Dir::new(100, false);
    dir.edit("check: {positive: amount > 0}", "check: {positive: amount > 0}, else: drop");
    let summary = dir.run(&["run", "--drain"]).exits(0).stdout();
    assert!(!summary.contains("DEAD LETTERS OF"), "{summary}");
    let at = summary.find("BROKEN RULES OF").unwrap_or_else(|| panic!("{summary}"));
    let row = summary[at..].lines().nth(1).unwrap();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["check", "positive", "10", "dropped"]);
    let dir = Dir::new(100, false);
    dir.edit("check: {positive: amount > 0}", "check: {positive: amount > 0}, else: aside");
    let summary = dir.run(&["run", "--drain"]).exits(0).stdout();
    assert!(summary.contains("events of `aside`"), "{summary}");
}

#[test]
fn a_second_run_finds_nothing_more_to_do() {
    let dir = Dir::new(100, false);
    dir.run(&["run", "--drain"]).exits(0);
    let again = dir.run(&["run", "--drain", "--json"]).exits(0).says("resumed").json();
    assert_eq!(again["complete"], true);
    assert_eq!(again["total"]["events_in"], 0);
    assert_eq!(dir.out().len(), 90, "nothing twice");
}

#[test]
fn fresh_begins_anew_but_only_when_somebody_agrees() {
    let dir = Dir::new(100, false);
    dir.run(&["run", "--drain"]).exits(0);
    dir.run(&["run", "--drain", "--fresh"]).exits(2).says("--yes");
    let again = dir.run(&["run", "--drain", "--fresh", "--yes", "--json"]).exits(0).json();
    assert_eq!(again["total"]["events_in"], 100);
    assert_eq!(part(&again["status"], "services", "check")["broken_rules"]["positive"], 10);
}

#[test]
fn fresh_leaves_a_directory_alone_that_is_no_log() {
    let dir = Dir::new(10, false);
    std::fs::create_dir(dir.path().join("log")).unwrap();
    dir.write("log/precious.txt", "x");
    dir.run(&["run", "--drain", "--fresh", "--yes"]).exits(1).says("no log of millstream");
    assert_eq!(dir.read("log/precious.txt"), "x");
}

#[test]
fn a_source_that_fails_ends_the_run_with_its_reason_and_mended_the_next_run_goes_on() {
    let dir = Dir::new(100, false);
    dir.edit("path: input.ndjson", "path: \"input*\", format: ndjson");
    dir.write("input2.ndjson.gz", "this is no gzip");
    let ran = dir.run(&["run", "--drain"]).exits(1);
    let summary = ran.stdout();
    for text in ["! input has failed", "input2.ndjson.gz", "the next run goes on from here", "100 events in, 90 out"] {
        assert!(summary.contains(text), "no `{text}` in {summary}");
    }
    std::fs::remove_file(dir.path().join("input2.ndjson.gz")).unwrap();
    let again = dir.run(&["run", "--drain", "--json"]).exits(0).json();
    assert_eq!((&again["complete"], &again["total"]["events_in"]), (&true.into(), &0.into()));
    assert_eq!(dir.out().len(), 90, "nothing twice");
}

#[test]
fn sources_without_an_end_do_not_keep_a_run_from_ending() {
    let dir = Dir::new(100, false);
    dir.edit("sources:\n", "sources:\n  api: {http: {path: /events}, to: events}\n");
    let ran = dir.run(&["run", "--drain"]).exits(0);
    assert!(ran.stdout().contains("all processed: 100 events in, 90 out"), "{}", ran.stdout());
    dir.edit("file: {path: input.ndjson, follow: false}", "file: {path: input.ndjson, follow: true}");
    dir.run(&["run", "--drain"])
        .exits(1)
        .says("no source of this pipeline has an end (`api`, `input`)")
        .says("--drain");
}

#[test]
fn a_file_that_does_not_fit_its_log_is_refused_with_the_reason() {
    let dir = Dir::new(10, false);
    dir.run(&["run", "--drain"]).exits(0);
    dir.edit("amount: int!", "amount: bigint!");
    dir.run(&["run", "--drain"]).exits(1).says("amount");
    dir.edit("amount: bigint!", "amount: int!");
    dir.run(&["run", "--drain"]).exits(0);
}

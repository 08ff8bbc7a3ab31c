//! Commands that read the log of a stopped pipeline.

use crate::support::{Dir, part};

#[test]
fn what_a_run_left_can_be_read_without_it() {
    let dir = Dir::new(100, false);
    dir.run(&["run", "--drain"]).exits(0);
    let topics = dir.run(&["topics", "--json"]).exits(0).json();
    let good = topics["topics"].as_array().unwrap().iter().find(|t| t["name"] == "good").unwrap();
    assert_eq!(good["events"], 90);
    assert_eq!(dir.run(&["tap", "doubled", "--where", "twice > 2", "--limit", "7"]).exits(0).json_lines().len(), 7);
    dir.run(&["tap", "doubled", "--follow"]).exits(1).says("not running");
    let letters = dir.run(&["dlq", "list", "check", "--json"]).exits(0).json_lines();
    assert_eq!(letters.len(), 10);
    let id = letters[3]["id"].as_str().unwrap();
    assert!(dir.run(&["dlq", "show", "check", id]).exits(0).stdout().contains("positive"));
    let status = dir.run(&["services", "--json"]).exits(0).json();
    let check = part(&status, "services", "check");
    assert_eq!(
        (&check["lag"], &check["dead_letters"], &check["broken_rules"]["positive"]),
        (&0.into(), &10.into(), &10.into())
    );
    for unknown in ["events_in", "events_out", "in_per_s", "restarts", "busy_s"] {
        assert!(check[unknown].is_null(), "{unknown} is not in the log: {check}");
    }
    assert!(part(&status, "sinks", "out")["events"].is_null());
    let table = dir.run(&["services"]).exits(0).says("dead letters that are open").stdout();
    let row = table.lines().find(|l| l.starts_with("check")).unwrap();
    assert_eq!(row.split_whitespace().skip(2).take(6).collect::<Vec<_>>(), ["-", "-", "-", "-", "0", "10"], "{table}");
    let all = dir.run(&["dlq", "list", "--json"]).exits(0).json();
    assert_eq!((&all["check"]["letters"], &all["check"]["by_rule"]["positive"]), (&10.into(), &10.into()));
    assert_eq!(all["input"]["letters"], 0);
    assert!(dir.run(&["dlq", "list"]).exits(0).says("stopped pipeline").stdout().contains("positive 10"));
    assert!(dir.run(&["log", "stat"]).exits(0).stdout().contains("good"));
    dir.run(&["topics", "godo"]).exits(1).says("`good`");
}

#[test]
fn a_sound_log_is_found_sound_and_a_damaged_one_damaged() {
    let dir = Dir::new(1000, false);
    dir.run(&["run", "--drain"]).exits(0);
    assert!(dir.run(&["log", "verify"]).exits(0).stdout().contains("sound"));
    assert_eq!(dir.run(&["log", "verify", "--json"]).exits(0).json()["faults"], serde_json::json!([]));
    dir.run(&["log", "repair"]).exits(2).says("--yes");
    let used = Dir::new(1, true);
    used.run(&["log", "repair"]).exits(1).says("no data");
    let node = used.start(&[]);
    used.run(&["log", "repair"]).exits(1).says("log-locked");
    node.stop();
}

#[test]
fn plan_on_a_stopped_pipeline_compares_with_what_ran_last() {
    let dir = Dir::new(10, false);
    dir.run(&["run", "--drain"]).exits(0);
    assert!(dir.run(&["plan"]).exits(0).says("not running").stdout().contains("no changes"));
    dir.edit("amount > 0", "amount > 1");
    assert!(dir.run(&["plan"]).exits(0).stdout().contains("~ service check"));
    dir.edit("  twice: {", "  double: {");
    let plan = dir.run(&["plan"]).exits(0).stdout();
    for line in ["reads `good` from its beginning (9 events)", "does what `twice` did", "has read all of `good`"] {
        assert!(plan.contains(line), "no `{line}` in {plan}");
    }
    assert!(dir.run(&["plan", "--json"]).exits(0).stdout().contains("from its beginning (9 events)"));
}

//! `plan` and `apply` on a running pipeline.

use crate::support::{Dir, part, wait_for};

#[test]
fn only_what_differs_changes_and_the_plan_says_it_first() {
    let dir = Dir::new(100, true);
    let node = dir.start(&[]);
    wait_for(&dir, "twice", "all events", |s| s["events_out"] == 90);
    let same = dir.run(&["plan"]).exits(0).stdout();
    assert!(same.contains("no changes"), "{same}");
    dir.edit("amount > 0", "amount > 1");
    let plan = dir.run(&["plan"]).exits(0).stdout();
    assert!(plan.contains("~ service check") && !plan.contains("~ service twice"), "{plan}");
    let before = dir.run(&["services", "--json"]).json();
    let applied = dir.run(&["apply"]).exits(0).stdout();
    assert!(applied.contains("applied in"), "{applied}");
    assert!(dir.run(&["plan"]).exits(0).stdout().contains("no changes"));
    let after = dir.run(&["services", "--json"]).json();
    assert_ne!(part(&before, "services", "check")["version"], part(&after, "services", "check")["version"]);
    assert_eq!(part(&before, "services", "twice")["version"], part(&after, "services", "twice")["version"]);
    dir.write("input.ndjson", &(dir.read("input.ndjson") + "{\"id\":100,\"k\":\"k\",\"amount\":1}\n"));
    wait_for(&dir, "check", "the new rule", |s| s["lag"] == 0 && s["dead_letters"].as_u64() >= Some(1));
    node.stop();
}

#[test]
fn a_wrong_file_changes_nothing() {
    let dir = Dir::new(10, true);
    let node = dir.start(&[]);
    dir.edit("amount > 0", "amont > 0");
    dir.run(&["plan"]).exits(78).says("did you mean `amount`?");
    dir.run(&["apply"]).exits(78);
    dir.edit("amont > 0", "amount > 0");
    assert!(dir.run(&["plan"]).exits(0).stdout().contains("no changes"));
    node.stop();
}

#[test]
fn columns_that_would_break_what_is_stored_are_refused() {
    let dir = Dir::new(10, true);
    let node = dir.start(&[]);
    dir.edit("amount: int!", "amount: bool!");
    dir.edit("amount > 0", "amount");
    dir.edit("amount * 2", "1");
    let plan = dir.run(&["plan"]).exits(1).stdout();
    assert!(plan.contains("x topic events: refused"), "{plan}");
    dir.run(&["apply"]).exits(1);
    node.stop();
}

#[test]
fn apply_needs_a_running_node() {
    Dir::new(1, false).run(&["apply"]).exits(1).says("not running");
}

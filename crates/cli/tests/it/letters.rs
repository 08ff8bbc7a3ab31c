//! Dead letters, from the command line.

use crate::support::{Dir, wait_for};

#[test]
fn a_letter_is_listed_shown_and_replayed_once() {
    let dir = Dir::new(20, true);
    let node = dir.start(&[]);
    wait_for(&dir, "check", "two letters", |s| s["dead_letters"] == 2);
    let letters = dir.run(&["dlq", "list", "check", "--json"]).exits(0).json_lines();
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[0]["rules"][0], "positive");
    let id = letters[0]["id"].as_str().unwrap().to_owned();
    let table = dir.run(&["dlq", "list", "check"]).exits(0).stdout();
    assert!(table.contains(&id) && table.contains("positive"), "{table}");
    let shown = dir.run(&["dlq", "show", "check", &id]).exits(0).stdout();
    assert!(shown.contains("\"amount\":0") && shown.contains("events"), "{shown}");
    // The rule is still there, so it comes back as a new letter with one more try.
    dir.run(&["dlq", "replay", "check", &id]).exits(2).says("order per key is not kept").says("--yes");
    let replayed = dir.run(&["dlq", "replay", "check", &id, "--yes"]).exits(0).stdout();
    assert!(replayed.contains("1 replayed"), "{replayed}");
    wait_for(&dir, "check", "a third letter", |s| s["dead_letters"] == 3);
    let again = dir.run(&["dlq", "replay", "check", &id, "--yes"]).exits(1).stdout();
    assert!(again.contains("was replayed before"), "{again}");
    let open = dir.run(&["dlq", "list", "check", "--json"]).exits(0).json_lines();
    assert_eq!(open.len(), 2, "one left, one new");
    assert!(open.iter().any(|l| l["attempts"] == 2), "{open:?}");
    let done = dir.run(&["dlq", "discard", "check", "--all", "--yes"]).exits(0).stdout();
    assert!(done.contains("2 discarded"), "{done}");
    let gone = open.iter().find(|l| l["attempts"] == 2).unwrap()["id"].as_str().unwrap();
    let refused = dir.run(&["dlq", "replay", "check", gone, "--yes"]).exits(1).stdout();
    assert!(refused.contains("was discarded, which is for good"), "{refused}");
    // Where nothing can be done nobody is asked.
    dir.run(&["dlq", "replay", "check", gone]).exits(1);
    assert!(dir.run(&["dlq", "discard", "check", "0-99999"]).exits(1).stdout().contains("does not exist"));
    dir.run(&["dlq", "replay", "nobody", "0-1"]).exits(1).says("nobody");
    assert!(dir.run(&["dlq", "replay", "check", "--all"]).exits(0).stdout().contains("0 replayed"));
    dir.run(&["dlq", "list", "check"]).exits(0).says("no dead letters");
    assert_eq!(dir.run(&["dlq", "list", "check", "--all", "--json"]).exits(0).json_lines().len(), 3);
    node.stop();
}

#[test]
fn mending_the_rule_and_replaying_lets_the_events_through() {
    let dir = Dir::new(20, true);
    let node = dir.start(&[]);
    wait_for(&dir, "check", "two letters", |s| s["dead_letters"] == 2);
    dir.edit("amount > 0", "amount >= 0");
    dir.run(&["apply"]).exits(0);
    let replayed = dir.run(&["dlq", "replay", "check", "--rule", "positive", "--yes", "--json"]).exits(0).json();
    assert_eq!(replayed["done"], 2);
    wait_for(&dir, "twice", "all twenty", |s| s["events_out"].as_u64() == Some(20));
    node.stop();
}

#[test]
fn a_selection_must_be_said() {
    let dir = Dir::new(1, true);
    dir.run(&["dlq", "replay", "check"]).exits(2).says("--all");
    dir.run(&["dlq", "replay", "check", "--all", "0-1"]).exits(2);
    dir.run(&["dlq", "replay", "check", "--all"]).exits(1).says("not running").says("millstream run");
}

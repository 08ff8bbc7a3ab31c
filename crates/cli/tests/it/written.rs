//! Commands that look at the file only: `init`, `validate`, `show`, `test`.

use crate::support::Dir;

#[test]
fn what_init_writes_is_valid_and_passes_its_tests() {
    let dir = Dir::empty();
    let said = dir.run(&["init", "orders"]).exits(0).stdout();
    assert!(said.contains("wrote orders/pipeline.yaml") && said.contains("millstream run orders"), "{said}");
    let valid = dir.run(&["validate", "orders"]).exits(0);
    assert!(valid.stdout().contains("valid: pipeline `orders`"), "{}", valid.stdout());
    assert_eq!(valid.stderr(), "", "no warnings either");
    let tested = dir.run(&["test", "orders"]).exits(0).stdout();
    assert!(tested.contains("2 tests passed"), "{tested}");
}

#[test]
fn init_overwrites_nothing() {
    let dir = Dir::empty();
    dir.write("pipeline.yaml", "mine");
    dir.run(&["init"]).exits(1).says("pipeline.yaml is there already");
    assert_eq!(dir.read("pipeline.yaml"), "mine");
    assert!(!dir.path().join("sql").exists(), "not even the other files");
    let dir = Dir::empty();
    dir.run(&["init"]).exits(0);
    dir.run(&["init"]).exits(1).says("pipeline.yaml and ./sql/value.sql are there already");
}

#[test]
fn all_errors_come_in_one_pass_with_their_places() {
    let dir = Dir::new(0, false);
    dir.edit("from: good", "from: goood");
    dir.edit("amount > 0", "amont > 0");
    dir.edit("sinks:", "snks:");
    let ran = dir.run(&["validate"]).exits(78);
    assert_eq!(ran.stdout(), "");
    let said = ran.stderr();
    for part in ["did you mean `sinks`?", "pipeline.yaml:", "^"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    let json = dir.run(&["validate", "--json"]).exits(78).json();
    assert_eq!(json["valid"], false);
    assert!(json["diagnostics"][0]["place"]["line"].is_u64(), "{json}");
}

#[test]
fn a_fault_of_the_file_hides_none_of_the_sql() {
    let dir = Dir::new(0, false);
    dir.edit("amount > 0", "amont > 0");
    dir.edit("amount * 2", "amuont * 2");
    dir.edit("listen: 127.0.0.1:0", "listen: 0.0.0.0:0");
    dir.edit("sinks:", "snks:");
    dir.edit("services:", "services:\n  a: {from: b_out, to: a_out}\n  b: {from: a_out, to: b_out}\n  c: {from: [events, b_out], to: c_out}\n  d: {from: c_out, sql: SELECT id frm c_out, to: d_out}");
    let said = dir.run(&["validate"]).exits(78).stderr();
    for code in ["unknown-key", "listen-open", "cycle", "no column `amont`", "no column `amuont`", "did you mean FROM?"]
    {
        assert!(said.contains(code), "no {code} in {said}");
    }
    assert!(said.contains("6 errors"), "{said}");
}

#[test]
fn a_mark_of_the_byte_order_is_no_part_of_the_sql() {
    let dir = Dir::new(0, false);
    dir.edit("sql: \"SELECT id, k, amount * 2 AS twice FROM good\"", "sql_file: twice.sql");
    dir.write("twice.sql", "\u{feff}SELECT id, k, amount * 2 AS twice FROM good");
    dir.run(&["validate"]).exits(0);
    dir.write("twice.sql", "\u{feff}SELECT id, k, amuont * 2 AS twice FROM good");
    let said = dir.run(&["validate"]).exits(78).says("twice.sql:1:15").stderr();
    let lines: Vec<&str> = said.lines().collect();
    let caret = lines.iter().position(|l| l.contains('^')).unwrap();
    assert_eq!(lines[caret - 1].find("amuont"), lines[caret].find('^'), "{said}");
}

#[test]
fn a_mistyped_topic_and_column_are_both_found_with_a_suggestion() {
    let dir = Dir::new(0, false);
    dir.edit("from: good", "from: goood");
    dir.edit("amount > 0", "amont > 0");
    let said = dir.run(&["run"]).exits(78).stderr();
    assert!(said.contains("did you mean `good`?"), "{said}");
    assert!(said.contains("did you mean `amount`?"), "{said}");
    assert!(said.contains("2 errors"), "{said}");
}

#[test]
fn a_pipeline_is_shown_in_every_form() {
    let dir = Dir::new(0, false);
    let text = dir.run(&["show"]).exits(0).stdout();
    assert!(text.contains("twice") && text.contains("doubled"), "{text}");
    assert!(dir.run(&["show", "--format", "dot"]).exits(0).stdout().starts_with("digraph"));
    let mermaid = dir.run(&["show", "--format", "mermaid"]).exits(0).stdout();
    assert!(mermaid.starts_with("flowchart") || mermaid.starts_with("graph"), "{mermaid}");
    dir.run(&["show", "--format", "json"]).exits(0).json();
    dir.run(&["show", "--json"]).exits(0).json();
    dir.run(&["show", "--format", "svg"]).exits(2).says("possible values");
}

#[test]
fn a_failing_test_shows_what_differs() {
    let dir = Dir::new(0, false);
    dir.run(&["test"]).exits(0);
    dir.edit("twice: 2}", "twice: 3}");
    let ran = dir.run(&["test"]).exits(1).stdout();
    assert!(ran.contains("FAILED twice one is two"), "{ran}");
    assert!(ran.contains("ok     nothing is refused"), "{ran}");
    assert!(ran.contains('3') && ran.contains("1 of 2 tests failed"), "{ran}");
    let json = dir.run(&["test", "--json", "--name", "twice"]).exits(1).json();
    assert_eq!(json.as_array().unwrap().len(), 1);
    assert!(!dir.path().join("log").exists(), "tests leave no log");
}

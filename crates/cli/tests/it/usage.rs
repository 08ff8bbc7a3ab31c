//! The command line itself.

use crate::support::Dir;

#[test]
fn a_mistyped_command_is_answered_with_the_right_one() {
    Dir::empty().run(&["validat"]).exits(2).says("'validate'");
    Dir::empty().run(&["run", "--drian"]).exits(2).says("'--drain'");
    Dir::empty().run(&["dlq", "lst", "x"]).exits(2).says("'list'");
}

#[test]
fn no_command_shows_the_help_and_help_is_no_failure() {
    Dir::empty().run(&[]).exits(2).says("Usage: millstream");
    let help = Dir::empty().run(&["--help"]).exits(0).stdout();
    assert!(help.contains("millstream init hello"), "{help}");
    assert!(Dir::empty().run(&["--version"]).exits(0).stdout().starts_with("millstream "));
}

#[test]
fn values_that_make_no_sense_are_refused_before_anything_happens() {
    let dir = Dir::empty();
    dir.run(&["tap", "t", "--from", "yesterday"]).exits(2).says("earliest, latest");
    dir.run(&["services", "scale", "s", "0"]).exits(2);
    dir.run(&["dlq", "show", "s", "nine"]).exits(2).says("3-1042");
    dir.run(&["services", "--address", "nowhere"]).exits(2).says("127.0.0.1:7070");
    dir.run(&["run", "--yes"]).exits(2).says("--fresh");
}

#[test]
fn a_node_that_is_not_there_is_said_to_be_not_there() {
    // Port 1 is reserved and nobody listens on it.
    Dir::empty().run(&["services", "--address", "127.0.0.1:1"]).exits(1).says("no node answers at 127.0.0.1:1");
}

#[test]
fn a_directory_without_a_pipeline_says_how_to_get_one() {
    for command in [&["validate"][..], &["run"], &["show"], &["test"], &["topics"], &["tap", "x"]] {
        Dir::empty().run(command).exits(78).says("pipeline.yaml").says("millstream init");
    }
}

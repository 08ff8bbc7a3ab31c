//! Readers that go away, and what is printed for programs.

use std::process::Stdio;

use crate::support::Dir;

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = Dir::new(10, false);
    for command in [&["schema"][..], &["show"], &["completions", "bash"], &["--help"]] {
        let mut child = dir.command(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{command:?}");
    }
}

#[test]
fn the_schema_is_json_and_names_every_part_of_the_file() {
    let schema = Dir::empty().run(&["schema"]).exits(0).json();
    for part in ["topics", "lookups", "sources", "services", "sinks", "tests"] {
        assert!(schema["properties"][part].is_object(), "{part}");
    }
}

#[test]
fn shells_learn_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let text = Dir::empty().run(&["completions", shell]).exits(0).stdout();
        assert!(text.contains("dlq"), "{shell}");
    }
    Dir::empty().run(&["completions", "cmd"]).exits(2).says("possible values");
}

//! Golden diagnostics: `tests/golden/NAME.yaml` and what is said about it, `NAME.txt`. `UPDATE=1` writes the texts.

use std::path::{Path, PathBuf};

use millstream_node::{Config, plan};

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn said(path: &Path) -> String {
    match Config::load(path).and_then(|loaded| plan(&loaded)) {
        Err(found) => found.to_string(),
        Ok(pipeline) => format!("{}{}", pipeline.warnings, pipeline.show_text()),
    }
}

#[test]
fn every_golden_pipeline_gets_its_diagnostics() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(golden_dir()).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    assert!(!files.is_empty());
    let mut wrong = Vec::new();
    for file in files {
        let found = said(&file);
        let expected = file.with_extension("txt");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&expected, &found).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != found {
            wrong.push(format!("{}:\n{found}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "run with UPDATE=1 if this is right\n{}", wrong.join("\n"));
}

#[test]
fn the_json_form_round_trips() {
    let found = Config::load(&golden_dir().join("keys.yaml")).unwrap_err();
    let json = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<millstream_node::Diagnostics>(&json).unwrap(), found);
}

#[test]
fn the_examples_are_valid() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    for example in ["flights", "fraud", "inventory", "market", "nexmark"] {
        if let Err(found) = Config::load(&examples.join(example)).and_then(|loaded| plan(&loaded)) {
            panic!("{example}:\n{found}");
        }
    }
}

#[test]
fn the_picture_in_the_readme_is_the_one_that_is_drawn() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let pipeline = Config::load(&root.join("examples/fraud")).and_then(|loaded| plan(&loaded)).unwrap();
    let picture = pipeline.show_mermaid();
    assert!(std::fs::read_to_string(root.join("README.md")).unwrap().contains(&picture), "{picture}");
}

#[test]
fn the_schema_knows_the_words_of_the_language() {
    let schema = Config::json_schema().to_string();
    for word in ["pipeline", "max_out_of_orderness", "sql_file", "fold", "\"else\"", "\"match\"", "card_transactions"] {
        assert!(schema.contains(word), "{word} is not in the schema");
    }
    assert!(!schema.contains("\"span\""), "places in the file are no part of the language");
}

#[test]
fn a_secret_is_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), "hunter2\n").unwrap();
    let text = "version: 1\npipeline: x\nserver: {listen: \"${file:secret}\"}\ntopics:\n  t: {partitions: '${file:secret}', retention: '${file:secret}', kind: '${file:secret}'}\nsources: {s: {stdin: {format: '${file:secret}'}, to: t}}\nservices: {v: {from: t, sql_file: '${file:secret}', to: u}}\n";
    std::fs::write(dir.path().join("pipeline.yaml"), text).unwrap();
    let found = Config::load(dir.path()).unwrap_err();
    assert!(found.errors() >= 5, "{found}");
    assert!(!format!("{found}{}", serde_json::to_string(&found).unwrap()).contains("hunter2"), "{found}");
}

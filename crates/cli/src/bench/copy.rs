//! The copy of a pipeline that is measured: the same steps between other ends.
//!
//! The copy is written as JSON, which is YAML as well. Files that the pipeline reads are named by absolute paths; what
//! it writes, its log included, goes to the benchmark's own directory; it listens where there is room; its tests are
//! left out.

use std::path::{Path, PathBuf};

use anyhow::Context;
use millstream_node::config::{self, FILE_NAME, Loaded};
use serde_json::{Map, Value, json};

use crate::failure::Failure;

/// Where the copy gets its events from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Input<'a> {
    /// From this file, in the place of its `generate` source, or else of its first one.
    File(&'a Path),
    /// From its own files, which have an end.
    OwnFiles,
    /// By HTTP.
    Http,
    /// By HTTP, behind so many made-up ones: its first `generate` source, as fast as it goes.
    HttpAfter(u64),
}

/// A copy of a pipeline.
#[derive(Debug)]
pub(super) struct Copy {
    /// The directory with its pipeline file.
    pub(super) dir: PathBuf,
    /// Where its log is.
    pub(super) log: PathBuf,
    /// Where its sinks write.
    pub(super) out: PathBuf,
}

impl Copy {
    /// Writes a copy of `loaded` to `dir`.
    pub(super) fn of(loaded: &Loaded, dir: &Path, input: Input<'_>) -> Result<Self, Failure> {
        let mut root = config::plain(&loaded.text)?;
        let base = loaded.path.parent().unwrap_or(Path::new(""));
        let root_map = root.as_object_mut().context("a pipeline file is a mapping")?;
        let absolute = |path: &mut Value| {
            if let Some(text) = path.as_str()
                && let Ok(whole) = std::path::absolute(base.join(text))
            {
                *path = json!(whole);
            }
        };
        for lookup in entries(root_map, "lookups") {
            lookup.pointer_mut("/file/path").map(absolute);
        }
        for service in entries(root_map, "services") {
            service.pointer_mut("/sql_file").map(absolute);
        }
        for source in entries(root_map, "sources") {
            source.pointer_mut("/file/path").map(absolute);
        }
        if let Some(sources) = root_map.get_mut("sources").and_then(Value::as_object_mut) {
            choose_sources(sources, input)?;
        }
        Self::write(dir, root)
    }

    /// Writes a pipeline to `dir`, with its log and its sinks below it.
    pub(super) fn write(dir: &Path, mut root: Value) -> Result<Self, Failure> {
        let copy = Self { dir: dir.to_owned(), log: dir.join("log"), out: dir.join("out") };
        let root_map = root.as_object_mut().context("a pipeline is a mapping")?;
        root_map.remove("tests");
        root_map.insert("server".into(), json!({"listen": "127.0.0.1:0"}));
        let log = root_map.entry("log").or_insert(json!({}));
        *log = json!({"embedded": log.get("embedded").cloned().unwrap_or(json!({}))});
        if let Some(embedded) = log.pointer_mut("/embedded").and_then(Value::as_object_mut) {
            embedded.insert("dir".into(), json!(copy.log));
        }
        if let Some(sinks) = root_map.get_mut("sinks").and_then(Value::as_object_mut) {
            for (name, sink) in sinks {
                redirect(sink, &copy.out.join(name));
            }
        }
        let path = dir.join(FILE_NAME);
        let text = serde_json::to_string_pretty(&root)?;
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(copy)
    }

    /// How many lines the sinks wrote, in how many bytes.
    pub(super) fn written(&self) -> Result<(u64, u64), Failure> {
        let failed = || format!("reading {}", self.out.display());
        count_lines(&self.out).with_context(failed).map_err(Failure::from)
    }
}

fn entries<'a>(root: &'a mut Map<String, Value>, key: &str) -> impl Iterator<Item = &'a mut Value> {
    root.get_mut(key).and_then(Value::as_object_mut).into_iter().flat_map(|map| map.iter_mut().map(|(_, value)| value))
}

fn choose_sources(sources: &mut Map<String, Value>, input: Input<'_>) -> Result<(), Failure> {
    let is = |source: &Value, kind: &str| source.get(kind).is_some();
    match input {
        Input::OwnFiles => sources.retain(|_, source| is(source, "file")),
        Input::Http => sources.retain(|_, source| is(source, "http")),
        Input::HttpAfter(events) => {
            let made = sources.iter().find(|(_, source)| is(source, "generate")).map(|(name, _)| name.clone());
            sources.retain(|name, source| is(source, "http") || Some(name) == made.as_ref());
            let made = made.and_then(|name| sources.get_mut(&name)).and_then(|source| source.get_mut("generate"));
            if let Some(made) = made.and_then(Value::as_object_mut) {
                made.remove("rate");
                made.insert("count".into(), json!(events));
                made.insert("bad".into(), json!("0%"));
            }
        }
        Input::File(path) => {
            let generate = sources.iter().find(|(_, source)| is(source, "generate"));
            let chosen = generate.or(sources.iter().next()).map(|(name, _)| name.clone());
            let file = json!({"path": path, "format": "ndjson"});
            sources.retain(|name, source| Some(name) == chosen.as_ref() || is(source, "file"));
            let chosen = chosen.and_then(|name| sources.get_mut(&name)).and_then(Value::as_object_mut);
            if let Some(source) = chosen {
                ["generate", "http", "stdin"].iter().for_each(|kind| drop(source.remove(*kind)));
                source.insert("file".into(), file);
            }
        }
    }
    if !sources.is_empty() {
        return Ok(());
    }
    Err(Failure::Usage(match input {
        Input::Http | Input::HttpAfter(_) => "the pipeline has no `http` source to send events to".into(),
        _ => "the pipeline has no `file` source and makes no card payments: name events with --file".into(),
    }))
}

/// Lets a sink write files below `path`, also one that would write to the standard output.
fn redirect(sink: &mut Value, path: &Path) {
    let Some(sink) = sink.as_object_mut() else { return };
    let stdout = sink.remove("stdout");
    let file = sink.entry("file").or_insert_with(|| stdout.filter(Value::is_object).unwrap_or(json!({})));
    if let Some(file) = file.as_object_mut() {
        file.insert("path".into(), json!(path));
        file.entry("format").or_insert(json!("ndjson"));
    }
}

fn count_lines(dir: &Path) -> std::io::Result<(u64, u64)> {
    let (mut lines, mut bytes) = (0, 0);
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            let (l, b) = count_lines(&path)?;
            (lines, bytes) = (lines + l, bytes + b);
        } else {
            let text = std::fs::read(&path)?;
            lines += text.iter().filter(|b| **b == b'\n').count() as u64;
            bytes += text.len() as u64;
        }
    }
    Ok((lines, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(input: Input<'_>) -> Result<Value, Failure> {
        let mut sources = json!({
            "made": {"generate": {"rate": 5}, "to": "t"}, "api": {"http": {"path": "/t"}, "to": "t"},
        });
        choose_sources(sources.as_object_mut().unwrap(), input)?;
        Ok(sources)
    }

    #[test]
    fn the_made_up_source_becomes_a_file_and_the_others_are_left_out() {
        let file = sources(Input::File(Path::new("/x.ndjson"))).unwrap();
        assert_eq!(file, json!({"made": {"file": {"path": "/x.ndjson", "format": "ndjson"}, "to": "t"}}));
        assert_eq!(sources(Input::Http).unwrap(), json!({"api": {"http": {"path": "/t"}, "to": "t"}}));
        let after = sources(Input::HttpAfter(9)).unwrap();
        assert_eq!(after["made"], json!({"generate": {"count": 9, "bad": "0%"}, "to": "t"}));
        assert_eq!(after["api"], json!({"http": {"path": "/t"}, "to": "t"}));
        assert!(matches!(sources(Input::OwnFiles), Err(Failure::Usage(_))));
    }

    #[test]
    fn a_sink_writes_into_the_benchmarks_directory() {
        for mut sink in [json!({"from": "a", "file": {"path": "out/x", "format": "csv"}}), json!({"stdout": {}})] {
            redirect(&mut sink, Path::new("/b/out"));
            assert_eq!(sink["file"]["path"], json!("/b/out"));
            assert!(sink.get("stdout").is_none());
        }
    }
}

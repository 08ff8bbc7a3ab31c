//! Golden tests: text files of inputs, queries and what they yield.
//!
//! A file declares a topic and lookups (`@topic`, `@lookup`, each followed by columns and `@rows`), then cases. Each
//! case runs at once and row by row, and both must agree. Row `i` was ingested `i` seconds after the start of 2026.
//! `UPDATE=1` rewrites what is expected; read the difference before you commit it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use millstream_event::json::{Decimals, Decoder, Encoder};
use millstream_event::{Column, Name, Schema, Unknown};
use millstream_flow::{Catalog, LookupSchema, LookupSet, LookupTable, SqlError, plan_query};

/// The start of 2026 in microseconds.
const START: i64 = 1_767_225_600_000_000;

#[derive(Default)]
struct World {
    catalog: Catalog,
    rows: Option<RecordBatch>,
    lookups: LookupSet,
}

#[test]
fn every_golden_file_holds() {
    let mut cases = 0;
    let all = hold("tests/golden", &mut |text| rerun(text, &mut cases));
    assert!(cases >= 60 || !all, "{cases} cases");
}

/// Asserts that every file of a folder is as `rerun` makes it, or makes it so (`UPDATE=1`). Only those with the text of
/// `GOLDEN` in their name, where it is set: whether these were all.
pub(crate) fn hold(folder: &str, rerun: &mut dyn FnMut(&str) -> String) -> bool {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "test"));
    files.sort();
    assert!(!files.is_empty());
    let update = std::env::var("UPDATE").is_ok_and(|u| u == "1");
    let only = std::env::var("GOLDEN").unwrap_or_default();
    let mut wrong = String::new();
    for file in files.iter().filter(|f| f.to_string_lossy().contains(&only)) {
        let text = std::fs::read_to_string(file).unwrap();
        let actual = rerun(&text);
        if actual == text {
            continue;
        }
        if update {
            std::fs::write(file, &actual).unwrap();
        } else {
            writeln!(wrong, "{}:\n{}", file.display(), difference(&text, &actual)).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    only.is_empty()
}

/// The file with every `@expect` as it really is.
fn rerun(text: &str, cases: &mut usize) -> String {
    let mut world = World::default();
    let mut out = String::new();
    let mut pending: Option<(bool, String, Vec<String>)> = None;
    for block in blocks(text) {
        let (head, body) = block.split_once('\n').unwrap_or((block, ""));
        let words: Vec<&str> = head.split_whitespace().collect();
        match words.as_slice() {
            ["@topic", name] => pending = Some((true, (*name).to_owned(), columns(body))),
            ["@lookup", name, "key", key @ ..] => {
                let mut spec = columns(body);
                spec.extend(key.iter().map(|k| format!("key {k}")));
                pending = Some((false, (*name).to_owned(), spec));
            }
            ["@rows"] => {
                let (topic, name, spec) = pending.take().expect("@rows follows @topic or @lookup");
                world.declare(topic, &name, &spec, body);
            }
            ["@case", ..] => {
                *cases += 1;
                out.push_str(block.trim_end());
                write!(out, "\n@expect\n{}\n", world.outcome(body.trim())).unwrap();
                continue;
            }
            ["@expect"] => continue,
            _ => {}
        }
        out.push_str(block);
    }
    out
}

/// Splits at lines that start with `@`, keeping them.
pub(crate) fn blocks(text: &str) -> Vec<&str> {
    let mut starts: Vec<usize> = std::iter::once(0).chain(text.match_indices("\n@").map(|(i, _)| i + 1)).collect();
    starts.push(text.len());
    starts.windows(2).map(|w| &text[w[0]..w[1]]).collect()
}

pub(crate) fn columns(body: &str) -> Vec<String> {
    body.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect()
}

impl World {
    fn declare(&mut self, topic: bool, name: &str, spec: &[String], body: &str) {
        let (keys, columns): (Vec<_>, Vec<_>) = spec.iter().partition(|s| s.starts_with("key "));
        let columns = columns.iter().map(|c| {
            let (name, kind) = c.split_once(": ").expect("column: type");
            Column::parse(name, kind).unwrap()
        });
        let schema = Schema::new(columns.collect()).unwrap();
        let decoded = Decoder::new(&schema, Unknown::Reject).decode_lines(body.as_bytes()).unwrap();
        assert!(decoded.refused.is_empty(), "{name}: {:?}", decoded.refused);
        let name = Name::new(name).unwrap();
        if topic {
            let times = (0..decoded.rows.num_rows() as i64).map(|i| START + i * 1_000_000);
            let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("+00:00"));
            self.rows = Some(schema.with_system_column(&decoded.rows, times).unwrap());
            self.catalog.topics.insert(name, schema);
        } else {
            let key = keys.iter().map(|k| k["key ".len()..].to_owned()).collect();
            let lookup = LookupSchema { schema, key };
            let table = LookupTable::build(&lookup, decoded.rows).unwrap();
            self.lookups = self.lookups.with(name.clone(), Arc::new(table));
            self.catalog.lookups.insert(name, lookup);
        }
    }

    fn outcome(&self, sql: &str) -> String {
        let query = match plan_query(sql, &self.catalog) {
            Ok(query) => query,
            Err(errors) => return errors.iter().map(show).collect(),
        };
        let rows = self.rows.as_ref().expect("a topic");
        let done = crate::one_by_one::run(&query, rows, &self.lookups);
        let mut lines = Vec::new();
        Encoder::new(query.schema(), Decimals::Numbers).encode(&done.rows, &mut lines).unwrap();
        let mut out = format!("{}\n{}", query.schema(), String::from_utf8(lines).unwrap());
        for f in done.failed {
            writeln!(out, "failed {} {}: {}", f.row, f.code, f.reason).unwrap();
        }
        for (name, count) in done.dropped.iter().filter(|(_, count)| *count > 0) {
            writeln!(out, "dropped by {name}: {count}").unwrap();
        }
        out
    }
}

pub(crate) fn show(error: &SqlError) -> String {
    let place = error
        .span
        .map_or_else(|| "nowhere".to_owned(), |s| format!("{}:{}-{}:{}", s.start.0, s.start.1, s.end.0, s.end.1));
    let help = error.help.as_ref().map(|h| format!("  help: {h}\n")).unwrap_or_default();
    format!("error[{}] {place}: {}\n{help}", error.code, error.message)
}

fn difference(expected: &str, actual: &str) -> String {
    let lines = expected.lines().zip(actual.lines()).enumerate();
    let first = lines.clone().find(|(_, (e, a))| e != a);
    match first {
        Some((at, (e, a))) => format!("line {}:\n  expected {e}\n  actual   {a}", at + 1),
        None => format!("{} lines became {}", expected.lines().count(), actual.lines().count()),
    }
}

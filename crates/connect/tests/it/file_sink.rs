use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{RecordBatch, TimestampMicrosecondArray};
use bytes::Bytes;
use millstream_connect::event::{Batch, Column, ColumnType, Offset, PartitionId, Schema, Stamp, ipc};
use millstream_connect::file_sink::{Roll, Settings};
use millstream_connect::service::{ConnectError, Sink, SinkTask};
use millstream_connect::{FileSink, Format};
use tempfile::TempDir;

use crate::support::{batch, name, schema};

fn sink(dir: &Path, bytes: u64) -> FileSink {
    FileSink::new(Settings { roll: Roll { bytes, every: None }, ..Settings::new(dir) })
}

async fn open(sink: &FileSink, state: Option<&Bytes>) -> Result<Box<dyn SinkTask>, ConnectError> {
    sink.open(PartitionId(3), state.cloned()).await
}

/// The numbers in all files of a topic, in the order of files; `.part` files last.
fn written(dir: &Path, topic: &str) -> Vec<i64> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    let Ok(entries) = fs::read_dir(dir.join(topic)) else { return Vec::new() };
    for entry in entries {
        let path = entry.unwrap().path();
        files.insert(path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap());
    }
    let lines = files.values().flat_map(|text| text.lines());
    lines.map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["n"].as_i64().unwrap()).collect()
}

fn names(dir: &Path, topic: &str) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir.join(topic)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn events_are_committed_rolled_and_completed() {
    let dir = TempDir::new().unwrap();
    let sink = sink(dir.path(), 100);
    let mut task = open(&sink, None).await.unwrap();
    task.write(&name("a"), &batch(0, 10)).await.unwrap();
    task.write(&name("b"), &batch(0, 1)).await.unwrap();
    task.prepare().await.unwrap();
    assert_eq!(names(dir.path(), "a"), ["3-000000.ndjson.part"], "not complete before it is committed");
    task.committed().await.unwrap();
    assert_eq!(names(dir.path(), "a"), ["3-000000.ndjson"]);
    assert_eq!(names(dir.path(), "b"), ["3-000000.ndjson.part"]);
    task.write(&name("a"), &batch(10, 11)).await.unwrap();
    task.finish().await.unwrap();
    task.committed().await.unwrap();
    assert_eq!(names(dir.path(), "a"), ["3-000000.ndjson", "3-000001.ndjson"]);
    assert_eq!(names(dir.path(), "b"), ["3-000000.ndjson"]);
    assert_eq!(written(dir.path(), "a"), (0..11).collect::<Vec<_>>());
}

/// The step after which a life of the task ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Crash {
    Write,
    Prepare,
    Commit,
    Name,
}

/// A small generator of choices, so that the test needs no seed file.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[tokio::test]
async fn every_event_is_written_exactly_once_whatever_step_a_crash_hits() {
    let lives = if std::env::var_os("MILLSTREAM_LONG").is_some() { 500 } else { 40 };
    for seed in 0..lives {
        let dir = TempDir::new().unwrap();
        let mut dice = Dice(seed * 7919 + 1);
        let sink = sink(dir.path(), 50 + dice.roll(400));
        // What the log would hold: the position and the state, committed together.
        let (mut position, mut state) = (0i64, None::<Bytes>);
        while position < 100 {
            let mut task = open(&sink, state.as_ref()).await.unwrap();
            let mut next = position;
            let crash = [Crash::Write, Crash::Prepare, Crash::Commit, Crash::Name][dice.roll(4) as usize];
            for round in 0..=dice.roll(3) {
                let to = (next + 1 + dice.roll(9) as i64).min(100);
                task.write(&name("t"), &batch(next, to)).await.unwrap();
                next = to;
                if crash == Crash::Write && round == 1 {
                    // Bytes that reached the file without a commit.
                    task.prepare().await.unwrap();
                    break;
                }
                if crash == Crash::Write {
                    break;
                }
                let prepared = if next == 100 { task.finish().await } else { task.prepare().await }.unwrap();
                if crash == Crash::Prepare {
                    break;
                }
                (position, state) = (next, prepared);
                if crash == Crash::Commit {
                    break;
                }
                task.committed().await.unwrap();
            }
            drop(task);
        }
        drop(open(&sink, state.as_ref()).await.unwrap());
        assert_eq!(written(dir.path(), "t"), (0..100).collect::<Vec<_>>(), "seed {seed}: {:?}", names(dir.path(), "t"));
        assert!(names(dir.path(), "t").iter().all(|n| n.ends_with(".ndjson")), "{:?}", names(dir.path(), "t"));
    }
}

#[tokio::test]
async fn a_crash_before_the_first_commit_leaves_nothing_behind() {
    let dir = TempDir::new().unwrap();
    let sink = sink(dir.path(), 1 << 20);
    let mut task = open(&sink, None).await.unwrap();
    task.write(&name("t"), &batch(0, 10)).await.unwrap();
    task.prepare().await.unwrap();
    drop(task);
    let mut task = open(&sink, None).await.unwrap();
    task.write(&name("t"), &batch(0, 3)).await.unwrap();
    task.finish().await.unwrap();
    task.committed().await.unwrap();
    assert_eq!(written(dir.path(), "t"), [0, 1, 2]);
}

#[tokio::test]
async fn a_new_log_writes_behind_the_files_that_are_there() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("t")).unwrap();
    fs::write(dir.path().join("t/3-000004.ndjson"), "{\"n\":-1}\n").unwrap();
    fs::write(dir.path().join("t/4-000009.ndjson"), "{\"n\":-2}\n").unwrap();
    let mut task = open(&sink(dir.path(), 1 << 20), None).await.unwrap();
    task.write(&name("t"), &batch(0, 1)).await.unwrap();
    task.finish().await.unwrap();
    task.committed().await.unwrap();
    assert_eq!(names(dir.path(), "t"), ["3-000004.ndjson", "3-000005.ndjson", "4-000009.ndjson"]);
}

#[tokio::test]
async fn a_log_older_than_the_directory_is_refused_and_overwrites_nothing() {
    let dir = TempDir::new().unwrap();
    let sink = sink(dir.path(), 1);
    let mut task = open(&sink, None).await.unwrap();
    let mut states = Vec::new();
    for n in 0..3 {
        task.write(&name("t"), &batch(n, n + 1)).await.unwrap();
        states.push(task.prepare().await.unwrap().unwrap());
        task.committed().await.unwrap();
    }
    drop(task);
    let error = open(&sink, Some(&states[0])).await.err().unwrap();
    assert!(!error.retryable() && error.to_string().contains("the log is older than the directory"), "{error}");
    assert_eq!(written(dir.path(), "t"), [0, 1, 2]);
}

#[tokio::test]
async fn a_shortened_file_is_refused() {
    let dir = TempDir::new().unwrap();
    let sink = sink(dir.path(), 1 << 20);
    let mut task = open(&sink, None).await.unwrap();
    task.write(&name("t"), &batch(0, 10)).await.unwrap();
    let state = task.prepare().await.unwrap();
    drop(task);
    fs::write(dir.path().join("t/3-000000.ndjson.part"), "{}").unwrap();
    let error = open(&sink, state.as_ref()).await.err().unwrap();
    assert!(!error.retryable() && error.to_string().contains("changed from outside"), "{error}");
}

#[tokio::test]
async fn a_complete_file_may_be_taken_away() {
    let dir = TempDir::new().unwrap();
    let sink = sink(dir.path(), 1);
    let mut task = open(&sink, None).await.unwrap();
    task.write(&name("t"), &batch(0, 1)).await.unwrap();
    let state = task.prepare().await.unwrap();
    task.committed().await.unwrap();
    drop(task);
    fs::remove_file(dir.path().join("t/3-000000.ndjson")).unwrap();
    let mut task = open(&sink, state.as_ref()).await.unwrap();
    task.write(&name("t"), &batch(1, 2)).await.unwrap();
    task.finish().await.unwrap();
    task.committed().await.unwrap();
    assert_eq!(names(dir.path(), "t"), ["3-000001.ndjson"]);
}

#[tokio::test]
async fn a_second_writer_of_the_same_files_waits_and_others_share_the_directory() {
    let dir = TempDir::new().unwrap();
    let sink = sink(dir.path(), 1000);
    let mut first = open(&sink, None).await.unwrap();
    first.write(&name("t"), &batch(0, 1)).await.unwrap();
    let state = first.prepare().await.unwrap();
    first.committed().await.unwrap();
    let mut second = open(&sink, None).await.unwrap();
    second.write(&name("t"), &batch(1, 2)).await.unwrap();
    let error = second.prepare().await.unwrap_err();
    assert!(error.retryable() && error.to_string().contains("writes partition 3 of topic `t`"), "{error}");
    assert!(open(&sink, state.as_ref()).await.is_err(), "the same files");
    // Another topic, and the same topic in another format, are other files.
    let mut other = open(&sink, None).await.unwrap();
    other.write(&name("u"), &batch(5, 6)).await.unwrap();
    other.prepare().await.unwrap();
    let csv = FileSink::new(Settings { format: Format::Csv, ..Settings::new(dir.path()) });
    let mut csv = open(&csv, None).await.unwrap();
    csv.write(&name("t"), &batch(7, 8)).await.unwrap();
    csv.prepare().await.unwrap();
    assert_eq!(names(dir.path(), "t"), ["3-000000.csv.part", "3-000000.ndjson.part"]);
    assert_eq!(written(dir.path(), "u"), [5]);
    drop(first);
    open(&sink, state.as_ref()).await.unwrap();
}

#[tokio::test]
async fn the_suffix_follows_the_format() {
    let dir = TempDir::new().unwrap();
    let sink = FileSink::new(Settings { format: Format::Csv, ..Settings::new(dir.path()) });
    drop(open(&sink, None).await.unwrap());
    assert_eq!(Format::Csv.suffix(), "csv");
}

#[tokio::test]
async fn csv_files_have_a_header_each() {
    let dir = TempDir::new().unwrap();
    let roll = Roll { bytes: 20, every: None };
    let sink = FileSink::new(Settings { format: Format::Csv, roll, ..Settings::new(dir.path()) });
    let mut task = open(&sink, None).await.unwrap();
    for n in 0..3 {
        task.write(&name("t"), &batch(n, n + 1)).await.unwrap();
        task.prepare().await.unwrap();
        task.committed().await.unwrap();
    }
    task.finish().await.unwrap();
    task.committed().await.unwrap();
    let texts: Vec<String> =
        names(dir.path(), "t").iter().map(|n| fs::read_to_string(dir.path().join("t").join(n)).unwrap()).collect();
    assert_eq!(texts.concat().matches("n,text\n").count(), texts.len());
    assert!(texts.len() > 1 && texts[0].contains("0,text 0\n"), "{texts:?}");
}

#[tokio::test]
async fn standard_output_gets_whole_lines_and_a_gone_reader_stops_the_sink() {
    use millstream_connect::StdoutSink;
    use std::io::{Error, ErrorKind, Write};
    use std::sync::{Arc, Mutex};
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(Error::from(ErrorKind::BrokenPipe))
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let shared = Shared::default();
    let sink = StdoutSink::writing(Box::new(shared.clone()));
    let mut task = sink.open(PartitionId(0), None).await.unwrap();
    task.write(&name("t"), &batch(0, 2)).await.unwrap();
    assert_eq!(task.prepare().await.unwrap(), None);
    let text = String::from_utf8(shared.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text, "{\"n\":0,\"text\":\"text 0\"}\n{\"n\":1,\"text\":\"text 1\"}\n");
    let mut task = StdoutSink::writing(Box::new(Gone)).open(PartitionId(0), None).await.unwrap();
    task.write(&name("t"), &batch(0, 2)).await.unwrap();
    let error = task.prepare().await.unwrap_err();
    assert!(!error.retryable() && error.to_string().contains("gone away"), "{error}");
}

/// Of three rows of a table the second is deleted: each form tells.
#[tokio::test]
async fn a_deleted_row_of_a_table_is_told_from_others() {
    for (format, expected) in [
        (
            Format::Ndjson,
            "{\"n\":0,\"text\":\"text 0\"}\n{\"n\":1,\"text\":\"text 1\",\"_deleted\":true}\n{\"n\":2,\"text\":\"text 2\"}\n",
        ),
        (Format::Csv, "n,text,_deleted\n0,text 0,false\n1,text 1,true\n2,text 2,false\n"),
    ] {
        let dir = TempDir::new().unwrap();
        let sink = FileSink::new(Settings { format, tables: vec![name("a")], ..Settings::new(dir.path()) });
        let mut task = open(&sink, None).await.unwrap();
        task.write(&name("a"), &with_a_deleted_row()).await.unwrap();
        task.finish().await.unwrap();
        task.committed().await.unwrap();
        let [file] = names(dir.path(), "a").try_into().unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("a").join(file)).unwrap(), expected);
    }
}

#[tokio::test]
async fn arrow_files_of_tables_have_a_column_for_deleted_rows() {
    let dir = TempDir::new().unwrap();
    let sink = FileSink::new(Settings { format: Format::Arrow, tables: vec![name("a")], ..Settings::new(dir.path()) });
    let mut task = open(&sink, None).await.unwrap();
    task.write(&name("a"), &with_a_deleted_row()).await.unwrap();
    task.finish().await.unwrap();
    task.committed().await.unwrap();
    let [file] = names(dir.path(), "a").try_into().unwrap();
    let bytes = fs::read(dir.path().join("a").join(file)).unwrap();
    let columns = schema().columns().iter().cloned().chain([Column::required("_deleted", ColumnType::Bool)]).collect();
    let read = ipc::read(&Schema::new(columns).unwrap(), &bytes).unwrap();
    let marks: Vec<bool> = read.iter().flat_map(|b| b.column(2).as_boolean().iter().flatten()).collect();
    assert_eq!(marks, [false, true, false]);
}

fn with_a_deleted_row() -> Batch {
    let batch = batch(0, 3);
    let stamps = [Stamp::at(0), Stamp::at(0).with(Stamp::DELETED), Stamp::at(0)].map(|stamp| stamp.0);
    let mut columns = batch.rows.columns().to_vec();
    *columns.last_mut().unwrap() = Arc::new(TimestampMicrosecondArray::from(stamps.to_vec()).with_timezone("+00:00"));
    let rows = RecordBatch::try_new(batch.rows.schema(), columns).unwrap();
    Batch::dense(Offset(0), 1, rows)
}

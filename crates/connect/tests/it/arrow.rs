//! Arrow IPC files, written by arrow-ipc as other programs write them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use arrow_ipc::{CompressionType, MetadataVersion};
use bytes::Bytes;
use millstream_connect::event::json::{Decimals, Encoder};
use millstream_connect::event::{Column, ColumnType, PartitionId, Schema, Unknown};
use millstream_connect::file::Settings;
use millstream_connect::service::{Sink, Source};
use millstream_connect::{FileSink, FileSource, Format, file_sink};
use tempfile::TempDir;

use crate::support::{all, batch, name, next, numbers, open, schema};

fn rows(from: i64, to: i64) -> RecordBatch {
    let texts: StringArray = (from..to).map(|n| Some(format!("text {n}"))).collect();
    let columns: Vec<(&str, ArrayRef)> =
        vec![("text", Arc::new(texts)), ("n", Arc::new(Int64Array::from_iter_values(from..to)))];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn file(batches: &[RecordBatch], options: IpcWriteOptions) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = FileWriter::try_new_with_options(&mut bytes, batches[0].schema_ref(), options).unwrap();
    batches.iter().for_each(|b| writer.write(b).unwrap());
    writer.finish().unwrap();
    drop(writer);
    bytes
}

fn stream(batches: &[RecordBatch], options: IpcWriteOptions) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new_with_options(&mut bytes, batches[0].schema_ref(), options).unwrap();
    batches.iter().for_each(|b| writer.write(b).unwrap());
    writer.finish().unwrap();
    drop(writer);
    bytes
}

fn plain() -> IpcWriteOptions {
    IpcWriteOptions::default()
}

fn lz4() -> IpcWriteOptions {
    plain().try_with_compression(Some(CompressionType::LZ4_FRAME)).unwrap()
}

fn write(dir: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn source(path: &Path) -> FileSource {
    FileSource::new(Settings::new(path.to_str().unwrap()), schema())
}

fn following(path: &Path) -> FileSource {
    let poll = std::time::Duration::from_millis(5);
    FileSource::new(Settings { follow: true, poll, ..Settings::new(path.to_str().unwrap()) }, schema())
}

async fn fault(path: &Path) -> String {
    let fault = all(&source(path), None).await.unwrap_err();
    assert!(!fault.retryable());
    let fault = fault.to_string();
    assert!(fault.contains(path.file_name().unwrap().to_str().unwrap()), "{fault}");
    fault
}

#[tokio::test]
async fn files_and_streams_of_every_kind_are_read_in_the_declared_columns() {
    let dir = TempDir::new().unwrap();
    let batches = [rows(0, 10), rows(10, 10), rows(10, 500)];
    let texts: DictionaryArray<Int32Type> = (0..500).map(|n| Some(["a", "b", "c"][n % 3])).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("n", Arc::new(Int32Array::from_iter_values(0..500))),
        ("other", Arc::new(Int32Array::from_iter_values(0..500))),
        ("text", Arc::new(texts)),
    ];
    let dictionary = [RecordBatch::try_from_iter(columns).unwrap()];
    let legacy = IpcWriteOptions::try_new(8, true, MetadataVersion::V4).unwrap();
    for (name, bytes) in [
        ("a.arrow", file(&batches, plain())),
        ("b.arrow", file(&batches, lz4())),
        ("c.arrow", file(&batches, IpcWriteOptions::try_new(8, false, MetadataVersion::V5).unwrap())),
        ("d.arrow", file(&batches, legacy.clone())),
        ("e.arrows", stream(&batches, plain())),
        ("f.arrows", stream(&batches, legacy)),
        ("g.feather", file(&dictionary, lz4())),
        ("h.arrows", stream(&dictionary, plain())),
    ] {
        let (seen, refused, _) = all(&source(&write(&dir, name, bytes)), None).await.unwrap();
        assert_eq!(seen, (0..500).collect::<Vec<_>>(), "{name}");
        assert!(refused.is_empty());
    }
    // All of them, one behind the other, by a glob; an empty file has no events.
    write(&dir, "0.arrow", "");
    let settings = Settings { format: Format::Arrow, ..Settings::new(dir.path().join("*").to_str().unwrap()) };
    let (seen, _, _) = all(&FileSource::new(settings, schema()), None).await.unwrap();
    assert_eq!(seen.len(), 8 * 500);
}

#[tokio::test]
async fn reading_goes_on_in_the_middle_of_a_record_batch() {
    let dir = TempDir::new().unwrap();
    let path = write(&dir, "a.arrow", file(&[rows(0, 40_000), rows(40_000, 40_003), rows(40_003, 60_000)], lz4()));
    let (mut position, mut seen, mut opened) = (None, Vec::new(), 0);
    loop {
        // A task that is ended after each of its intakes.
        let mut task = open(&source(&path), position.clone()).await.unwrap();
        let Some(intake) = next(&mut task).await.unwrap() else { break };
        assert!(intake.rows.num_rows() <= 16_384);
        seen.extend(numbers(&intake.rows));
        position = intake.position;
        opened += 1;
    }
    assert_eq!(opened, 6);
    assert_eq!(seen, (0..60_000).collect::<Vec<_>>());
    // Another file in its place is none of the events that were read.
    write(&dir, "a.arrow", file(&[rows(7, 9)], plain()));
    for other in [rows(7, 9), rows(7, 90_000)] {
        write(&dir, "a.arrow", file(&[other], plain()));
        let fault = all(&source(&path), position.clone()).await.unwrap_err().to_string();
        assert!(fault.contains("is not the file"), "{fault}");
    }
}

#[tokio::test]
async fn a_row_that_does_not_fit_is_refused_alone_and_its_letter_can_be_read_again() {
    let dir = TempDir::new().unwrap();
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("n", Arc::new(Float64Array::from(vec![Some(1.0), Some(2.5), None, Some(4.0), Some(1e300)])), true),
        ("text", Arc::new(StringArray::from(vec!["a", "b", "c", "d", "e"])), true),
    ];
    let rows = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let path = write(&dir, "a.arrow", file(&[rows], plain()));
    let source = source(&path);
    let mut task = open(&source, None).await.unwrap();
    let intake = next(&mut task).await.unwrap().unwrap();
    assert_eq!(numbers(&intake.rows), [1, 4]);
    let refused: Vec<_> = intake.refused.iter().map(|r| (r.place.as_str(), r.code)).collect();
    assert_eq!(refused, [("a.arrow:2", "value-range"), ("a.arrow:3", "value-missing"), ("a.arrow:5", "value-range")]);
    assert_eq!(intake.refused[0].raw, Bytes::from(r#"{"n":2.5,"text":"b"}"#));
    assert!(intake.refused[0].reason.contains("`n`"), "{}", intake.refused[0].reason);
    let again = source.redecode(br#"{"n":2,"text":"b"}"#).unwrap().unwrap();
    assert_eq!(numbers(&again), [2]);
}

#[tokio::test]
async fn columns_that_cannot_go_stop_the_source_with_file_and_column() {
    let dir = TempDir::new().unwrap();
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    let wrong = RecordBatch::try_from_iter(vec![("n", Arc::clone(&texts))]).unwrap();
    let said = fault(&write(&dir, "kind.arrow", file(&[wrong], plain()))).await;
    assert!(said.contains("column `n` is declared bigint, but its values are Utf8"), "{said}");
    let missing = RecordBatch::try_from_iter(vec![("text", texts)]).unwrap();
    let said = fault(&write(&dir, "missing.arrow", file(&[missing], plain()))).await;
    assert!(said.contains("column `n` is missing"), "{said}");
    let reject = |path: &Path| Settings { unknown: Unknown::Reject, ..Settings::new(path.to_str().unwrap()) };
    let n: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let more = RecordBatch::try_from_iter(vec![("n", Arc::clone(&n)), ("extra", Arc::clone(&n))]).unwrap();
    let path = write(&dir, "more.arrow", file(&[more], plain()));
    let said = all(&FileSource::new(reject(&path), schema()), None).await.unwrap_err().to_string();
    assert!(said.contains("more.arrow") && said.contains("column `extra`, which is not declared"), "{said}");
    // Kept, they are one JSON object for each event.
    let schema = Schema::new(vec![Column::required("n", ColumnType::BigInt)]).unwrap().with_extra();
    let keep = Settings { unknown: Unknown::Keep, ..Settings::new(path.to_str().unwrap()) };
    let mut task = open(&FileSource::new(keep, schema.clone()), None).await.unwrap();
    let intake = next(&mut task).await.unwrap().unwrap();
    let text = Encoder::new(&schema, Decimals::Numbers).encode_row(&intake.rows, 0).unwrap();
    assert_eq!(text, r#"{"n":1,"_extra":{"extra":1}}"#);
}

#[tokio::test]
async fn a_cut_or_flipped_file_is_an_error_that_names_it_or_read_and_never_a_panic() {
    let dir = TempDir::new().unwrap();
    let small = [rows(0, 3), rows(3, 5)];
    let whole = file(&small, plain());
    for cut in 1..whole.len() {
        fault(&write(&dir, "cut.arrow", &whole[..cut])).await;
    }
    let whole = stream(&small, plain());
    let mut clean = 0;
    for cut in 1..whole.len() {
        // A stream may end behind any message.
        match all(&source(&write(&dir, "cut.arrows", &whole[..cut])), None).await {
            Ok((seen, ..)) => {
                assert!([0, 3, 5].contains(&seen.len()), "{seen:?}");
                clean += 1;
            }
            Err(e) => assert!(e.to_string().contains("cut.arrows"), "{e}"),
        }
    }
    assert!((3..=5).contains(&clean), "{clean}");
    for whole in [file(&small, plain()), stream(&small, lz4())] {
        for at in 0..whole.len() {
            for flip in [0x01, 0x80, 0xFF] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                if let Err(e) = all(&source(&write(&dir, "flip.arrow", &bytes)), None).await {
                    assert!(e.to_string().contains("flip.arrow"), "{e}");
                    assert!(!e.to_string().contains("ended unexpectedly"), "at {at}: {e}");
                }
            }
        }
    }
}

#[tokio::test]
async fn lengths_that_lie_allocate_nothing_and_shared_values_go_in_parts() {
    let dir = TempDir::new().unwrap();
    // A description of 2 GiB, and one of 100 MB, of which nothing is there.
    for len in [0x7FFF_FFF0_u32, 100_000_000] {
        let mut bytes = vec![0xFF; 4];
        bytes.extend(len.to_le_bytes());
        bytes.extend([0; 100]);
        let said = fault(&write(&dir, "long.arrows", &bytes)).await;
        assert!(said.contains("its structure is damaged"), "{said}");
    }
    // A packed column that claims 1 TiB.
    let mut bytes = stream(&[rows(0, 5000)], lz4());
    let magic = bytes.windows(4).rposition(|w| w == [0x04, 0x22, 0x4D, 0x18]).unwrap();
    bytes[magic - 8..magic].copy_from_slice(&(1_i64 << 40).to_le_bytes());
    let said = fault(&write(&dir, "packed.arrows", &bytes)).await;
    assert!(said.contains("claims more bytes than it has"), "{said}");
    // Twenty events that share one text of 10 MB: 200 MB if they were written out at once.
    let keys = Int32Array::from(vec![0; 20]);
    let texts = DictionaryArray::new(keys, Arc::new(StringArray::from(vec!["x".repeat(10 << 20)])));
    let columns: Vec<(&str, ArrayRef)> =
        vec![("n", Arc::new(Int64Array::from_iter_values(0..20))), ("text", Arc::new(texts))];
    let shared = RecordBatch::try_from_iter(columns).unwrap();
    let path = write(&dir, "shared.arrow", file(&[shared], plain()));
    let mut task = open(&source(&path), None).await.unwrap();
    let mut seen = Vec::new();
    while let Some(intake) = next(&mut task).await.unwrap() {
        assert!(intake.rows.get_array_memory_size() < 140 << 20, "{}", intake.rows.get_array_memory_size());
        seen.extend(numbers(&intake.rows));
    }
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_followed_file_is_read_once_when_it_is_whole() {
    let dir = TempDir::new().unwrap();
    for (kind, whole) in [("arrow", file(&[rows(0, 3)], plain())), ("arrows", stream(&[rows(0, 3)], plain()))] {
        let path = write(&dir, &format!("grows.{kind}"), &whole[..whole.len() / 2]);
        let source = following(&dir.path().join(format!("*.{kind}")));
        let mut task = open(&source, None).await.unwrap();
        let early = tokio::time::timeout(std::time::Duration::from_millis(60), task.next()).await;
        assert!(early.is_err(), "half a file gave {early:?}");
        fs::write(&path, &whole).unwrap();
        let intake = next(&mut task).await.unwrap().unwrap();
        assert_eq!(numbers(&intake.rows), [0, 1, 2]);
        write(&dir, &format!("later.{kind}"), stream(&[rows(3, 5)], plain()));
        let more = next(&mut task).await.unwrap().unwrap();
        assert_eq!(numbers(&more.rows), [3, 4], "the first is not read again");
        // Nor is it after a restart.
        let mut task = open(&source, more.position).await.unwrap();
        write(&dir, &format!("z.{kind}"), stream(&[rows(5, 6)], plain()));
        assert_eq!(numbers(&next(&mut task).await.unwrap().unwrap().rows), [5]);
    }
}

#[tokio::test]
async fn a_sink_writes_streams_that_are_cut_back_and_read_again() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let settings = file_sink::Settings { format: Format::Arrow, ..file_sink::Settings::new(&out) };
    let sink = FileSink::new(settings);
    let mut task = sink.open(PartitionId(0), None).await.unwrap();
    task.write(&name("t"), &batch(0, 10)).await.unwrap();
    task.write(&name("t"), &batch(10, 15)).await.unwrap();
    let state = task.prepare().await.unwrap();
    task.committed().await.unwrap();
    // Written, and lost by a crash.
    task.write(&name("t"), &batch(15, 20)).await.unwrap();
    task.prepare().await.unwrap();
    drop(task);
    let mut task = sink.open(PartitionId(0), state).await.unwrap();
    task.write(&name("t"), &batch(15, 17)).await.unwrap();
    task.finish().await.unwrap();
    task.committed().await.unwrap();
    let (seen, _, _) = all(&source(&out.join("t/*.arrows")), None).await.unwrap();
    assert_eq!(seen, (0..17).collect::<Vec<_>>());
    for entry in fs::read_dir(out.join("t")).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        let reader = arrow_ipc::reader::StreamReader::try_new(std::io::Cursor::new(&bytes), None).unwrap();
        assert!(reader.map(|b| b.unwrap().num_rows()).sum::<usize>() > 0);
        assert!(bytes.ends_with(&[0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]), "other programs follow it to its end");
    }
}

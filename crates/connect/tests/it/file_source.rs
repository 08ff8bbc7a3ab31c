use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use millstream_connect::file::{Compression, Settings};
use millstream_connect::service::Source;
use millstream_connect::service::log::Position;
use millstream_connect::{FileSource, Format};
use tempfile::TempDir;

use crate::support::{all, next, numbers, open, schema};

fn lines(from: i64, to: i64) -> String {
    (from..to).map(|n| format!("{{\"n\":{n},\"text\":\"text {n}\"}}\n")).collect()
}

fn csv(from: i64, to: i64) -> String {
    (from..to).map(|n| format!("text {n},{n}\n")).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
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
    let settings =
        Settings { follow: true, poll: std::time::Duration::from_millis(5), ..Settings::new(path.to_str().unwrap()) };
    FileSource::new(settings, schema())
}

/// The position in which so many bytes and lines of a file are read.
fn position_at(dir: &TempDir, name: &str, offset: u64, lines: u64) -> Position {
    use std::os::unix::fs::MetadataExt;
    let path = dir.path().join(name);
    let bytes = fs::read(&path).unwrap();
    let head = &bytes[..bytes.len().min(256)];
    let sum = head.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    let inode = fs::metadata(&path).unwrap().ino();
    let json = format!(
        r#"{{"v":1,"p":[{{"f":"{name}","i":{inode},"n":{},"h":{sum},"o":{offset},"l":{lines}}}]}}"#,
        head.len()
    );
    Position::Opaque(json.into())
}

#[tokio::test]
async fn plain_gzip_and_zstd_files_read_the_same() {
    let dir = TempDir::new().unwrap();
    let text = lines(0, 1000);
    for path in [
        write(&dir, "a.ndjson", &text),
        write(&dir, "b.ndjson.gz", gzip(text.as_bytes())),
        // Two members behind each other, as `cat` makes them.
        write(&dir, "c.gz", [gzip(&text.as_bytes()[..500]), gzip(&text.as_bytes()[500..])].concat()),
        write(&dir, "d.zst", zstd::encode_all(text.as_bytes(), 3).unwrap()),
    ] {
        let (seen, refused, _) = all(&source(&path), None).await.unwrap();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>(), "{}", path.display());
        assert!(refused.is_empty());
    }
}

#[tokio::test]
async fn reading_goes_on_after_every_line_of_a_file_plain_or_compressed() {
    let dir = TempDir::new().unwrap();
    let text = lines(0, 30);
    write(&dir, "a.ndjson", &text);
    write(&dir, "a.ndjson.gz", gzip(text.as_bytes()));
    write(&dir, "a.ndjson.zst", zstd::encode_all(text.as_bytes(), 3).unwrap());
    for name in ["a.ndjson", "a.ndjson.gz", "a.ndjson.zst"] {
        let mut offset = 0;
        for (number, line) in text.split_inclusive('\n').enumerate() {
            let position = position_at(&dir, name, offset, number as u64);
            let (seen, _, last) = all(&source(&dir.path().join(name)), Some(position)).await.unwrap();
            assert_eq!(seen, (number as i64..30).collect::<Vec<_>>(), "{name} from byte {offset}");
            let (seen, _, _) = all(&source(&dir.path().join(name)), last).await.unwrap();
            assert!(seen.is_empty(), "{name} read twice: {seen:?}");
            offset += line.len() as u64;
        }
    }
}

#[tokio::test]
async fn a_followed_file_is_read_exactly_once_however_it_is_cut_and_whenever_the_task_is_opened_again() {
    let dir = TempDir::new().unwrap();
    let text = lines(0, 12);
    // At every byte: what is there so far is read by one task, the rest by another one.
    for cut in 0..=text.len() {
        let path = write(&dir, "grows.ndjson", &text.as_bytes()[..cut]);
        let source = following(&path);
        let whole = text.as_bytes()[..cut].iter().filter(|b| **b == b'\n').count();
        let (mut seen, mut position) = (Vec::new(), None);
        let mut task = open(&source, None).await.unwrap();
        while seen.len() < whole {
            let intake = next(&mut task).await.unwrap().unwrap();
            seen.extend(numbers(&intake.rows));
            position = intake.position;
        }
        drop(task);
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&text.as_bytes()[cut..]).unwrap();
        let mut task = open(&source, position).await.unwrap();
        while seen.len() < 12 {
            seen.extend(numbers(&next(&mut task).await.unwrap().unwrap().rows));
        }
        assert_eq!(seen, (0..12).collect::<Vec<_>>(), "cut at {cut}");
        fs::remove_file(&path).unwrap();
    }
}

#[tokio::test]
async fn a_glob_is_read_in_the_order_of_names_and_places_name_file_and_line() {
    let dir = TempDir::new().unwrap();
    write(&dir, "b.ndjson", format!("{}not json\n\n{}", lines(10, 12), lines(12, 13)));
    write(&dir, "a.ndjson", lines(0, 3).trim_end());
    write(&dir, "c.txt", "is not read");
    let (seen, refused, _) = all(&source(&dir.path().join("*.ndjson")), None).await.unwrap();
    assert_eq!(seen, [0, 1, 2, 10, 11, 12]);
    assert_eq!(refused, ["b.ndjson:3"]);
}

#[tokio::test]
async fn a_refused_line_keeps_its_bytes_and_its_neighbours() {
    let dir = TempDir::new().unwrap();
    let path = write(&dir, "a.ndjson", b"{\"n\":1}\n{\"n\":\"x\"}\n\xff\xfe\n{\"n\":2}\n".as_slice());
    let mut task = open(&source(&path), None).await.unwrap();
    let intake = next(&mut task).await.unwrap().unwrap();
    assert_eq!(numbers(&intake.rows), [1, 2]);
    let refused: Vec<_> = intake.refused.iter().map(|r| (r.raw.as_ref(), r.code, r.place.as_str())).collect();
    assert_eq!(
        refused,
        [
            (b"{\"n\":\"x\"}".as_slice(), "value-type", "a.ndjson:2"),
            (b"\xff\xfe".as_slice(), "utf8-invalid", "a.ndjson:3")
        ]
    );
}

#[tokio::test]
async fn a_line_of_many_megabytes_is_read_and_an_endless_one_is_refused() {
    let dir = TempDir::new().unwrap();
    let long = format!("{{\"n\":1,\"text\":\"{}\"}}\n", "x".repeat(3 << 20));
    let endless = format!("{}\n", "y".repeat(40 << 20));
    let path = write(&dir, "a.ndjson", format!("{long}{endless}{}", lines(2, 3)));
    let (seen, refused, _) = all(&source(&path), None).await.unwrap();
    assert_eq!(seen, [1, 2]);
    assert_eq!(refused, ["a.ndjson:2"]);
}

#[tokio::test]
async fn a_file_that_was_replaced_stops_the_source_with_the_reason() {
    let dir = TempDir::new().unwrap();
    let path = write(&dir, "a.ndjson", lines(0, 100));
    let position = position_at(&dir, "a.ndjson", 500, 10);
    fs::remove_file(&path).unwrap();
    let error = all(&source(&path), Some(position.clone())).await.unwrap_err();
    assert!(!error.retryable() && error.to_string().contains("does not exist"), "{error}");
    write(&dir, "a.ndjson", "{\"n\":7}\n");
    let error = all(&source(&path), Some(position)).await.unwrap_err();
    assert!(
        !error.retryable() && error.to_string().contains("is not the file of which 500 bytes were read"),
        "{error}"
    );
}

#[tokio::test]
async fn a_file_that_was_moved_to_another_disk_goes_on() {
    let dir = TempDir::new().unwrap();
    let path = write(&dir, "a.ndjson", lines(0, 100));
    let offset = lines(0, 10).len() as u64;
    let position = position_at(&dir, "a.ndjson", offset, 10);
    let bytes = fs::read(&path).unwrap();
    fs::rename(&path, dir.path().join("away")).unwrap();
    fs::write(&path, bytes).unwrap();
    let (seen, _, _) = all(&source(&path), Some(position)).await.unwrap();
    assert_eq!(seen, (10..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn no_file_is_an_error_once_and_waited_for_when_following() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("*.ndjson");
    let error = all(&source(&path), None).await.unwrap_err();
    assert!(!error.retryable() && error.to_string().contains("no file matches"), "{error}");
    let mut task = open(&following(&path), None).await.unwrap();
    write(&dir, "late.ndjson", lines(0, 2));
    assert_eq!(numbers(&next(&mut task).await.unwrap().unwrap().rows), [0, 1]);
}

#[tokio::test]
async fn a_truncated_gzip_is_an_error_that_names_the_file() {
    let dir = TempDir::new().unwrap();
    let whole = gzip(lines(0, 1000).as_bytes());
    let path = write(&dir, "a.ndjson.gz", &whole[..whole.len() / 2]);
    let error = all(&source(&path), None).await.unwrap_err();
    assert!(error.to_string().contains("damaged or incomplete as gzip"), "{error}");
}

async fn take(
    task: &mut Box<dyn millstream_connect::service::SourceTask>,
    count: usize,
) -> (Vec<i64>, Option<Position>) {
    let (mut seen, mut position) = (Vec::new(), None);
    while seen.len() < count {
        let intake = next(task).await.unwrap().unwrap();
        seen.extend(numbers(&intake.rows));
        position = intake.position;
    }
    (seen, position)
}

#[tokio::test]
async fn log_rotation_loses_nothing_and_reads_nothing_twice_also_across_a_restart() {
    for pattern in ["app.log", "app.log*"] {
        for restart in [false, true] {
            let dir = TempDir::new().unwrap();
            let path = write(&dir, "app.log", lines(0, 5));
            let source = following(&dir.path().join(pattern));
            let mut task = open(&source, None).await.unwrap();
            let (mut seen, position) = take(&mut task, 5).await;
            if restart {
                // The old task's thread ends; what it hands over meanwhile reaches nobody.
                task = open(&following(&dir.path().join("none")), None).await.unwrap();
            }
            // The writer adds two lines, renames the file and begins a new one.
            let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(lines(5, 7).as_bytes()).unwrap();
            fs::rename(&path, dir.path().join("app.log.1")).unwrap();
            write(&dir, "app.log", lines(7, 9));
            if restart {
                task = open(&source, position).await.unwrap();
            }
            seen.extend(take(&mut task, 4).await.0);
            seen.sort_unstable();
            assert_eq!(seen, (0..9).collect::<Vec<_>>(), "{pattern}, restart: {restart}");
        }
    }
}

#[tokio::test]
async fn a_truncated_followed_file_begins_anew() {
    let dir = TempDir::new().unwrap();
    let path = write(&dir, "app.log", lines(0, 50));
    let source = following(&path);
    let mut task = open(&source, None).await.unwrap();
    take(&mut task, 50).await;
    fs::write(&path, lines(100, 102)).unwrap();
    assert_eq!(take(&mut task, 2).await.0, [100, 101]);
}

#[tokio::test]
async fn many_files_in_a_followed_directory_are_each_read_once() {
    let dir = TempDir::new().unwrap();
    let source = following(&dir.path().join("*.ndjson"));
    for n in 0..60 {
        write(&dir, &format!("{n:03}.ndjson"), lines(n, n + 1));
    }
    let mut task = open(&source, None).await.unwrap();
    let (seen, position) = take(&mut task, 60).await;
    assert_eq!(seen, (0..60).collect::<Vec<_>>());
    let Some(Position::Opaque(bytes)) = &position else { panic!("no position") };
    assert!(bytes.len() <= Position::OPAQUE_BYTES_MAX, "{} bytes", bytes.len());
    drop(task);
    for n in 60..65 {
        write(&dir, &format!("{n:03}.ndjson"), lines(n, n + 1));
    }
    let mut task = open(&source, position).await.unwrap();
    assert_eq!(take(&mut task, 5).await.0, (60..65).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_format_and_the_compression_follow_from_the_suffix() {
    assert_eq!(Settings::new("x.csv.gz").format, Format::Csv);
    assert_eq!(Settings::new("x.json").format, Format::Ndjson);
    assert_eq!("gz".parse::<Compression>().unwrap(), Compression::Gzip);
    assert!(source(Path::new("x")).bounded());
    assert!(!following(Path::new("x")).bounded());
    assert_eq!(csv(0, 1), "text 0,0\n");
}

#[tokio::test]
async fn a_refused_line_can_be_decoded_again() {
    let source = source(Path::new("x"));
    assert_eq!(numbers(&source.redecode(b"{\"n\":5}").unwrap().unwrap()), [5]);
    assert_eq!(source.redecode(b"{\"n\":").unwrap().unwrap_err().code, "json-syntax");
}

#[tokio::test]
async fn csv_goes_on_after_every_record_plain_and_compressed() {
    let dir = TempDir::new().unwrap();
    // A cell with a line end in it, so that records and lines differ.
    let text = format!("text,n\n{}\"two\nlines\",12\n{}", csv(0, 12), csv(13, 20));
    write(&dir, "a.csv", &text);
    write(&dir, "a.csv.gz", gzip(text.as_bytes()));
    for name in ["a.csv", "a.csv.gz"] {
        let (seen, refused, last) = all(&source(&dir.path().join(name)), None).await.unwrap();
        assert_eq!(seen, (0..20).collect::<Vec<_>>(), "{name}");
        assert!(refused.is_empty());
        assert!(all(&source(&dir.path().join(name)), last).await.unwrap().0.is_empty());
        let mut offset = "text,n\n".len() as u64;
        for n in 0..12 {
            let position = position_at(&dir, name, offset, n + 1);
            let (seen, _, _) = all(&source(&dir.path().join(name)), Some(position)).await.unwrap();
            assert_eq!(seen, (n as i64..20).collect::<Vec<_>>(), "{name} from byte {offset}");
            offset += csv(n as i64, n as i64 + 1).len() as u64;
        }
    }
}

#[tokio::test]
async fn a_csv_file_without_a_needed_column_stops_the_source_with_the_reason() {
    let dir = TempDir::new().unwrap();
    let path = write(&dir, "a.csv", "text\nx\n");
    let error = all(&source(&path), None).await.unwrap_err();
    assert!(!error.retryable() && error.to_string().contains("the header of a.csv"), "{error}");
}

#[tokio::test]
async fn standard_input_is_read_to_its_end() {
    use millstream_connect::StdinSource;
    for (format, text) in
        [(Format::Ndjson, lines(0, 5) + "oops\n{\"n\":5}"), (Format::Csv, "n\n0\n1\n2\n3\n4\noops\n5".into())]
    {
        let input = Box::new(std::io::Cursor::new(text.into_bytes()));
        let source = StdinSource::reading(input, format, Default::default(), schema());
        let (seen, refused, _) = all(&source, None).await.unwrap();
        assert_eq!(seen, (0..6).collect::<Vec<_>>());
        assert_eq!(refused, [if format == Format::Csv { "stdin:7" } else { "stdin:6" }]);
        assert!(source.bounded());
    }
}

#[tokio::test]
async fn what_was_read_from_standard_input_and_not_committed_is_handed_in_again() {
    use millstream_connect::StdinSource;
    // Each read of a stream ends where its writer paused: three parts.
    let input = Box::new(std::io::Read::chain(
        Pause(lines(0, 3)),
        std::io::Read::chain(Pause(lines(3, 4)), Pause(lines(4, 9))),
    ));
    let source = StdinSource::reading(input, Format::Ndjson, Default::default(), schema());
    let mut task = open(&source, None).await.unwrap();
    let first = next(&mut task).await.unwrap().unwrap();
    assert_eq!(numbers(&first.rows), [0, 1, 2]);
    assert_eq!(numbers(&next(&mut task).await.unwrap().unwrap().rows), [3]);
    drop(task);
    let (seen, _, _) = all(&source, None).await.unwrap();
    assert_eq!(seen, (0..9).collect::<Vec<_>>(), "nothing was committed");
    let (seen, _, last) = all(&source, first.position.clone()).await.unwrap();
    assert_eq!(seen, (3..9).collect::<Vec<_>>());
    let mut task = open(&source, first.position).await.unwrap();
    let second = next(&mut task).await.unwrap().unwrap();
    task.committed(second.position.as_ref().unwrap());
    assert_eq!(numbers(&next(&mut task).await.unwrap().unwrap().rows), (4..9).collect::<Vec<_>>());
    drop(task);
    assert!(all(&source, last.clone()).await.unwrap().0.is_empty());
    // The position of another process's stream says nothing about this one.
    let input = Box::new(std::io::Cursor::new(lines(0, 5).into_bytes()));
    let source = StdinSource::reading(input, Format::Ndjson, Default::default(), schema());
    assert_eq!(all(&source, last).await.unwrap().0, (0..5).collect::<Vec<_>>());
}

/// A text that is read at once.
struct Pause(String);

impl std::io::Read for Pause {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let text = std::mem::take(&mut self.0);
        buffer[..text.len()].copy_from_slice(text.as_bytes());
        Ok(text.len())
    }
}

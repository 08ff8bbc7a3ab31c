//! Each version of the format: a committed log that must keep loading.

use super::*;

/// Where the log is that version 1 wrote.
fn fixture() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

/// Writes the fixture anew with `MILLSTREAM_WRITE_FIXTURE=1`; only for a new version of the format, beside the old one.
#[tokio::test]
async fn a_log_of_version_1_is_written_like_this() {
    if std::env::var_os("MILLSTREAM_WRITE_FIXTURE").is_none() {
        return;
    }
    let clock = Arc::new(crate::ManualClock::new(1_000_000_000_000));
    let with =
        Options { segment_bytes: Options::SEGMENT_BYTES_MIN, prepare_ahead: false, clock, ..options(&fixture()) };
    let log = EmbeddedLog::open(with).unwrap();
    log.create_topic(spec("t", 1)).await.unwrap();
    let mut source = Source::join(&log, "s").await;
    for _ in 0..8 {
        source.put(&log, 5, 10).await;
    }
    until("settling", || log.shared.sealed.lock().is_empty()).await;
    log.close().await.unwrap();
}

#[tokio::test]
async fn a_log_that_version_1_wrote_loads() {
    let dir = tempfile::tempdir().unwrap();
    copy_dir(&fixture(), dir.path());
    assert!(verify(&options(dir.path())).unwrap().is_sound());
    let clock = Arc::new(crate::ManualClock::new(1_000_000_000_000));
    let log = EmbeddedLog::open(Options { clock, ..options(dir.path()) }).unwrap();
    assert_eq!(numbers(&log).await, (0..40).collect::<Vec<_>>());
    let source = Source::join(&log, "s").await;
    assert_eq!(source.position, Some(Position::Offset(Offset(40))));
    let (_, partition) = log.shared.topics.read().partition(&TopicPartition::new(name("t"), 0)).unwrap();
    assert!(!partition.contents.lock().files.is_empty(), "some of it is settled");
}

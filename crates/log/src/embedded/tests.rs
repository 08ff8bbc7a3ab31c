use std::sync::Arc;

use arrow_array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use millstream_event::{Column, ColumnType, PartitionId, Schema};

use super::*;
use crate::{Append, Change, Class, Consumed, Epoch, Read, Retention, TopicKind};

mod damage;
mod fixture;
mod full_disk;

pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(super) fn spec(topic: &str, partitions: u32) -> TopicSpec {
    let schema =
        Schema::new(vec![Column::required("n", ColumnType::BigInt), Column::nullable("text", ColumnType::String)]);
    TopicSpec {
        name: name(topic),
        partitions,
        key: vec!["n".into()],
        schema: schema.unwrap(),
        kind: TopicKind::Stream,
        retention: Retention::default(),
        consumers: vec![],
    }
}

/// Rows numbered `from..to`, with a text of `size` bytes.
pub(super) fn rows(from: i64, to: i64, size: usize) -> RecordBatch {
    let schema = spec("x", 1).schema;
    let text = (from..to).map(|n| format!("{n:0size$}"));
    let n = (to - from) as usize;
    RecordBatch::try_new(
        schema.physical().clone(),
        vec![
            Arc::new(Int64Array::from_iter_values(from..to)),
            Arc::new(StringArray::from_iter_values(text)),
            Arc::new(TimestampMicrosecondArray::from(vec![7; n]).with_timezone("+00:00")),
        ],
    )
    .unwrap()
}

pub(super) fn options(dir: &std::path::Path) -> Options {
    Options { segment_bytes: 64 << 10, reserve_bytes: 0, ..Options::new(dir) }
}

/// One task of a source that appends to `topic`.
pub(super) struct Source {
    pub(super) task: Task,
    position: Option<Position>,
    next: i64,
    _membership: Box<dyn Membership>,
}

impl Source {
    pub(super) async fn join(log: &EmbeddedLog, service: &str) -> Self {
        let join = Join { service: name(service), instance: 0, lead: Lead::Tasks(1) };
        let mut membership = log.join(join).unwrap();
        let Change::Assigned(mut tasks) = membership.next().await else { panic!() };
        let task = tasks.remove(0);
        let position = log.position(&task.id, &name("in")).await.unwrap();
        let next = position.as_ref().and_then(Position::offset).map_or(0, |o| o.0 as i64);
        Self { task, position, next, _membership: membership }
    }

    /// The next commit of `n` rows, numbered on.
    pub(super) fn commit(&mut self, topic: &str, n: i64, size: usize) -> Commit {
        let to = Position::Offset(Offset((self.next + n) as u64));
        let from = self.position.replace(to.clone());
        let rows = rows(self.next, self.next + n, size);
        self.next += n;
        Commit {
            task: self.task.id.clone(),
            epoch: self.task.epoch,
            class: Class::Intake,
            consumed: vec![Consumed { input: name("in"), from, to }],
            appends: vec![Append {
                topic: name(topic),
                partition: PartitionId(0),
                schema_version: 1,
                rows,
                watermark: None,
            }],
        }
    }

    pub(super) async fn put(&mut self, log: &EmbeddedLog, n: i64, size: usize) {
        let outcome = log.commit(self.commit("t", n, size)).await;
        assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    }
}

/// All numbers in partition 0 of `t`.
pub(super) async fn numbers(log: &EmbeddedLog) -> Vec<i64> {
    let at = TopicPartition::new(name("t"), 0);
    let from = log.start(&at).await.unwrap();
    let mut reader = log.read(&at, from).unwrap();
    let mut all = Vec::new();
    let mut next = from;
    loop {
        match reader.next().await.unwrap() {
            Read::Batch(batch) => {
                assert_eq!(batch.base, next);
                next = batch.next();
                let column = batch.rows.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
                all.extend(column.values());
            }
            Read::AtEnd { next: end } => {
                assert_eq!(end, log.end(&at).await.unwrap());
                return all;
            }
        }
    }
}

pub(super) async fn filled(dir: &std::path::Path, commits: i64) -> EmbeddedLog {
    let log = EmbeddedLog::open(options(dir)).unwrap();
    log.create_topic(spec("t", 2)).await.unwrap();
    let mut source = Source::join(&log, "s").await;
    for _ in 0..commits {
        source.put(&log, 3, 10).await;
    }
    log
}

#[tokio::test]
async fn what_was_committed_is_read_and_survives_dropping_and_closing() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 20).await;
    assert_eq!(numbers(&log).await, (0..60).collect::<Vec<_>>());
    drop(log);
    for round in 1..4 {
        let log = EmbeddedLog::open(options(dir.path())).unwrap();
        assert_eq!(numbers(&log).await, (0..57 + round * 3).collect::<Vec<_>>());
        let mut source = Source::join(&log, "s").await;
        source.put(&log, 3, 10).await;
        assert_eq!(numbers(&log).await, (0..60 + round * 3).collect::<Vec<_>>());
        if round % 2 == 0 {
            log.close().await.unwrap();
            assert!(matches!(log.commit(source.commit("t", 1, 1)).await, Outcome::Aborted(AbortReason::Stopped(_))));
        }
    }
}

#[tokio::test]
async fn epochs_grow_over_restarts_of_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = Epoch(0);
    for _ in 0..3 {
        let log = EmbeddedLog::open(options(dir.path())).unwrap();
        let source = Source::join(&log, "s").await;
        assert!(source.task.epoch > last);
        last = source.task.epoch;
        let renewed = log.restart(&source.task).await.unwrap().unwrap();
        assert!(renewed.epoch > last);
        last = renewed.epoch;
    }
}

#[tokio::test]
async fn pipelined_commits_share_syncs_and_a_wrong_position_stops_successors() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 0).await;
    let mut source = Source::join(&log, "s").await;
    let pending: Vec<_> = (0..100).map(|_| log.commit(source.commit("t", 10, 10))).collect();
    for outcome in futures::future::join_all(pending).await {
        assert!(matches!(outcome, Outcome::Committed(_)));
    }
    let mut wrong = source.commit("t", 1, 1);
    wrong.consumed[0].from = None;
    let (wrong, next) = (log.commit(wrong), log.commit(source.commit("t", 1, 1)));
    assert!(matches!(wrong.await, Outcome::Aborted(AbortReason::Refused(_))));
    assert_eq!(next.await, Outcome::Aborted(AbortReason::Predecessor));
    let renewed = log.restart(&source.task).await.unwrap().unwrap();
    assert!(renewed.epoch > source.task.epoch);
    assert_eq!(numbers(&log).await, (0..1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_journal_of_many_segments_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 0).await;
    let mut source = Source::join(&log, "s").await;
    for _ in 0..60 {
        source.put(&log, 20, 500).await;
    }
    // One commit that is larger than a segment.
    source.put(&log, 200, 1000).await;
    source.put(&log, 1, 1).await;
    assert_eq!(numbers(&log).await, (0..1401).collect::<Vec<_>>());
    drop(log);
    let log = EmbeddedLog::open(options(dir.path())).unwrap();
    assert_eq!(numbers(&log).await, (0..1401).collect::<Vec<_>>());
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn last_segment(dir: &std::path::Path) -> std::path::PathBuf {
    let mut all: Vec<_> = std::fs::read_dir(dir.join("journal")).unwrap().map(|e| e.unwrap().path()).collect();
    // The next segment may have been made already; it is empty until it is used.
    let used = |path: &std::path::PathBuf| std::fs::metadata(path).is_ok_and(|m| m.len() > 0);
    all.retain(|path| path.extension().is_some_and(|e| e == "seg") && used(path));
    all.sort();
    all.pop().unwrap()
}

/// The groups of the last segment.
fn groups(dir: &std::path::Path) -> Vec<walk::GroupAt> {
    let layout = Layout::new(dir);
    let vfs = crate::vfs::RealVfs;
    let checkpoint = checkpoint::Checkpoint::load(&vfs, &layout).unwrap().unwrap();
    recover::recover(&vfs, &layout, checkpoint, true).unwrap().segments.pop().unwrap().groups
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_cut_and_nothing_before_it_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path(), 4).await);
    let last = groups(dir.path()).pop().unwrap();
    let used = last.header.bodies_at() + last.header.body_len;
    for cut in (0..used).step_by(7).chain([used - 1]) {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        let file = std::fs::OpenOptions::new().write(true).open(last_segment(copy.path())).unwrap();
        file.set_len(last.at + cut).unwrap();
        let log = EmbeddedLog::open(options(copy.path())).unwrap();
        assert_eq!(numbers(&log).await, (0..9).collect::<Vec<_>>(), "cut at {cut}");
        let mut source = Source::join(&log, "s").await;
        source.put(&log, 1, 1).await;
        drop(log);
        let log = EmbeddedLog::open(options(copy.path())).unwrap();
        assert_eq!(numbers(&log).await, (0..10).collect::<Vec<_>>(), "cut at {cut}");
    }
}

#[tokio::test]
async fn a_second_opening_is_refused_with_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 1).await;
    let Err(Error::Locked { pid, .. }) = EmbeddedLog::open(options(dir.path())) else { panic!() };
    assert_eq!(pid, std::process::id());
    log.close().await.unwrap();
    EmbeddedLog::open(options(dir.path())).unwrap();
    let vfs = crate::vfs::RealVfs;
    crate::vfs::Vfs::open(&vfs, &dir.path().join("checkpoint"), OpenOptions::READ).unwrap();
}

/// Waits for a condition, with a deadline.
async fn until(what: &str, mut met: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !met() {
        assert!(begun.elapsed().as_secs() < 60, "{what} never came");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn what_is_settled_reads_the_same_and_its_segments_are_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 0).await;
    let mut source = Source::join(&log, "s").await;
    for round in 0..120 {
        source.put(&log, 1 + round % 40, 100).await;
    }
    let all: Vec<i64> = (0..source.next).collect();
    until("settling", || log.shared.sealed.lock().is_empty()).await;
    let at = TopicPartition::new(name("t"), 0);
    let (_, partition) = log.shared.topics.read().partition(&at).unwrap();
    assert!(!partition.contents.lock().files.is_empty());
    assert_eq!(numbers(&log).await, all);
    let segments = || std::fs::read_dir(dir.path().join("journal")).unwrap().count();
    until("segments to be given back", || segments() <= 5).await;
    // From the middle of a block, and after another opening.
    let mut reader = log.read(&at, Offset(11)).unwrap();
    let Read::Batch(batch) = reader.next().await.unwrap() else { panic!() };
    assert_eq!(batch.base, Offset(11));
    drop((reader, log));
    let log = EmbeddedLog::open(options(dir.path())).unwrap();
    assert_eq!(numbers(&log).await, all);
    let mut source = Source::join(&log, "s").await;
    source.put(&log, 5, 100).await;
    assert_eq!(numbers(&log).await, (0..source.next).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_old_and_read_goes_with_its_files_and_stays_gone() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(crate::ManualClock::new(1_000_000_000_000));
    let tidy_every = std::time::Duration::from_millis(5);
    let with = || Options { clock: clock.clone(), tidy_every, ..options(dir.path()) };
    let log = EmbeddedLog::open(with()).unwrap();
    log.create_topic(spec("t", 1)).await.unwrap();
    let mut source = Source::join(&log, "s").await;
    for _ in 0..60 {
        source.put(&log, 20, 100).await;
    }
    until("settling", || log.shared.sealed.lock().is_empty()).await;
    clock.advance(std::time::Duration::from_secs(48 * 3600));
    let at = TopicPartition::new(name("t"), 0);
    let (_, partition) = log.shared.topics.read().partition(&at).unwrap();
    let start = || partition.contents.lock().start;
    until("retention", || start() == 1200).await;
    until("letting go", || partition.contents.lock().files.is_empty()).await;
    until("removal", || std::fs::read_dir(dir.path().join("topics/t/0")).unwrap().count() == 0).await;
    source.put(&log, 5, 100).await;
    assert_eq!(numbers(&log).await, (1200..1205).collect::<Vec<_>>());
    drop(log);
    let log = EmbeddedLog::open(with()).unwrap();
    until("the start", || numbers_from(&log).is_some_and(|n| n >= 1200)).await;
}

/// The start of partition 0 of `t`.
fn numbers_from(log: &EmbeddedLog) -> Option<u64> {
    let (_, partition) = log.shared.topics.read().partition(&TopicPartition::new(name("t"), 0)).ok()?;
    let start = partition.contents.lock().start;
    Some(start)
}

#[tokio::test]
async fn a_stopped_log_can_be_read_and_a_running_one_names_its_process() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 5).await;
    let Err(Error::Locked { .. }) = EmbeddedLog::open_read_only(options(dir.path())) else { panic!() };
    drop(log);
    let log = EmbeddedLog::open_read_only(options(dir.path())).unwrap();
    assert_eq!(numbers(&log).await, (0..15).collect::<Vec<_>>());
    let stat = stat(&options(dir.path())).unwrap();
    assert_eq!(stat.topics[0].journal_events, 15);
    log.close().await.unwrap();
    let none = tempfile::tempdir().unwrap();
    assert!(EmbeddedLog::open_read_only(options(none.path())).is_err());
    assert_eq!(std::fs::read_dir(none.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_running_and_a_stopped_log_tell_the_same_figures() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 0).await;
    let mut source = Source::join(&log, "s").await;
    let (mut commits, mut free) = (0, false);
    // A free segment is used again as soon as the next one is needed.
    while commits < 60 || !free {
        source.put(&log, 20, 100).await;
        commits += 1;
        assert!(commits < 10_000, "no segment was ever free");
        free |= log.stat().segments_free > 0;
    }
    until("settling", || log.shared.sealed.lock().is_empty()).await;
    let (running, counts) = (log.stat(), log.counts());
    assert_eq!(counts.commits, commits);
    assert!((1..=counts.groups + 10).contains(&counts.syncs), "{counts:?}");
    let topic = &running.topics[0];
    assert!(topic.settled_events > 0 && topic.settled_bytes > 0 && topic.files > 0, "{topic:?}");
    assert_eq!(topic.settled_events + topic.journal_events, 20 * commits);
    assert!(running.segment_bytes > 0, "{running:?}");
    log.close().await.unwrap();
    let stopped = stat(&options(dir.path())).unwrap();
    assert_eq!((stopped.topics, stopped.segments), (running.topics, running.segments));
}

#[tokio::test]
async fn what_is_made_is_the_owners_alone_and_a_directory_open_to_others_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("log");
    let log = filled(&dir, 2).await;
    assert_eq!(log.warning(), None);
    let mut left = vec![dir.clone()];
    while let Some(path) = left.pop() {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", path.display());
        left.extend(std::fs::read_dir(&path).into_iter().flatten().map(|entry| entry.unwrap().path()));
    }
    drop(log);
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let log = EmbeddedLog::open(options(&dir)).unwrap();
    assert!(log.warning().is_some_and(|warning| warning.contains("chmod 700")), "{:?}", log.warning());
}

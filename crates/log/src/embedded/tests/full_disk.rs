//! No space: who is refused, and how it goes on.

use super::*;
use std::time::Duration;

/// Rows `from..to` with texts that do not compress.
fn noise(from: i64, to: i64, size: usize) -> RecordBatch {
    let plain = rows(from, to, 1);
    let mut seed = from as u64 + 1;
    let mut letter = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + ((seed >> 40) % 90) as u8)
    };
    let texts: Vec<String> = (from..to).map(|_| (0..size).map(|_| letter()).collect()).collect();
    let mut columns = plain.columns().to_vec();
    columns[1] = Arc::new(StringArray::from(texts));
    RecordBatch::try_new(plain.schema(), columns).unwrap()
}

impl Source {
    /// Commits rows that do not compress; what the answer was. After a refusal the task is begun again.
    async fn put_noise(&mut self, log: &EmbeddedLog, n: i64, size: usize) -> Outcome {
        let from = self.next;
        let mut commit = self.commit("t", n, size);
        commit.appends[0].rows = noise(from, from + n, size);
        let outcome = log.commit(commit).await;
        if !matches!(outcome, Outcome::Committed(_)) {
            self.task = log.restart(&self.task).await.unwrap().unwrap();
            self.position = log.position(&self.task.id, &name("in")).await.unwrap();
            self.next = from;
        }
        outcome
    }
}

/// Fills a budget slowly, so that segments are made ready ahead and used again, until it refuses; then lets what is
/// there grow old and sees it go on.
async fn fill_and_let_go(segment_bytes: u64) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(crate::ManualClock::new(1_000_000_000_000));
    let (max, tidy_every) = (1 << 20, Duration::from_millis(5));
    let with = Options {
        max_bytes: Some(max),
        reserve_bytes: 64 << 10,
        segment_bytes,
        tidy_every,
        clock: clock.clone(),
        ..options(dir.path())
    };
    let log = EmbeddedLog::open(with).unwrap();
    log.create_topic(spec("t", 1)).await.unwrap();
    let mut source = Source::join(&log, "s").await;
    let (mut most, mut free) = (0, 0);
    let refused = loop {
        until("preparing", || log.shared.preparer.rests()).await;
        until("settling", || log.waiting_to_settle() == 0).await;
        let outcome = source.put_noise(&log, 20, 400).await;
        most = most.max(log.counts().disk_bytes);
        free = free.max(log.stat().segments_free);
        assert!(most <= max, "{most} bytes of {max}");
        if !matches!(outcome, Outcome::Committed(_)) {
            break outcome;
        }
    };
    assert!(matches!(refused, Outcome::Aborted(AbortReason::DiskFull(_))), "{refused:?}");
    assert!(most > max / 2, "refused at {most} bytes of {max}");
    assert!(free > 0, "no segment was ever used again");
    assert!(log.counts().settled_bytes > 0);
    clock.advance(Duration::from_secs(48 * 3600));
    let begun = std::time::Instant::now();
    while !matches!(source.put_noise(&log, 20, 400).await, Outcome::Committed(_)) {
        assert!(begun.elapsed().as_secs() < 60, "refused although there is room again: {:?}", log.counts());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(log.stopped().is_none());
}

#[tokio::test]
async fn a_budget_holds_where_segments_are_used_again_and_sources_go_on_when_events_have_gone() {
    fill_and_let_go(64 << 10).await;
}

#[tokio::test]
async fn a_budget_smaller_than_the_default_segment_is_no_dead_end() {
    fill_and_let_go(32 << 20).await;
}

#[tokio::test]
async fn a_segment_that_a_note_has_filled_is_settled() {
    let dir = tempfile::tempdir().unwrap();
    let with = Options { idle_after: Duration::from_millis(300), ..options(dir.path()) };
    let log = EmbeddedLog::open(with).unwrap();
    log.create_topic(spec("t", 1)).await.unwrap();
    let mut source = Source::join(&log, "s").await;
    // Each of these takes one block, so that the segment is full to the last one and only the note needs another.
    while log.stat().segment_bytes < 64 << 10 {
        source.put(&log, 1, 10).await;
    }
    until("settling", || log.counts().settled_bytes > 0).await;
}

#[tokio::test]
async fn a_budget_that_is_used_up_refuses_sources_and_lets_the_rest_use_the_reserve() {
    let dir = tempfile::tempdir().unwrap();
    let max = 512 << 10;
    let with = Options { max_bytes: Some(max), reserve_bytes: 64 << 10, ..options(dir.path()) };
    let log = EmbeddedLog::open(with).unwrap();
    log.create_topic(spec("t", 1)).await.unwrap();
    let mut source = Source::join(&log, "s").await;
    let mut taken = 0;
    let refused = loop {
        match log.commit(source.commit("t", 20, 300)).await {
            Outcome::Committed(_) => taken += 1,
            other => break other,
        }
        assert!(taken < 20_000, "the budget never ends");
    };
    assert!(matches!(refused, Outcome::Aborted(AbortReason::DiskFull(_))), "{refused:?}");
    assert!(log.stopped().is_none());
    let mut inner = Source::join(&log, "inner").await;
    let mut commit = inner.commit("t", 5, 300);
    commit.class = Class::Processing;
    let outcome = log.commit(commit).await;
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
}

//! No space: who is refused, and how it goes on.

use super::*;

#[tokio::test]
async fn a_budget_that_is_used_up_refuses_sources_and_lets_the_rest_use_the_reserve() {
    let dir = tempfile::tempdir().unwrap();
    let max = 512 << 10;
    let with = Options { max_bytes: Some(max), reserve_bytes: 64 << 10, ..options(dir.path()) };
    let log = EmbeddedLog::open(with).unwrap();
    log.create_topic(spec("t", 1)).await.unwrap();
    let mut source = Source::join(&log, "s").await;
    // Random enough not to be compressed away by settling.
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

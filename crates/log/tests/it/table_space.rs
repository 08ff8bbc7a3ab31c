//! Tables where room is short: what was superseded makes room before sources are refused for good.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_event::PartitionId;
use millstream_log::conformance::kit::*;
use millstream_log::{AbortReason, Append, Class, EmbeddedLog, EmbeddedOptions, Log, Outcome, TopicSpec};

use crate::rig::{disk, options, run};

const PARTITIONS: u32 = 8;
const MAX_BYTES: u64 = 4 << 20;

/// Updates of so many keys in each partition, until `all` bytes went in; whatever is refused is tried again.
fn update_without_end(settings: EmbeddedOptions, keys: i64, all: u64) {
    let log = Arc::new(EmbeddedLog::open(settings).unwrap());
    let shared: Arc<dyn Log> = log.clone();
    run(async {
        shared.create_topic(TopicSpec { partitions: PARTITIONS, ..table("t", &[]) }).await.unwrap();
        let (_m, mut task) = one(&shared, "s").await;
        let (mut bytes, mut round, mut refused) = (0, 0i64, 0);
        let mut last = Instant::now();
        while bytes < all {
            let text = |key: i64| Some(format!("{:0>60}", key.wrapping_mul(round + 7919) as u64));
            let some = (0..50).map(|i| (round * 50 + i) % keys);
            let rows: Vec<_> = some.map(|key| (key, text(key))).collect();
            let appends = (0..PARTITIONS).map(|p| Append { partition: PartitionId(p), ..changes("t", &rows) });
            let mut next = commit(&task, vec![], appends.collect());
            next.class = Class::Intake;
            match shared.commit(next).await {
                Outcome::Committed(_) => {
                    bytes += u64::from(PARTITIONS) * 50 * 76;
                    round += 1;
                    last = Instant::now();
                }
                Outcome::Aborted(AbortReason::DiskFull(why)) => {
                    refused += 1;
                    assert!(last.elapsed() < DEADLINE / 3, "refused for ever: {why}; {:?}", log.counts());
                    task = shared.restart(&task).await.unwrap().unwrap();
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                other => panic!("{other:?}"),
            }
        }
        println!("{refused} refusals, {:?}", log.counts());
        assert!(log.counts().compacted_bytes > 0);
    });
}

/// The default floor of each partition is more than the log may have.
fn settings() -> EmbeddedOptions {
    let vfs = disk();
    EmbeddedOptions {
        max_bytes: Some(MAX_BYTES),
        segment_bytes: 256 << 10,
        compact_bytes: EmbeddedOptions::new("x").compact_bytes,
        ..options(&vfs)
    }
}

#[test]
fn superseded_rows_of_small_tables_never_fill_what_the_log_may_have() {
    update_without_end(settings(), 50, 5 * MAX_BYTES);
}

#[test]
fn superseded_rows_of_tables_that_fill_half_of_it_never_fill_the_rest() {
    // 8 partitions of 2,000 keys of some 130 bytes.
    update_without_end(settings(), 2_000, 5 * MAX_BYTES);
}

//! Services whose state is in PostgreSQL are set back: all of a task or nothing, whatever is lost, and one node alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use millstream_connect::PostgresState;
use millstream_connect::service::log::{EmbeddedLog, EmbeddedOptions, Log, MemoryLog};
use millstream_connect::service::rewind::{Outputs, Rewind, To, carry_out};
use millstream_connect::service::{Keep, State, StateStore, SystemClock};

use super::bed::{Bed, Doing, expected, keep, until};
use super::faults::{Faults, FaultyLog, FaultyStore, Place};
use super::server::{self, PASSWORD};
use crate::support::name;

/// Back to the start.
pub(crate) fn order(keep: Option<&Keep>, how: Outputs) -> Rewind {
    let store = match keep {
        Some(Keep::External(store)) => Some(Arc::clone(store)),
        _ => None,
    };
    let (inputs, outputs) = (vec![name("raw")], vec![name("out")]);
    Rewind { service: name("counter"), inputs, outputs, stateful: true, to: To::Start, how, store }
}

/// What the database has: keys and values by task.
async fn state(server: &server::Server, database: &str) -> Vec<(i32, Vec<u8>, Vec<u8>)> {
    let sql = "SELECT partition, key, value FROM millstream.state JOIN millstream.task ON task.id = task ORDER BY 1, 2";
    let rows = server.client(database).await.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_and_results_are_what_they_were_and_the_service_goes_on() {
    let Some(server) = server::shared() else { return };
    let database = server.database().await;
    let keep = keep(&server.url("bob", PASSWORD, &database));
    let bed = Bed::on(Arc::new(MemoryLog::new()));
    bed.topics().await;
    let counter = bed.runner.start_service(bed.def(Doing::Counting, keep.clone())).await.unwrap();
    bed.source(1_000).await;
    bed.filled("out", 1_000).await;
    bed.settled().await;
    let before = state(&server, &database).await;
    assert_eq!(before.len(), 13 + 3);
    for _ in 0..2 {
        let done = counter.rewind(&order(Some(&keep), Outputs::Suppress)).await.unwrap();
        assert_eq!((done.tasks, done.rewound), (3, 3));
        bed.settled().await;
        assert_eq!(state(&server, &database).await, before);
    }
    counter.rewind(&order(Some(&keep), Outputs::Topic(name("aside")))).await.unwrap();
    bed.settled().await;
    assert_eq!(bed.rows("aside").await, expected(1_000));
    bed.more(1_500);
    bed.filled("out", 1_500).await;
    assert_eq!(bed.rows("out").await, expected(1_500));
    assert_eq!(bed.rows("aside").await.len(), 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_a_step_of_a_rewind_is_lost_each_event_counts_once() {
    let Some(server) = server::shared() else { return };
    let places = [Place::BeforeStore, Place::AfterStore, Place::BeforeLog, Place::AfterLog];
    // Three tasks are taken over by a commit each, then set back by another.
    for (place, nth) in places.into_iter().flat_map(|place| [(place, 2), (place, 4), (place, 6)]) {
        let database = server.database().await;
        let url = server.url("bob", PASSWORD, &database);
        let keep = keep(&url);
        let log = Arc::new(MemoryLog::new());
        let bed = Bed::on(Arc::clone(&log) as Arc<dyn Log>);
        bed.topics().await;
        bed.runner.start_service(bed.def(Doing::Counting, keep.clone())).await.unwrap();
        bed.source(300).await;
        bed.filled("out", 300).await;
        bed.settled().await;
        let before = state(&server, &database).await;
        bed.runner.stop_all(true).await;
        let faults = Faults::new(&[place], nth);
        let faulty = FaultyLog { inner: log, faults: Arc::clone(&faults) };
        let inner = PostgresState::new(&url, "millstream", "shop").unwrap();
        let store: Arc<dyn StateStore> = Arc::new(FaultyStore { inner, faults: Arc::clone(&faults) });
        let lossy = Rewind { store: Some(store), ..order(None, Outputs::Suppress) };
        carry_out(&faulty, &SystemClock, &lossy).await.unwrap_err();
        assert_eq!(faults.lost.load(Ordering::Acquire), 1, "{place:?} {nth}");
        let bed = bed.again();
        let counter = bed.runner.start_service(bed.def(Doing::Counting, keep.clone())).await.unwrap();
        bed.settled().await;
        assert_eq!(state(&server, &database).await, before, "{place:?} {nth}");
        // The same order again does the rest.
        counter.rewind(&order(Some(&keep), Outputs::Suppress)).await.unwrap();
        bed.settled().await;
        bed.source(600).await;
        bed.filled("out", 600).await;
        assert_eq!(bed.rows("out").await, expected(600), "{place:?} {nth}");
        bed.runner.stop_all(true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_the_database_and_the_log_leaves_a_task_set_back_and_its_neighbours_not() {
    let Some(server) = server::shared() else { return };
    let database = server.database().await;
    let keep = keep(&server.url("bob", PASSWORD, &database));
    let log = Arc::new(MemoryLog::new());
    let bed = Bed::on(Arc::clone(&log) as Arc<dyn Log>);
    bed.topics().await;
    bed.runner.start_service(bed.def(Doing::Counting, keep.clone())).await.unwrap();
    bed.source(300).await;
    bed.filled("out", 300).await;
    bed.runner.stop_all(true).await;
    let mut before = Vec::new();
    for partition in 0..3 {
        before.push(bed.rows_in("out", partition).await);
    }
    // Three tasks are taken over, then the first is set back: its commit is the fourth.
    let faulty = FaultyLog { inner: log, faults: Faults::new(&[Place::BeforeLog], 4) };
    carry_out(&faulty, &SystemClock, &order(Some(&keep), Outputs::Append)).await.unwrap_err();
    let emptied = state(&server, &database).await;
    let void: Vec<i32> =
        emptied.iter().filter(|(_, key, value)| key.is_empty() && value.is_empty()).map(|r| r.0).collect();
    let [void] = void[..] else { panic!("{void:?}") };
    assert_eq!(emptied.iter().filter(|(partition, ..)| *partition == void).count(), 1);
    let bed = bed.again();
    bed.runner.start_service(bed.def(Doing::Counting, keep)).await.unwrap();
    bed.settled().await;
    for (partition, mut rows) in (0..3).zip(before) {
        if partition == void as u32 {
            rows.extend(rows.clone());
            rows.sort_unstable();
        }
        assert_eq!(bed.rows_in("out", partition).await, rows, "partition {partition}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_an_older_copy_of_the_log_neither_sets_back_nor_takes_over_what_was_set_back() {
    let Some(server) = server::shared() else { return };
    let database = server.database().await;
    let keep = keep(&server.url("bob", PASSWORD, &database));
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let open = |at: usize| Arc::new(EmbeddedLog::open(EmbeddedOptions::new(dirs[at].path().join("log"))).unwrap());
    let first = Bed::on(open(0));
    first.topics().await;
    first.runner.start_service(first.def(Doing::Counting, keep.clone())).await.unwrap();
    first.source(300).await;
    first.filled("out", 300).await;
    first.runner.stop_all(true).await;
    first.log.close().await.unwrap();
    super::copy(&dirs[0].path().join("log"), &dirs[1].path().join("log"));
    let events = Arc::clone(&first.dir);
    drop(first);
    let first = Bed { dir: Arc::clone(&events), ..Bed::on(open(0)) };
    let order = order(Some(&keep), Outputs::Suppress);
    carry_out(&*first.log, &SystemClock, &order).await.unwrap();
    let emptied = state(&server, &database).await;
    let other = Bed { dir: events, ..Bed::on(open(1)) };
    let refused = carry_out(&*other.log, &SystemClock, &order).await.unwrap_err().to_string();
    assert!(refused.contains("do not belong together"), "{refused}");
    let counter = other.runner.start_service(other.def(Doing::Counting, keep.clone())).await.unwrap();
    until("the refusal", async || matches!(counter.state(), State::Failed { .. })).await;
    assert!(other.said().contains("do not belong together"), "{}", other.said());
    assert_eq!(state(&server, &database).await, emptied);
    first.runner.start_service(first.def(Doing::Counting, keep)).await.unwrap();
    first.source(600).await;
    first.filled("out", 600).await;
    first.settled().await;
    assert_eq!(first.rows("out").await, expected(600));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_that_has_got_lost_or_was_elsewhere_is_built_anew_by_a_rewind() {
    let Some(server) = server::shared() else { return };
    let database = server.database().await;
    let keep = keep(&server.url("bob", PASSWORD, &database));
    let bed = Bed::on(Arc::new(MemoryLog::new()));
    bed.topics().await;
    let mut count = 100;
    for (before, lost) in [
        (Keep::Log, ""),
        (keep.clone(), "TRUNCATE millstream.state"),
        (keep.clone(), "DELETE FROM millstream.task"),
        (keep.clone(), "DROP SCHEMA millstream CASCADE"),
    ] {
        let bed = bed.again();
        bed.runner.start_service(bed.def(Doing::Counting, before)).await.unwrap();
        bed.source(count).await;
        bed.filled("out", count as usize).await;
        bed.runner.stop_all(true).await;
        if !lost.is_empty() {
            server.client(&database).await.batch_execute(lost).await.unwrap();
        }
        let bed = bed.again();
        let counter = bed.runner.start_service(bed.def(Doing::Counting, keep.clone())).await.unwrap();
        until("the refusal", async || matches!(counter.state(), State::Failed { .. })).await;
        assert!(bed.said().contains("services rewind counter --to start"), "{}", bed.said());
        counter.rewind(&order(Some(&keep), Outputs::Suppress)).await.unwrap();
        bed.settled().await;
        assert_eq!(bed.rows("out").await, expected(count), "{lost}");
        // State of another form goes the same way.
        counter.stop().await;
        let counter = bed.runner.start_service(bed.def(Doing::CountingOtherwise, keep.clone())).await.unwrap();
        until("the refusal", async || matches!(counter.state(), State::Failed { .. })).await;
        counter.rewind(&order(Some(&keep), Outputs::Suppress)).await.unwrap();
        bed.settled().await;
        counter.stop().await;
        let counter = bed.runner.start_service(bed.def(Doing::Counting, keep.clone())).await.unwrap();
        until("the refusal", async || matches!(counter.state(), State::Failed { .. })).await;
        counter.rewind(&order(Some(&keep), Outputs::Suppress)).await.unwrap();
        bed.settled().await;
        bed.runner.stop_all(true).await;
        count += 100;
    }
}

//! State in a real PostgreSQL: equal to state in the log, exact whoever dies, and never with two owners.

mod bed;
mod faults;
mod rewind;
mod server;
mod show;
mod tls;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use millstream_connect::PostgresState;
use millstream_connect::service::log::{EmbeddedLog, EmbeddedOptions, MemoryLog};
use millstream_connect::service::rewind::{Outputs, carry_out};
use millstream_connect::service::{Injected, Keep, State, SystemClock};

use self::bed::{Bed, Doing, expected, keep, until};
use self::faults::{Faults, FaultyLog, FaultyStore, Place};
use self::rewind::order;
use self::server::PASSWORD;

/// Runs a pipeline to its end; what came out.
async fn run(doing: Doing, keep: Keep, count: u64, topic: &str, rows: usize) -> Vec<String> {
    let bed = Bed::on(Arc::new(MemoryLog::new()));
    bed.topics().await;
    bed.runner.start_service(bed.def(doing, keep)).await.unwrap();
    bed.source(count).await;
    bed.filled(topic, rows).await;
    bed.runner.stop_all(true).await;
    bed.rows(topic).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fold_and_a_query_give_the_same_as_with_state_in_the_log() {
    let Some(server) = server::shared() else { return };
    let database = server.database().await;
    let keep = keep(&server.url("bob", PASSWORD, &database));
    assert_eq!(run(Doing::Counting, keep.clone(), 3_000, "out", 3_000).await, expected(3_000));
    let local = run(Doing::Windows, Keep::Log, 3_000, "windows", 49 * 13).await;
    // Another service in the same database: another pipeline's name keeps them apart.
    let url = server.url("bob", PASSWORD, &database);
    let other = Keep::External(Arc::new(PostgresState::new(&url, "millstream", "other").unwrap()));
    assert_eq!(run(Doing::Windows, other, 3_000, "windows", 49 * 13).await, local);
    let client = server.client(&database).await;
    let rows: i64 = client.query_one("SELECT count(*) FROM millstream.state", &[]).await.unwrap().get(0);
    // 13 counters and the form of each task's state; of the windows only those that are open.
    assert!((13 + 3..13 + 3 + 26 + 3).contains(&rows), "{rows} rows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_no_changelog_and_state_that_was_kept_elsewhere_is_not_forgotten() {
    let Some(server) = server::shared() else { return };
    let database = server.database().await;
    let keep = keep(&server.url("bob", PASSWORD, &database));
    let bed = Bed::on(Arc::new(MemoryLog::new()));
    bed.topics().await;
    let counter = bed.runner.start_service(bed.def(Doing::Counting, keep.clone())).await.unwrap();
    bed.source(100).await;
    bed.filled("out", 100).await;
    assert!(bed.log.topics().iter().all(|topic| !topic.spec.name.as_str().ends_with(".state")));
    counter.stop().await;
    // In the log now: that would begin at nothing.
    let counter = bed.runner.start_service(bed.def(Doing::Counting, Keep::Log)).await.unwrap();
    until("the refusal", async || matches!(counter.state(), State::Failed { .. })).await;
    assert!(bed.said().contains("has kept its state in a database"), "{}", bed.said());
    counter.stop().await;
    let refused = carry_out(&*bed.log, &SystemClock, &order(None, Outputs::Suppress)).await.unwrap_err().to_string();
    assert!(refused.contains("which this pipeline does not name"), "{refused}");
    let counter = bed.runner.start_service(bed.def(Doing::CountingOtherwise, keep.clone())).await.unwrap();
    until("the refusal", async || matches!(counter.state(), State::Failed { .. })).await;
    assert!(bed.said().contains("state of another form"), "{}", bed.said());
    counter.stop().await;
    bed.runner.start_service(bed.def(Doing::Counting, keep)).await.unwrap();
    bed.more(150);
    bed.filled("out", 150).await;
    assert_eq!(bed.rows("out").await, expected(150));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_a_commit_is_lost_each_event_counts_once() {
    let Some(server) = server::shared() else { return };
    let all = [Place::BeforeStore, Place::AfterStore, Place::BeforeLog, Place::AfterLog];
    for places in [&all[..1], &all[1..2], &all[2..3], &all[3..], &all] {
        let database = server.database().await;
        let faults = Faults::new(places, 5);
        let log = Arc::new(FaultyLog { inner: Arc::new(MemoryLog::new()), faults: Arc::clone(&faults) });
        let store = PostgresState::new(&server.url("bob", PASSWORD, &database), "millstream", "shop").unwrap();
        let keep = Keep::External(Arc::new(FaultyStore { inner: store, faults: Arc::clone(&faults) }));
        let bed = Bed::on(log);
        bed.topics().await;
        let counter = bed.runner.start_service(bed.def(Doing::Counting, keep)).await.unwrap();
        bed.source(50).await;
        for step in 1..=30 {
            bed.more(step * 50);
            if step % 10 == 5 {
                counter.inject(Injected::Panic);
            }
            bed.filled("out", step as usize * 50).await;
        }
        bed.runner.stop_all(true).await;
        assert_eq!(bed.rows("out").await, expected(1_500), "{places:?}");
        assert!(faults.lost.load(Ordering::Acquire) > 5, "{places:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_log_of_its_own_is_refused_and_disturbs_nobody() {
    let Some(server) = server::shared() else { return };
    let database = server.database().await;
    let keep = keep(&server.url("bob", PASSWORD, &database));
    let first = Bed::on(Arc::new(MemoryLog::new()));
    first.topics().await;
    first.runner.start_service(first.def(Doing::Counting, keep.clone())).await.unwrap();
    first.source(100).await;
    first.filled("out", 100).await;
    let second = Bed::on(Arc::new(MemoryLog::new()));
    second.topics().await;
    let counter = second.runner.start_service(second.def(Doing::Counting, keep)).await.unwrap();
    until("the refusal", async || matches!(counter.state(), State::Failed { .. })).await;
    assert!(second.said().contains("do not belong together"), "{}", second.said());
    first.more(500);
    first.filled("out", 500).await;
    assert_eq!(first.rows("out").await, expected(500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_nodes_with_the_same_log_only_the_newer_counts_and_the_older_does_not_come_back() {
    let Some(server) = server::shared() else { return };
    let database = server.database().await;
    let keep = keep(&server.url("bob", PASSWORD, &database));
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let open = |at: usize| Arc::new(EmbeddedLog::open(EmbeddedOptions::new(dirs[at].path().join("log"))).unwrap());
    let older = Bed::on(open(0));
    older.topics().await;
    older.runner.start_service(older.def(Doing::Counting, keep.clone())).await.unwrap();
    older.source(300).await;
    older.filled("out", 300).await;
    older.runner.stop_all(true).await;
    older.log.close().await.unwrap();
    copy(&dirs[0].path().join("log"), &dirs[1].path().join("log"));
    let events = Arc::clone(&older.dir);
    drop(older);
    let older = Bed { dir: Arc::clone(&events), ..Bed::on(open(0)) };
    let newer = Bed { dir: events, ..Bed::on(open(1)) };
    let counter = older.runner.start_service(older.def(Doing::Counting, keep.clone())).await.unwrap();
    until("the opening", async || counter.state() == State::Running).await;
    newer.runner.start_service(newer.def(Doing::Counting, keep)).await.unwrap();
    newer.source(600).await;
    newer.filled("out", 600).await;
    assert_eq!(newer.rows("out").await, expected(600));
    older.source(600).await;
    until("the refusal", async || older.said().contains("another node has taken over")).await;
    counter.resume();
    until("the refusal", async || older.said().contains("do not belong together")).await;
    assert_eq!(older.rows("out").await, expected(300));
}

pub(crate) fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_stopped_is_waited_for_and_nothing_is_lost() {
    let Some(server) = server::own() else { return };
    let database = server.database().await;
    let bed = Bed::on(Arc::new(MemoryLog::new()));
    bed.topics().await;
    let keep = keep(&server.url("bob", PASSWORD, &database));
    let counter = bed.runner.start_service(bed.def(Doing::Counting, keep)).await.unwrap();
    bed.source(200).await;
    let mut count = 200;
    for _ in 0..3 {
        bed.filled("out", count as usize - 100).await;
        server.stop();
        count += 300;
        bed.more(count);
        until("the wait", async || matches!(counter.state(), State::Waiting { .. })).await;
        let said = bed.said();
        assert!(said.contains("PostgreSQL at 127.0.0.1") && !said.contains(PASSWORD), "{said}");
        server.start();
    }
    bed.filled("out", count as usize).await;
    assert_eq!(bed.rows("out").await, expected(count));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_database_is_refused() {
    let Some(server) = server::shared() else { return };
    for emptied in ["DROP SCHEMA millstream CASCADE", "TRUNCATE millstream.state", "DELETE FROM millstream.task"] {
        let database = server.database().await;
        let keep = keep(&server.url("bob", PASSWORD, &database));
        let bed = Bed::on(Arc::new(MemoryLog::new()));
        bed.topics().await;
        bed.runner.start_service(bed.def(Doing::Counting, keep.clone())).await.unwrap();
        bed.source(100).await;
        bed.filled("out", 100).await;
        bed.runner.stop_all(true).await;
        server.client(&database).await.batch_execute(emptied).await.unwrap();
        let bed = bed.again();
        let counter = bed.runner.start_service(bed.def(Doing::Counting, keep)).await.unwrap();
        until("the refusal", async || matches!(counter.state(), State::Failed { .. })).await;
        assert!(bed.said().contains("was emptied"), "{emptied}: {}", bed.said());
        bed.source(200).await;
        assert_eq!(bed.rows("out").await.len(), 100);
        bed.runner.stop_all(true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_kept_no_state_meanwhile_does_not_go_on_with_the_old_one() {
    let Some(server) = server::shared() else { return };
    let database = server.database().await;
    let keep = keep(&server.url("bob", PASSWORD, &database));
    let mut bed = Bed::on(Arc::new(MemoryLog::new()));
    bed.topics().await;
    for (doing, count) in [(Doing::Counting, 100), (Doing::Passing, 200)] {
        bed.runner.start_service(bed.def(doing, keep.clone())).await.unwrap();
        bed.source(count).await;
        bed.filled("out", count as usize).await;
        bed.runner.stop_all(true).await;
        bed = bed.again();
    }
    let counter = bed.runner.start_service(bed.def(Doing::Counting, keep.clone())).await.unwrap();
    until("the refusal", async || matches!(counter.state(), State::Failed { .. })).await;
    let said = bed.said();
    assert!(said.contains("without keeping state") && said.contains("services rewind counter --to start"), "{said}");
    counter.rewind(&order(Some(&keep), Outputs::Suppress)).await.unwrap();
    bed.source(300).await;
    bed.filled("out", 300).await;
    let counts: Vec<String> = bed.rows("out").await.into_iter().filter(|row| !row.contains("\"count\":0")).collect();
    let all = expected(300);
    assert!(counts.len() == 200 && counts.iter().all(|row| all.contains(row)), "{counts:?}");
    bed.runner.stop_all(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_database_refuses_is_told_without_the_password() {
    let Some(server) = server::shared() else { return };
    let database = server.database().await;
    let client = server.client(&database).await;
    client.batch_execute("CREATE ROLE guest LOGIN PASSWORD 'guest-secret'").await.unwrap();
    client
        .batch_execute(&format!(
            "REVOKE ALL ON DATABASE {database} FROM PUBLIC; GRANT CONNECT ON DATABASE {database} TO guest"
        ))
        .await
        .unwrap();
    let cases = [
        (server.url("bob", "wrong-secret", &database), "password authentication failed"),
        (server.url("bob", PASSWORD, "nowhere"), "does not exist"),
        ("postgres://bob:wrong-secret@nobody.invalid/shop".to_owned(), "nobody.invalid:5432/shop"),
        (server.url("guest", "guest-secret", &database), "CREATE SCHEMA IF NOT EXISTS \\\"millstream\\\""),
    ];
    for (url, words) in cases {
        let bed = Bed::on(Arc::new(MemoryLog::new()));
        bed.topics().await;
        let counter = bed.runner.start_service(bed.def(Doing::Counting, keep(&url))).await.unwrap();
        // A machine without a resolver cannot know whether a name has an address.
        until("the refusal", async || matches!(counter.state(), State::Failed { .. } | State::Waiting { .. })).await;
        let said = bed.said();
        assert!(said.contains(words) && !said.contains("secret"), "{said}");
        bed.runner.stop_all(true).await;
    }
}

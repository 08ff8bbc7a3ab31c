//! State in a PostgreSQL that is reached with TLS: only in a server that proves who it is.

use std::path::Path;
use std::sync::Arc;

use millstream_connect::PostgresState;
use millstream_connect::service::log::MemoryLog;
use millstream_connect::service::{Keep, State};

use super::bed::{Bed, Doing, expected, until};
use super::server;

fn keep(url: &str, ca: Option<&Path>) -> Keep {
    Keep::External(Arc::new(PostgresState::trusting(url, ca, "millstream", "shop").unwrap()))
}

/// Counts a hundred events; how many of the connections were encrypted.
async fn count(server: &server::Server, url: &str, ca: Option<&Path>, database: &str) -> (i64, i64) {
    let bed = Bed::on(Arc::new(MemoryLog::new()));
    bed.topics().await;
    bed.runner.start_service(bed.def(Doing::Counting, keep(url, ca))).await.unwrap();
    bed.source(100).await;
    bed.filled("out", 100).await;
    assert_eq!(bed.rows("out").await, expected(100));
    let sql = "SELECT count(*), count(*) FILTER (WHERE ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
               WHERE application_name LIKE 'millstream %'";
    let found = server.client(database).await.query_one(sql, &[]).await.unwrap();
    bed.runner.stop_all(true).await;
    (found.get(0), found.get(1))
}

/// Why a service cannot work.
async fn refusal(url: &str, ca: Option<&Path>) -> String {
    let bed = Bed::on(Arc::new(MemoryLog::new()));
    bed.topics().await;
    let counter = bed.runner.start_service(bed.def(Doing::Counting, keep(url, ca))).await.unwrap();
    until("the refusal", async || matches!(counter.state(), State::Failed { .. })).await;
    let said = bed.said();
    bed.runner.stop_all(true).await;
    assert!(!said.contains(server::PASSWORD), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_connection_is_encrypted_to_a_server_that_proves_who_it_is() {
    let Some(server) = server::with_tls() else { return };
    let ca = server.file("ca.pem");
    for options in ["", "sslmode=require", "sslmode=verify-full&channel_binding=require"] {
        let database = server.database().await;
        let url = server.url_with("localhost", &database, options);
        assert_eq!(count(&server, &url, Some(&ca), &database).await, (3, 3), "{options}");
    }
    // On this machine only what is demanded is encrypted.
    let database = server.database().await;
    let url = server.url_with("localhost", &database, "sslmode=prefer");
    assert_eq!(count(&server, &url, None, &database).await, (3, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_prove_who_it_is_is_refused_with_what_to_do() {
    let Some(server) = server::with_tls() else { return };
    let [ca, other, nowhere] = ["ca.pem", "other.pem", "nowhere.pem"].map(|name| server.file(name));
    let url = |host: &str| server.url_with(host, "postgres", "sslmode=require");
    let said = refusal(&url("127.0.0.1"), Some(&ca)).await;
    assert!(said.contains("is not for `127.0.0.1`") && said.contains("localhost"), "{said}");
    let said = refusal(&url("localhost"), Some(&other)).await;
    assert!(said.contains("is not signed by the certificates in") && said.contains("other.pem"), "{said}");
    let said = refusal(&url("localhost"), None).await;
    assert!(said.contains("`ca: FILE`") || said.contains("trusts no certificate authority"), "{said}");
    let said = refusal(&url("localhost"), Some(&nowhere)).await;
    assert!(said.contains("nowhere.pem, cannot be used"), "{said}");
    let Some(plain) = server::shared() else { return };
    let said = refusal(&plain.url_with("localhost", "postgres", "sslmode=require"), None).await;
    assert!(said.contains("speaks no TLS, which is demanded") && said.contains("sslmode=disable"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_not_let_in_goes_on_by_itself_once_it_is() {
    let Some(server) = server::shared() else { return };
    let database = server.database().await;
    let client = server.client(&database).await;
    client.batch_execute("CREATE ROLE late LOGIN SUPERUSER PASSWORD 'another'").await.unwrap();
    let bed = Bed::on(Arc::new(MemoryLog::new()));
    bed.topics().await;
    let keep = keep(&server.url("late", "right-one", &database), None);
    let counter = bed.runner.start_service(bed.def(Doing::Counting, keep)).await.unwrap();
    until("the refusal", async || matches!(counter.state(), State::Failed { .. })).await;
    assert!(bed.said().contains("lets nobody in") && bed.said().contains("tried again"), "{}", bed.said());
    client.batch_execute("ALTER ROLE late PASSWORD 'right-one'").await.unwrap();
    bed.source(50).await;
    bed.filled("out", 50).await;
}

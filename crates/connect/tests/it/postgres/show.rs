//! What a service keeps in PostgreSQL is seen by people, while it works and when it does not.

use std::sync::Arc;

use millstream_connect::PostgresState;
use millstream_connect::service::Keep;
use millstream_connect::service::flow::{Catalog, plan_fold};
use millstream_connect::service::log::MemoryLog;
use millstream_connect::service::state_rows::{Wanted, show_stored};

use super::bed::{Bed, Doing, EVENTS, counter, schema};
use super::server::{self, PASSWORD};
use crate::support::name;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_is_seen_by_key_and_by_partition_and_nobody_is_disturbed() {
    let Some(server) = server::shared() else { return };
    let database = server.database().await;
    let store = PostgresState::new(&server.url("bob", PASSWORD, &database), "millstream", "shop").unwrap();
    let mut catalog = Catalog::default();
    catalog.topics.insert(name("raw"), schema(EVENTS));
    let fold =
        |doing| Arc::new(plan_fold(&counter(doing), &[name("raw")], &catalog).unwrap_or_else(|e| panic!("{e:?}")));
    let program = fold(Doing::Counting);
    let (legend, signature) = (Arc::clone(&program).state_legend().unwrap(), program.state_signature());
    let service = name("counter");
    let seen = async |wanted: Wanted| show_stored(&store, (&service, 3), &legend, &signature, &wanted).await;
    let all = Wanted { limit: 100, ..Wanted::default() };
    // Nobody has made the tables.
    assert_eq!(seen(all.clone()).await.unwrap().rows, []);
    let bed = Bed::on(Arc::new(MemoryLog::new()));
    bed.topics().await;
    let running = bed.def(Doing::Counting, Keep::External(Arc::new(store.clone())));
    bed.runner.start_service(running).await.unwrap();
    bed.source(1_300).await;
    bed.filled("out", 1_300).await;
    let found = seen(all.clone()).await.unwrap();
    assert_eq!((found.rows.len(), found.more), (13, false));
    let of = |value: &str| Wanted { key: vec![("k".to_owned(), value.to_owned())], ..all.clone() };
    for key in ["k3", &"long".repeat(1_000)] {
        let found = seen(of(key)).await.unwrap();
        assert_eq!(found.rows.len(), 1);
        assert_eq!(found.rows[0].row.value[0].json, "100");
    }
    assert_eq!(seen(of("k77")).await.unwrap().rows, []);
    let first = seen(Wanted { limit: 5, ..all.clone() }).await.unwrap();
    assert_eq!((first.rows.len(), first.more), (5, true));
    let mut rows = 0;
    for partition in 0..3 {
        rows += seen(Wanted { partition: Some(partition), ..all.clone() }).await.unwrap().rows.len();
    }
    assert_eq!(rows, 13);
    assert!(
        seen(Wanted { partition: Some(3), ..all.clone() }).await.unwrap_err().to_string().contains("no partition 3")
    );
    bed.more(2_600);
    bed.filled("out", 2_600).await;
    bed.runner.stop_all(true).await;
    assert_eq!(seen(of("k3")).await.unwrap().rows[0].row.value[0].json, "200");
    let other = fold(Doing::CountingOtherwise).state_signature();
    let refused = show_stored(&store, (&service, 3), &legend, &other, &all).await.unwrap_err().to_string();
    assert!(refused.contains("another form"), "{refused}");
}

//! A pipeline from file to file: drained, resumed, looked at while it runs and while it does not.

use std::time::Duration;

use millstream_node::api::{DrainSummary, EventsQuery, LettersQuery, RunState, Status, Topics};
use millstream_node::{Node, offline, testing};

use crate::world::{World, http};

const LIMIT: Duration = Duration::from_secs(30);

async fn drain(node: &Node) -> DrainSummary {
    tokio::time::timeout(LIMIT, node.finished()).await.expect("the pipeline drains").unwrap();
    node.shutdown(LIMIT).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_through_two_services_into_a_file_and_a_second_run_adds_nothing() {
    let world = World::new(1000);
    let node = world.start(true).await;
    assert!(!node.resumed());
    let summary = drain(&node).await;
    assert!(summary.complete);
    assert_eq!((summary.total.events_in, summary.total.refused), (1001, 1));
    assert_eq!((summary.total.events_out, summary.total.dead_letters), (900, 101));
    let lines = world.out();
    assert_eq!(lines.len(), 900);
    assert_eq!(lines[0], r#"{"id":"o0","twice":10.50,"name":"Germany"}"#);
    drop(node);

    let node = world.start(true).await;
    assert!(node.resumed());
    let summary = drain(&node).await;
    assert_eq!((summary.total.events_in, summary.total.events_out), (0, 0));
    assert_eq!(world.out(), lines);
}

/// Windows over a file, and over posts where `posts` says so.
fn windows(posts: &str) -> String {
    format!(
        r#"version: 1
pipeline: windows
log: {{embedded: {{dir: log, segment: 1MiB}}}}
defaults: {{topic: {{partitions: 2, key: [k]}}}}
topics:
  ev:
    event_time: {{column: at, max_out_of_orderness: 0s}}
    columns: {{k: string!, at: timestamp!}}
sources:
  files: {{file: {{path: ev.ndjson}}, to: ev}}
{posts}services:
  minutes:
    from: ev
    sql: SELECT k, window_end, count(*) AS n FROM tumble(ev, at, INTERVAL '1 minute') GROUP BY k, window_end
    to: n
sinks:
  out: {{file: {{path: out}}, from: n}}
"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_are_not_due_at_the_end_of_a_drain_are_told() {
    for (posts, windows_out) in [("  api: {http: {path: /ev, format: json}, to: ev}\n", 0), ("", 3)] {
        let world = World::new(0);
        let event = |minute: u32| format!("{{\"k\":\"a\",\"at\":\"2026-01-01T00:0{minute}:00Z\"}}\n");
        std::fs::write(world.dir.path().join("ev.ndjson"), (0..3).map(event).collect::<String>()).unwrap();
        std::fs::write(world.dir.path().join("pipeline.yaml"), windows(posts)).unwrap();
        let node = world.start(true).await;
        let summary = drain(&node).await;
        assert!(summary.complete);
        let told: Vec<_> = summary.holding.iter().map(|h| (h.name.as_str(), h.waits_for.as_deref())).collect();
        // What was posted may still come in a later run; a file has ended.
        let expected = if posts.is_empty() { vec![] } else { vec![("minutes", Some("api"))] };
        assert_eq!((told, world.out().len()), (expected, windows_out));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_node_answers_over_http() {
    let world = World::new(100);
    let node = world.start(true).await;
    node.finished().await.unwrap();
    assert_eq!(http(&node, "GET", "/healthz", "").await, (200, "ok\n".into()));
    assert_eq!(http(&node, "GET", "/readyz", "").await.0, 200);
    let status: Status = serde_json::from_str(&http(&node, "GET", "/api/status", "").await.1).unwrap();
    assert_eq!(status.services.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["check", "enrich"]);
    assert_eq!((status.services[0].events_in, status.services[0].events_out), (100, 90));
    assert_eq!(status.sources[0].state, RunState::Finished);
    let countries = &status.lookups[0];
    assert_eq!((countries.name.as_str(), countries.rows, &countries.error), ("countries", Some(2), &None));
    assert!(countries.loaded_at.as_ref().is_some_and(|at| at.ends_with('Z')), "{countries:?}");
    let topics: Topics = serde_json::from_str(&http(&node, "GET", "/api/topics", "").await.1).unwrap();
    assert_eq!(topics.topics[0].name, "orders");
    assert_eq!(topics.topics[0].events, 100);

    let (code, events) = http(&node, "GET", "/api/topics/enriched/events?limit=3&where=twice%20%3E%201", "").await;
    assert_eq!((code, events.lines().count()), (200, 3), "{events}");
    assert!(events.contains("\"name\":\"Germany\""), "{events}");
    let (code, wrong) = http(&node, "GET", "/api/topics/enriched/events?where=twicee", "").await;
    assert_eq!(code, 422);
    assert!(wrong.contains("where-wrong") && wrong.contains("twice"), "{wrong}");
    let (code, wrong) = http(&node, "GET", "/api/topics/enrichd/events", "").await;
    assert_eq!(code, 404);
    assert!(wrong.contains("did you mean `enriched`?"), "{wrong}");

    let (code, letters) = http(&node, "GET", "/api/dlq/check?rule=positive", "").await;
    assert_eq!((code, letters.lines().count()), (200, 10), "{letters}");
    let metrics = http(&node, "GET", "/metrics", "").await.1;
    assert!(metrics.contains("millstream_events_in_total{name=\"check\",kind=\"service\"} 100"), "{metrics}");
    assert!(metrics.contains("millstream_dead_letters_total{name=\"check\",code="), "{metrics}");
    assert!(metrics.contains("millstream_commit_seconds_bucket{name=\"check\",le=\"+Inf\"}"), "{metrics}");
    assert_eq!(http(&node, "GET", "/nothing", "").await.0, 404);
    assert_eq!(http(&node, "POST", "/api/status", "").await.0, 405);
    node.shutdown(LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_is_read_from_its_log() {
    let world = World::new(100);
    let loaded = world.load();
    assert_eq!(offline::topics(&loaded).await.unwrap_err().code, "log-missing");
    let node = world.start(true).await;
    drain(&node).await;
    drop(node);
    let status = offline::status(&loaded).await.unwrap();
    assert!(status.services.iter().all(|s| s.lag == 0 && s.state == RunState::Stopped), "{status:?}");
    let query = EventsQuery { limit: Some(5), ..EventsQuery::default() };
    assert_eq!(offline::events(&loaded, "valid", &query).await.unwrap().len(), 5);
    let letters = offline::letters(&loaded, "check", &LettersQuery::default()).await.unwrap();
    assert_eq!(letters.len(), 10);
    assert_eq!(letters[0].rules, ["positive"]);
    let letters = offline::letters(&loaded, "in", &LettersQuery::default()).await.unwrap();
    assert_eq!(letters[0].raw.as_deref(), Some("this is no order"));
    assert!(offline::plan(&loaded).await.unwrap().changes.iter().all(|c| c.name == "server.listen"));
    assert!(offline::log_stat(&loaded).await.unwrap().bytes > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tests_of_a_pipeline_run_in_memory() {
    let world = World::new(0);
    let loaded = world.load();
    let pipeline = millstream_node::plan(&loaded).unwrap();
    let results = testing::run_tests(&pipeline, &loaded.config.tests).await;
    assert!(results.iter().all(|r| r.faults.is_empty()), "{results:?}");
    assert_eq!(results.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_and_a_taken_log_say_who_has_them() {
    let world = World::new(0);
    let node = world.start(false).await;
    let mut loaded = world.load();
    let pipeline = millstream_node::plan(&loaded).unwrap();
    let locked = Node::start(&loaded, pipeline.clone(), Default::default()).await.err().unwrap();
    assert_eq!(locked.code, "log-locked");
    loaded.config.server.listen = node.address();
    let taken = Node::start(&loaded, pipeline, Default::default()).await.err().unwrap();
    assert_eq!(taken.code, "port-taken");
    assert!(taken.help.is_some());
    node.shutdown(LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_posted_is_answered_with_its_place() {
    let world = World::new(0);
    let yaml = crate::world::PIPELINE.replace("file: {path: orders.ndjson}", "http: {path: /orders}");
    std::fs::write(world.dir.path().join("pipeline.yaml"), yaml).unwrap();
    let node = world.start(false).await;
    let (status, body) = http(&node, "POST", "/orders", r#"{"id":"a","country":"fr","amount":2}"#).await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"topic\":\"orders\""), "{body}");
    crate::world::until("the event", async || node.status().await.sinks[0].events == 1).await;
    node.shutdown(LIMIT).await.unwrap();
    assert_eq!(world.out().len(), 1, "a stop in order completes the files");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_case_of_a_route_takes_is_dropped_and_counted_or_a_dead_letter() {
    let world = World::new(20);
    let routes = r#"  keeps: {from: valid, route: {first: [{when: id = 'o1', to: kept}], otherwise: drop}}
  refuses: {from: kept, route: {all: [{when: id = 'o2', to: chosen}], otherwise: dead_letter}}
sinks:
  chosen: {from: [chosen], stdout: {}}
"#;
    let yaml = crate::world::PIPELINE.replace("sinks:\n", routes);
    std::fs::write(world.dir.path().join("pipeline.yaml"), yaml).unwrap();
    let node = world.start(true).await;
    node.finished().await.unwrap();
    let status = node.status().await;
    let of = |name: &str| status.services.iter().find(|s| s.name == name).unwrap();
    assert_eq!((of("keeps").events_in, of("keeps").events_out, of("keeps").dropped), (18, 1, 17));
    assert_eq!((of("refuses").dropped, of("refuses").dead_letters_by_code["route-unmatched"]), (0, 1));
    let metrics = http(&node, "GET", "/metrics", "").await.1;
    let line = "millstream_dropped_total{name=\"keeps\",kind=\"service\",by=\"route\"} 17";
    assert!(metrics.contains(line), "{metrics}");
    let (code, letters) = http(&node, "GET", "/api/dlq/refuses", "").await;
    assert_eq!((code, letters.lines().count()), (200, 1), "{letters}");
    assert!(letters.contains("route-unmatched") && letters.contains("no case of the route is true"), "{letters}");
    node.shutdown(LIMIT).await.unwrap();
}

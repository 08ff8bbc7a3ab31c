//! A change that takes long holds nobody up, and one that fails is taken back.

use std::path::Path;
use std::time::Duration;

use millstream_node::Node;
use millstream_node::api::{ApiError, Applied, ChangeKind, RunState};

use crate::change::{changed, plan, text};
use crate::world::{PIPELINE, World, http, until};

const LIMIT: Duration = Duration::from_secs(30);

/// The pipeline with orders posted to it.
fn posted() -> String {
    PIPELINE.replace("file: {path: orders.ndjson}", "http: {path: /orders}")
}

async fn start(world: &World) -> Node {
    std::fs::write(world.dir.path().join("pipeline.yaml"), posted()).unwrap();
    world.start(false).await
}

async fn post(node: &Node, id: &str) -> (u16, String) {
    http(node, "POST", "/orders", &format!("{{\"id\":\"{id}\",\"country\":\"de\",\"amount\":1.5}}")).await
}

async fn apply(node: &Node, yaml: &str) -> (u16, String) {
    http(node, "POST", "/api/apply", &text(yaml)).await
}

fn fifo(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_and_statuses_are_answered_while_a_changed_part_stops_slowly() {
    let world = World::new(0);
    let out = world.dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    // Opening a pipe that nobody reads takes until somebody does: a disk that does not answer.
    let locks: Vec<_> = (0..2).map(|p| out.join(format!(".enriched.{p}.ndjson.lock"))).collect();
    locks.iter().for_each(|lock| fifo(lock));
    let node = start(&world).await;
    assert_eq!(post(&node, "first").await.0, 200);
    until("the sink is at its files", async || out.join("enriched").is_dir()).await;

    let slow = posted().replace("file: {path: out}", "file: {path: out, roll: {bytes: 1MiB}}");
    let changing = tokio::spawn({
        let (node, slow) = (node.clone(), slow.clone());
        async move { apply(&node, &slow).await }
    });
    for i in 0..50 {
        let (code, body) = post(&node, &format!("o{i}")).await;
        assert_eq!(code, 200, "{body}");
        assert_eq!(http(&node, "GET", "/api/status", "").await.0, 200);
        assert_eq!(http(&node, "GET", "/metrics", "").await.0, 200);
    }
    let enriched = async || node.status().await.services.iter().find(|s| s.name == "enrich").unwrap().events_out;
    until("the other steps go on", async || enriched().await == 51).await;
    assert_eq!(changed(&plan(&node, &slow).await).len(), 1, "the change is not done");
    assert!(!changing.is_finished());

    let opened: Vec<_> = locks
        .iter()
        .map(|lock| {
            let lock = lock.clone();
            tokio::task::spawn_blocking(move || {
                let held = std::fs::OpenOptions::new().read(true).write(true).open(&lock).unwrap();
                std::fs::remove_file(&lock).unwrap();
                held
            })
        })
        .collect();
    let (code, body) = changing.await.unwrap();
    assert_eq!(code, 200, "{body}");
    assert_eq!(changed(&plan(&node, &slow).await), []);
    until("all are written", async || node.status().await.sinks[0].lag == 0).await;
    node.shutdown(LIMIT).await.unwrap();
    assert_eq!(world.out().len(), 51);
    drop(opened);
}

/// Applies what cannot work; gives the answer. Nothing may have changed.
async fn refused(world: &World, node: &Node, yaml: &str) -> ApiError {
    let stored = || std::fs::read_to_string(world.dir.path().join("log/applied.json")).unwrap();
    let before = stored();
    let (code, body) = apply(node, yaml).await;
    assert_eq!(code, 409, "{body}");
    assert_eq!(stored(), before);
    assert!(!world.dir.path().join("log/applied.json.new").exists());
    assert_eq!(changed(&plan(node, &posted()).await), []);
    let sources = async || node.status().await.sources;
    until("all sources run", async || sources().await.iter().all(|s| s.state == RunState::Running)).await;
    let status = node.status().await;
    assert_eq!(status.sinks.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["out"]);
    serde_json::from_str(&body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_cannot_work_changes_nothing_and_says_why() {
    let world = World::new(0);
    let node = start(&world).await;
    assert_eq!(post(&node, "a").await.0, 200);
    let restarts = async || node.status().await.sinks[0].restarts;

    let blocked = posted().replace("file: {path: out}", "file: {path: pipeline.yaml/out}");
    let error = refused(&world, &node, &blocked).await;
    assert!(error.message.contains("`out` cannot start") && error.message.contains("pipeline.yaml/out"), "{error:?}");
    assert!(error.help.unwrap().contains("nothing was changed"));

    let missing = posted().replace("countries.csv", "contries.csv");
    let error = refused(&world, &node, &missing).await;
    assert!(error.message.contains("lookup `countries` cannot be loaded"), "{error:?}");
    assert!(error.message.contains("contries.csv") && error.message.contains("does not exist"), "{error:?}");
    assert_eq!(post(&node, "b").await.0, 200);
    until("both are written", async || node.status().await.sinks[0].events == 2).await;
    assert_eq!(restarts().await, 0);

    // An address is for the next start: whether it is free now says nothing.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = posted() + &format!("server: {{listen: \"{}\"}}\n", taken.local_addr().unwrap());
    let (code, body) = apply(&node, &elsewhere).await;
    assert_eq!(code, 200, "{body}");
    let applied: Applied = serde_json::from_str(&body).unwrap();
    assert!(applied.plan.changes.iter().all(|c| c.change == ChangeKind::Restart), "{applied:?}");
    assert_eq!(post(&node, "c").await.0, 200);
    until("all are written", async || node.status().await.sinks[0].events == 3).await;
    node.shutdown(LIMIT).await.unwrap();
    assert_eq!(world.out().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_fails_half_way_is_taken_back() {
    let world = World::new(0);
    let node = start(&world).await;
    for i in 0..20 {
        assert_eq!(post(&node, &format!("a{i}")).await.0, 200);
    }
    until("all are written", async || node.status().await.sinks[0].events == 20).await;
    assert_eq!(http(&node, "POST", "/api/services/check/scale", r#"{"instances":2}"#).await.0, 200);
    assert_eq!(http(&node, "POST", "/api/services/check/pause", "").await.0, 200);

    // Files that the log does not know, with names that would come: only opening finds them.
    let other = world.dir.path().join("other/enriched");
    std::fs::create_dir_all(&other).unwrap();
    (0..2).for_each(|p| std::fs::write(other.join(format!("{p}-000099.ndjson")), "").unwrap());
    let wrong = posted()
        .replace("file: {path: out}", "file: {path: other}")
        .replace("amount > 0", "amount > 100")
        .replace("http: {path: /orders}", "http: {path: /orders, max_body: 1MiB}")
        .replace("sinks:\n", "  more: {from: valid, to: again}\nsinks:\n");
    let error = refused(&world, &node, &wrong).await;
    assert_eq!(error.code, "apply-failed");
    assert!(error.message.contains("`out` cannot start") && error.message.contains("000099"), "{error:?}");
    assert!(error.help.unwrap().contains("runs as before"));
    let status = node.status().await;
    let check = status.services.iter().find(|s| s.name == "check").unwrap();
    assert_eq!((check.state, check.instances), (RunState::Paused, 2), "as it was before");
    assert_eq!(status.services.len(), 2);
    assert_eq!(http(&node, "GET", "/api/dlq/more", "").await.0, 404);

    assert_eq!(post(&node, "b").await.0, 200);
    assert_eq!(http(&node, "POST", "/api/services/check/resume", "").await.0, 200);
    until("the order after it", async || node.status().await.sinks[0].events >= 1).await;
    // What was wrong is mended: the same file applies.
    std::fs::remove_dir_all(world.dir.path().join("other")).unwrap();
    let (code, body) = apply(&node, &wrong).await;
    assert_eq!(code, 200, "{body}");
    assert_eq!(post(&node, "c").await.0, 200);
    until("the new rule", async || node.status().await.services[0].dead_letters == 1).await;
    node.shutdown(LIMIT).await.unwrap();
    assert_eq!(world.out().len(), 21, "nothing lost, nothing twice");
}

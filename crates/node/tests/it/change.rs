//! Changing a running pipeline: only what differs restarts, and nothing is lost or done twice.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream_node::Node;
use millstream_node::api::{Applied, ChangeKind, PartKind, PipelineText, Plan};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{PIPELINE, World, http, until};

pub(crate) fn text(yaml: &str) -> String {
    let sent = PipelineText { file: "pipeline.yaml".into(), yaml: yaml.into(), sql_files: Default::default() };
    serde_json::to_string(&sent).unwrap()
}

pub(crate) async fn plan(node: &Node, yaml: &str) -> Plan {
    let (status, body) = http(node, "POST", "/api/plan", &text(yaml)).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// The parts that change, without the address, which the tests choose themselves.
pub(crate) fn changed(plan: &Plan) -> Vec<(PartKind, &str, ChangeKind)> {
    let parts = plan.changes.iter().filter(|c| c.part != PartKind::Setting);
    parts.map(|c| (c.part, c.name.as_str(), c.change)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn applying_a_change_restarts_what_differs_and_nothing_else() {
    let world = World::new(50);
    let node = world.start(false).await;
    until("the first orders", async || node.status().await.sinks[0].events == 45).await;
    assert_eq!(changed(&plan(&node, PIPELINE).await), []);

    let stricter = PIPELINE.replace("positive: amount > 0", "positive: amount > 100, named: id IS NOT NULL");
    let found = plan(&node, &stricter).await;
    assert_eq!(changed(&found), [(PartKind::Service, "check", ChangeKind::Changed)]);
    let change = found.changes.iter().find(|c| c.name == "check").unwrap();
    assert_eq!(change.details, ["check.named: (none) -> id IS NOT NULL", "check.positive: amount > 0 -> amount > 100"]);
    assert_eq!(found.unchanged, ["in", "enrich", "out"]);

    let (status, body) = http(&node, "POST", "/api/apply", &text(&stricter)).await;
    assert_eq!(status, 200, "{body}");
    let applied: Applied = serde_json::from_str(&body).unwrap();
    assert_eq!(applied.plan, found);
    assert_eq!(changed(&plan(&node, &stricter).await), []);
    // The way back is the old file.
    let (status, body) = http(&node, "POST", "/api/apply", &text(PIPELINE)).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(changed(&plan(&node, PIPELINE).await), []);
    assert_eq!(node.status().await.sinks[0].events, 45);
    node.shutdown(Duration::from_secs(30)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn services_and_sinks_come_and_go() {
    let world = World::new(50);
    let node = world.start(false).await;
    until("the first orders", async || node.status().await.sinks[0].events == 45).await;
    let more = PIPELINE.replace(
        "sinks:\n",
        "  big: {from: enriched, sql: SELECT id FROM enriched WHERE twice > 1, to: bigger}\nsinks:\n  second: {from: bigger, file: {path: more}}\n",
    );
    let details = |plan: &Plan, name: &str| plan.changes.iter().find(|c| c.name == name).unwrap().details.clone();
    let found = plan(&node, &more).await;
    assert_eq!(details(&found, "big"), ["reads `enriched` from its beginning (45 events)"]);
    assert_eq!(details(&found, "second"), ["reads `bigger` from its beginning (0 events)"]);
    let (status, body) = http(&node, "POST", "/api/apply", &text(&more)).await;
    assert_eq!(status, 200, "{body}");
    until("the new sink", async || node.status().await.sinks.iter().any(|s| s.name == "second" && s.events == 45))
        .await;
    assert_eq!(details(&plan(&node, PIPELINE).await, "big"), ["has read all of `enriched`"]);
    let (status, body) = http(&node, "POST", "/api/apply", &text(PIPELINE)).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(node.status().await.sinks.len(), 1);
    let back = details(&plan(&node, &more).await, "big");
    assert_eq!(back, ["goes on with `enriched` where a `big` before it stopped (0 events)"]);
    node.shutdown(Duration::from_secs(30)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_applied_changes_nothing() {
    let world = World::new(50);
    let node = world.start(false).await;
    let wrong = PIPELINE.replace("amount > 0", "amuont > 0");
    let (status, body) = http(&node, "POST", "/api/apply", &text(&wrong)).await;
    assert_eq!(status, 422);
    assert!(body.contains("did you mean `amount`?"), "{body}");
    let refused = PIPELINE.replace("partitions: 2", "partitions: 3");
    let (status, body) = http(&node, "POST", "/api/apply", &text(&refused)).await;
    assert_eq!(status, 409, "{body}");
    assert_eq!(body.matches("cannot be changed").count(), 1, "each reason once: {body}");
    assert!(plan(&node, &refused).await.refused());
    assert_eq!(changed(&plan(&node, PIPELINE).await), []);
    until("all orders", async || node.status().await.sinks[0].events == 45).await;
    node.shutdown(Duration::from_secs(30)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_paused_scaled_broken_and_letters_replayed() {
    let world = World::new(50);
    let node = world.start(false).await;
    until("the first orders", async || node.status().await.sinks[0].events == 45).await;
    let (status, body) = http(&node, "POST", "/api/services/enrich/pause", "").await;
    assert!(status == 200 && body.contains("\"changed\":true"), "{body}");
    assert_eq!(http(&node, "POST", "/api/services/enrich/resume", "").await.0, 200);
    assert_eq!(http(&node, "POST", "/api/services/enrich/scale", r#"{"instances":2}"#).await.0, 200);
    assert_eq!(http(&node, "POST", "/api/services/enrich/scale", r#"{"instances":9}"#).await.0, 400);
    assert_eq!(http(&node, "POST", "/api/services/enrich/scale", "nonsense").await.0, 400);
    assert_eq!(http(&node, "POST", "/api/services/enrich/inject", r#"{"fault":"panic"}"#).await.0, 200);
    let (status, body) = http(&node, "POST", "/api/services/enrch/pause", "").await;
    assert!(status == 404 && body.contains("did you mean `enrich`?"), "{body}");
    assert_eq!(http(&node, "POST", "/api/dlq/check/replay", "{}").await.0, 400);
    let (status, body) = http(&node, "POST", "/api/dlq/check/replay", r#"{"all":true}"#).await;
    assert!(status == 200 && body.contains("\"done\":5"), "{body}");
    node.shutdown(Duration::from_secs(30)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_is_not_handed_over_to_another_source() {
    let world = World::new(0);
    let stdin = PIPELINE.replace("file: {path: orders.ndjson}", "stdin: {format: ndjson}");
    std::fs::write(world.dir.path().join("pipeline.yaml"), &stdin).unwrap();
    let node = world.start(false).await;
    for other in [
        stdin.replace("amount: \"decimal", "note: string, amount: \"decimal"),
        stdin.replace("format: ndjson", "format: csv"),
        stdin.replace("to: orders}", "to: orders, unknown: reject}"),
        PIPELINE.to_owned(),
        stdin.replace("  in: ", "  second: {stdin: {format: ndjson}, to: orders}\n  off: "),
    ] {
        let found = plan(&node, &other).await;
        let refused = |c: &&millstream_node::api::Change| c.change == ChangeKind::Refused;
        let why = found.changes.iter().find(refused).unwrap_or_else(|| panic!("{other}\n{found:?}"));
        assert_eq!(why.part, PartKind::Source);
        assert!(why.reason.as_ref().unwrap().contains("standard input cannot be handed over"), "{why:?}");
        let (status, body) = http(&node, "POST", "/api/apply", &text(&other)).await;
        assert!(status == 409 && body.contains("end the node and start it"), "{status} {body}");
    }
    // Whatever leaves the source alone is applied.
    let (status, body) = http(&node, "POST", "/api/apply", &text(&stdin.replace("amount > 0", "amount > 100"))).await;
    assert_eq!(status, 200, "{body}");
    node.shutdown(Duration::from_secs(30)).await.unwrap();
}

/// A database that asks for a password, and ends the connection when it has heard it.
async fn deaf_database(heard: Arc<Mutex<Vec<String>>>) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut said = vec![0; 4096];
            if client.read(&mut said).await.is_err() || client.write_all(b"R\0\0\0\x08\0\0\0\x03").await.is_err() {
                continue;
            }
            if let Ok(n) = client.read(&mut said).await {
                heard.lock().unwrap().push(String::from_utf8_lossy(said.get(5..n).unwrap_or_default()).into_owned());
            }
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn another_password_of_a_database_is_used_from_the_change_on_and_never_shown() {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let port = deaf_database(Arc::clone(&heard)).await;
    let with = |password: &str| {
        let count = format!(
            "  count:\n    from: valid\n    sql: SELECT id, count(*) AS n FROM valid GROUP BY id\n    to: counts\n    state: \
             {{postgres: {{url: \"postgres://bob:{password}@127.0.0.1:{port}/shop\"}}}}\nsinks:\n"
        );
        PIPELINE.replace("lookups:\n", "  counts: {kind: table, key: [id]}\nlookups:\n").replace("sinks:\n", &count)
    };
    let world = World::new(50);
    std::fs::write(world.dir.path().join("pipeline.yaml"), with("first-secret")).unwrap();
    let node = world.start(false).await;
    until("the first password", async || heard.lock().unwrap().iter().any(|said| said.contains("first-secret"))).await;
    assert_eq!(changed(&plan(&node, &with("first-secret")).await), []);
    let (status, body) = http(&node, "POST", "/api/apply", &text(&with("second-secret"))).await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("another user, password") && !body.contains("secret"), "{body}");
    heard.lock().unwrap().clear();
    until("the second password", async || heard.lock().unwrap().iter().any(|said| said.contains("second"))).await;
    assert!(heard.lock().unwrap().iter().all(|said| said.contains("second-secret")));
    assert_eq!(changed(&plan(&node, &with("second-secret")).await), []);
    node.shutdown(Duration::from_secs(30)).await.unwrap();
}

//! Bad events, bad requests and bad names, from outside to the files: each gets a clear answer, its neighbours do not
//! notice, and memory stays small.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use millstream_node::api::{Letter, LettersQuery};
use millstream_node::{Config, Node, offline};
use serde_json::{Value, json};

use crate::world::{World, http, until};

const LIMIT: Duration = Duration::from_secs(30);

/// Events keyed by a column that may be null, parted by its value.
const PIPELINE: &str = r#"version: 1
pipeline: shop
log: {embedded: {dir: log, segment: 16MiB}}
topics:
  orders: {key: [country], partitions: 2, columns: {id: string!, country: string, n: int!, note: string, tree: json}}
sources:
  in: {SOURCE, to: orders}
services:
  part:
    from: orders
    route:
      first: [{when: n > 0, to: "orders_{country}"}]
      otherwise: dead_letter
      targets: [orders_de, orders_fr]
sinks:
  out: {from: [orders_de, orders_fr], file: {path: out}}
"#;

fn world(source: &str) -> World {
    let world = World::new(0);
    std::fs::write(world.dir.path().join("pipeline.yaml"), PIPELINE.replace("SOURCE", source)).unwrap();
    world
}

fn order(id: &str, rest: &Value) -> Value {
    let mut order = json!({"id": id, "country": "de", "n": 1, "note": "fine"});
    order.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    order
}

/// So many bytes of memory are resident now.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

fn by_code(letters: &[Letter]) -> BTreeMap<&str, usize> {
    let mut codes = BTreeMap::new();
    letters.iter().for_each(|l| *codes.entry(l.code.as_str()).or_default() += 1);
    codes
}

async fn letters(node: &Node, name: &str) -> Vec<Value> {
    let (status, text) = http(node, "GET", &format!("/api/dlq/{name}"), "").await;
    assert_eq!(status, 200, "{text}");
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_events_in_a_request_are_answered_each_and_their_neighbours_arrive() {
    let world = world("http: {path: /orders}");
    let node = world.start(false).await;
    let (status, body) = http(&node, "POST", "/orders", r#"{"id": "#).await;
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("json-syntax"), "{body}");
    let deep = format!(r#"{{"id":"deep","country":"de","n":1,"tree":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let long = "x".repeat(1_000_000);
    let events = [
        order("first", &json!({})).to_string(),
        order("type", &json!({"n": "one"})).to_string(),
        order("missing", &json!({"n": null})).to_string(),
        order("key", &json!({"country": null})).to_string(),
        deep,
        order("long", &json!({"note": long})).to_string(),
        order("too-long", &json!({"note": format!("{long}{long}")})).to_string(),
        order("place", &json!({"country": "../x"})).to_string(),
        order("none", &json!({"n": 0})).to_string(),
        order("last", &json!({"country": "fr"})).to_string(),
    ];
    let (status, body) = http(&node, "POST", "/orders", &format!("[{}]", events.join(","))).await;
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    let codes: Vec<Option<&str>> =
        answer["events"].as_array().unwrap().iter().map(|e| e["error"]["code"].as_str()).collect();
    let expected = [
        None,
        Some("value-type"),
        Some("value-missing"),
        Some("key-null"),
        Some("nesting-too-deep"),
        None,
        Some("line-too-long"),
        None,
        None,
        None,
    ];
    assert_eq!(codes, expected, "{body}");
    until("the good ones", async || node.status().await.sinks[0].events == 3).await;
    assert_eq!(letters(&node, "in").await.len(), 6, "with the one that is no JSON");
    let refused = letters(&node, "part").await;
    let codes: Vec<&str> = refused.iter().map(|l| l["code"].as_str().unwrap()).collect();
    assert!(codes.len() == 2 && codes.contains(&"route-target") && codes.contains(&"route-unmatched"), "{refused:?}");
    assert!(refused.iter().any(|l| l["reason"].as_str().unwrap().contains("orders_../x")), "{refused:?}");
    for path in ["/api/topics/..%2F..%2Fx/events", "/api/topics/../../x/events", "/api/dlq/..%2Fx"] {
        let (status, body) = http(&node, "GET", path, "").await;
        assert!((400..500).contains(&status), "{path}: {status} {body}");
    }
    node.shutdown(LIMIT).await.unwrap();
    let above = world.dir.path().join("out");
    let mut names: Vec<_> = std::fs::read_dir(above).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.retain(|n| !n.to_str().unwrap().starts_with('.'));
    names.sort();
    assert_eq!(names, ["orders_de", "orders_fr"], "a value makes no file elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_and_clients_that_never_finish_cost_little_and_the_others_are_served() {
    let world = world("http: {path: /orders}");
    let node = world.start(false).await;
    let (address, before) = (node.address(), resident());
    let head = "POST /orders HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    // Clients that say how much comes, and then nothing comes.
    let slow: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(format!("{head}content-length: 9000000\r\n\r\n[").as_bytes()).unwrap();
            stream
        })
        .collect();
    let large = tokio::task::spawn_blocking(move || {
        let answer = |mut stream: TcpStream| {
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            let mut text = Vec::new();
            // A reset behind the answer is how the server ends what it does not want.
            drop(stream.read_to_end(&mut text));
            String::from_utf8_lossy(&text).into_owned()
        };
        let mut announced = TcpStream::connect(address).unwrap();
        announced.write_all(format!("{head}content-length: 100000000\r\n\r\n").as_bytes()).unwrap();
        let mut chunked = TcpStream::connect(address).unwrap();
        chunked.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).unwrap();
        let part = format!("{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
        let sent = (0..100).take_while(|_| chunked.write_all(part.as_bytes()).is_ok()).count();
        (answer(announced), sent)
    });
    let (announced, sent) = large.await.unwrap();
    assert!(announced.starts_with("HTTP/1.1 413") && announced.contains("body-too-large"), "{announced}");
    assert!(sent < 100, "100 MB were taken");
    let (status, body) = http(&node, "POST", "/orders", &order("good", &json!({})).to_string()).await;
    assert_eq!(status, 200, "{body}");
    let grown = resident().saturating_sub(before);
    assert!(grown < 150 << 20, "{} MB more", grown >> 20);
    drop(slow);
    node.shutdown(LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_lines_of_a_file_are_letters_and_their_neighbours_arrive() {
    let world = world("file: {path: orders.ndjson}");
    let deep = |n: usize| format!(r#"{{"id":"deep","country":"de","n":1,"tree":{}{}}}"#, "[".repeat(n), "]".repeat(n));
    let good = |id: &str| order(id, &json!({})).to_string();
    let lines = [
        good("a"),
        "this is no order".to_owned(),
        good("b"),
        r#"{"id":"cut"#.to_owned(),
        good("c"),
        order("type", &json!({"n": {"a": 1}})).to_string(),
        order("range", &json!({"n": 3_000_000_000_u64})).to_string(),
        good("d"),
        deep(100_000),
        good("e"),
        order("long", &json!({"note": "x".repeat(1_000_000)})).to_string(),
        order("too-long", &json!({"note": "x".repeat(17 << 20)})).to_string(),
        good("f"),
        order("key", &json!({"country": null})).to_string(),
        good("g"),
    ];
    let mut bytes = lines.join("\n").into_bytes();
    bytes.extend(b"\n{\"id\":\"\xFF\xFE\",\"country\":\"de\",\"n\":1}\n");
    std::fs::write(world.dir.path().join("orders.ndjson"), bytes).unwrap();
    let before = resident();
    let node = world.start(true).await;
    tokio::time::timeout(LIMIT, node.finished()).await.expect("the pipeline drains").unwrap();
    let grown = resident().saturating_sub(before);
    node.shutdown(LIMIT).await.unwrap();
    drop(node);
    assert!(grown < 250 << 20, "{} MB more", grown >> 20);
    let ids: Vec<String> = world
        .out()
        .iter()
        .map(|l| serde_json::from_str::<Value>(l).unwrap()["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids, ["a", "b", "c", "d", "e", "f", "g", "long"]);
    let found = offline::letters(&world.load(), "in", &LettersQuery::default()).await.unwrap();
    let expected = [
        ("json-syntax", 2),
        ("key-null", 1),
        ("line-too-long", 1),
        ("nesting-too-deep", 1),
        ("utf8-invalid", 1),
        ("value-range", 1),
        ("value-type", 1),
    ];
    assert_eq!(by_code(&found), expected.into_iter().collect());
    let cut = found.iter().find(|l| l.raw.as_deref() == Some(r#"{"id":"cut"#)).unwrap();
    assert_eq!(cut.origin.as_deref(), Some("orders.ndjson:4"));
}

#[test]
fn names_that_lead_elsewhere_are_refused_with_their_place() {
    let world = World::new(0);
    let text = r#"version: 1
pipeline: shop
topics: {../t: {columns: {id: string!}}, ok: {columns: {id: string!}}}
sources: {../s: {stdin: {}, to: ok}}
services: {../v: {from: ok, to: ../out}, r: {from: ok, route: {first: [{when: id = 'a', to: ../b}], otherwise: ../c}}}
sinks: {../k: {from: ok, stdout: {}}}
"#;
    std::fs::write(world.dir.path().join("pipeline.yaml"), text).unwrap();
    let found = match Config::load(world.dir.path()).and_then(|loaded| millstream_node::plan(&loaded)) {
        Err(found) => found.to_string(),
        Ok(_) => panic!("it was taken"),
    };
    for name in ["../t", "../s", "../v", "../out", "../c", "../k"] {
        assert!(found.contains(&format!("`{name}` is not a name")), "{name}:\n{found}");
    }
}

//! A pipeline in a directory of its own, for tests that run it.

use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use millstream_node::{Config, Loaded, Node, NodeOptions, plan};
use tempfile::TempDir;

pub(crate) const PIPELINE: &str = r#"version: 1
pipeline: shop
log: {embedded: {dir: log, segment: 1MiB}}
defaults: {topic: {partitions: 2, key: [id]}}
topics:
  orders:
    columns: {id: string!, country: string, amount: "decimal(12,2)!"}
lookups:
  countries:
    file: {path: countries.csv}
    key: [code]
    columns: {code: string!, name: string!}
sources:
  in: {file: {path: orders.ndjson}, to: orders}
services:
  check: {from: orders, check: {positive: amount > 0}, to: valid}
  enrich:
    from: valid
    sql: SELECT o.id, o.amount * 2 AS twice, c.name FROM valid AS o LEFT JOIN countries AS c ON c.code = o.country
    to: enriched
sinks:
  out: {from: [enriched], file: {path: out}}
tests:
  - name: a good order is enriched and a bad one refused
    given: {orders: [{id: a, country: de, amount: 1.50}, {id: b, amount: -1}]}
    expect: {enriched: [{id: a, twice: 3.00, name: Germany}], check.dlq: [{rules: [positive]}]}
"#;

pub(crate) struct World {
    pub(crate) dir: TempDir,
}

impl World {
    /// A directory with the pipeline and so many orders, every tenth of them refused, and one line that is no order.
    pub(crate) fn new(orders: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("pipeline.yaml"), PIPELINE).unwrap();
        std::fs::write(dir.path().join("countries.csv"), "code,name\nde,Germany\nfr,France\n").unwrap();
        let mut text = String::from("this is no order\n");
        for i in 0..orders {
            let amount = if i % 10 == 9 { -1 } else { 5 };
            text.push_str(&format!("{{\"id\":\"o{i}\",\"country\":\"de\",\"amount\":{amount}.25}}\n"));
        }
        std::fs::write(dir.path().join("orders.ndjson"), text).unwrap();
        Self { dir }
    }

    pub(crate) fn load(&self) -> Loaded {
        let mut loaded = Config::load(self.dir.path()).unwrap_or_else(|e| panic!("{e}"));
        // Any free port, so that tests run beside each other.
        loaded.config.server.listen.set_port(0);
        loaded
    }

    pub(crate) async fn start(&self, drain: bool) -> Node {
        let loaded = self.load();
        let pipeline = plan(&loaded).unwrap_or_else(|e| panic!("{e}"));
        let options = NodeOptions { drain, inject_faults: true };
        Node::start(&loaded, pipeline, options).await.unwrap()
    }

    /// All lines below `out`, sorted.
    pub(crate) fn out(&self) -> Vec<String> {
        let mut lines = Vec::new();
        collect(&self.dir.path().join("out"), &mut lines);
        lines.sort();
        lines
    }
}

pub(crate) fn collect(dir: &Path, lines: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, lines);
        } else if path.extension().is_some_and(|e| e == "ndjson") {
            lines.extend(std::fs::read_to_string(path).unwrap().lines().map(str::to_owned));
        }
    }
}

/// Sends a request and gives the status and the body.
pub(crate) async fn http(node: &Node, method: &str, path: &str, body: &str) -> (u16, String) {
    let address = node.address();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    })
    .await
    .unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let body = if head.to_lowercase().contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_owned() };
    (status, body)
}

fn unchunk(mut text: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        out.push_str(&rest[..size]);
        text = &rest[size + 2..];
    }
    out
}

/// Waits for a condition, at most 20 s.
pub(crate) async fn until<F: AsyncFnMut() -> bool>(what: &str, mut condition: F) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < Duration::from_secs(20), "waited for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_connect::HttpSource;
use millstream_connect::event::{Name, TopicPartition};
use millstream_connect::http::{Limits, Reply, Settings};
use millstream_connect::service::flow::plan_rules;
use millstream_connect::service::log::{Log, MemoryLog, Read, Retention, TopicKind, TopicSpec};
use millstream_connect::service::{
    BATCH_ROWS_DEFAULT, Check, Else, Options, Output, Runner, ServiceDef, SourceDef, Work,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{name, schema};

fn topic(topic: &str) -> TopicSpec {
    TopicSpec {
        name: name(topic),
        partitions: 4,
        key: vec!["text".to_owned()],
        schema: schema(),
        kind: TopicKind::Stream,
        retention: Retention::default(),
        consumers: Vec::new(),
    }
}

struct Bed {
    log: Arc<dyn Log>,
    runner: Runner,
    source: HttpSource,
    address: SocketAddr,
}

struct Answer {
    status: u16,
    head: String,
    body: Value,
}

impl Bed {
    async fn new(settings: Settings) -> Self {
        Self::on(Arc::new(MemoryLog::new()), settings).await
    }

    /// A service `decide` passes events with n > 0 on to `approved`; the source `api` fills `events`.
    async fn on(log: Arc<dyn Log>, settings: Settings) -> Self {
        let runner = Runner::new(Arc::clone(&log), Options::new(tokio::runtime::Handle::current()));
        for spec in [topic("events"), topic("approved")] {
            log.create_topic(spec).await.unwrap();
        }
        let rules = plan_rules(&[("positive".to_owned(), "n > 0".to_owned())], &schema()).unwrap();
        let check = Check { rules: Arc::new(rules), otherwise: Else::DeadLetter };
        let decide = ServiceDef {
            name: name("decide"),
            version: "1".to_owned(),
            inputs: vec![name("events")],
            aliases: Default::default(),
            columns: Default::default(),
            check: Some(check),
            work: Work::None,
            output: Output::To(name("approved")),
            instances: 1,
            batch_rows_max: BATCH_ROWS_DEFAULT,
            lookups: Vec::new(),
            late: Default::default(),
            time: None,
            keep: Default::default(),
        };
        runner.start_service(decide).await.unwrap();
        let source = HttpSource::new(&name("api"), settings, name("events"), schema(), Arc::clone(&log)).unwrap();
        let def = SourceDef {
            name: name("api"),
            version: "1".to_owned(),
            source: Arc::new(source.clone()),
            to: name("events"),
            columns: None,
            event_time: None,
        };
        runner.start_source(def).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = source.router();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let bed = Self { log, runner, source, address };
        // The task opens in the background.
        let deadline = Instant::now() + Duration::from_secs(20);
        while bed.post("").await.status == 503 {
            assert!(Instant::now() < deadline, "the source did not open in time");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bed
    }

    async fn send(&self, head: &str, body: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!("{head}host: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        // The server may answer and close before it has read all.
        drop(stream.write_all(body).await);
        answer(stream).await
    }

    async fn post(&self, body: &str) -> Answer {
        self.send("POST /events HTTP/1.1\r\n", body.as_bytes()).await
    }

    async fn post_with_key(&self, key: &str, body: &str) -> Answer {
        self.send(&format!("POST /events HTTP/1.1\r\nidempotency-key: {key}\r\n"), body.as_bytes()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\n"), b"").await
    }

    async fn count(&self, topic: &str) -> usize {
        let topic = name(topic);
        let mut count = 0;
        for partition in 0..self.log.topic(&topic).unwrap().spec.partitions {
            let at = TopicPartition::new(topic.clone(), partition);
            let mut reader = self.log.read(&at, self.log.start(&at).await.unwrap()).unwrap();
            while let Read::Batch(batch) = reader.next().await.unwrap() {
                count += batch.rows.num_rows();
            }
        }
        count
    }
}

async fn answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A reset after the answer is how a server ends a body that it does not want.
    drop(
        tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await.expect("no answer in time"),
    );
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: serde_json::from_str(body).unwrap_or(Value::Null) }
}

fn settings() -> Settings {
    Settings::new("/events")
}

fn replying(timeout: Duration) -> Settings {
    let reply = Reply {
        from: vec![name("approved")],
        dead_letters: vec![name("decide.dlq")],
        matching: "text".to_owned(),
        timeout,
    };
    Settings { reply: Some(reply), ..settings() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_an_array_and_lines_are_answered_with_their_places() {
    let bed = Bed::new(settings()).await;
    let one = bed.post("{\"n\":1,\"text\":\"a\"}").await;
    assert_eq!((one.status, &one.body["accepted"]), (200, &json!(1)), "{}", one.body);
    let place = &one.body["events"][0];
    assert_eq!((place["topic"].as_str(), place["offset"].as_u64()), (Some("events"), Some(0)));
    let array = bed.post("[{\"n\":2,\"text\":\"a\"},\n {\"n\":3,\"text\":\"b\"}]").await;
    assert_eq!((array.status, array.body["events"].as_array().unwrap().len()), (200, 2));
    assert_eq!(array.body["events"][0]["partition"], place["partition"], "one key, one partition");
    assert_eq!(array.body["events"][0]["offset"], 1);
    let lines = bed.post("{\"n\":4,\"text\":\"a\"}\n{\"n\":5,\"text\":\"a\"}\n").await;
    assert_eq!((lines.status, &lines.body["accepted"]), (200, &json!(2)));
    assert_eq!(bed.count("events").await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_events_are_answered_and_dead_lettered_and_their_neighbours_enter() {
    let bed = Bed::new(settings()).await;
    let mixed =
        bed.post("[{\"n\":1,\"text\":\"a\"},{\"n\":\"x\",\"text\":\"a\"},{\"n\":3},{\"n\":4,\"text\":\"d\"}]").await;
    assert_eq!((mixed.status, &mixed.body["accepted"], &mixed.body["refused"]), (200, &json!(2), &json!(2)));
    assert_eq!(mixed.body["events"][1]["error"]["code"], "value-type");
    assert_eq!(mixed.body["events"][2]["error"]["code"], "key-null");
    assert!(mixed.body["events"][3]["offset"].is_u64());
    let wrong = bed.post("{\"n\":\"x\"}").await;
    assert_eq!((wrong.status, wrong.body["error"]["code"].as_str()), (422, Some("value-type")));
    let broken = bed.post("{\"n\":").await;
    assert_eq!((broken.status, broken.body["error"]["code"].as_str()), (400, Some("json-syntax")));
    let nested = bed.post(&"[".repeat(100_000)).await;
    // One letter for the element that never ends, one for the array.
    assert_eq!((nested.status, nested.body["refused"].as_u64()), (400, Some(2)), "{}", nested.body);
    assert_eq!(bed.count("events").await, 2);
    assert_eq!(bed.count("api.dlq").await, 6);
    assert_eq!(bed.post(" \n").await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_with_a_key_counts_once_also_at_the_same_time_and_after_a_restart() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let bed = Bed::on(Arc::clone(&log), settings()).await;
    let body = "{\"n\":1,\"text\":\"a\"}";
    let requests = (0..8).map(|_| bed.post_with_key("k1", body));
    let answers = futures::future::join_all(requests).await;
    assert!(answers.iter().all(|a| a.status == 200 && a.body["events"][0]["offset"] == 0));
    assert_eq!(answers.iter().filter(|a| a.head.contains("idempotency-replayed: true")).count(), 7);
    let other = bed.post_with_key("k1", "{\"n\":2,\"text\":\"a\"}").await;
    assert_eq!((other.status, other.body["error"]["code"].as_str()), (422, Some("idempotency-key-reused")));
    assert_eq!(bed.post_with_key(&"k".repeat(300), body).await.status, 400);
    // A refused request is remembered as well: it is one dead letter, not two.
    for _ in 0..2 {
        assert_eq!(bed.post_with_key("k2", "{\"n\":\"x\"}").await.status, 422);
    }
    assert_eq!((bed.count("events").await, bed.count("api.dlq").await), (1, 1));
    bed.runner.stop_all(false).await;

    let bed = Bed::on(log, settings()).await;
    let again = bed.post_with_key("k1", body).await;
    assert_eq!((again.status, &again.body["accepted"]), (200, &json!(1)), "{}", again.body);
    assert!(again.head.contains("idempotency-replayed: true"));
    assert_eq!(bed.post_with_key("k2", "{\"n\":\"x\"}").await.status, 422);
    assert_eq!(bed.post_with_key("k1", "{\"n\":2,\"text\":\"a\"}").await.status, 422);
    assert_eq!((bed.count("events").await, bed.count("api.dlq").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_is_answered_with_the_decision() {
    let bed = Bed::new(replying(Duration::from_secs(10))).await;
    let approved = bed.post("{\"n\":7,\"text\":\"t1\"}").await;
    assert_eq!(approved.status, 200, "{}", approved.body);
    assert_eq!(approved.body["topic"], "approved");
    assert_eq!(approved.body["decision"], json!({"n": 7, "text": "t1"}));
    let refused = bed.post("{\"n\":-7,\"text\":\"t2\"}").await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    assert_eq!(refused.body["rules"], json!(["positive"]));
    assert_eq!(refused.body["dead_letter"], "decide.dlq");
    let many = bed.post("[{\"n\":1,\"text\":\"t3\"},{\"n\":2,\"text\":\"t4\"}]").await;
    assert_eq!((many.status, &many.body["accepted"]), (200, &json!(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_gets_the_decision_again_also_at_the_same_time_and_after_a_restart() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let bed = Bed::on(Arc::clone(&log), replying(Duration::from_secs(10))).await;
    let (good, bad) = ("{\"n\":7,\"text\":\"t1\"}", "{\"n\":-7,\"text\":\"t2\"}");
    let check = |answer: &Answer, refused: bool| match refused {
        false => {
            assert_eq!((answer.status, &answer.body["decision"]["n"]), (200, &json!(7)), "{}", answer.body);
        }
        true => assert_eq!((answer.status, &answer.body["rules"]), (422, &json!(["positive"])), "{}", answer.body),
    };
    for (key, body, refused) in [("k1", good, false), ("k2", bad, true)] {
        let answers = futures::future::join_all((0..8).map(|_| bed.post_with_key(key, body))).await;
        answers.iter().for_each(|answer| check(answer, refused));
        check(&bed.post_with_key(key, body).await, refused);
    }
    bed.runner.stop_all(false).await;

    let bed = Bed::on(log, replying(Duration::from_secs(10))).await;
    for (key, body, refused) in [("k1", good, false), ("k2", bad, true)] {
        let again = bed.post_with_key(key, body).await;
        check(&again, refused);
        assert!(again.head.contains("idempotency-replayed: true"), "{}", again.head);
    }
    assert_eq!(bed.count("events").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_repeated_before_its_decision_is_told_to_wait_and_afterwards_gets_it() {
    let bed = Bed::new(replying(Duration::from_millis(50))).await;
    let decide = bed.runner.handle(&name("decide")).unwrap();
    decide.pause();
    let body = "{\"n\":7,\"text\":\"t1\"}";
    for _ in 0..2 {
        let late = bed.post_with_key("k1", body).await;
        assert_eq!((late.status, late.body["status"].is_string()), (202, true), "{}", late.body);
    }
    decide.resume();
    let deadline = Instant::now() + Duration::from_secs(20);
    while bed.post_with_key("k1", body).await.status == 202 {
        assert!(Instant::now() < deadline, "no decision in time");
    }
    assert_eq!(bed.post_with_key("k1", body).await.body["decision"]["n"], 7);
    assert_eq!(bed.count("events").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_decision_is_found_at_its_status_address() {
    let bed = Bed::new(replying(Duration::from_millis(50))).await;
    let decide = bed.runner.handle(&name("decide")).unwrap();
    decide.pause();
    let late = bed.post("{\"n\":7,\"text\":\"t1\"}").await;
    let address = late.body["status"].as_str().unwrap().to_owned();
    assert_eq!((late.status, address.starts_with("/events/status/events-")), (202, true), "{}", late.body);
    assert_eq!(bed.get(&address).await.status, 202);
    decide.resume();
    let deadline = Instant::now() + Duration::from_secs(20);
    let found = loop {
        let found = bed.get(&address).await;
        if found.status != 202 {
            break found;
        }
        assert!(Instant::now() < deadline, "no decision in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!((found.status, &found.body["decision"]["n"]), (200, &json!(7)));
    assert_eq!(bed.get("/events/status/events-0-99").await.status, 404);
    assert_eq!(bed.get("/events/status/..%2Fx").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_slow_and_wrong_requests_are_refused_and_the_others_go_on() {
    let limits = Limits {
        body_bytes_max: 1 << 20,
        event_bytes_max: 64 << 10,
        body_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let bed = Bed::new(Settings { limits, ..settings() }).await;
    // Announced as 100 MB: refused before it is sent.
    let mut large = TcpStream::connect(bed.address).await.unwrap();
    large
        .write_all(b"POST /events HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 100000000\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(answer(large).await.status, 413);
    // Not announced: refused when it has become too large.
    let mut chunked = TcpStream::connect(bed.address).await.unwrap();
    chunked
        .write_all(b"POST /events HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    let part = format!("{:x}\r\n{}\r\n", 256 << 10, "x".repeat(256 << 10));
    let mut sent = 0;
    while sent < 400 && chunked.write_all(part.as_bytes()).await.is_ok() {
        sent += 1;
    }
    assert!(sent < 400, "the server took 100 MB");
    // Slow: the body never comes.
    let mut slow = TcpStream::connect(bed.address).await.unwrap();
    slow.write_all(b"POST /events HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 100\r\n\r\n{")
        .await
        .unwrap();
    let good = bed.post("{\"n\":1,\"text\":\"a\"}").await;
    assert_eq!(good.status, 200);
    assert_eq!(answer(slow).await.status, 408);
    let long =
        bed.post(&format!("[{{\"n\":1,\"text\":\"{}\"}},{{\"n\":2,\"text\":\"b\"}}]", "x".repeat(100 << 10))).await;
    assert_eq!(
        (long.status, long.body["events"][0]["error"]["code"].as_str()),
        (200, Some("line-too-long")),
        "{}",
        long.body
    );
    let method = bed.get("/events").await;
    assert_eq!((method.status, method.body["error"]["code"].as_str()), (405, Some("method")));
    assert_eq!(bed.get("/events/status/x").await.status, 404);
    bed.source.drain();
    let stopped = bed.post("{\"n\":1,\"text\":\"a\"}").await;
    assert_eq!((stopped.status, stopped.head.contains("retry-after: 1")), (503, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_that_is_read_while_its_source_stops_is_told_so_at_once() {
    let bed = Bed::new(settings()).await;
    let body = b"{\"n\":1,\"text\":\"a\"}";
    let mut stream = TcpStream::connect(bed.address).await.unwrap();
    let head = format!(
        "POST /events HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // Who is asked for the body is past the look at the door.
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100"), "{go_on:?}");
    bed.source.drain();
    bed.runner.handle(&name("api")).unwrap().stop().await;
    let begun = Instant::now();
    stream.write_all(body).await.unwrap();
    let stopped = answer(stream).await;
    assert_eq!((stopped.status, stopped.body["error"]["code"].as_str()), (503, Some("stopped")), "{}", stopped.body);
    assert!(begun.elapsed() < Duration::from_secs(10), "it waited for the time limit of a commit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_backlog_is_answered_with_429() {
    let bed = Bed::new(settings()).await;
    let mut spec = topic("events");
    spec.retention.max_bytes = Some(1);
    spec.consumers = vec![name("decide")];
    bed.log.create_topic(spec).await.unwrap();
    bed.runner.handle(&name("decide")).unwrap().pause();
    let mut last = bed.post("{\"n\":1,\"text\":\"a\"}").await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while last.status == 200 {
        assert!(Instant::now() < deadline, "the backlog is never full");
        last = bed.post("{\"n\":1,\"text\":\"a\"}").await;
    }
    assert_eq!((last.status, last.body["error"]["code"].as_str()), (429, Some("backlog-full")), "{}", last.body);
    assert!(last.head.contains("retry-after: 1"));
}

#[test]
fn paths_and_columns_that_cannot_work_are_refused() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let fault = |settings: Settings| {
        let made = HttpSource::new(&name("api"), settings, name("events"), schema(), Arc::clone(&log));
        made.err().map(|e| e.to_string()).unwrap_or_default()
    };
    for path in ["", "events", "/", "/a/", "/a//b", "/{x}", "/a?b"] {
        assert!(fault(Settings::new(path)).contains("is no path"), "{path}");
    }
    let reply = |matching: &str| Reply {
        from: Vec::<Name>::new(),
        dead_letters: Vec::new(),
        matching: matching.to_owned(),
        timeout: Duration::ZERO,
    };
    let none = fault(Settings { reply: Some(reply("id")), ..settings() });
    assert!(none.contains("is no column"), "{none}");
}

//! Event time over several runs of a pipeline: who had closed opens again, and is waited for; and what the end of a run
//! leaves unsaid.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millstream_service::event::Watermark;
use millstream_service::log::{EmbeddedLog, EmbeddedOptions, Log, MemoryLog};
use millstream_service::{EventTimeDef, Handle, Injected, ServiceDef, ServiceTime, SourceDef, State};
use serde_json::json;

use crate::bed::{Bed, Numbers, name, until};
use crate::time::{SECOND, at, endless, event, found, input, reaches, source, ten_seconds, timed, topics};

/// The most that a run promises whose events have the times 0 to 99 s, before its sources close.
const FIRST_RUN: Watermark = Watermark(89 * SECOND);

fn bounded(called: &str, to: &str, count: u64) -> SourceDef {
    SourceDef { to: name(to), ..source(called, Numbers::new(count), ten_seconds(), |n| event(n, n)) }
}

/// A service that reads two topics.
fn both(inputs: [(&str, &str, bool); 2]) -> ServiceDef {
    let tasks = |in_place: bool| if in_place { 3 } else { 1 };
    let inputs = inputs.map(|(topic, writer, in_place)| input(topic, &[(writer, tasks(in_place), in_place)]));
    let time = ServiceTime { inputs: inputs.to_vec(), outputs: vec![name("out")], columns: Default::default() };
    let topics = inputs.iter().map(|input| input.topic.clone()).collect();
    ServiceDef { inputs: topics, time: Some(time), ..timed("both", inputs[0].clone(), "out") }
}

fn two_sources() -> ServiceDef {
    both([("raw", "first", false), ("other", "second", false)])
}

/// Logs that outlive their runs.
fn again(log: Option<&Arc<MemoryLog>>, dir: &Path) -> Bed {
    match log {
        Some(log) => Bed::on(Arc::clone(log) as Arc<dyn Log>),
        None => Bed::on(Arc::new(EmbeddedLog::open(EmbeddedOptions::new(dir)).unwrap())),
    }
}

async fn end(bed: Bed) {
    bed.runner.stop_all(true).await;
    if bed.log.stopped().is_none() {
        bed.log.close().await.unwrap();
    }
}

async fn reads(handle: &Handle, events: u64) {
    until("all were read", async || handle.counts().events_in == events && handle.status().await.unwrap().lag == 0)
        .await;
}

/// It has concluded nothing that the first run did not promise, because of `producer`.
async fn waits_for(handle: &Handle, producer: &str) {
    let time = handle.status().await.unwrap().time.unwrap();
    let holder = time.held_back.map(|held| held.producer.to_string());
    assert!(time.watermark <= FIRST_RUN && holder.as_deref() == Some(producer), "{:?} {holder:?}", time.watermark);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_closed_is_waited_for_in_the_next_run() {
    let (memory, dir) = (Arc::new(MemoryLog::new()), tempfile::tempdir().unwrap());
    for log in [Some(&memory), None] {
        let bed = again(log, dir.path());
        topics(&bed, &["raw", "other", "out"]).await;
        let service = bed.runner.start_service(two_sources()).await.unwrap();
        bed.runner.start_source(bounded("first", "raw", 100)).await.unwrap();
        bed.runner.start_source(bounded("second", "other", 100)).await.unwrap();
        bed.drained().await;
        reaches(&service, Watermark::CLOSED).await;
        bed.runner.stop_all(true).await;
        if log.is_none() {
            bed.log.close().await.unwrap();
        }
        drop(bed);

        let bed = again(log, dir.path());
        let service = bed.runner.start_service(two_sources()).await.unwrap();
        let first = bed.runner.start_source(bounded("first", "raw", 200)).await.unwrap();
        until("the first source's end", async || first.finished()).await;
        reads(&service, 100).await;
        waits_for(&service, "second").await;
        // A task that starts again waits for it as well.
        service.inject(Injected::Panic);
        until("a new start", async || service.counts().restarts > 0 && service.state() == State::Running).await;
        waits_for(&service, "second").await;
        bed.runner.start_source(bounded("second", "other", 200)).await.unwrap();
        bed.drained().await;
        reaches(&service, Watermark::CLOSED).await;
        // And when all have closed in this run, nobody is waited for a second time.
        (0..3).for_each(|_| service.inject(Injected::Panic));
        until("new starts", async || service.counts().restarts > 3 && service.state() == State::Running).await;
        bed.drained().await;
        reaches(&service, Watermark::CLOSED).await;
        for (who, said) in found(bed.log.as_ref(), "out").await.said {
            let times: Vec<_> = said.iter().filter_map(|said| said.time()).collect();
            assert!(times.is_sorted() && said.last() == Some(&Watermark::CLOSED), "{who:?}: {said:?}");
        }
        if log.is_none() {
            end(bed).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_services_that_read_one_source_the_slower_is_waited_for_in_the_next_run() {
    let log = Arc::new(MemoryLog::new());
    let start = async |bed: &Bed| {
        let joined = bed.runner.start_service(both([("x", "one", true), ("y", "two", true)])).await.unwrap();
        let raw = || input("raw", &[("first", 1, false)]);
        bed.runner.start_service(timed("one", raw(), "x")).await.unwrap();
        (joined, bed.runner.start_service(timed("two", raw(), "y")).await.unwrap())
    };
    let bed = Bed::on(log.clone());
    topics(&bed, &["raw", "x", "y", "out"]).await;
    let (joined, _) = start(&bed).await;
    bed.runner.start_source(bounded("first", "raw", 100)).await.unwrap();
    bed.drained().await;
    reaches(&joined, Watermark::CLOSED).await;
    bed.runner.stop_all(true).await;

    let bed = Bed::on(log);
    bed.runner.pause_at_start([name("two")].into());
    let (joined, two) = start(&bed).await;
    let first = bed.runner.start_source(bounded("first", "raw", 200)).await.unwrap();
    until("the source's end", async || first.finished()).await;
    reads(&joined, 100).await;
    waits_for(&joined, "two").await;
    two.resume();
    bed.drained().await;
    reaches(&joined, Watermark::CLOSED).await;
    bed.runner.stop_all(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_of_a_former_run_that_a_source_closed_waits_for_it_all_the_same() {
    let log = Arc::new(MemoryLog::new());
    let bed = Bed::on(log.clone());
    topics(&bed, &["raw", "other", "out"]).await;
    bed.runner.pause_at_start([name("both")].into());
    let service = bed.runner.start_service(two_sources()).await.unwrap();
    let first = bed.runner.start_source(bounded("first", "raw", 100)).await.unwrap();
    let second = bed.runner.start_source(bounded("second", "other", 100)).await.unwrap();
    until("the sources' end", async || first.finished() && second.finished()).await;
    assert_eq!(service.counts().events_in, 0);
    bed.runner.stop_all(true).await;

    let bed = Bed::on(log);
    let service = bed.runner.start_service(two_sources()).await.unwrap();
    let first = bed.runner.start_source(bounded("first", "raw", 200)).await.unwrap();
    until("the first source's end", async || first.finished()).await;
    reads(&service, 300).await;
    waits_for(&service, "second").await;
    bed.runner.start_source(bounded("second", "other", 200)).await.unwrap();
    bed.drained().await;
    reaches(&service, Watermark::CLOSED).await;
    bed.runner.stop_all(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_end_of_a_drain_every_partition_knows_the_last_time() {
    for _ in 0..3 {
        let bed = Bed::new();
        topics(&bed, &["raw", "good", "better"]).await;
        bed.runner.start_service(timed("more", input("good", &[("pass", 3, true)]), "better")).await.unwrap();
        bed.runner.start_service(timed("pass", input("raw", &[("numbers", 1, false)]), "good")).await.unwrap();
        let (numbers, _) = endless(400);
        // One key: one of three partitions gets all events, the others are told of the time only.
        let made = |n: u64| json!({"k": "same", "n": n, "at": at(n)}).to_string();
        let source = bed.runner.start_source(source("numbers", numbers, ten_seconds(), made)).await.unwrap();
        until("all came in", async || source.counts().events_in == 400).await;
        source.stop().await;
        bed.drained().await;
        for topic in ["raw", "good", "better"] {
            let said = found(bed.log.as_ref(), topic).await.said;
            let last: Vec<_> = said.values().map(|said| said.last().copied()).collect();
            assert_eq!(last, [Some(Watermark(389 * SECOND)); 3], "{topic}: {said:?}");
        }
        bed.runner.stop_all(true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_of_which_all_events_are_refused_falls_idle() {
    let bed = Bed::new();
    topics(&bed, &["raw"]).await;
    let (numbers, count) = endless(20);
    let short = EventTimeDef { idle: Some(Duration::from_millis(400)), ..ten_seconds() };
    let made = |n: u64| if n < 20 { event(n, n) } else { json!({"k": "k1", "n": n}).to_string() };
    let source = bed.runner.start_source(source("numbers", numbers, short, made)).await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let feeding = tokio::spawn({
        let over = Arc::clone(&over);
        async move {
            while !over.load(Ordering::Acquire) {
                count.fetch_add(1, Ordering::AcqRel);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
    reaches(&source, Watermark::IDLE).await;
    over.store(true, Ordering::Release);
    feeding.await.unwrap();
    assert!(source.counts().dead_letters["event-time-null"] > 0);
    bed.runner.stop_all(true).await;
}

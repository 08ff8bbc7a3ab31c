//! Table topics: the newest row of each key is always there, what it superseded goes, and space is bounded.

use std::time::{Duration, Instant};

use millstream_event::{Offset, Watermark};

use super::kit::*;
use super::{End, Fixture};
use crate::{Append, Read, Retention, Task, TopicSpec};

/// Updates of few keys in one commit.
const ROWS: i64 = 500;
/// How many keys there are.
const KEYS: i64 = 50;
/// As many rows are left where compaction works, and many times as many were written.
const ROWS_LEFT_MAX: usize = 25_000;

/// The changes of a step: every key is updated some times, and one key in seven is gone at the end of it.
fn step_of(step: i64) -> Vec<(i64, Option<String>)> {
    let text = |i: i64| ((i + step) % 7 != 0).then(|| format!("step {step}, change {i}, some words more"));
    (0..ROWS).map(|i| (i % KEYS, text(i))).collect()
}

/// Makes the changes of some steps; what is in the table after them.
async fn update(f: &Fixture, task: &Task, contents: &mut Contents, steps: std::ops::Range<i64>) {
    for step in steps {
        put(&f.log, task, vec![], vec![changes("t", &step_of(step))]).await;
        change(contents, step_of(step));
    }
}

/// Updates until so few rows are left that compaction must have worked.
async fn until_compacted(f: &Fixture, task: &Task, contents: &mut Contents) {
    let begun = Instant::now();
    let (mut step, mut compacted) = (1000, 0);
    while compacted < 3 {
        assert!(begun.elapsed() < DEADLINE / 2, "superseded rows never go");
        f.clock.advance(Duration::from_millis(1));
        update(f, task, contents, step..step + 20).await;
        step += 20;
        let (found, rows) = whole_table(&f.log, "t").await.unwrap();
        assert_eq!(&found, contents);
        compacted += i64::from((rows as i64) < (step - 1000) * ROWS / 2);
    }
}

pub async fn a_table_keeps_the_newest_row_of_each_key(mut f: Fixture) {
    f.log.create_topic(table("t", &[])).await.unwrap();
    let mut contents = Contents::new();
    for round in 0..4 {
        let (_m, task) = one(&f.log, "s").await;
        put(&f.log, &task, vec![], vec![changes("t", &[(1000 + round, Some("kept for ever".into()))])]).await;
        contents.insert(1000 + round, "kept for ever".into());
        until_compacted(&f, &task, &mut contents).await;
        if !f.end(if round % 2 == 0 { End::Crash } else { End::Close }).await {
            return;
        }
        assert_eq!(whole_table(&f.log, "t").await.unwrap().0, contents);
    }
}

pub async fn a_table_under_endless_updates_stays_small(f: Fixture) {
    f.log.create_topic(table("t", &[])).await.unwrap();
    let (_m, task) = one(&f.log, "s").await;
    let mut contents = Contents::new();
    let begun = Instant::now();
    update(&f, &task, &mut contents, 0..300).await;
    loop {
        let (found, rows) = whole_table(&f.log, "t").await.unwrap();
        assert_eq!(found, contents);
        if rows <= ROWS_LEFT_MAX {
            return;
        }
        assert!(begun.elapsed() < DEADLINE / 2, "{rows} rows for {} keys", contents.len());
        update(&f, &task, &mut contents, 300..301).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub async fn a_reader_in_the_middle_of_a_table_goes_on(f: Fixture) {
    f.log.create_topic(table("t", &[])).await.unwrap();
    let (_m, task) = one(&f.log, "s").await;
    let mut contents = Contents::new();
    update(&f, &task, &mut contents, 0..10).await;
    let mut readers = Vec::new();
    for batches in [0, 1, 3, 1000] {
        let mut reader = f.log.read(&at("t", 0), Offset(0)).unwrap();
        let (mut seen, mut before) = (Contents::new(), 0);
        for _ in 0..batches {
            let Read::Batch(batch) = reader.next().await.unwrap() else { break };
            change(&mut seen, changes_of(&batch).into_iter().map(|(_, key, text)| (key, text)));
            before = batch.next().0;
        }
        readers.push((reader, seen, before));
    }
    for _ in 0..3 {
        until_compacted(&f, &task, &mut contents).await;
        // One that goes on a little each time, and those that go on at the end only.
        let (reader, seen, _) = &mut readers[1];
        if let Read::Batch(batch) = reader.next().await.unwrap() {
            change(seen, changes_of(&batch).into_iter().map(|(_, key, text)| (key, text)));
        }
    }
    for (mut reader, mut seen, before) in readers {
        read_table(&mut reader, &mut seen).await.unwrap();
        assert_eq!(seen, contents, "a reader that had read up to {before}");
    }
}

pub async fn the_newest_row_of_a_key_stays_whatever_its_age(f: Fixture) {
    let age = Some(Duration::from_secs(60));
    let retention = Retention { until_read: true, age, max_bytes: None };
    f.log.create_topic(TopicSpec { retention, ..table("t", &[]) }).await.unwrap();
    let (_m, task) = one(&f.log, "s").await;
    let mut contents = Contents::new();
    put(&f.log, &task, vec![], vec![changes("t", &[(-1, Some("old".into()))])]).await;
    contents.insert(-1, "old".into());
    for _ in 0..5 {
        f.clock.advance(Duration::from_secs(3600));
        until_compacted(&f, &task, &mut contents).await;
    }
    assert_eq!(f.log.start(&at("t", 0)).await.unwrap(), Offset(0));
}

/// The keys that are there as a tombstone.
async fn tombstones(f: &Fixture) -> Vec<i64> {
    let mut reader = f.log.read(&at("t", 0), Offset(0)).unwrap();
    let mut gone = Vec::new();
    while let Read::Batch(batch) = reader.next().await.unwrap() {
        gone.extend(changes_of(&batch).into_iter().filter(|(_, _, text)| text.is_none()).map(|(_, key, _)| key));
    }
    gone
}

pub async fn a_tombstone_goes_when_it_is_read_and_old(f: Fixture) {
    let hour = Duration::from_secs(3600);
    let retention = Retention { until_read: true, age: Some(hour), max_bytes: None };
    let spec = TopicSpec { retention, ..table("t", &["c"]) };
    f.log.create_topic(spec).await.unwrap();
    let (_m, task) = one(&f.log, "s").await;
    let (_n, consumer) = one(&f.log, "c").await;
    let mut contents = Contents::new();
    put(&f.log, &task, vec![], vec![changes("t", &[(-1, Some("here".into())), (-1, None)])]).await;
    // Old, and not read.
    f.clock.advance(2 * hour);
    until_compacted(&f, &task, &mut contents).await;
    assert!(tombstones(&f).await.contains(&-1), "a consumer has not seen it");
    let read = end(&f.log, "t", 0).await;
    put(&f.log, &consumer, vec![consumed("t", None, read)], vec![]).await;
    f.clock.advance(2 * hour);
    put(&f.log, &task, vec![], vec![changes("t", &[(-2, None)])]).await;
    let to = end(&f.log, "t", 0).await;
    put(&f.log, &consumer, vec![consumed("t", Some(read), to)], vec![]).await;
    // Read; one is old and one is not.
    let begun = Instant::now();
    while tombstones(&f).await.contains(&-1) {
        assert!(begun.elapsed() < DEADLINE / 2, "a tombstone that everybody has read never goes");
        until_compacted(&f, &task, &mut contents).await;
    }
    assert!(tombstones(&f).await.contains(&-2), "it is not old yet");
}

pub async fn who_has_seen_a_row_sees_that_it_is_gone(f: Fixture) {
    f.log.create_topic(table("t", &[])).await.unwrap();
    let (_m, task) = one(&f.log, "s").await;
    let mut contents = Contents::new();
    put(&f.log, &task, vec![], vec![changes("t", &[(-1, Some("here".into()))])]).await;
    let mut reader = f.log.read(&at("t", 0), Offset(0)).unwrap();
    let mut seen = Contents::new();
    let Read::Batch(batch) = reader.next().await.unwrap() else { panic!("the row is there") };
    change(&mut seen, changes_of(&batch).into_iter().map(|(_, key, text)| (key, text)));
    assert!(seen.contains_key(&-1));
    put(&f.log, &task, vec![], vec![changes("t", &[(-1, None)])]).await;
    for _ in 0..4 {
        until_compacted(&f, &task, &mut contents).await;
    }
    read_table(&mut reader, &mut seen).await.unwrap();
    assert_eq!(seen, contents);
    drop(reader);
    let begun = Instant::now();
    while tombstones(&f).await.contains(&-1) {
        assert!(begun.elapsed() < DEADLINE / 2, "nobody is left who must see it");
        until_compacted(&f, &task, &mut contents).await;
    }
}

pub async fn promises_in_a_table_are_kept(mut f: Fixture) {
    f.log.create_topic(table("t", &[])).await.unwrap();
    let mut contents = Contents::new();
    for how in [End::Close, End::Crash] {
        let (_m, other) = one(&f.log, "other").await;
        let (_n, task) = one(&f.log, "s").await;
        let promise = Append { watermark: Some(Watermark(7)), ..changes("t", &[(1, Some("x".into()))]) };
        put(&f.log, &other, vec![], vec![promise]).await;
        contents.insert(1, "x".into());
        until_compacted(&f, &task, &mut contents).await;
        for from in [0, end(&f.log, "t", 0).await] {
            let mut reader = f.log.read(&at("t", 0), Offset(from)).unwrap();
            let mut marks = Vec::new();
            while let Read::Batch(batch) = reader.next().await.unwrap() {
                marks.extend(batch.marks.iter().cloned());
            }
            assert_eq!(marks.last(), Some(&mark(&other, 7)));
        }
        if how == End::Crash || !f.end(how).await {
            return;
        }
    }
}

pub async fn a_trimmed_table_forgets_what_was_before(mut f: Fixture) {
    f.log.create_topic(table("t", &[])).await.unwrap();
    let (_m, task) = one(&f.log, "s").await;
    let mut contents = Contents::new();
    update(&f, &task, &mut contents, 0..3).await;
    let before = end(&f.log, "t", 0).await;
    put(&f.log, &task, vec![], vec![changes("t", &[(2000, Some("after".into()))])]).await;
    f.log.trim(&at("t", 0), Offset(before)).await.unwrap();
    let after = Contents::from([(2000, "after".to_owned())]);
    assert_eq!(whole_table(&f.log, "t").await.unwrap(), (after.clone(), 1));
    if f.end(End::Crash).await {
        assert_eq!(whole_table(&f.log, "t").await.unwrap(), (after.clone(), 1));
    }
    let (_m, task) = one(&f.log, "s").await;
    let mut contents = after;
    until_compacted(&f, &task, &mut contents).await;
    assert_eq!(contents.get(&2000).map(String::as_str), Some("after"));
}

//! Marks: what each producer promised reaches every reader, behind its rows, and is never forgotten.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_event::{Mark, Offset, Watermark};

use super::kit::*;
use super::{End, Fixture};
use crate::{Append, Error, Read, Reader, Retention, Task, TopicSpec};

/// How many commits each producer makes: enough for a log to settle some of them.
const STEPS: i64 = 60;

/// The last promise of each producer, by service and partition.
type Told = BTreeMap<(String, u32), i64>;

/// What a task appends in a step: some rows that name it and the step, or none; and a promise of that step, or none.
fn step_of(task: &Task, step: i64) -> Option<Append> {
    let who = 10 * i64::from(task.id.partition.0) + i64::from(task.id.service.as_str() == "q");
    let number = who * 1_000_000 + step * 100;
    let numbers: Vec<i64> = (0..(step * 7 + who) % 40).map(|row| number + row).collect();
    let watermark = ((step + who) % 3 != 1).then_some(Watermark(step));
    let nothing = numbers.is_empty() && watermark.is_none();
    (!nothing).then(|| Append { watermark, ..append("a", 0, &numbers) })
}

fn who(mark: &Mark) -> (String, u32) {
    (mark.producer.name.to_string(), mark.producer.partition.0)
}

/// Reads to the end: what was told last; checks that no promise stands before its producer's rows.
async fn told(mut reader: Box<dyn Reader>) -> Told {
    let (mut told, mut seen) = (Told::new(), BTreeMap::<(String, u32), i64>::new());
    loop {
        match reader.next().await.unwrap() {
            Read::Batch(batch) => {
                for number in numbers(&batch.rows) {
                    let who = number / 1_000_000;
                    let name = if who % 10 == 1 { "q" } else { "p" };
                    let key = (name.to_owned(), (who / 10) as u32);
                    let step = number % 1_000_000 / 100;
                    assert!(told.get(&key).is_none_or(|watermark| *watermark < step), "a promise before its rows");
                    seen.insert(key, step);
                }
                let mut of_batch = Told::new();
                for mark in batch.marks.iter() {
                    assert!(of_batch.insert(who(mark), mark.watermark.0).is_none(), "two marks of one producer");
                }
                told.extend(of_batch);
            }
            Read::AtEnd { .. } => return told,
        }
    }
}

/// Several producers append by turns; their last promises.
async fn produce(f: &Fixture, steps: std::ops::Range<i64>) -> Told {
    let (_m, p) = service(&f.log, "p", 3).await;
    let (_n, q) = service(&f.log, "q", 2).await;
    let mut last = Told::new();
    for step in steps {
        for task in p.iter().chain(&q) {
            let Some(append) = step_of(task, step) else { continue };
            if let Some(watermark) = append.watermark {
                last.insert((task.id.service.to_string(), task.id.partition.0), watermark.0);
            }
            put(&f.log, task, vec![], vec![append]).await;
        }
    }
    last
}

pub async fn marks_name_their_producer_and_stand_behind_its_rows(mut f: Fixture) {
    topic(&f.log, "a", 1).await;
    let live = f.log.read(&at("a", 0), Offset(0)).unwrap();
    let want = produce(&f, 0..STEPS).await;
    assert_eq!(want.len(), 5);
    assert_eq!(told(live).await, want);
    for how in [End::Crash, End::Close, End::Crash] {
        assert_eq!(told(f.log.read(&at("a", 0), Offset(0)).unwrap()).await, want);
        if !f.end(how).await {
            return;
        }
    }
    let want = produce(&f, STEPS..2 * STEPS).await;
    assert_eq!(told(f.log.read(&at("a", 0), Offset(0)).unwrap()).await, want);
}

pub async fn a_reader_first_learns_what_was_promised_before_its_beginning(f: Fixture) {
    topic(&f.log, "a", 1).await;
    let want = produce(&f, 0..STEPS).await;
    let to = end(&f.log, "a", 0).await;
    for from in (0..to).step_by(97).chain([to]) {
        assert_eq!(told(f.log.read(&at("a", 0), Offset(from)).unwrap()).await, want, "from {from}");
    }
    let mut reader = f.log.read(&at("a", 0), Offset(to)).unwrap();
    let Read::Batch(batch) = reader.next().await.unwrap() else { panic!("no promises") };
    assert_eq!((batch.rows.num_rows(), batch.base, batch.next()), (0, Offset(to), Offset(to)));
    assert!(matches!(reader.next().await.unwrap(), Read::AtEnd { next } if next.0 == to), "they are told once");
}

async fn marks_from_start(f: &Fixture) -> Result<Told, Error> {
    let start = f.log.start(&at("a", 0)).await?;
    let mut reader = f.log.read(&at("a", 0), start)?;
    let mut seen = Told::new();
    while let Read::Batch(batch) = reader.next().await? {
        seen.extend(batch.marks.iter().map(|mark| (who(mark), mark.watermark.0)));
    }
    Ok(seen)
}

pub async fn promises_outlive_the_events_that_they_came_with(mut f: Fixture) {
    topic(&f.log, "a", 1).await;
    let want = produce(&f, 0..STEPS).await;
    f.log.trim(&at("a", 0), Offset(u64::MAX)).await.unwrap();
    let start = f.log.start(&at("a", 0)).await.unwrap();
    assert_eq!(told(f.log.read(&at("a", 0), start).unwrap()).await, want);
    // The same for what goes by its age.
    let retention = Retention { until_read: true, age: Some(Duration::from_secs(60)), max_bytes: None };
    f.log.create_topic(TopicSpec { retention, ..spec("a", 1) }).await.unwrap();
    let want = produce(&f, STEPS..2 * STEPS).await;
    let (_m, other) = one(&f.log, "other").await;
    for _ in 0..40 {
        f.clock.advance(Duration::from_secs(3600));
        put(&f.log, &other, vec![], vec![append("a", 0, &[999_999])]).await;
    }
    for how in [End::Close, End::Crash] {
        let seen = loop {
            match marks_from_start(&f).await {
                Ok(seen) => break seen,
                // Events go in the background, perhaps just now.
                Err(Error::OutOfRange { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(seen, want);
        if !f.end(how).await {
            return;
        }
    }
}

pub async fn a_reader_beyond_the_end_learns_promises_when_the_log_is_there(f: Fixture) {
    topic(&f.log, "a", 1).await;
    let (_m, task) = one(&f.log, "p").await;
    let mut reader = f.log.read(&at("a", 0), Offset(2)).unwrap();
    assert!(matches!(reader.next().await.unwrap(), Read::AtEnd { .. }));
    let promise = Append { watermark: Some(Watermark(5)), ..append("a", 0, &[1]) };
    put(&f.log, &task, vec![], vec![promise]).await;
    put(&f.log, &task, vec![], vec![append("a", 0, &[2, 3, 4])]).await;
    let mut marks = Vec::new();
    while let Read::Batch(batch) = reader.next().await.unwrap() {
        assert!(batch.base >= Offset(2));
        marks.extend(batch.marks.iter().cloned());
    }
    assert_eq!(marks, [mark(&task, 5)]);
}

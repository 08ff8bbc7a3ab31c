//! Rule 1 and 7: a commit is all or nothing, `from` is checked, positions are offsets or opaque bytes.

use bytes::Bytes;
use millstream_event::{Offset, PartitionId, Watermark};

use super::kit::*;
use super::{End, Fixture};
use crate::{Append, Consumed, Position, Read};

pub async fn a_commit_is_whole_over_topics_and_positions(f: Fixture) {
    topic(&f.log, "a", 2).await;
    topic(&f.log, "b", 1).await;
    let (_m, task) = one(&f.log, "s").await;
    let appends = vec![append("a", 0, &[1, 2]), append("a", 1, &[3]), append("b", 0, &[4]), append("a", 0, &[5])];
    let offsets = put(&f.log, &task, vec![consumed("in", None, 7), consumed("in2", None, 9)], appends).await;
    if offsets.len() == 4 {
        assert!(offsets[0] < offsets[3], "two appends to one partition keep their order");
    }
    assert_eq!(all(&f.log, "a", 0).await, [1, 2, 5]);
    assert_eq!(all(&f.log, "a", 1).await, [3]);
    assert_eq!(all(&f.log, "b", 0).await, [4]);
    assert_eq!(offset(&f.log, &task, "in").await, Some(7));
    assert_eq!(offset(&f.log, &task, "in2").await, Some(9));
}

pub async fn a_refused_commit_leaves_nothing(f: Fixture) {
    topic(&f.log, "a", 1).await;
    let (_m, task) = one(&f.log, "s").await;
    let bad = commit(&task, vec![consumed("in", None, 7)], vec![append("a", 0, &[1]), append("a", 9, &[2])]);
    let why = refused(f.log.commit(bad)).await;
    assert!(why.contains("a/9"), "{why}");
    let task = f.log.restart(&task).await.unwrap().unwrap();
    let bad = commit(&task, vec![consumed("in", None, 7)], vec![append("a", 0, &[1]), append("nowhere", 0, &[2])]);
    let why = refused(f.log.commit(bad)).await;
    assert!(why.contains("nowhere"), "{why}");
    assert!(all(&f.log, "a", 0).await.is_empty());
    assert_eq!(position(&f.log, &task, "in").await, None);
    let task = f.log.restart(&task).await.unwrap().unwrap();
    put(&f.log, &task, vec![consumed("in", None, 7)], vec![append("a", 0, &[1])]).await;
    assert_eq!(all(&f.log, "a", 0).await, [1]);
}

pub async fn a_wrong_from_is_refused(f: Fixture) {
    topic(&f.log, "a", 1).await;
    let (_m, mut task) = one(&f.log, "s").await;
    put(&f.log, &task, vec![consumed("in", None, 5)], vec![append("a", 0, &[1])]).await;
    for from in [None, Some(4), Some(6)] {
        let bad = commit(&task, vec![consumed("in", from, 8)], vec![append("a", 0, &[2])]);
        refused(f.log.commit(bad)).await;
        assert_eq!(offset(&f.log, &task, "in").await, Some(5));
        task = f.log.restart(&task).await.unwrap().unwrap();
    }
    let never = commit(&task, vec![consumed("other", Some(0), 1)], vec![]);
    refused(f.log.commit(never)).await;
    let task = f.log.restart(&task).await.unwrap().unwrap();
    put(&f.log, &task, vec![consumed("in", Some(5), 6)], vec![append("a", 0, &[3])]).await;
    assert_eq!(all(&f.log, "a", 0).await, [1, 3]);
}

pub async fn from_follows_commits_on_their_way(f: Fixture) {
    topic(&f.log, "a", 1).await;
    let (_m, task) = one(&f.log, "s").await;
    let commits = (0..50u64).map(|i| {
        let from = (i > 0).then_some(i);
        f.log.commit(commit(&task, vec![consumed("in", from, i + 1)], vec![append("a", 0, &[i as i64])]))
    });
    for pending in commits.collect::<Vec<_>>() {
        ok(pending).await;
    }
    assert_eq!(all(&f.log, "a", 0).await, (0..50).collect::<Vec<_>>());
    assert_eq!(offset(&f.log, &task, "in").await, Some(50));
}

pub async fn runs_of_one_input_follow_each_other(f: Fixture) {
    let (_m, task) = one(&f.log, "s").await;
    let runs = vec![consumed("x", None, 3), consumed("y", None, 2), consumed("x", Some(3), 5)];
    put(&f.log, &task, runs, vec![]).await;
    assert_eq!(offset(&f.log, &task, "x").await, Some(5));
    assert_eq!(offset(&f.log, &task, "y").await, Some(2));
    refused(f.log.commit(commit(&task, vec![consumed("x", Some(5), 6), consumed("x", Some(5), 7)], vec![]))).await;
    assert_eq!(offset(&f.log, &task, "x").await, Some(5));
}

pub async fn positions_alone_can_be_committed(f: Fixture) {
    let (_m, task) = one(&f.log, "s").await;
    put(&f.log, &task, vec![consumed("in", None, 1)], vec![]).await;
    put(&f.log, &task, vec![consumed("in", Some(1), 2)], vec![]).await;
    assert_eq!(offset(&f.log, &task, "in").await, Some(2));
    assert_eq!(position(&f.log, &task, "other").await, None);
}

pub async fn nothing_at_all_can_be_committed(f: Fixture) {
    let (_m, task) = one(&f.log, "s").await;
    assert_eq!(put(&f.log, &task, vec![], vec![]).await, []);
}

pub async fn an_opaque_position_reads_back_and_has_a_limit(f: Fixture) {
    let (_m, task) = one(&f.log, "s").await;
    let opaque = |len: usize| Position::Opaque(Bytes::from(vec![7u8; len]));
    let step = |from: Option<Position>, to| vec![Consumed { input: name("files"), from, to }];
    put(&f.log, &task, step(None, opaque(0)), vec![]).await;
    put(&f.log, &task, step(Some(opaque(0)), opaque(Position::OPAQUE_BYTES_MAX)), vec![]).await;
    assert_eq!(position(&f.log, &task, "files").await, Some(opaque(Position::OPAQUE_BYTES_MAX)));
    let too_long = step(Some(opaque(Position::OPAQUE_BYTES_MAX)), opaque(Position::OPAQUE_BYTES_MAX + 1));
    let why = refused(f.log.commit(commit(&task, too_long, vec![]))).await;
    assert!(why.contains("3072"), "{why}");
    assert_eq!(position(&f.log, &task, "files").await, Some(opaque(Position::OPAQUE_BYTES_MAX)));
}

pub async fn a_watermark_alone_can_be_appended(f: Fixture) {
    topic(&f.log, "a", 1).await;
    let (_m, task) = one(&f.log, "s").await;
    let mut reader = f.log.read(&at("a", 0), Offset(0)).unwrap();
    put(&f.log, &task, vec![], vec![append("a", 0, &[1])]).await;
    assert_eq!(to_end(&mut reader).await.unwrap().0, [(0, 1)]);
    let alone = Append { watermark: Some(Watermark(99)), ..append("a", 0, &[]) };
    put(&f.log, &task, vec![], vec![alone]).await;
    put(&f.log, &task, vec![], vec![append("a", 0, &[2])]).await;
    let Read::Batch(batch) = reader.next().await.unwrap() else { panic!("the watermark never came") };
    assert_eq!((batch.rows.num_rows(), &*batch.marks), (0, &[mark(&task, 99)][..]));
    let (seen, next) = to_end(&mut reader).await.unwrap();
    assert_eq!(seen.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [2]);
    assert_eq!(next.0, end(&f.log, "a", 0).await);
}

pub async fn a_watermark_travels_with_its_events(f: Fixture) {
    topic(&f.log, "a", 1).await;
    let (_m, task) = one(&f.log, "s").await;
    let with = Append { watermark: Some(Watermark(-5)), ..append("a", 0, &[1, 2]) };
    put(&f.log, &task, vec![], vec![with]).await;
    let mut reader = f.log.read(&at("a", 0), Offset(0)).unwrap();
    let Read::Batch(batch) = reader.next().await.unwrap() else { panic!("no batch") };
    assert_eq!((numbers(&batch.rows), &*batch.marks), (vec![1, 2], &[mark(&task, -5)][..]));
}

pub async fn rows_that_do_not_fit_the_topic_are_refused(f: Fixture) {
    topic(&f.log, "a", 1).await;
    let (_m, mut task) = one(&f.log, "s").await;
    let fewer = Append { rows: rows(&[1]).project(&[0, 1]).unwrap(), ..append("a", 0, &[]) };
    let swapped = Append { rows: rows(&[1]).project(&[1, 0, 2]).unwrap(), ..append("a", 0, &[]) };
    let empty = append("a", 0, &[]);
    let version = Append { schema_version: 2, ..append("a", 0, &[1]) };
    let zeroth = Append { schema_version: 0, ..append("a", 0, &[1]) };
    let partition = Append { partition: PartitionId(u32::MAX), ..append("a", 0, &[1]) };
    for bad in [fewer, swapped, empty, version, zeroth, partition] {
        refused(f.log.commit(commit(&task, vec![], vec![bad]))).await;
        task = f.log.restart(&task).await.unwrap().unwrap();
    }
    assert_eq!(end(&f.log, "a", 0).await, 0);
}

pub async fn a_big_commit_over_many_partitions_is_whole(f: Fixture) {
    topic(&f.log, "a", 64).await;
    let (_m, task) = one(&f.log, "s").await;
    let numbers: Vec<i64> = (0..5_000).collect();
    let appends = (0..64).map(|p| append("a", p, &numbers)).collect();
    put(&f.log, &task, vec![], appends).await;
    for partition in 0..64 {
        assert_eq!(all(&f.log, "a", partition).await, numbers);
    }
}

pub async fn a_position_may_go_back_with_what_the_commit_appends(mut f: Fixture) {
    topic(&f.log, "a", 1).await;
    topic(&f.log, "in", 1).await;
    let (_m, task) = one(&f.log, "s").await;
    put(&f.log, &task, vec![], vec![append("in", 0, &[1, 2, 3])]).await;
    put(&f.log, &task, vec![consumed("in", None, 3)], vec![append("a", 0, &[1])]).await;
    let opaque = |text: &'static str| Position::Opaque(Bytes::from_static(text.as_bytes()));
    let note =
        |from: Option<&'static str>, to| Consumed { input: name("__note"), from: from.map(opaque), to: opaque(to) };
    put(&f.log, &task, vec![consumed("in", Some(3), 1), note(None, "3")], vec![append("a", 0, &[2])]).await;
    assert_eq!(offset(&f.log, &task, "in").await, Some(1));
    let reopened = f.end(End::Crash).await;
    let (_m, task) = match reopened {
        true => one(&f.log, "s").await,
        false => (_m, task),
    };
    assert_eq!(offset(&f.log, &task, "in").await, Some(1));
    assert_eq!(position(&f.log, &task, "__note").await, Some(opaque("3")));
    assert_eq!(all_from(&f.log, "in", 0, 1).await.len(), 2, "it is read again");
    put(&f.log, &task, vec![consumed("in", Some(1), 3), note(Some("3"), "")], vec![append("a", 0, &[3])]).await;
    assert_eq!(all(&f.log, "a", 0).await, [1, 2, 3]);
    assert_eq!(offset(&f.log, &task, "in").await, Some(3));
}

//! Topics and how they may change.

use millstream_event::{Column, ColumnType, Offset, Schema};

use super::kit::*;
use super::{End, Fixture};
use crate::{Append, Error, Read, Retention, TopicSpec};

/// `n`, `s` and a third column.
pub fn wider(topic: &str, partitions: u32, extra: Column) -> TopicSpec {
    let columns = schema().columns().iter().cloned().chain([extra]).collect();
    TopicSpec { schema: Schema::new(columns).unwrap(), ..spec(topic, partitions) }
}

pub async fn creating_a_topic_again_changes_nothing(f: Fixture) {
    let first = f.log.create_topic(spec("b", 2)).await.unwrap();
    topic(&f.log, "a", 1).await;
    let (_m, task) = one(&f.log, "s").await;
    put(&f.log, &task, vec![], vec![append("b", 1, &[1])]).await;
    assert_eq!(f.log.create_topic(spec("b", 2)).await.unwrap(), first);
    assert_eq!(all(&f.log, "b", 1).await, [1]);
    let names: Vec<_> = f.log.topics().iter().map(|info| info.spec.name.to_string()).collect();
    assert_eq!(names, ["a", "b"]);
    let other = Retention { age: Some(std::time::Duration::from_secs(9)), ..spec("b", 2).retention };
    let consumers = vec![name("s")];
    let changed = TopicSpec { retention: other.clone(), consumers: consumers.clone(), ..spec("b", 2) };
    let info = f.log.create_topic(changed).await.unwrap();
    assert_eq!((info.schema_version, info.spec.retention, info.spec.consumers), (1, other, consumers));
}

pub async fn an_incompatible_topic_is_refused_with_both_definitions(f: Fixture) {
    topic(&f.log, "a", 2).await;
    let narrower = Schema::new(vec![Column::required("n", ColumnType::Int)]).unwrap();
    for (bad, part) in [
        (spec("a", 3), "3"),
        (TopicSpec { key: vec!["n".into()], ..spec("a", 2) }, "n"),
        (TopicSpec { schema: narrower, ..spec("a", 2) }, "n: int!"),
        (wider("a", 2, Column::required("x", ColumnType::Int)), "x: int!"),
    ] {
        let error = f.log.create_topic(bad).await.unwrap_err();
        assert!(matches!(error, Error::Incompatible { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(f.log.topic(&name("a")).unwrap().spec, spec("a", 2));
}

pub async fn a_column_added_is_null_in_old_events(mut f: Fixture) {
    topic(&f.log, "a", 1).await;
    let (member, task) = one(&f.log, "s").await;
    let mut live = f.log.read(&at("a", 0), Offset(0)).unwrap();
    put(&f.log, &task, vec![], vec![append("a", 0, &[1, 2])]).await;
    to_end(&mut live).await.unwrap();
    let info = f.log.create_topic(wider("a", 1, Column::nullable("x", ColumnType::Double))).await.unwrap();
    assert_eq!(info.schema_version, 2);
    let new = |n: i64| {
        let old = crate::upgrade(&rows(&[n]), &info.spec.schema).unwrap();
        Append { schema_version: 2, rows: old, ..append("a", 0, &[]) }
    };
    put(&f.log, &task, vec![], vec![new(3)]).await;
    // A producer that has not heard of the change goes on with the old columns.
    put(&f.log, &task, vec![], vec![append("a", 0, &[4])]).await;
    drop((member, live));
    for _ in 0..2 {
        let mut reader = f.log.read(&at("a", 0), Offset(0)).unwrap();
        let mut seen = Vec::new();
        while let Read::Batch(batch) = reader.next().await.unwrap() {
            assert_eq!(batch.rows.schema_ref().fields(), info.spec.schema.physical().fields());
            assert_eq!(batch.schema_version, 2);
            assert_eq!(batch.rows.column_by_name("x").unwrap().null_count(), batch.rows.num_rows());
            seen.extend(numbers(&batch.rows));
        }
        assert_eq!(seen, [1, 2, 3, 4]);
        drop(reader);
        f.end(End::Crash).await;
    }
}

pub async fn a_topic_without_partitions_is_refused(f: Fixture) {
    assert!(matches!(f.log.create_topic(spec("a", 0)).await, Err(Error::Refused(_))));
    assert!(f.log.topics().is_empty());
}

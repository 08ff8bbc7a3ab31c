//! How a topic's definition may change, and how events written before the change are read after it.
//!
//! Readers get all events with the topic's newest columns; a column that an event did not have is null.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, new_null_array};
use millstream_event::{Column, Schema};

use crate::{Error, TopicSpec};

/// What a second definition of a topic asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecChange {
    /// It stands so already.
    None,
    /// Another retention or other consumers.
    Settings,
    /// Columns added that may be null (and perhaps settings): the schema gets a new version.
    Columns,
}

/// Decides whether the topic `old` may become `new`: the same partitions, key and kind, and all old columns unchanged
/// and in their order; new columns may be null and may stand anywhere.
pub fn spec_change(old: &TopicSpec, new: &TopicSpec) -> Result<SpecChange, Error> {
    let refuse = |what: &str, old_text: String, new_text: String| {
        let why = format!("{what} cannot be changed; it is `{old_text}`, asked for is `{new_text}`");
        Err(Error::Incompatible { topic: new.name.clone(), why })
    };
    if old.partitions != new.partitions {
        return refuse("the number of partitions", old.partitions.to_string(), new.partitions.to_string());
    }
    if old.key != new.key {
        return refuse("the key", old.key.join(", "), new.key.join(", "));
    }
    if old.kind != new.kind {
        return refuse("the kind", format!("{:?}", old.kind), format!("{:?}", new.kind));
    }
    if old.schema != new.schema {
        if !extends(&old.schema, &new.schema) {
            let what = "a schema may only gain columns that may be null; this one";
            return refuse(what, old.schema.to_string(), new.schema.to_string());
        }
        return Ok(SpecChange::Columns);
    }
    Ok(if old == new { SpecChange::None } else { SpecChange::Settings })
}

/// The definition to ask a log for whose topic stands as `old`: `new`, with the columns that `old` has besides. A change
/// that was taken back, or did not come to its end, leaves such columns; who was planned without them does not see them.
/// `new` as it is where `old` lacks nothing of it, or where they cannot be brought together: [`spec_change`] says why.
pub fn keeping(old: &TopicSpec, mut new: TopicSpec) -> TopicSpec {
    let (had, wanted) = (old.schema.columns(), new.schema.columns());
    let missing = |c: &&Column| new.schema.column(&c.name).is_none();
    let known = |c: &&Column| old.schema.column(&c.name).is_some();
    let fit = had.iter().filter(|c| !missing(c)).eq(wanted.iter().filter(known));
    if !fit || !had.iter().any(|c| missing(&c)) || had.iter().filter(missing).any(|c| !c.nullable) {
        return new;
    }
    let all = had.iter().chain(wanted.iter().filter(|c| !known(c))).cloned().collect();
    if let Ok(schema) = Schema::new(all) {
        new.schema = schema;
    }
    new
}

fn extends(old: &Schema, new: &Schema) -> bool {
    let kept = new.columns().iter().filter(|c| old.column(&c.name).is_some());
    let added = new.columns().iter().filter(|c| old.column(&c.name).is_none());
    kept.eq(old.columns()) && added.into_iter().all(|c| c.nullable)
}

/// Gives events written with the schema `old` the columns of the newer schema `new`.
pub fn upgrade(rows: &RecordBatch, new: &Schema) -> Result<RecordBatch, Error> {
    let len = rows.num_rows();
    let column = |field: &arrow_schema::FieldRef| -> ArrayRef {
        let old = rows.column_by_name(field.name()).cloned();
        old.unwrap_or_else(|| new_null_array(field.data_type(), len))
    };
    let columns = new.physical().fields().iter().map(column).collect();
    RecordBatch::try_new(Arc::clone(new.physical()), columns).map_err(|e| Error::Refused(e.to_string()))
}

/// Refuses rows that do not have the physical columns of `schema`.
pub fn check_rows(rows: &RecordBatch, schema: &Schema) -> Result<(), String> {
    let (have, want) = (rows.schema_ref(), schema.physical());
    if Arc::ptr_eq(have, want) {
        return Ok(());
    }
    if have.fields().len() != want.fields().len() {
        return Err(format!("the rows have {} columns, the topic has {}", have.fields().len(), want.fields().len()));
    }
    for ((have, want), values) in have.fields().iter().zip(want.fields()).zip(rows.columns()) {
        if have.name() != want.name() || have.data_type() != want.data_type() {
            let (have_type, want_type) = (have.data_type(), want.data_type());
            return Err(format!(
                "the rows have a column `{}` ({have_type}) where the topic has `{}` ({want_type})",
                have.name(),
                want.name(),
            ));
        }
        if !want.is_nullable() && values.null_count() > 0 {
            return Err(format!("column `{}` must have a value", want.name()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use millstream_event::{ColumnType, Name};

    use super::*;
    use crate::{Retention, TopicKind};

    fn spec(columns: &[(&str, &str)]) -> TopicSpec {
        let columns = columns.iter().map(|(name, kind)| Column::parse(*name, kind).unwrap()).collect();
        TopicSpec {
            name: Name::new("t").unwrap(),
            partitions: 2,
            key: vec!["a".into()],
            schema: Schema::new(columns).unwrap(),
            kind: TopicKind::Stream,
            retention: Retention::default(),
            consumers: Vec::new(),
        }
    }

    #[test]
    fn only_columns_that_may_be_null_can_be_added() {
        let old = spec(&[("a", "int!"), ("b", "string")]);
        assert_eq!(spec_change(&old, &old.clone()).unwrap(), SpecChange::None);
        let wider = spec(&[("a", "int!"), ("c", "double"), ("b", "string")]);
        assert_eq!(spec_change(&old, &wider).unwrap(), SpecChange::Columns);
        for bad in [
            spec(&[("a", "int!"), ("b", "string"), ("c", "double!")]),
            spec(&[("a", "int!")]),
            spec(&[("a", "bigint!"), ("b", "string")]),
            spec(&[("b", "string"), ("a", "int!")]),
            TopicSpec { partitions: 3, ..old.clone() },
            TopicSpec { key: vec![], ..old.clone() },
            TopicSpec { kind: TopicKind::Table, ..old.clone() },
        ] {
            let error = spec_change(&old, &bad).unwrap_err().to_string();
            assert!(error.contains("cannot be changed") && error.contains("asked for is"), "{error}");
        }
        let other = TopicSpec { consumers: vec![Name::new("s").unwrap()], ..old.clone() };
        assert_eq!(spec_change(&old, &other).unwrap(), SpecChange::Settings);
    }

    #[test]
    fn columns_that_a_topic_has_besides_are_kept() {
        let planned = spec(&[("a", "int!"), ("b", "string")]);
        let kept = |had: &[(&str, &str)], planned: &TopicSpec| keeping(&spec(had), planned.clone()).schema.to_string();
        let wider = [("n", "string"), ("a", "int!"), ("b", "string")];
        assert_eq!(kept(&wider, &planned), "n: string, a: int!, b: string");
        assert_eq!(spec_change(&spec(&wider), &keeping(&spec(&wider), planned.clone())).unwrap(), SpecChange::None);
        // Beside a column of its own that is new.
        let other = spec(&[("a", "int!"), ("o", "double"), ("b", "string")]);
        assert_eq!(kept(&wider, &other), "n: string, a: int!, b: string, o: double");
        // Where nothing is missing, or it does not fit, it is asked for as it stands.
        for had in [
            &[("a", "int!")] as &[_],
            &[("a", "int!"), ("b", "string")],
            &[("n", "string!"), ("a", "int!"), ("b", "string")],
            &[("n", "string"), ("a", "bigint!"), ("b", "string")],
            &[("n", "string"), ("b", "string"), ("a", "int!")],
        ] {
            assert_eq!(kept(had, &planned), planned.schema.to_string());
        }
    }

    #[test]
    fn an_old_event_has_null_in_a_new_column() {
        let old = spec(&[("a", "int!")]).schema;
        let new = Schema::new(vec![Column::nullable("n", ColumnType::String), Column::required("a", ColumnType::Int)])
            .unwrap();
        let rows = RecordBatch::try_new(
            old.physical().clone(),
            vec![
                Arc::new(arrow_array::Int32Array::from(vec![1, 2])),
                Arc::new(arrow_array::TimestampMicrosecondArray::from(vec![0, 0]).with_timezone("+00:00")),
            ],
        )
        .unwrap();
        check_rows(&rows, &old).unwrap();
        assert!(check_rows(&rows, &new).is_err());
        let upgraded = upgrade(&rows, &new).unwrap();
        check_rows(&upgraded, &new).unwrap();
        assert_eq!(upgraded.column(0).null_count(), 2);
        assert_eq!(upgraded.column(1), rows.column(0));
    }
}

//! State that is kept in the log: the changelog, the table topic `<service>.state`.
//!
//! The newest value of each key is enough, so compaction of the topic is the snapshot. What a batch changes is appended
//! in the commit of that batch. The first row of a changelog, with the empty key, names the form of the state.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, BinaryArray, RecordBatch, TimestampMicrosecondArray};
use arrow_select::concat::concat;
use millstream_event::{Batch, Column, ColumnType, Name, NameError, Schema, SchemaError, Stamp, TopicPartition};
use millstream_flow::ChangeRows;
use millstream_log::{Append, Read, Retention, TopicInfo, TopicKind, TopicSpec};

use super::other_form;
use crate::program::Program;
use crate::task::{Context, Fault};

/// The name of a service's changelog.
pub fn topic_name(service: &Name) -> Result<Name, NameError> {
    Name::new(format!("{service}.state"))
}

/// The definition of a service's changelog, for inputs of `partitions` partitions.
pub fn topic(service: &Name, partitions: u32) -> Result<TopicSpec, NameError> {
    Ok(TopicSpec {
        name: topic_name(service)?,
        partitions,
        key: vec!["key".to_owned()],
        schema: schema(),
        kind: TopicKind::Table,
        // Rows stay however old they are; what has no state any more goes with the next compaction.
        retention: Retention { until_read: true, age: Some(Duration::ZERO), max_bytes: None },
        consumers: Vec::new(),
    })
}

/// The columns of a changelog: `key: bytes!, value: bytes`.
pub fn schema() -> Schema {
    let columns = vec![Column::required("key", ColumnType::Bytes), Column::nullable("value", ColumnType::Bytes)];
    Schema::new(columns).unwrap_or_else(|e| broken(&e))
}

#[expect(clippy::panic, reason = "two constant names break no rule of a schema")]
fn broken(error: &SchemaError) -> Schema {
    panic!("{error}")
}

/// The changelog of one task.
pub(super) struct Changelog {
    topic: TopicInfo,
    signature: String,
    /// Whether the changelog names the form of the state already.
    named: bool,
}

impl Changelog {
    /// Reads the state back into a program.
    pub(super) async fn open(program: &mut Program, signature: String, context: &Context) -> Result<Self, Fault> {
        let service = &context.task.id.service;
        let name = topic_name(service).map_err(|e| Fault::Failed(e.to_string()))?;
        let gone = || Fault::Failed(format!("there is no topic `{name}`"));
        let topic = context.log.topic(&name).ok_or_else(gone)?;
        let mut changelog = Self { topic, signature, named: false };
        let at = TopicPartition { topic: name, partition: context.task.id.partition };
        let start = context.log.start(&at).await.map_err(|e| Fault::log(&e))?;
        let mut reader = context.log.read(&at, start).map_err(|e| Fault::log(&e))?;
        while let Read::Batch(batch) = reader.next().await.map_err(|e| Fault::log(&e))? {
            changelog.restore(program, &batch, service)?;
            tokio::task::yield_now().await;
        }
        Ok(changelog)
    }

    fn restore(&mut self, program: &mut Program, batch: &Batch, service: &Name) -> Result<(), Fault> {
        let form =
            || Fault::Failed(format!("topic `{}` does not have the columns of a changelog", self.topic.spec.name));
        let bytes =
            |place: usize| batch.rows.columns().get(place).and_then(|c| c.as_binary_opt::<i32>()).ok_or_else(form);
        let (keys, values) = (bytes(0)?, bytes(1)?);
        let stamps = batch.rows.columns().last().and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        let stamps = stamps.ok_or_else(form)?;
        for row in 0..batch.rows.num_rows() {
            let deleted = Stamp(stamps.value(row)).is_deleted();
            let value = (!deleted && values.is_valid(row)).then(|| values.value(row));
            match (keys.value(row), value) {
                ([], signature) => {
                    self.named = signature.is_some();
                    if signature.is_some_and(|signature| signature != self.signature.as_bytes()) {
                        return Err(other_form(service));
                    }
                }
                (key, value) => program.restore(key, value).map_err(|e| Fault::Failed(e.to_string()))?,
            }
        }
        Ok(())
    }

    /// Changes as an append of the next commit.
    pub(super) fn append(&mut self, changes: &ChangeRows, context: &Context) -> Result<Append, Fault> {
        let rows = self.rows(changes, context.clock.now_us()).map_err(|e| Fault::Failed(e.to_string()))?;
        self.named = true;
        Ok(Append {
            topic: self.topic.spec.name.clone(),
            partition: context.task.id.partition,
            schema_version: self.topic.schema_version,
            rows,
            watermark: None,
        })
    }

    fn rows(&self, changes: &ChangeRows, now_us: i64) -> Result<RecordBatch, arrow_schema::ArrowError> {
        let now = Stamp::at(now_us);
        let mark = |deleted: bool| if deleted { now.with(Stamp::DELETED).0 } else { now.0 };
        let mut stamps: Vec<i64> = changes.deleted.values().iter().map(mark).collect();
        let [mut keys, mut values] = changes.columns();
        if !self.named {
            let empty: &[u8] = &[];
            keys = concat(&[&BinaryArray::from(vec![empty]), keys.as_ref()])?;
            values = concat(&[&BinaryArray::from(vec![self.signature.as_bytes()]), values.as_ref()])?;
            stamps.insert(0, now.0);
        }
        let stamps: ArrayRef = Arc::new(TimestampMicrosecondArray::from(stamps).with_timezone("+00:00"));
        RecordBatch::try_new(Arc::clone(self.topic.spec.schema.physical()), vec![keys, values, stamps])
    }
}

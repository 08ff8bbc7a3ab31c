//! The state of a service's task: a query or fold at work, and its changelog, the table topic `<service>.state`.
//!
//! 1. A task opens its program without state and reads its partition of the changelog from the start: the newest value of
//!    each key is enough, so compaction of the topic is the snapshot.
//! 2. What a batch changes is appended in the commit of that batch: state, position and results are durable together.
//! 3. After anything but a committed commit the task starts again at 1: memory never runs ahead of what will be durable.
//!
//! The first row of a changelog, with the empty key, names the form of the state. A program that keeps its state in
//! another form does not go on with it.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, BinaryArray, RecordBatch, TimestampMicrosecondArray};
use arrow_select::concat::concat;
use millstream_event::{Batch, Column, ColumnType, Name, NameError, Schema, SchemaError, Stamp, TopicPartition};
use millstream_flow::ChangeRows;
use millstream_log::{Append, Read, Retention, TopicInfo, TopicKind, TopicSpec};

use crate::program::{Program, Stateful};
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

/// A program at work, with its changelog.
pub(crate) struct State {
    pub(crate) program: Program,
    topic: TopicInfo,
    signature: String,
    /// Whether the changelog names the form of the state already.
    named: bool,
}

impl State {
    /// Reads the state back. Nothing of the task may be on its way.
    pub(crate) async fn open(work: Stateful<'_>, context: &Context) -> Result<Self, Fault> {
        let service = &context.task.id.service;
        let name = topic_name(service).map_err(|e| Fault::Failed(e.to_string()))?;
        let gone = || Fault::Failed(format!("there is no topic `{name}`"));
        let topic = context.log.topic(&name).ok_or_else(gone)?;
        let program = work.open().map_err(|e| Fault::Failed(e.to_string()))?;
        let mut state = Self { program, topic, signature: work.signature(), named: false };
        let at = TopicPartition { topic: name, partition: context.task.id.partition };
        let start = context.log.start(&at).await.map_err(|e| Fault::log(&e))?;
        let mut reader = context.log.read(&at, start).map_err(|e| Fault::log(&e))?;
        while let Read::Batch(batch) = reader.next().await.map_err(|e| Fault::log(&e))? {
            state.restore(&batch, service)?;
            tokio::task::yield_now().await;
        }
        Ok(state)
    }

    fn restore(&mut self, batch: &Batch, service: &Name) -> Result<(), Fault> {
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
                        return Err(Fault::Failed(other_form(service)));
                    }
                }
                (key, value) => self.program.restore(key, value).map_err(|e| Fault::Failed(e.to_string()))?,
            }
        }
        Ok(())
    }

    /// What has changed since the last call, for the next commit.
    pub(crate) fn append(&mut self, context: &Context) -> Result<Option<Append>, Fault> {
        let Some(changes) = self.program.changes() else { return Ok(None) };
        let rows = self.rows(&changes, context.clock.now_us()).map_err(|e| Fault::Failed(e.to_string()))?;
        self.named = true;
        Ok(Some(Append {
            topic: self.topic.spec.name.clone(),
            partition: context.task.id.partition,
            schema_version: self.topic.schema_version,
            rows,
            watermark: None,
        }))
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

fn other_form(service: &Name) -> String {
    format!(
        "service `{service}` has stored state of another form: what it keeps was changed in its SQL or fold. Bring back \
         what wrote it, or give the service another name to begin anew"
    )
}

//! State that is kept in the log: the changelog, the table topic `<service>.state`.
//!
//! The newest value of each key is enough, so compaction of the topic is the snapshot. What a batch changes is appended
//! in the commit of that batch.
//!
//! A row with the empty key begins the state anew: what stands before it is void, and is trimmed. Its value names the form
//! of the state behind it; an empty one says that there is none yet, as [`void`] leaves it when a service is rewound.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, BinaryArray, RecordBatch, TimestampMicrosecondArray};
use arrow_select::concat::concat;
use millstream_event::{
    Batch, Column, ColumnType, Name, NameError, Offset, Schema, SchemaError, Stamp, TopicPartition,
};
use millstream_flow::ChangeRows;
use millstream_log::{Append, Read, Retention, TopicInfo, TopicKind, TopicSpec};

use super::other_form;
use crate::program::{Program, Stateful};
use crate::task::{Context, Fault};

/// So many rows are brought near together before they are taken.
const TOUCHED_ROWS: usize = 64;

/// The name of a service's changelog.
pub fn topic_name(service: &Name) -> Result<Name, NameError> {
    Name::new(format!("{service}.state"))
}

/// The rows of a batch of a changelog, in their order.
pub(crate) struct Rows<'a> {
    keys: &'a BinaryArray,
    values: &'a BinaryArray,
    stamps: &'a TimestampMicrosecondArray,
}

impl<'a> Rows<'a> {
    /// `None`: the batch does not have the columns of a changelog.
    pub(crate) fn of(batch: &'a Batch) -> Option<Self> {
        let columns = batch.rows.columns();
        Some(Self {
            keys: columns.first()?.as_binary_opt::<i32>()?,
            values: columns.get(1)?.as_binary_opt::<i32>()?,
            stamps: columns.last()?.as_primitive_opt::<TimestampMicrosecondType>()?,
        })
    }

    /// Each key with its value; `None`: it is gone.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let Self { keys, values, stamps } = *self;
        (0..keys.len()).map(move |row| {
            let gone = Stamp(stamps.value(row)).is_deleted() || values.is_null(row);
            (keys.value(row), (!gone).then(|| values.value(row)))
        })
    }
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
    pub(super) async fn open(
        work: Stateful<'_>,
        program: &mut Program,
        signature: String,
        context: &Context,
    ) -> Result<Self, Fault> {
        let service = &context.task.id.service;
        let name = topic_name(service).map_err(|e| Fault::Failed(e.to_string()))?;
        let gone = || Fault::Failed(format!("there is no topic `{name}`"));
        let topic = context.log.topic(&name).ok_or_else(gone)?;
        let mut changelog = Self { topic, signature, named: false };
        let mut reading = Reading { work, program, begun: None, fits: true, used: false };
        let at = TopicPartition { topic: name, partition: context.task.id.partition };
        let start = context.log.start(&at).await.map_err(|e| Fault::log(&e))?;
        let mut reader = context.log.read(&at, start).map_err(|e| Fault::log(&e))?;
        while let Read::Batch(batch) = reader.next().await.map_err(|e| Fault::log(&e))? {
            changelog.restore(&mut reading, &batch)?;
            tokio::task::yield_now().await;
        }
        if !reading.fits {
            return Err(other_form(service));
        }
        if let Some(begun) = reading.begun.filter(|begun| *begun > start) {
            // What is left behind costs space and time, and does no harm.
            if let Err(error) = context.log.trim(&at, begun).await {
                tracing::warn!(%service, %error, "state that is void stays in the changelog for now");
            }
        }
        Ok(changelog)
    }

    fn restore(&mut self, reading: &mut Reading<'_>, batch: &Batch) -> Result<(), Fault> {
        let form =
            || Fault::Failed(format!("topic `{}` does not have the columns of a changelog", self.topic.spec.name));
        let rows = Rows::of(batch).ok_or_else(form)?;
        let rows: Vec<_> = rows.iter().enumerate().collect();
        for rows in rows.chunks(TOUCHED_ROWS) {
            reading.program.touch(rows.iter().map(|(_, (key, _))| *key));
            for (row, entry) in rows {
                match entry {
                    ([], form) => {
                        let form = form.filter(|form| !form.is_empty());
                        self.named = form.is_some();
                        reading.fits = form.is_none_or(|form| form == self.signature.as_bytes());
                        reading.begun = Some(batch.offset(*row));
                        reading.begin()?;
                    }
                    // What was written by another program may yet be void.
                    _ if !reading.fits => {}
                    (key, value) => reading.take(key, *value)?,
                }
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

/// A changelog being read into a program.
struct Reading<'p> {
    work: Stateful<'p>,
    program: &'p mut Program,
    /// Where the state begins.
    begun: Option<Offset>,
    /// Whether the program keeps its state in the form that was read last.
    fits: bool,
    /// Whether the program was given anything.
    used: bool,
}

impl Reading<'_> {
    fn begin(&mut self) -> Result<(), Fault> {
        if std::mem::take(&mut self.used) {
            *self.program = self.work.open().map_err(|e| Fault::Failed(e.to_string()))?;
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Fault> {
        self.used = true;
        self.program.restore(key, value).map_err(|e| Fault::Failed(e.to_string()))
    }
}

/// Rows that make what a changelog says so far void.
pub(crate) fn void(now_us: i64) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let empty: &[u8] = &[];
    let column = || -> ArrayRef { Arc::new(BinaryArray::from(vec![empty])) };
    let stamps = TimestampMicrosecondArray::from(vec![Stamp::at(now_us).0]).with_timezone("+00:00");
    RecordBatch::try_new(Arc::clone(schema().physical()), vec![column(), column(), Arc::new(stamps)])
}

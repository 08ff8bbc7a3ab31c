//! What the tests share: a schema, batches of it, and waiting with a deadline.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Int64Array, RecordBatch, StringArray};
use millstream_connect::event::{Batch, Column, ColumnType, Name, Offset, Schema};
use millstream_connect::service::log::Position;
use millstream_connect::service::{ConnectError, Intake, Source, SourceRead, SourceTask};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// `n: bigint!, text: string`.
pub(crate) fn schema() -> Schema {
    Schema::new(vec![Column::required("n", ColumnType::BigInt), Column::nullable("text", ColumnType::String)]).unwrap()
}

/// Rows `from..to` as a reader of a log hands them out.
pub(crate) fn batch(from: i64, to: i64) -> Batch {
    let texts: Vec<String> = (from..to).map(|n| format!("text {n}")).collect();
    let columns: Vec<arrow_array::ArrayRef> =
        vec![Arc::new(Int64Array::from_iter_values(from..to)), Arc::new(StringArray::from(texts))];
    let rows = RecordBatch::try_new(schema().arrow().clone(), columns).unwrap();
    let rows = schema().with_system(&rows, 0).unwrap();
    Batch::dense(Offset(from as u64), 1, rows)
}

/// The numbers in column `n`.
pub(crate) fn numbers(rows: &RecordBatch) -> Vec<i64> {
    rows.column_by_name("n").unwrap().as_primitive::<Int64Type>().values().to_vec()
}

pub(crate) async fn open(source: &dyn Source, position: Option<Position>) -> Result<Box<dyn SourceTask>, ConnectError> {
    source.open(millstream_connect::event::PartitionId(0), position).await
}

/// The next intake, `None` when finished.
pub(crate) async fn next(task: &mut Box<dyn SourceTask>) -> Result<Option<Intake>, ConnectError> {
    let read = tokio::time::timeout(PATIENCE, task.next()).await.expect("no events in time")?;
    Ok(match read {
        SourceRead::Intake(intake) => Some(*intake),
        SourceRead::Finished => None,
    })
}

/// Everything up to the end: the numbers, the refused events' places, the last position.
pub(crate) async fn all(
    source: &dyn Source,
    position: Option<Position>,
) -> Result<(Vec<i64>, Vec<String>, Option<Position>), ConnectError> {
    let mut task = open(source, position.clone()).await?;
    let (mut seen, mut places, mut last) = (Vec::new(), Vec::new(), position);
    while let Some(intake) = next(&mut task).await? {
        seen.extend(numbers(&intake.rows));
        places.extend(intake.refused.iter().map(|r| r.place.clone()));
        last = intake.position;
    }
    Ok((seen, places, last))
}

//! A piece of work: rows of one input with each row's origin.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, RecordBatch};
use arrow_schema::ArrowError;
use millstream_event::{Batch, Name, Offset, PartitionId, Schema};

use crate::letters::Origin;
use crate::placing::columns_of;

/// Batches of fewer rows are joined with their neighbours; larger ones are worked on as they are, without a copy.
const JOIN_BELOW: usize = 1024;

/// Rows that are worked on together.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// The physical columns that the service was planned against.
    pub(crate) rows: RecordBatch,
    pub(crate) origins: Origins,
    /// The number of the service's input that they are of.
    pub(crate) input: usize,
}

/// Where each row of a piece comes from.
#[derive(Debug, Clone)]
pub(crate) enum Origins {
    /// From the task's partition of a topic: for each joined batch, where its rows are.
    Topic { topic: Name, partition: PartitionId, batches: Vec<Place> },
    /// Row by row: events that were replayed.
    Each(Vec<Origin>),
}

/// Where the rows of a joined batch are.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Its first row in the piece.
    first: usize,
    /// That row in the batch.
    skip: usize,
    base: Offset,
    offsets: Option<Arc<[u64]>>,
    schema_version: u32,
}

impl Place {
    /// The offset of a row of the piece.
    fn offset(&self, row: usize) -> u64 {
        let row = row.saturating_sub(self.first) + self.skip;
        let given = self.offsets.as_ref().and_then(|offsets| offsets.get(row)).copied();
        given.unwrap_or(self.base.0 + row as u64)
    }
}

impl Origins {
    /// The origin of a row.
    pub(crate) fn of(&self, row: usize) -> Option<Origin> {
        match self {
            Self::Topic { topic, partition, batches } => {
                let place = batches.iter().rev().find(|place| place.first <= row)?;
                Some(Origin {
                    topic: topic.clone(),
                    partition: partition.0,
                    offset: place.offset(row),
                    schema_version: place.schema_version,
                    attempts: 0,
                    replayed_of: None,
                })
            }
            Self::Each(origins) => origins.get(row).cloned(),
        }
    }

    fn slice(&self, at: usize, rows: usize) -> Self {
        match self {
            Self::Each(origins) => Self::Each(origins.iter().skip(at).take(rows).cloned().collect()),
            Self::Topic { topic, partition, batches } => {
                let last = batches.iter().rposition(|place| place.first <= at).unwrap_or(0);
                let shift = |place: &Place| match place.first.checked_sub(at) {
                    Some(first) => Place { first, ..place.clone() },
                    None => Place { first: 0, skip: place.skip + at - place.first, ..place.clone() },
                };
                let batches = batches.iter().skip(last).map(shift).collect();
                Self::Topic { topic: topic.clone(), partition: *partition, batches }
            }
        }
    }
}

impl Piece {
    /// Some of the rows.
    pub(crate) fn slice(&self, at: usize, rows: usize) -> Self {
        Self { rows: self.rows.slice(at, rows), origins: self.origins.slice(at, rows), input: self.input }
    }

    /// When a row entered the pipeline.
    pub(crate) fn ingested_at(&self, row: usize) -> Option<i64> {
        let times = self.rows.columns().last()?.as_primitive_opt::<TimestampMicrosecondType>()?;
        (row < times.len() && times.is_valid(row)).then(|| times.value(row))
    }
}

/// Makes pieces of batches of one topic partition: small ones joined, all with the columns of `schema`.
pub(crate) fn pieces(
    topic: &Name,
    partition: PartitionId,
    schema: &Schema,
    batches: &[Batch],
) -> Result<Vec<Piece>, ArrowError> {
    let mut pieces = Vec::new();
    let mut group: Vec<&Batch> = Vec::new();
    let mut close = |group: &mut Vec<&Batch>| -> Result<(), ArrowError> {
        if !group.is_empty() {
            pieces.push(join(topic, partition, schema, group)?);
            group.clear();
        }
        Ok(())
    };
    for batch in batches.iter().filter(|batch| batch.rows.num_rows() > 0) {
        let small = batch.rows.num_rows() < JOIN_BELOW;
        if !small {
            close(&mut group)?;
        }
        group.push(batch);
        if !small {
            close(&mut group)?;
        }
    }
    close(&mut group)?;
    Ok(pieces)
}

fn join(topic: &Name, partition: PartitionId, schema: &Schema, group: &[&Batch]) -> Result<Piece, ArrowError> {
    let mut places = Vec::with_capacity(group.len());
    let mut rows = Vec::with_capacity(group.len());
    let mut first = 0;
    for batch in group {
        let (base, offsets, schema_version) = (batch.base, batch.offsets.clone(), batch.schema_version);
        places.push(Place { first, skip: 0, base, offsets, schema_version });
        first += batch.rows.num_rows();
        rows.push(columns_of(&batch.rows, schema)?);
    }
    let rows = match rows.as_slice() {
        [one] => one.clone(),
        many => arrow_select::concat::concat_batches(schema.physical(), many)?,
    };
    let origins = Origins::Topic { topic: topic.clone(), partition, batches: places };
    Ok(Piece { rows, origins, input: 0 })
}

#[cfg(test)]
mod tests {
    use arrow_array::{Int32Array, TimestampMicrosecondArray};
    use millstream_event::{Column, ColumnType};

    use super::*;

    fn batch(schema: &Schema, base: u64, rows: i32) -> Batch {
        let ids = Arc::new(Int32Array::from_iter_values(0..rows));
        let times = TimestampMicrosecondArray::from(vec![7; rows as usize]).with_timezone("+00:00");
        let rows = RecordBatch::try_new(schema.physical().clone(), vec![ids, Arc::new(times)]).unwrap();
        Batch::dense(Offset(base), 1, rows)
    }

    #[test]
    fn small_batches_are_joined_and_every_row_keeps_its_offset() {
        let schema = Schema::new(vec![Column::required("id", ColumnType::Int)]).unwrap();
        let batches = [batch(&schema, 10, 3), batch(&schema, 20, 2), batch(&schema, 30, 2000), batch(&schema, 4000, 1)];
        let pieces = pieces(&Name::new("t").unwrap(), PartitionId(2), &schema, &batches).unwrap();
        assert_eq!(pieces.iter().map(|p| p.rows.num_rows()).collect::<Vec<_>>(), [5, 2000, 1]);
        let offsets =
            |piece: &Piece| (0..piece.rows.num_rows()).map(|r| piece.origins.of(r).unwrap().offset).collect::<Vec<_>>();
        assert_eq!(offsets(&pieces[0]), [10, 11, 12, 20, 21]);
        assert_eq!(offsets(&pieces[0].slice(2, 3)), [12, 20, 21]);
        assert_eq!(offsets(&pieces[0].slice(4, 1)), [21]);
        assert_eq!(pieces[1].ingested_at(5), Some(7));
    }

    #[test]
    fn rows_between_which_others_are_gone_keep_their_offsets() {
        let schema = Schema::new(vec![Column::required("id", ColumnType::Int)]).unwrap();
        let sparse = Batch { offsets: Some([10, 15, 17].into()), ..batch(&schema, 10, 3) };
        let pieces = pieces(&Name::new("t").unwrap(), PartitionId(2), &schema, &[sparse, batch(&schema, 20, 2)]);
        let piece = pieces.unwrap().remove(0);
        let offsets =
            |piece: &Piece| (0..piece.rows.num_rows()).map(|r| piece.origins.of(r).unwrap().offset).collect::<Vec<_>>();
        assert_eq!(offsets(&piece), [10, 15, 17, 20, 21]);
        assert_eq!(offsets(&piece.slice(1, 3).slice(1, 2)), [17, 20]);
    }
}

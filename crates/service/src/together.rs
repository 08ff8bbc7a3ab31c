//! The rows of one commit for the same partition, brought together: what a task makes in many small batches costs its
//! readers, and the log, one append.

use std::collections::HashMap;

use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use millstream_event::{Name, PartitionId};
use millstream_log::Append;

/// An append gets no more rows once it has so many, and as many bytes at most where it is not one batch: what columns of
/// text can address is bounded.
const ROWS_TOGETHER: usize = 65_536;
/// See [`ROWS_TOGETHER`].
const BYTES_TOGETHER: usize = 32 << 20;

/// Batches that go together.
struct Part {
    place: (Name, u32, PartitionId),
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
}

/// The appends of a commit: one for each topic, version and partition, in the order of their first rows.
pub(crate) fn together(staged: Vec<(Name, u32, PartitionId, RecordBatch)>) -> Result<Vec<Append>, String> {
    let mut parts: Vec<Part> = Vec::with_capacity(staged.len());
    let mut last: HashMap<(Name, u32, PartitionId), usize> = HashMap::new();
    for (topic, version, partition, batch) in staged {
        let place = (topic, version, partition);
        let (rows, bytes) = (batch.num_rows(), batch.get_array_memory_size());
        let open = last.get(&place).and_then(|at| parts.get_mut(*at));
        match open.filter(|part| part.rows + rows <= ROWS_TOGETHER && part.bytes + bytes <= BYTES_TOGETHER) {
            Some(part) => {
                part.batches.push(batch);
                (part.rows, part.bytes) = (part.rows + rows, part.bytes + bytes);
            }
            None => {
                last.insert(place.clone(), parts.len());
                parts.push(Part { place, batches: vec![batch], rows, bytes });
            }
        }
    }
    parts.into_iter().map(Part::append).collect()
}

impl Part {
    fn append(self) -> Result<Append, String> {
        let (topic, schema_version, partition) = self.place;
        let rows = match self.batches.as_slice() {
            [one] => one.clone(),
            all => {
                let schema = all.first().map(RecordBatch::schema).ok_or("an append has no rows")?;
                concat_batches(&schema, all).map_err(|e| e.to_string())?
            }
        };
        Ok(Append { topic, partition, schema_version, rows, watermark: None })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array};

    use super::*;

    fn batch(values: std::ops::Range<i64>) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(values)) as ArrayRef)]).unwrap()
    }

    #[test]
    fn the_rows_of_a_partition_are_one_append_in_their_order() {
        let (a, b) = (Name::new("a").unwrap(), Name::new("b").unwrap());
        let staged = vec![
            (a.clone(), 1, PartitionId(0), batch(0..2)),
            (b.clone(), 1, PartitionId(0), batch(2..3)),
            (a.clone(), 1, PartitionId(1), batch(3..4)),
            (a.clone(), 1, PartitionId(0), batch(4..6)),
            (a.clone(), 2, PartitionId(0), batch(6..7)),
        ];
        let found: Vec<(String, u32, u32, RecordBatch)> = together(staged)
            .unwrap()
            .into_iter()
            .map(|append| (append.topic.to_string(), append.schema_version, append.partition.0, append.rows))
            .collect();
        let first = concat_batches(&batch(0..1).schema(), [&batch(0..2), &batch(4..6)]).unwrap();
        let expected =
            [("a", 1, 0, first), ("b", 1, 0, batch(2..3)), ("a", 1, 1, batch(3..4)), ("a", 2, 0, batch(6..7))];
        assert_eq!(
            found,
            expected.map(|(topic, version, partition, rows)| (topic.to_owned(), version, partition, rows))
        );
    }

    #[test]
    fn an_append_has_no_more_rows_than_it_may() {
        let name = Name::new("a").unwrap();
        let staged = (0..3).map(|_| (name.clone(), 1, PartitionId(0), batch(0..40_000))).collect();
        let rows: Vec<usize> = together(staged).unwrap().iter().map(|append| append.rows.num_rows()).collect();
        assert_eq!(rows, [40_000, 40_000, 40_000]);
    }
}

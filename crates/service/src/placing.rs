//! Where rows of a topic go: to the partition of their key, or, where nothing changed hands, to the partition they come
//! from without hashing or splitting.

use std::sync::Arc;

use arrow_array::{Array, RecordBatchOptions};
use arrow_array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow_schema::ArrowError;
use millstream_event::{ConformError, Name, PartitionId, Partitioner, Schema};
use millstream_log::{TopicInfo, TopicSpec};

/// The way into one topic.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) info: TopicInfo,
    placement: Placement,
    fit: Fit,
    /// Whether rows without a key are taken, into the first partition, instead of refused.
    takes_nulls: bool,
}

#[derive(Debug)]
enum Placement {
    /// The partition that the rows come from.
    Stay,
    /// By key.
    Split(Partitioner),
}

/// How rows get the topic's columns.
#[derive(Debug)]
enum Fit {
    /// They have them.
    Same,
    /// By name; not all of them may be null.
    ByName,
}

/// Rows for one partition, with their numbers among the rows placed; `None`: all, in order.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) partition: PartitionId,
    pub(crate) rows: RecordBatch,
    pub(crate) indices: Option<Vec<u32>>,
}

/// Rows and the rows among them that cannot be placed, with code and reason.
#[derive(Debug, Default)]
pub(crate) struct Placing {
    pub(crate) placed: Vec<Placed>,
    pub(crate) refused: Vec<Refused>,
}

/// A row that is refused, with code and reason.
type Refused = (u32, &'static str, String);

impl Outlet {
    /// The way of rows with the columns of `schema` into a topic. `kept`: the rows' key and partition are those of the
    /// topic already, see [`keeps_place`].
    pub(crate) fn new(info: TopicInfo, schema: &Schema, kept: bool) -> Result<Self, String> {
        let spec = &info.spec;
        let fit = if *schema == spec.schema { Fit::Same } else { by_name(schema, &info)? };
        let placement = if spec.key.is_empty() || kept {
            Placement::Stay
        } else {
            let partitioner = Partitioner::new(&spec.schema, &spec.key, spec.partitions);
            Placement::Split(partitioner.map_err(|e| format!("topic `{}`: {e}", spec.name))?)
        };
        Ok(Self { info, placement, fit, takes_nulls: false })
    }

    /// The same, for rows that are brought together by columns that may be null: null is a value like another there.
    pub(crate) fn taking_nulls(self) -> Self {
        Self { takes_nulls: true, ..self }
    }

    /// The partitions that rows from the partition `from` of the input may go to.
    pub(crate) fn partitions(&self, from: PartitionId) -> impl Iterator<Item = PartitionId> + use<> {
        let count = self.info.spec.partitions.max(1);
        let stays = matches!(self.placement, Placement::Stay);
        (0..count).filter(move |p| !stays || *p == from.0 % count).map(PartitionId)
    }

    /// Places rows that come from the partition `from` of the input.
    pub(crate) fn place(&self, rows: &RecordBatch, from: PartitionId) -> Result<Placing, ConformError> {
        let mut refused = Vec::new();
        let (rows, kept) = match self.fit {
            Fit::Same => (rows.clone(), None),
            Fit::ByName => fitted(rows, &self.info.spec.schema, &mut refused)?,
        };
        let mut placed = Vec::new();
        match &self.placement {
            Placement::Stay => {
                let (rows, indices) = self.keyed(rows, kept, &mut refused)?;
                let partition = PartitionId(from.0 % self.info.spec.partitions.max(1));
                placed.extend((rows.num_rows() > 0).then_some(Placed { partition, rows, indices }));
            }
            Placement::Split(partitioner) => {
                let split = partitioner.split(&rows)?;
                let original = |row: u32| match &kept {
                    Some(kept) => kept.get(row as usize).copied().unwrap_or(row),
                    None => row,
                };
                let mut null_rows = split.null_rows;
                if self.takes_nulls && !null_rows.is_empty() {
                    let taken = arrow_select::take::take_record_batch(&rows, &UInt32Array::from(null_rows.clone()))?;
                    let indices = std::mem::take(&mut null_rows).into_iter().map(original).collect();
                    placed.push(Placed { partition: PartitionId(0), rows: taken, indices: Some(indices) });
                }
                refused.extend(null_rows.into_iter().map(|row| self.key_null(original(row))));
                placed.extend(split.parts.into_iter().map(|part| Placed {
                    partition: part.partition,
                    rows: part.rows,
                    indices: Some(part.indices.into_iter().map(original).collect()),
                }));
            }
        }
        Ok(Placing { placed, refused })
    }

    /// Rows that stay, without those that have no key: what a NULL means must not depend on whether rows have to move. Also
    /// the numbers of the rows left; `kept`: those before.
    fn keyed(
        &self,
        rows: RecordBatch,
        kept: Option<Vec<u32>>,
        refused: &mut Vec<Refused>,
    ) -> Result<(RecordBatch, Option<Vec<u32>>), ArrowError> {
        let columns = self.info.spec.key.iter().filter(|_| !self.takes_nulls);
        let nulls = columns.filter_map(|column| rows.column_by_name(column)?.nulls().cloned());
        let nulls: Vec<_> = nulls.filter(|nulls| nulls.null_count() > 0).collect();
        if nulls.is_empty() {
            return Ok((rows, kept));
        }
        let has_key = |row: usize| nulls.iter().all(|nulls| nulls.is_valid(row));
        let keep: BooleanArray = (0..rows.num_rows()).map(|row| Some(has_key(row))).collect();
        let numbers = kept.unwrap_or_else(|| (0..rows.num_rows() as u32).collect());
        let mut left = Vec::with_capacity(keep.true_count());
        for (row, number) in numbers.into_iter().enumerate() {
            if has_key(row) {
                left.push(number);
            } else {
                refused.push(self.key_null(number));
            }
        }
        Ok((filter(&rows, &keep)?, Some(left)))
    }

    fn key_null(&self, row: u32) -> Refused {
        let key = self.info.spec.key.join(", ");
        (row, "key-null", format!("the key of topic `{}` ({key}) is null", self.info.spec.name))
    }
}

/// Whether the column of an input, by its name in the service's work, is the column of the output in each row that comes of
/// this input: `carries(input, column, output_column)`.
pub type Carries<'a> = &'a dyn Fn(&Name, &str, &str) -> bool;

/// Whether the rows of all inputs keep their partition on the way to `output`: as many partitions, and the output's key is
/// each input's key, each column unchanged. The inputs are given with their names in the service's work. What plans and what
/// runs both ask here: whoever waits for a task in a partition must know whether it writes there.
pub(crate) fn keeps_place(inputs: &[(Name, &TopicSpec)], output: &TopicSpec, carries: Carries<'_>) -> bool {
    let kept = |(name, input): &(Name, &TopicSpec)| {
        input.partitions == output.partitions
            && !input.key.is_empty()
            && input.key.len() == output.key.len()
            && input.key.iter().zip(&output.key).all(|(i, o)| carries(name, i, o))
    };
    !inputs.is_empty() && inputs.iter().all(kept)
}

/// Whether a service's task writes only the partition with its own number (modulo their count), as it is when rows keep
/// their place or have no key: what [`crate::Producers::in_place`] says.
pub fn writes_in_place(inputs: &[(Name, &TopicSpec)], output: &TopicSpec, carries: Carries<'_>) -> bool {
    output.key.is_empty() || keeps_place(inputs, output, carries)
}

/// What passes unchanged, whatever the input.
pub fn unchanged(_: &Name, input: &str, output: &str) -> bool {
    input == output
}

fn by_name(schema: &Schema, info: &TopicInfo) -> Result<Fit, String> {
    for wanted in info.spec.schema.columns() {
        let topic = &info.spec.name;
        match schema.column(&wanted.name) {
            Some((_, have)) if have.kind == wanted.kind => {}
            Some((_, have)) => return Err(format!("topic `{topic}` has `{wanted}`, what is written has `{have}`")),
            None if wanted.nullable => {}
            None => return Err(format!("topic `{topic}` needs `{wanted}`, which is not written")),
        }
    }
    Ok(Fit::ByName)
}

/// Rows with the physical columns of `schema`, found by name; rows that have a null where none may be are refused. Also
/// the numbers of the rows left, where some were refused.
fn fitted(
    rows: &RecordBatch,
    schema: &Schema,
    refused: &mut Vec<Refused>,
) -> Result<(RecordBatch, Option<Vec<u32>>), ConformError> {
    let mut bad = vec![false; rows.num_rows()];
    for column in schema.columns().iter().filter(|c| !c.nullable) {
        let Some(nulls) = rows.column_by_name(&column.name).and_then(|values| values.nulls().cloned()) else {
            continue;
        };
        for (row, bad) in bad.iter_mut().enumerate().filter(|(row, _)| nulls.is_null(*row)) {
            if !std::mem::replace(bad, true) {
                let reason = format!("column `{}` must have a value ({column})", column.name);
                refused.push((row as u32, "value-missing", reason));
            }
        }
    }
    let mut kept = None;
    let mut rows = rows.clone();
    if bad.contains(&true) {
        kept = Some((0_u32..).zip(&bad).filter(|(_, bad)| !**bad).map(|(row, _)| row).collect());
        rows = filter(&rows, &bad.iter().map(|bad| !bad).collect::<Vec<_>>().into())?;
    }
    Ok((columns_of(&rows, schema)?, kept))
}

/// The physical columns of `schema`, found by name in `rows`; missing ones are null. Nothing is copied.
pub(crate) fn columns_of(rows: &RecordBatch, schema: &Schema) -> Result<RecordBatch, ArrowError> {
    if Arc::ptr_eq(rows.schema_ref(), schema.physical()) {
        return Ok(rows.clone());
    }
    let count = rows.num_rows();
    let find = |field: &arrow_schema::FieldRef| -> ArrayRef {
        let found = rows.column_by_name(field.name()).cloned();
        found.unwrap_or_else(|| new_null_array(field.data_type(), count))
    };
    let columns = schema.physical().fields().iter().map(find).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(Arc::clone(schema.physical()), columns, &options)
}

/// The rows that are true.
pub(crate) fn filter(rows: &RecordBatch, keep: &BooleanArray) -> Result<RecordBatch, ArrowError> {
    arrow_select::filter::filter_record_batch(rows, keep)
}

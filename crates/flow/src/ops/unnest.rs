//! One row per element of a list; several lists go side by side, the shorter ones filled with NULL.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, UInt32Array};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use arrow_select::take::take;

use crate::expr::EvalError;
use crate::ops::{Frame, batch_of};

/// What an output column of an unnest is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// An input column, repeated for each element.
    Repeat(usize),
    /// The elements of an input column, a list.
    Elements(usize),
    /// The field of an input column, a struct.
    Field(usize, usize),
}

/// Spreads lists over rows.
#[derive(Debug)]
pub(crate) struct Unnest {
    /// One per output column, without the system column.
    pub(crate) sources: Vec<Source>,
    /// A NULL list makes one row with NULL.
    pub(crate) keep_null: bool,
    /// An empty list makes one row with NULL.
    pub(crate) keep_empty: bool,
    /// The output columns, then the system column.
    pub(crate) schema: SchemaRef,
}

/// A batch may grow by lists to at most so many rows at once; more fails the event that does it.
const ROWS_MAX: usize = 16 * 1024 * 1024;

impl Unnest {
    pub(crate) fn apply(&self, frame: Frame) -> Result<Frame, EvalError> {
        self.spread(frame).map_err(|e| EvalError::arrow(&e, "UNNEST"))
    }

    fn spread(&self, frame: Frame) -> Result<Frame, ArrowError> {
        let columns = frame.batch.columns();
        let at = |i: &usize| {
            let missing = || ArrowError::InvalidArgumentError("UNNEST of a column that is not there".into());
            columns.get(*i).map(Arc::clone).ok_or_else(missing)
        };
        let count = frame.batch.num_rows();
        let lists = self.sources.iter().filter_map(|s| match s {
            Source::Elements(i) => Some(at(i).and_then(|c| List::new(&c))),
            _ => None,
        });
        let lists = lists.collect::<Result<Vec<_>, _>>()?;
        let mut parents: Vec<u32> = Vec::with_capacity(count);
        let mut places: Vec<Vec<Option<u32>>> = vec![Vec::with_capacity(count); lists.len()];
        for row in 0..count {
            let longest = lists.iter().map(|l| self.rows_of(l, row)).max().unwrap_or(1);
            if parents.len() + longest > ROWS_MAX {
                let message = format!("UNNEST makes more than {ROWS_MAX} rows of a batch");
                return Err(ArrowError::ComputeError(message));
            }
            parents.extend(std::iter::repeat_n(row as u32, longest));
            for (list, places) in lists.iter().zip(&mut places) {
                places.extend((0..longest).map(|i| list.place(row, i)));
            }
        }
        let parents = UInt32Array::from(parents);
        let mut elements = lists.iter().zip(places).map(|(l, p)| take(&l.values, &UInt32Array::from(p), None));
        let mut output: Vec<ArrayRef> = Vec::with_capacity(self.sources.len() + 1);
        for source in &self.sources {
            output.push(match source {
                Source::Repeat(i) => take(&at(i)?, &parents, None)?,
                Source::Elements(_) => match elements.next() {
                    Some(array) => array?,
                    None => return Err(ArrowError::InvalidArgumentError("UNNEST lost a list".into())),
                },
                Source::Field(i, field) => take(&field_of(&at(i)?, *field)?, &parents, None)?,
            });
        }
        if let Some(system) = columns.last() {
            output.push(take(system, &parents, None)?);
        }
        let batch = batch_of(&self.schema, output, parents.len())?;
        Ok(Frame { batch, origin: frame.origin.take(&parents), dropped: frame.dropped })
    }

    /// How many rows a list makes.
    fn rows_of(&self, list: &List, row: usize) -> usize {
        match (list.is_null(row), list.len(row)) {
            (true, _) => usize::from(self.keep_null),
            (false, 0) => usize::from(self.keep_empty),
            (false, len) => len,
        }
    }

    pub(crate) fn describe(&self) -> String {
        let names = self.sources.iter().zip(self.schema.fields());
        let lists = names.filter(|(s, _)| matches!(s, Source::Elements(_))).map(|(_, f)| f.name().as_str());
        format!("unnest {}", lists.collect::<Vec<_>>().join(", "))
    }
}

/// A list column with 64-bit places.
struct List {
    values: ArrayRef,
    offsets: Vec<usize>,
    nulls: Option<arrow_buffer::NullBuffer>,
}

impl List {
    fn new(array: &ArrayRef) -> Result<Self, ArrowError> {
        let nulls = array.nulls().cloned();
        let (values, offsets) = match array.data_type() {
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                (Arc::clone(list.values()), list.offsets().iter().map(|o| *o as usize).collect())
            }
            DataType::LargeList(_) => {
                let list = array.as_list::<i64>();
                (Arc::clone(list.values()), list.offsets().iter().map(|o| *o as usize).collect())
            }
            DataType::FixedSizeList(_, size) => {
                let offsets = (0..=array.len()).map(|i| i * *size as usize).collect();
                (Arc::clone(array.as_fixed_size_list().values()), offsets)
            }
            DataType::Null => {
                let offsets = vec![0; array.len() + 1];
                (arrow_array::new_null_array(&DataType::Null, 0), offsets)
            }
            other => return Err(ArrowError::InvalidArgumentError(format!("UNNEST of {other}"))),
        };
        Ok(Self { values, offsets, nulls })
    }

    fn start(&self, row: usize) -> usize {
        self.offsets.get(row).copied().unwrap_or(0)
    }

    fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|n| n.is_null(row))
    }

    fn len(&self, row: usize) -> usize {
        if self.is_null(row) { 0 } else { self.start(row + 1) - self.start(row) }
    }

    fn place(&self, row: usize, i: usize) -> Option<u32> {
        (i < self.len(row)).then(|| (self.start(row) + i) as u32)
    }
}

fn field_of(array: &ArrayRef, field: usize) -> Result<ArrayRef, ArrowError> {
    let missing = || ArrowError::InvalidArgumentError("UNNEST of a field that is not there".into());
    let values = array.as_struct_opt().ok_or_else(missing)?;
    let column = values.columns().get(field).ok_or_else(missing)?;
    // A NULL struct has NULL fields, whatever lies beneath.
    let missing_rows =
        values.nulls().map(|n| arrow_array::BooleanArray::from(n.iter().map(|v| !v).collect::<Vec<_>>()));
    match missing_rows {
        Some(mask) => arrow_select::nullif::nullif(column, &mask),
        None => Ok(Arc::clone(column)),
    }
}

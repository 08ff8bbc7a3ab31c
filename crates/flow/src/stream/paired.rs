//! Rows of two sides put together: the columns of the left one, those of the right one, the system column.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt32Array, new_null_array};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, SchemaRef};
use millstream_event::Stamp;

use crate::ops::{batch_of, take_all};
use crate::stream::groups::{Encoded, Keys};
use crate::stream::operator::Broken;
use crate::stream::two::Two;

/// How many joined rows are given out in one batch.
pub(crate) const PAIRS_PER_BATCH: usize = 8192;

/// What the rows of a join's sides are.
#[derive(Debug, Clone)]
pub(crate) struct PairedPlan {
    /// The types of the columns of each side, the system's last.
    pub(crate) types: Two<Vec<DataType>>,
    /// The places of the keys in what comes in; they may stand behind the columns.
    pub(crate) keys: Two<Vec<usize>>,
    /// The types of the keys.
    pub(crate) key_types: Vec<DataType>,
    /// The columns of both and the system's.
    pub(crate) schema: SchemaRef,
}

/// Rows of both sides as bytes and back.
pub(crate) struct Paired {
    plan: PairedPlan,
    codecs: Two<Keys>,
    keys: Keys,
}

/// Rows that came in.
pub(crate) struct Arrived {
    keys: Encoded,
    /// Where the key has no NULL.
    valid: Option<NullBuffer>,
    /// The columns as bytes.
    rows: Encoded,
}

impl Arrived {
    /// The key of a row, if no part of it is NULL.
    pub(crate) fn key(&self, row: usize) -> Option<&[u8]> {
        self.valid.as_ref().is_none_or(|valid| valid.is_valid(row)).then(|| self.keys.key(row))
    }

    /// The columns of a row.
    pub(crate) fn row(&self, row: usize) -> &[u8] {
        self.rows.key(row)
    }
}

impl PairedPlan {
    /// What decides the form of the rows.
    pub(crate) fn signature(&self) -> String {
        format!("by {:?} of {:?} and {:?}", self.key_types, self.types.left, self.types.right)
    }
}

impl Paired {
    /// As planned.
    pub(crate) fn new(plan: &PairedPlan) -> Result<Self, Broken> {
        let codecs = plan.types.try_map(|types| Keys::new(types))?;
        Ok(Self { plan: plan.clone(), codecs, keys: Keys::new(&plan.key_types)? })
    }

    /// Rows of a side: their keys and their bytes.
    pub(crate) fn arrived(&self, side: usize, rows: &RecordBatch) -> Result<Arrived, Broken> {
        let at = |place: &usize| rows.columns().get(*place).cloned();
        let keys: Vec<ArrayRef> = self.plan.keys.of(side).iter().filter_map(at).collect();
        let valid =
            keys.iter().fold(None, |valid, key| NullBuffer::union(valid.as_ref(), key.logical_nulls().as_ref()));
        let columns = self.own(side, rows);
        Ok(Arrived {
            keys: self.keys.encode(&keys, rows.num_rows())?,
            valid,
            rows: self.codecs.of(side).encode(&columns, rows.num_rows())?,
        })
    }

    /// The columns of a side and the system's, without keys computed behind them.
    pub(crate) fn own(&self, side: usize, rows: &RecordBatch) -> Vec<ArrayRef> {
        let user = self.plan.types.of(side).len().saturating_sub(1);
        rows.columns().iter().take(user).chain(rows.columns().last()).cloned().collect()
    }

    /// Some rows of a batch.
    pub(crate) fn pick(&self, side: usize, rows: &RecordBatch, picked: &[u32]) -> Result<Vec<ArrayRef>, Broken> {
        let columns = self.own(side, rows);
        if picked.len() == rows.num_rows() && (0_u32..).zip(picked).all(|(i, row)| i == *row) {
            return Ok(columns);
        }
        Ok(take_all(&columns, &UInt32Array::from(picked.to_vec()))?)
    }

    /// Rows from their bytes; NULL where there is none.
    pub(crate) fn decode(&self, side: usize, rows: &[Option<&[u8]>]) -> Result<Vec<ArrayRef>, Broken> {
        let found: Vec<&[u8]> = rows.iter().copied().flatten().collect();
        if found.is_empty() {
            return Ok(self.nulls(side, rows.len()));
        }
        let columns = self.codecs.of(side).decode(found.iter().copied())?;
        if found.len() == rows.len() {
            return Ok(columns);
        }
        let mut next = 0;
        let place = |row: &Option<&[u8]>| {
            row.map(|_| {
                next += 1;
                next - 1
            })
        };
        Ok(take_all(&columns, &rows.iter().map(place).collect())?)
    }

    /// No row, so many times.
    pub(crate) fn nulls(&self, side: usize, rows: usize) -> Vec<ArrayRef> {
        self.plan.types.of(side).iter().map(|kind| new_null_array(kind, rows)).collect()
    }

    /// A joined row for each pair; it entered when the later one did.
    pub(crate) fn batch(&self, columns: Two<Vec<ArrayRef>>, rows: usize) -> Result<RecordBatch, Broken> {
        let stamps = |columns: &Vec<ArrayRef>| columns.last().cloned();
        let (left, right) = (stamps(&columns.left), stamps(&columns.right));
        let of = |column: &Option<ArrayRef>, row: usize| {
            let times = column.as_ref()?.as_primitive_opt::<TimestampMicrosecondType>()?;
            times.is_valid(row).then(|| Stamp(times.value(row)).micros())
        };
        let stamp = |row| Stamp::at(of(&left, row).max(of(&right, row)).unwrap_or_default()).0;
        let stamps: TimestampMicrosecondArray = (0..rows).map(|row| Some(stamp(row))).collect();
        self.stamped(columns, Arc::new(stamps.with_timezone("+00:00")), rows)
    }

    /// A joined row for each pair with these stamps.
    pub(crate) fn stamped(
        &self,
        columns: Two<Vec<ArrayRef>>,
        stamps: ArrayRef,
        rows: usize,
    ) -> Result<RecordBatch, Broken> {
        let user = |side: usize| self.plan.types.of(side).len().saturating_sub(1);
        let (left, right) = (columns.left.into_iter().take(user(0)), columns.right.into_iter().take(user(1)));
        Ok(batch_of(&self.plan.schema, left.chain(right).chain([stamps]).collect(), rows)?)
    }
}

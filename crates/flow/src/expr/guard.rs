//! AND and OR whose right side can fail: it is evaluated only on the rows that the left side leaves open, so that
//! `b <> 0 AND a / b > 1` is false, not an error, where `b` is 0.

use std::fmt;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, BooleanArray, RecordBatch};
use arrow_schema::{DataType, Schema};
use arrow_select::filter::filter_record_batch;
use datafusion_common::{Result, internal_err};
use datafusion_expr::ColumnarValue;
use datafusion_physical_expr::PhysicalExpr;

/// `left AND right` or `left OR right`.
#[derive(Debug, Clone, Eq)]
pub(crate) struct Guard {
    left: Arc<dyn PhysicalExpr>,
    and: bool,
    right: Arc<dyn PhysicalExpr>,
}

// Written out because the derived comparison of trait objects would move them.
impl PartialEq for Guard {
    fn eq(&self, other: &Self) -> bool {
        self.and == other.and && self.left.eq(&other.left) && self.right.eq(&other.right)
    }
}

impl std::hash::Hash for Guard {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.and.hash(state);
        self.left.hash(state);
        self.right.hash(state);
    }
}

impl Guard {
    pub(crate) fn new(left: Arc<dyn PhysicalExpr>, and: bool, right: Arc<dyn PhysicalExpr>) -> Self {
        Self { left, and, right }
    }

    /// Its left side, whether it is an AND, and its right side.
    pub(crate) fn parts(&self) -> (&Arc<dyn PhysicalExpr>, bool, &Arc<dyn PhysicalExpr>) {
        (&self.left, self.and, &self.right)
    }

    /// Kleene's logic for one row.
    fn combine(&self, left: Option<bool>, right: Option<bool>) -> Option<bool> {
        let decided = !self.and;
        match (left, right) {
            (Some(l), _) if l == decided => Some(decided),
            (_, Some(r)) if r == decided => Some(decided),
            (Some(_), Some(r)) => Some(r),
            _ => None,
        }
    }
}

fn booleans(value: ColumnarValue, rows: usize) -> Result<BooleanArray> {
    let array: ArrayRef = value.into_array(rows)?;
    Ok(array.as_boolean_opt().cloned().unwrap_or_else(|| BooleanArray::new_null(rows)))
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} {} {})", self.left, if self.and { "AND" } else { "OR" }, self.right)
    }
}

impl PhysicalExpr for Guard {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        Ok(self.left.nullable(schema)? || self.right.nullable(schema)?)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let rows = batch.num_rows();
        let left = booleans(self.left.evaluate(batch)?, rows)?;
        let open: BooleanArray = left.iter().map(|l| Some(l != Some(!self.and))).collect();
        let count = open.true_count();
        if count == 0 {
            return Ok(ColumnarValue::Array(Arc::new(left)));
        }
        let result: BooleanArray = if count == rows {
            let right = booleans(self.right.evaluate(batch)?, rows)?;
            left.iter().zip(&right).map(|(l, r)| self.combine(l, r)).collect()
        } else {
            let part = filter_record_batch(batch, &open)?;
            let right = booleans(self.right.evaluate(&part)?, count)?;
            let mut right = right.iter();
            left.iter()
                .zip(&open)
                .map(|(l, o)| if o == Some(true) { self.combine(l, right.next().flatten()) } else { l })
                .collect()
        };
        Ok(ColumnarValue::Array(Arc::new(result)))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.left, &self.right]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        match <[Arc<dyn PhysicalExpr>; 2]>::try_from(children) {
            Ok([left, right]) => Ok(Arc::new(Self { left, and: self.and, right })),
            Err(_) => internal_err!("a guard has two sides"),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

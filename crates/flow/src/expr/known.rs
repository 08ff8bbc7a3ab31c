//! An expression whose type is known once for all.
//!
//! DataFusion asks an expression for its type, whether it may be null, and its name (the whole expression as text) each time
//! a function or a CASE around it is evaluated: for a batch of one event that costs more than the values.

use std::fmt;
use std::sync::Arc;

use arrow_array::{BooleanArray, RecordBatch};
use arrow_schema::{DataType, FieldRef, Schema};
use datafusion_common::Result;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_expr::ColumnarValue;
use datafusion_physical_expr::PhysicalExpr;

/// An expression and its field.
#[derive(Debug, Clone, Eq)]
struct Known {
    expr: Arc<dyn PhysicalExpr>,
    field: FieldRef,
}

/// The same expression for batches of this schema, in which each part knows its type.
pub(crate) fn known(expr: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    let wrap = |expr: Arc<dyn PhysicalExpr>| {
        // Columns and literals know theirs, and are looked for by those around them.
        if expr.children().is_empty() {
            return Ok(Transformed::no(expr));
        }
        let field = expr.return_field(schema)?;
        Ok(Transformed::yes(Arc::new(Known { expr, field }) as Arc<dyn PhysicalExpr>))
    };
    Ok(expr.transform_up(wrap)?.data)
}

// Written out because the derived comparison of trait objects would move them.
impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        self.expr.eq(&other.expr) && self.field == other.field
    }
}

impl std::hash::Hash for Known {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.expr.hash(state);
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.expr, f)
    }
}

impl PhysicalExpr for Known {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(self.field.data_type().clone())
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(self.field.is_nullable())
    }

    fn return_field(&self, _: &Schema) -> Result<FieldRef> {
        Ok(Arc::clone(&self.field))
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.expr.evaluate(batch)
    }

    fn evaluate_selection(&self, batch: &RecordBatch, selection: &BooleanArray) -> Result<ColumnarValue> {
        self.expr.evaluate_selection(batch, selection)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.expr.children()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let expr = Arc::clone(&self.expr).with_new_children(children)?;
        Ok(Arc::new(Self { expr, field: Arc::clone(&self.field) }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expr.fmt_sql(f)
    }
}

//! Rewrites a compiled expression so that it never wraps and never evaluates what a guard forbids.
//!
//! - `+ - *` on integers fail on overflow, also within functions' arguments; `-x` is `0 - x`.
//! - `a AND b`, `a OR b` evaluate `b`, if it can fail, only on the rows that `a` leaves open.

use std::sync::Arc;

use arrow_schema::Schema;
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::Operator;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{BinaryExpr, Literal, NegativeExpr};

use crate::expr::fallible::fallible;
use crate::expr::guard::Guard;

/// The exact form of `expr` over batches of `schema`.
pub(crate) fn exact(expr: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    expr.transform_up(|e| {
        if let Some(negative) = e.downcast_ref::<NegativeExpr>() {
            return negate(negative, schema)
                .map(|n| n.map_or_else(|| Transformed::no(Arc::clone(&e)), Transformed::yes));
        }
        let Some(binary) = e.downcast_ref::<BinaryExpr>() else { return Ok(Transformed::no(e)) };
        let (left, right) = (Arc::clone(binary.left()), Arc::clone(binary.right()));
        Ok(match binary.op() {
            Operator::Plus | Operator::Minus | Operator::Multiply => {
                Transformed::yes(Arc::new(BinaryExpr::new(left, *binary.op(), right).with_fail_on_overflow(true)))
            }
            Operator::And | Operator::Or if fallible(&right, schema) => {
                Transformed::yes(Arc::new(Guard::new(left, *binary.op() == Operator::And, right)))
            }
            _ => Transformed::no(e),
        })
    })
    .data()
}

/// `0 - x` for an integer `x`; floating point keeps its sign of zero.
fn negate(negative: &NegativeExpr, schema: &Schema) -> Result<Option<Arc<dyn PhysicalExpr>>> {
    let argument = Arc::clone(negative.arg());
    let kind = argument.data_type(schema)?;
    if !kind.is_integer() {
        return Ok(None);
    }
    let zero: Arc<dyn PhysicalExpr> = Arc::new(Literal::new(ScalarValue::new_zero(&kind)?));
    Ok(Some(Arc::new(BinaryExpr::new(zero, Operator::Minus, argument).with_fail_on_overflow(true))))
}

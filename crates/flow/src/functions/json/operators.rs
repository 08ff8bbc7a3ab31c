//! `->`, `->>` and `?`.

use datafusion_common::{DFSchema, Result};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion_expr::{Expr, ScalarUDF};
use datafusion_sql::sqlparser::ast::BinaryOperator;
use std::sync::Arc;

use super::access::{Access, Kind};

/// Turns the JSON operators into function calls.
#[derive(Debug)]
pub(crate) struct Operators;

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let kind = match &expr.op {
            BinaryOperator::Arrow => Kind::Get,
            BinaryOperator::LongArrow => Kind::Text,
            BinaryOperator::Question => Kind::Contains,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        // `j -> 'a' ->> 'b'` is one walk along `a`, `b`.
        let mut args = match expr.left {
            Expr::ScalarFunction(call) if call.func.name() == Kind::Get.name() => call.args,
            left => vec![left],
        };
        args.push(expr.right);
        let function = Arc::new(ScalarUDF::from(Access::new(kind)));
        Ok(PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction::new_udf(function, args))))
    }
}

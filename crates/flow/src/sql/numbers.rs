//! How numbers of different kinds meet, before types are resolved.
//!
//! A literal such as `0.9` is an exact decimal. Where it meets a floating point value it becomes one: a double may be
//! far outside a decimal's range, so comparing it with a literal must not fail. Counts (`cardinality`, …) are plain
//! `bigint`, not unsigned. A sum of `bigint` has room for more than a `bigint`.

use arrow_schema::DataType;
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_common::{DFSchema, Result};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, cast};

/// Rewrites every expression of `plan`.
pub(crate) fn settle(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up(|plan| {
        let schema = match &plan {
            LogicalPlan::TableScan(scan) => scan.projected_schema.as_ref().clone(),
            other => merge_schema(&other.inputs()),
        };
        let names = NamePreserver::new(&plan);
        let rewritten = plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let settled = expr.transform_up(|e| expression(e, &schema))?;
            Ok(settled.update_data(|e| name.restore(e)))
        })?;
        // The output columns may have changed their types.
        rewritten.map_data(LogicalPlan::recompute_schema)
    })
    .data()
}

fn expression(mut expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let unsigned = matches!(&expr, Expr::ScalarFunction(call) if call.func.name() != "arrow_cast")
        && kind(&expr, schema) == Some(DataType::UInt64);
    if unsigned {
        return Ok(Transformed::yes(cast(expr, DataType::Int64)));
    }
    let mut changed = false;
    match &mut expr {
        Expr::AggregateFunction(call) if call.func.name() == "sum" => changed = widen(&mut call.params.args, schema),
        Expr::WindowFunction(call) if call.fun.name() == "sum" => changed = widen(&mut call.params.args, schema),
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if op.supports_propagation() || op.is_numerical_operators() =>
        {
            changed = meet(&mut [left.as_mut(), right.as_mut()], schema);
        }
        Expr::Between(between) => {
            let mut parts = [between.expr.as_mut(), between.low.as_mut(), between.high.as_mut()];
            changed = meet(&mut parts, schema);
        }
        Expr::InList(list) => {
            let mut parts: Vec<&mut Expr> = std::iter::once(list.expr.as_mut()).chain(list.list.iter_mut()).collect();
            changed = meet(&mut parts, schema);
        }
        Expr::Case(case) => {
            let results = case.when_then_expr.iter_mut().map(|(_, then)| then.as_mut());
            let mut parts: Vec<&mut Expr> = results.chain(case.else_expr.as_deref_mut()).collect();
            changed = meet(&mut parts, schema);
        }
        Expr::ScalarFunction(call) if MIXING.contains(&call.func.name()) => {
            let mut parts: Vec<&mut Expr> = call.args.iter_mut().collect();
            changed = meet(&mut parts, schema);
        }
        _ => {}
    }
    Ok(if changed { Transformed::yes(expr) } else { Transformed::no(expr) })
}

/// A sum of `bigint` would wrap: it is a `decimal(38,0)`, as it is a `numeric` in PostgreSQL.
fn widen(args: &mut [Expr], schema: &DFSchema) -> bool {
    let [arg] = args else { return false };
    let wide = matches!(kind(arg, schema), Some(DataType::Int64 | DataType::UInt64));
    if wide {
        *arg = cast(std::mem::take(arg), DataType::Decimal128(38, 0));
    }
    wide
}

/// Functions whose arguments are brought to one type.
const MIXING: &[&str] = &["coalesce", "greatest", "ifnull", "least", "make_array", "nullif", "nvl", "nvl2"];

fn kind(expr: &Expr, schema: &DFSchema) -> Option<DataType> {
    expr.get_type(schema).ok()
}

/// Makes decimals floating point where one of the parts is. Tells whether anything changed.
fn meet(parts: &mut [&mut Expr], schema: &DFSchema) -> bool {
    let kinds: Vec<Option<DataType>> = parts.iter().map(|p| kind(p, schema)).collect();
    if !kinds.iter().flatten().any(DataType::is_floating) {
        return false;
    }
    let mut changed = false;
    for (part, kind) in parts.iter_mut().zip(kinds) {
        if kind.is_some_and(|k| k.is_decimal()) {
            **part = cast(std::mem::take(*part), DataType::Float64);
            changed = true;
        }
    }
    changed
}

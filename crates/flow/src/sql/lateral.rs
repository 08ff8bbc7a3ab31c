//! `FROM t CROSS JOIN UNNEST(t.list) AS u(x)`: a join whose right side is made of the left row's lists is an unnest of
//! the row itself. `LEFT JOIN UNNEST(…) … ON true` keeps rows whose lists are empty.

use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_common::{Column, NullHandling, Result, ScalarValue, UnnestOptions};
use datafusion_expr::{Expr, Join, JoinType, LogicalPlan, LogicalPlanBuilder};

/// Rewrites every such join of `plan`.
pub(crate) fn spread(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up(|plan| {
        let spread = match &plan {
            LogicalPlan::Join(join) => sideways(join)?,
            _ => None,
        };
        Ok(spread.map_or_else(|| Transformed::no(plan), Transformed::yes))
    })
    .data()
}

fn sideways(join: &Join) -> Result<Option<LogicalPlan>> {
    let Some(lists) = lists(&join.right) else { return Ok(None) };
    let always = matches!(&join.filter, None | Some(Expr::Literal(ScalarValue::Boolean(Some(true)), _)));
    let empty = match join.join_type {
        JoinType::Inner => NullHandling::Drop,
        JoinType::Left if always => NullHandling::PreserveAndExpandEmpty,
        _ => return Ok(None),
    };
    if !join.on.is_empty() || lists.len() != join.right.schema().fields().len() {
        return Ok(None);
    }
    let row: Vec<Expr> = join.left.schema().columns().into_iter().map(Expr::Column).collect();
    let names: Vec<String> = (0..lists.len()).map(|i| format!("__unnest_{i}")).collect();
    let lists = lists.into_iter().zip(&names).map(|(list, name)| list.alias(name));
    let columns = names.iter().map(Column::from_name).collect();
    let output = join.right.schema().iter().zip(&names).map(|((table, field), name)| {
        Expr::Column(Column::from_name(name)).alias_qualified(table.cloned(), field.name())
    });
    let options = UnnestOptions::new().with_null_handling(empty);
    let plan = LogicalPlanBuilder::from(join.left.as_ref().clone())
        .project(row.iter().cloned().chain(lists))?
        .unnest_columns_with_options(columns, options)?
        .project(row.into_iter().chain(output))?;
    let plan = match &join.filter {
        Some(filter) if !always => plan.filter(filter.clone())?,
        _ => plan,
    };
    plan.build().map(Some)
}

/// The lists that `plan` spreads, if it does nothing but that to the row on its left.
fn lists(plan: &LogicalPlan) -> Option<Vec<Expr>> {
    let mut plan = plan;
    let mut unnested = false;
    loop {
        plan = match plan {
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            LogicalPlan::Subquery(subquery) => &subquery.subquery,
            LogicalPlan::Unnest(unnest) if unnest.struct_type_columns.is_empty() => {
                unnested = true;
                &unnest.input
            }
            LogicalPlan::Projection(made) if matches!(made.input.as_ref(), LogicalPlan::EmptyRelation(_)) => {
                let exprs = made.expr.iter().cloned().map(of_row);
                return if unnested { exprs.collect() } else { None };
            }
            LogicalPlan::Projection(moved) if moved.expr.iter().all(is_column) => &moved.input,
            _ => return None,
        };
    }
}

fn is_column(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => is_column(&alias.expr),
        other => matches!(other, Expr::Column(_)),
    }
}

/// The expression with the left row's columns as its own.
fn of_row(expr: Expr) -> Option<Expr> {
    let own = expr.unalias().transform(|e| {
        Ok(match e {
            Expr::OuterReferenceColumn(_, column) => Transformed::yes(Expr::Column(column)),
            other => Transformed::no(other),
        })
    });
    own.data().ok()
}

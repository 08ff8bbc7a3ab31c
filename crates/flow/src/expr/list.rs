//! `x IN (…)` with a list that is not the same for every row, as comparisons.
//!
//! DataFusion takes a list for constant if it has values for a batch without rows. A CASE has (those of its first branch), so
//! `1 IN (CASE WHEN b THEN 0 ELSE 1 END)` would always be false.

use datafusion_common::Result;
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_expr::expr::InList;
use datafusion_expr::{Expr, in_list};

/// The same without such lists.
pub(crate) fn compared(expr: Expr) -> Result<Expr> {
    expr.transform_up(|e| match e {
        Expr::InList(list) if list.list.iter().any(Expr::any_column_refs) => Ok(Transformed::yes(one_by_one(list))),
        e => Ok(Transformed::no(e)),
    })
    .data()
}

fn one_by_one(InList { expr, list, negated }: InList) -> Expr {
    let (by_row, constant): (Vec<_>, Vec<_>) = list.into_iter().partition(Expr::any_column_refs);
    let constant = (!constant.is_empty()).then(|| in_list(expr.as_ref().clone(), constant, negated));
    let by_row = by_row.into_iter().map(|one| match negated {
        true => expr.as_ref().clone().not_eq(one),
        false => expr.as_ref().clone().eq(one),
    });
    let all = constant.into_iter().chain(by_row);
    let joined = all.reduce(|left, right| if negated { left.and(right) } else { left.or(right) });
    joined.unwrap_or(Expr::InList(InList { expr, list: Vec::new(), negated }))
}

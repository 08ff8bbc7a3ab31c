//! Deduplication and the best of a group: `SELECT DISTINCT …`, and `ROW_NUMBER() OVER (PARTITION BY … ORDER BY …)` of
//! which only the first numbers pass, in WHERE behind a subquery or in QUALIFY.
//!
//! Both are recognised on the plan as it was written, and become one node that keeps the first rows of each group.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_common::{Column, DFSchema, DFSchemaRef, Result, ScalarValue, TableReference, plan_err};
use datafusion_expr::expr::Sort;
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{
    BinaryExpr, Distinct, Expr, Extension, Filter, LogicalPlan, LogicalPlanBuilder, Operator, Projection,
    UserDefinedLogicalNodeCore, WindowFunctionDefinition,
};

use crate::catalog::Catalog;

/// The column by which DISTINCT knows when an event happened, beside those that are asked for.
const TIME: &str = "__keep_time";

/// The first rows of each group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct KeepNode {
    pub(crate) input: LogicalPlan,
    /// What a group is.
    pub(crate) partition: Vec<Expr>,
    /// Which rows come first; without any, those that arrive first.
    pub(crate) order: Vec<Sort>,
    /// How many rows are kept.
    pub(crate) limit: usize,
    /// The number of each row, as a column behind the others.
    pub(crate) number: Option<(Option<TableReference>, Arc<arrow_schema::Field>)>,
    pub(crate) schema: DFSchemaRef,
}

impl PartialOrd for KeepNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let parts = |n: &Self| (n.partition.clone(), n.order.clone(), n.limit, n.input.clone());
        parts(self).partial_cmp(&parts(other))
    }
}

impl UserDefinedLogicalNodeCore for KeepNode {
    fn name(&self) -> &str {
        "Keep"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.partition.iter().cloned().chain(self.order.iter().map(|sort| sort.expr.clone())).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keep: {}", self.limit)
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let Ok([input]) = <[LogicalPlan; 1]>::try_from(inputs) else { return plan_err!("one input") };
        let order = exprs.split_off(self.partition.len().min(exprs.len()));
        let order = order.into_iter().zip(&self.order).map(|(expr, sort)| Sort { expr, ..sort.clone() });
        let order = order.collect();
        Self::new(input, exprs, order, self.limit, self.number.clone())
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.input.schema().fields().len();
        Some(vec![output_columns.iter().copied().filter(|place| *place < width).collect()])
    }
}

impl KeepNode {
    fn new(
        input: LogicalPlan,
        partition: Vec<Expr>,
        order: Vec<Sort>,
        limit: usize,
        number: Option<(Option<TableReference>, Arc<arrow_schema::Field>)>,
    ) -> Result<Self> {
        let own = input.schema().iter().map(|(table, field)| (table.cloned(), Arc::clone(field)));
        let fields = own.chain(number.clone()).collect();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        Ok(Self { input, partition, order, limit, number, schema })
    }

    fn plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }
}

/// Puts nodes where `plan` keeps the first rows of groups.
pub(crate) fn recognise(plan: LogicalPlan, catalog: &Catalog) -> Result<LogicalPlan> {
    plan.transform_up(|plan| {
        let found = match &plan {
            LogicalPlan::Filter(filter) => numbered(filter)?,
            LogicalPlan::Distinct(Distinct::All(input)) if !matches!(input.as_ref(), LogicalPlan::Union(_)) => {
                Some(distinct(input, catalog)?)
            }
            _ => None,
        };
        Ok(found.map_or_else(|| Transformed::no(plan), Transformed::yes))
    })
    .data()
}

fn distinct(input: &LogicalPlan, catalog: &Catalog) -> Result<LogicalPlan> {
    let columns = input.schema().columns();
    let partition: Vec<Expr> = columns.iter().cloned().map(Expr::Column).collect();
    let by = |time: Column| vec![Expr::Column(time).sort(true, false)];
    if let Some(time) = time_of(input, catalog) {
        return Ok(KeepNode::new(input.clone(), partition, by(time), 1, None)?.plan());
    }
    let LogicalPlan::Projection(made) = input else {
        return Ok(KeepNode::new(input.clone(), partition, Vec::new(), 1, None)?.plan());
    };
    let Some(time) = time_of(&made.input, catalog) else {
        return Ok(KeepNode::new(input.clone(), partition, Vec::new(), 1, None)?.plan());
    };
    let exprs = made.expr.iter().cloned().chain([Expr::Column(time).alias(TIME)]).collect();
    let timed = LogicalPlan::Projection(Projection::try_new(exprs, Arc::clone(&made.input))?);
    let node = KeepNode::new(timed, partition.clone(), by(Column::from_name(TIME)), 1, None)?;
    LogicalPlanBuilder::from(node.plan()).project(partition)?.build()
}

/// The column of `plan` that is the event time of its topic, unchanged.
fn time_of(plan: &LogicalPlan, catalog: &Catalog) -> Option<Column> {
    let column = |place: usize| plan.schema().columns().get(place).cloned();
    match plan {
        LogicalPlan::TableScan(scan) => {
            let time = catalog.event_times.get(scan.table_name.table())?;
            column(plan.schema().index_of_column_by_name(Some(&scan.table_name), &time.name)?)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let time = time_of(&alias.input, catalog)?;
            column(alias.input.schema().maybe_index_of_column(&time)?)
        }
        LogicalPlan::Projection(made) => {
            let time = Expr::Column(time_of(&made.input, catalog)?);
            column(made.expr.iter().position(|expr| expr.clone().unalias() == time)?)
        }
        other => {
            let time = other.inputs().into_iter().find_map(|input| time_of(input, catalog))?;
            other.schema().maybe_index_of_column(&time).and_then(column)
        }
    }
}

/// A filter on the number of a row, as a node below what is left of the filter.
fn numbered(filter: &Filter) -> Result<Option<LogicalPlan>> {
    let conditions = split_conjunction(&filter.predicate);
    for (at, condition) in conditions.iter().enumerate() {
        let Some((column, limit)) = first_rows(condition) else { continue };
        let Some(input) = kept(&filter.input, &column, limit)? else { continue };
        let rest = conditions.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, condition)| (*condition).clone());
        return Ok(Some(match datafusion_expr::utils::conjunction(rest) {
            Some(rest) => LogicalPlan::Filter(Filter::try_new(rest, Arc::new(input))?),
            None => input,
        }));
    }
    Ok(None)
}

/// A column and how many rows pass, of a condition like `n = 1`, `n <= 3` or `4 > n`.
fn first_rows(condition: &Expr) -> Option<(Column, usize)> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return None };
    let (column, op, literal) = match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Literal(value, _)) => (column, *op, value),
        (Expr::Literal(value, _), Expr::Column(column)) => (column, op.swap()?, value),
        _ => return None,
    };
    let number = match literal {
        ScalarValue::Int64(Some(number)) => usize::try_from(*number).ok()?,
        ScalarValue::UInt64(Some(number)) => usize::try_from(*number).ok()?,
        _ => return None,
    };
    let limit = match op {
        Operator::Eq if number == 1 => 1,
        Operator::LtEq => number,
        Operator::Lt => number.checked_sub(1)?,
        _ => return None,
    };
    (limit > 0).then(|| (column.clone(), limit))
}

/// `plan` with a node instead of the window that numbers its rows in `column`.
fn kept(plan: &LogicalPlan, column: &Column, limit: usize) -> Result<Option<LogicalPlan>> {
    let Some(place) = plan.schema().maybe_index_of_column(column) else { return Ok(None) };
    let (input, inner) = match plan {
        LogicalPlan::SubqueryAlias(alias) => (&alias.input, alias.input.schema().columns().get(place).cloned()),
        LogicalPlan::Projection(made) => {
            let inner = made.expr.get(place).cloned().map(Expr::unalias);
            (&made.input, inner.and_then(|expr| expr.try_as_col().cloned()))
        }
        LogicalPlan::Filter(filter) => (&filter.input, Some(column.clone())),
        LogicalPlan::Window(window) => {
            let [Expr::WindowFunction(call)] = window.window_expr.as_slice() else { return Ok(None) };
            let own = place >= window.input.schema().fields().len();
            let row_number = matches!(&call.fun, WindowFunctionDefinition::WindowUDF(f) if f.name() == "row_number");
            if !own || !row_number {
                return Ok(None);
            }
            let number = window.schema.iter().nth(place).map(|(table, field)| (table.cloned(), Arc::clone(field)));
            let (partition, order) = (call.params.partition_by.clone(), call.params.order_by.clone());
            return Ok(Some(KeepNode::new(window.input.as_ref().clone(), partition, order, limit, number)?.plan()));
        }
        _ => return Ok(None),
    };
    let Some(inner) = inner else { return Ok(None) };
    let Some(input) = kept(input, &inner, limit)? else { return Ok(None) };
    plan.with_new_exprs(plan.expressions(), vec![input]).map(Some)
}

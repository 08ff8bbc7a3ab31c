//! GROUP BY without a window: results that are updated, and what may stand behind them.

use datafusion_expr::{Aggregate as Plan, Expr, ExprSchemable};

use crate::catalog::Catalog;
use crate::error::SqlError;
use crate::expr::batch_schema;
use crate::lower::aggregate::{Columns, bare};
use crate::lower::window::spread;
use crate::lower::{Lowered, Lowering, Result, Trace, plan_error};
use crate::ops::Op;
use crate::stream::{Aggregate, Arguments, Chain, Source, Stage, UpdateAggregatePlan};

impl Lowering<'_> {
    pub(super) fn update_aggregate(
        &mut self,
        plan: &Plan,
        input: Lowered,
        traces: Vec<Option<Trace>>,
    ) -> Result<Lowered> {
        if !self.catalog.updating {
            return Err(updates());
        }
        let tables = |topic: &usize| self.topics.get(*topic).filter(|name| self.catalog.tables.contains_key(*name));
        if let Some(table) = input.topics.iter().find_map(tables) {
            let message = format!("topic `{table}` is a table: its rows replace each other, and would count twice");
            return Err(SqlError::new("sql-updates", message).help("group the rows of the topic that it is made from"));
        }
        let input = spread(input)?;
        let mut columns = Columns::new();
        let mut key = Vec::with_capacity(plan.group_expr.len());
        for expr in &plan.group_expr {
            let kind = expr.get_type(&input.schema).map_err(|e| plan_error(&e))?;
            key.push((columns.add(self.compile(expr, &input.schema)?, kind.clone()), kind));
        }
        let aggregates = self.aggregates(plan, &input, &mut columns)?;
        let retracting = match input.updates {
            Some(_) => Some(arguments(plan, &aggregates, &input)?),
            None => None,
        };
        let updates = Some((0..key.len()).map(Some).collect());
        let mut lineage: Vec<Option<Trace>> =
            traces.iter().copied().chain(std::iter::repeat_n(None, plan.aggr_expr.len())).collect();
        // Rows are given out again whenever something changes, however long ago they happened.
        self.forget_time(&mut lineage);
        let operator = UpdateAggregatePlan { key, aggregates, retracting, schema: batch_schema(&plan.schema) };
        self.require(&traces, &input.topics);
        let lowered = self.stage(input, columns, Box::new(operator), &plan.schema, lineage)?;
        Ok(Lowered { updates, windows: None, ..lowered })
    }
}

/// What each aggregate reads, where rows may be taken back.
fn arguments(plan: &Plan, aggregates: &[Aggregate], input: &Lowered) -> Result<Vec<Arguments>> {
    let of = |(aggregate, expr): (&Aggregate, &Expr)| {
        let function = &aggregate.function;
        let ordered = !function.order_bys().is_empty();
        if !ordered && BY_ARRIVAL.contains(&function.fun().name()) {
            let message = format!("{}() depends on the order of rows, and these change", function.fun().name());
            return Err(SqlError::new("sql-updates", message).help("say the order, as in array_agg(x ORDER BY y)"));
        }
        let whole = match bare(expr) {
            Expr::AggregateFunction(call) => call.params.args.iter().all(|arg| match arg {
                Expr::Cast(cast) => cast.expr.get_type(&input.schema).is_ok_and(|kind| kind.is_integer()),
                _ => false,
            }),
            _ => false,
        };
        Ok(Arguments { whole })
    };
    aggregates.iter().zip(&plan.aggr_expr).map(of).collect()
}

/// Aggregates of rows in their order.
const BY_ARRIVAL: &[&str] = &["array_agg", "first_value", "last_value", "nth_value", "string_agg"];

/// Refuses rows that are taken back later.
pub(super) fn only_appends(input: &Lowered, catalog: &Catalog) -> Result<()> {
    if input.updates.is_some() { Err(not_behind_updates(catalog)) } else { Ok(()) }
}

fn not_behind_updates(catalog: &Catalog) -> SqlError {
    let second = "let a second service do it, which reads the table topic that this one writes";
    SqlError::new("sql-updates", "a step would have to take back what it has done when a row changes").help(
        match catalog.late_us {
            Some(_) => format!("leave `late: update` out, or {second}"),
            None => second.to_owned(),
        },
    )
}

/// Refuses steps that cannot take rows back behind such that do.
pub(crate) fn taken_back(stages: &[Stage], last: &Lowered, catalog: &Catalog) -> Result<()> {
    let updates = |source: &Source| match source {
        Source::Stage(at) => stages.get(*at).is_some_and(|stage| stage.operator.updates()),
        _ => false,
    };
    // A lookup may have changed since a row came.
    let fixed = |ops: &[Op]| ops.iter().all(|op| matches!(op, Op::Select(_) | Op::Filter(_) | Op::Project(_)));
    let fits = |stage: &Stage| {
        let fits = |chain: &Chain| !updates(&chain.source) || (stage.operator.takes_updates() && fixed(&chain.ops));
        stage.sides.iter().all(fits)
    };
    let ends = !updates(&last.source) || fixed(&last.ops);
    if ends && stages.iter().all(fits) { Ok(()) } else { Err(not_behind_updates(catalog)) }
}

/// The places of the columns by which rows are known that the query updates.
pub(crate) fn key(last: &Lowered) -> Result<Option<Vec<usize>>> {
    let Some(key) = &last.updates else { return Ok(None) };
    if key.is_empty() {
        let error = SqlError::new("sql-update-key", "the query updates one row, which has no key");
        return Err(error.help("give it one, as in SELECT 'all' AS id, count(*) AS n FROM … GROUP BY 1"));
    }
    match key.iter().copied().collect::<Option<Vec<usize>>>() {
        Some(key) => Ok(Some(key)),
        None => Err(SqlError::new(
            "sql-update-key",
            "the query leaves out a column by which the rows that it updates are known",
        )
        .help("select all columns of GROUP BY, or of PARTITION BY and the ROW_NUMBER() itself")),
    }
}

pub(super) fn updates() -> SqlError {
    SqlError::new("sql-updates", "the results of this GROUP BY would change with every event").help(
        "group by a window, as in FROM tumble(topic, time, INTERVAL '1 minute') GROUP BY …, window_start, window_end; \
         or write to a topic with `kind: table`, which keeps the latest row of each key",
    )
}

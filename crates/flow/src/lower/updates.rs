//! GROUP BY without a window and rows of table topics: results that are updated, and what may stand behind them.

use datafusion_expr::{Aggregate as Plan, Expr, ExprSchemable};
use millstream_event::Name;

use crate::error::SqlError;
use crate::expr::batch_schema;
use crate::lower::aggregate::{Columns, bare};
use crate::lower::window::spread;
use crate::lower::{Lowered, Lowering, Result, Trace, plan_error};
use crate::ops::Op;
use crate::stream::{Aggregate, Arguments, Blueprint, Chain, Source, Stage, TableRowsPlan, UpdateAggregatePlan};

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

    /// Refuses rows that are taken back later.
    pub(super) fn only_appends(&self, input: &Lowered) -> Result<()> {
        if input.updates.is_some() { Err(self.not_behind_updates()) } else { Ok(()) }
    }

    fn not_behind_updates(&self) -> SqlError {
        let Some(table) = self.tables.first() else {
            let other = "group, select or filter alone, or read the topic that the rows are made from";
            let help = match self.catalog.late_us {
                Some(_) => format!("leave `late: update` out, or {other}"),
                None => other.to_owned(),
            };
            return SqlError::new("sql-updates", "a step would have to take back what it has done when a row changes")
                .help(help);
        };
        let message = format!("topic `{table}` is a table: a step would take a row that replaces another for an event");
        SqlError::new("sql-table-rows", message)
            .help("read the topic that the table is made from, or join a stream with the table on its key")
    }

    /// Refuses steps that cannot take rows back behind such that do.
    pub(crate) fn taken_back(&self, last: &Lowered) -> Result<()> {
        let updates = |source: &Source| match source {
            Source::Stage(at) => self.stages.get(*at).is_some_and(|stage| stage.operator.updates()),
            _ => false,
        };
        // A lookup may have changed since a row came.
        let fixed = |ops: &[Op]| ops.iter().all(|op| matches!(op, Op::Select(_) | Op::Filter(_) | Op::Project(_)));
        let fits = |stage: &Stage| {
            let fits = |chain: &Chain| !updates(&chain.source) || (stage.operator.takes_updates() && fixed(&chain.ops));
            stage.sides.iter().all(fits)
        };
        let ends = !updates(&last.source) || fixed(&last.ops);
        if ends && self.stages.iter().all(fits) { Ok(()) } else { Err(self.not_behind_updates()) }
    }

    /// The table topic that is read here, if its rows flow.
    pub(super) fn flowing_table(&self, source: &Source) -> Option<Name> {
        match source {
            Source::Topic(name) if !self.held && self.catalog.tables.contains_key(name) => Some(name.clone()),
            _ => None,
        }
    }

    /// The rows of a table topic as changes.
    pub(super) fn table_rows(&mut self, name: Name, input: Lowered, places: Vec<usize>) -> Result<Lowered> {
        if !self.catalog.updating {
            let message =
                format!("topic `{name}` is a table: its rows replace each other, and so would what comes of them");
            return Err(SqlError::new("sql-table-rows", message).help(
                "write to a topic with `kind: table`, or read the topic that it is made from; a stream may be joined \
                 with it on its key",
            ));
        }
        let topic = self.catalog.topics.get(&name);
        let key = self.catalog.tables.get(&name).into_iter().flatten();
        let key = key.filter_map(|column| topic?.column(column));
        let key: Vec<_> = key.map(|(place, column)| (place, column.kind.to_arrow())).collect();
        let schema = batch_schema(&input.schema);
        let updates = key.iter().map(|(place, _)| places.iter().position(|own| own == place)).collect();
        let key_names = self.catalog.tables.get(&name).cloned().unwrap_or_default();
        let operator = TableRowsPlan { name: name.to_string(), key, key_names, places, schema };
        operator.open().map_err(|e| {
            let message = format!("rows of the table topic `{name}` have a column that cannot be kept: {e}");
            SqlError::new("sql-table-rows", message).help("leave the column out")
        })?;
        self.tables.push(name);
        let chain = Chain { source: input.source, ops: Vec::new() };
        let source = self.add_stage(Stage { sides: vec![chain], operator: Box::new(operator) })?;
        let mut lineage = input.lineage;
        // A row is given out again when it is replaced, however long ago it happened.
        self.forget_time(&mut lineage);
        Ok(Lowered { source, lineage, updates: Some(updates), ..input })
    }

    /// A row and the one that it replaces meet: where rows of a table topic must come together by other columns than its
    /// key, all must.
    pub(crate) fn settle_tables(&mut self) {
        for table in &self.tables {
            let (Some(own), Some(asked)) = (self.catalog.tables.get(table), self.keys.get_mut(table)) else { continue };
            if !own.iter().all(|column| asked.contains(column)) {
                asked.clear();
            }
        }
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
        .help("select all columns of GROUP BY, or of PARTITION BY and the ROW_NUMBER() itself, or the table's key")),
    }
}

pub(super) fn updates() -> SqlError {
    SqlError::new("sql-updates", "the results of this GROUP BY would change with every event").help(
        "group by a window, as in FROM tumble(topic, time, INTERVAL '1 minute') GROUP BY …, window_start, window_end; \
         or write to a topic with `kind: table`, which keeps the latest row of each key",
    )
}

//! The first rows of groups: deduplication and the best of a group.

use arrow_schema::SortOptions;
use datafusion_expr::{Expr, ExprSchemable};

use crate::error::SqlError;
use crate::expr::batch_schema;
use crate::lower::aggregate::Columns;
use crate::lower::window::spread;
use crate::lower::{Lowered, Lowering, Result, Trace, column_of, plan_error};
use crate::sql::keep::KeepNode;
use crate::sql::time_windows::Kind;
use crate::stream::{Blueprint, DedupPlan, TopNPlan, Until, Windows};

/// The most rows that are kept of each group.
const FIRST_ROWS_MAX: usize = 10_000;

impl Lowering<'_> {
    pub(super) fn keep(&mut self, node: &KeepNode) -> Result<Lowered> {
        let input = spread(self.lower(&node.input)?)?;
        self.only_appends(&input)?;
        if node.limit > FIRST_ROWS_MAX {
            let message = format!("{} rows of each group would be kept; {FIRST_ROWS_MAX} are the most", node.limit);
            return Err(
                SqlError::new("sql-first-rows", message).help("ask for fewer, as in ROW_NUMBER() OVER (…) <= 100")
            );
        }
        let trace = |expr: &Expr| input.lineage.get(column_of(expr, &input.schema)?).copied().flatten();
        let traces: Vec<Option<Trace>> = node.partition.iter().map(trace).collect();
        let window = self.window_of(&node.partition, &input)?;
        let first = node.limit == 1 && self.arrival(node, &input);
        let mut columns = Columns::new();
        let width = input.schema.fields().len();
        for column in input.schema.columns() {
            let expr = Expr::Column(column);
            let kind = expr.get_type(&input.schema).map_err(|e| plan_error(&e))?;
            columns.add(self.compile(&expr, &input.schema)?, kind);
        }
        let mut place = |expr: &Expr| -> Result<_> {
            let kind = expr.get_type(&input.schema).map_err(|e| plan_error(&e))?;
            Ok(match column_of(expr, &input.schema) {
                Some(place) => (place, kind),
                None => (columns.add(self.compile(expr, &input.schema)?, kind.clone()), kind),
            })
        };
        let key = node.partition.iter().map(&mut place).collect::<Result<Vec<_>>>()?;
        let order = node.order.iter().map(|sort| {
            let (place, kind) = place(&sort.expr)?;
            Ok((place, kind, SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first }))
        });
        let order = order.collect::<Result<Vec<_>>>()?;
        let schema = batch_schema(&node.schema);
        let numbered = node.number.is_some();
        let mut lineage: Vec<Option<Trace>> = input.lineage.clone();
        lineage.extend(node.number.iter().map(|_| None));
        let mut updates = None;
        let operator: Box<dyn Blueprint> = if first {
            let until = match (window, self.catalog.state_ttl_us, order.first()) {
                (Some((place, plus)), ..) => Until::Window { place, plus },
                (None, Some(ttl), Some((place, ..))) => Until::Ttl { place: *place, ttl },
                // The table that the rows go to remembers as much.
                (None, ..) if self.catalog.updating => Until::Ever,
                (None, Some(_), None) => return Err(no_time()),
                (None, None, _) => return Err(unbounded()),
            };
            Box::new(DedupPlan { key: key.clone(), until, width, numbered, schema })
        } else {
            if window.is_none() {
                if !self.catalog.updating {
                    return Err(best_updates());
                }
                let number = (node.limit > 1).then_some(numbered.then_some(width));
                self.forget_time(&mut lineage);
                updates = Some(key.iter().map(|(place, _)| (*place < width).then_some(*place)).chain(number).collect());
            } else {
                // Its rows come when their windows are over, far behind their own time.
                self.forget_time(&mut lineage);
            }
            let row = input.schema.fields().iter().map(|field| field.data_type().clone()).collect();
            Box::new(TopNPlan { window, key: key.clone(), order, limit: node.limit, row, numbered, schema })
        };
        self.require(&traces, &input.topics);
        let lowered = self.stage(input, columns, operator, &node.schema, lineage)?;
        Ok(Lowered { updates, ..lowered })
    }

    /// The column by which the window of a row is known, if rows of different windows are in different groups, and how far
    /// behind it the window ends.
    fn window_of(&self, partition: &[Expr], input: &Lowered) -> Result<Option<(usize, i64)>> {
        let place = |wanted: Trace| {
            let mut places = partition.iter().filter_map(|expr| column_of(expr, &input.schema));
            places.find(|place| input.lineage.get(*place) == Some(&Some(wanted)))
        };
        if let Some(end) = place(Trace::WindowEnd) {
            return Ok(Some((end, 0)));
        }
        let Some(start) = place(Trace::WindowStart) else { return Ok(None) };
        match input.windows.map(|open| open.kind) {
            Some(Kind::Fixed(windows @ (Windows::Tumble { .. } | Windows::Hop { .. }))) => {
                Ok(Some((start, windows.size())))
            }
            _ => Err(SqlError::new("sql-group", "from window_start alone it is not known when the window is over")
                .help("add window_end to what is distinct, or to PARTITION BY")),
        }
    }

    /// Whether the first row is the one that arrives first: in no order, or in that of event time.
    fn arrival(&self, node: &KeepNode, input: &Lowered) -> bool {
        match node.order.as_slice() {
            [] => true,
            [sort] if sort.asc => {
                let place = column_of(&sort.expr, &input.schema);
                let trace = place.and_then(|place| input.lineage.get(place).copied().flatten());
                trace.is_some_and(|trace| self.times().contains(&trace))
            }
            _ => false,
        }
    }

    pub(super) fn forget_time(&self, lineage: &mut [Option<Trace>]) {
        let times = self.times();
        let is_time = |trace: &&mut Option<Trace>| trace.is_some_and(|trace| times.contains(&trace));
        lineage.iter_mut().filter(is_time).for_each(|trace| *trace = None);
    }
}

fn unbounded() -> SqlError {
    SqlError::new("sql-unbounded-state", "every key would be remembered for ever").help(
        "say for how long, as in state: {ttl: 1d}; or put the rows into windows, as in FROM tumble(topic, time, \
         INTERVAL '1 day'), and keep the first of each key, window_start and window_end",
    )
}

fn no_time() -> SqlError {
    SqlError::new("sql-unbounded-state", "when a key may be forgotten is not known without the event time")
        .help("select the event time in the subquery, or write ROW_NUMBER() OVER (PARTITION BY … ORDER BY time) = 1")
}

fn best_updates() -> SqlError {
    SqlError::new("sql-updates", "the first rows in this order would change with every event").help(
        "write to a topic with `kind: table`, or find them by window: FROM tumble(topic, time, INTERVAL '1 minute') and \
         PARTITION BY …, window_start, window_end",
    )
}

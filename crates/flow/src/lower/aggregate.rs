//! GROUP BY.

use std::sync::Arc;

use arrow_schema::{DataType, Field};
use datafusion_common::{Column, DFSchema, DFSchemaRef, TableReference};
use datafusion_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion_expr::{Aggregate as Plan, Expr, ExprSchemable, cast};
use datafusion_physical_expr::aggregate::LoweredAggregateBuilder;

use crate::error::SqlError;
use crate::expr::{Compiled, batch_schema, props};
use crate::lower::updates::updates;
use crate::lower::window::{Open, used_by};
use crate::lower::{Lowered, Lowering, Result, Trace, column_of, plan_error};
use crate::ops::Op;
use crate::ops::project::Project;
use crate::sql::time_windows::Kind;
use crate::stream::{Aggregate, Blueprint, Chain, GroupColumn, SessionPlan, Stage, WindowAggregatePlan, Windows};

/// Columns computed for an operator: its keys and arguments.
pub(super) struct Columns {
    exprs: Vec<Compiled>,
    fields: Vec<(Option<TableReference>, Arc<Field>)>,
    /// What is an argument already.
    known: Vec<(Expr, usize)>,
}

impl Columns {
    pub(super) fn new() -> Self {
        Self { exprs: Vec::new(), fields: Vec::new(), known: Vec::new() }
    }

    pub(super) fn add(&mut self, expr: Compiled, kind: DataType) -> usize {
        let place = self.fields.len();
        self.fields.push((None, Arc::new(Field::new(format!("c{place}"), kind, true))));
        self.exprs.push(expr);
        place
    }
}

impl Lowering<'_> {
    pub(super) fn aggregate(&mut self, plan: &Plan) -> Result<Lowered> {
        let input = self.lower(&plan.input)?;
        if plan.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_))) {
            let error = SqlError::new("sql-group", "GROUPING SETS, CUBE and ROLLUP are not supported");
            return Err(error.help("write one service for each grouping"));
        }
        // What is computed sees the windows themselves; the times of the windows alone need the panes only.
        let computed = computed(plan, &input.schema);
        let input = used_by(input, &computed)?;
        let trace = |expr: &Expr| input.lineage.get(column_of(expr, &input.schema)?).copied().flatten();
        let traces: Vec<Option<Trace>> = plan.group_expr.iter().map(trace).collect();
        let open = input.windows;
        let window = |trace: &Option<Trace>| matches!(trace, Some(Trace::WindowStart | Trace::WindowEnd));
        let Some(open) = open.filter(|_| traces.iter().any(window)) else {
            return self.update_aggregate(plan, input, traces);
        };
        self.only_appends(&input)?;
        let mut columns = Columns::new();
        let (mut group, mut key, mut ends) = (Vec::new(), Vec::new(), None);
        for (expr, trace) in plan.group_expr.iter().zip(&traces) {
            let kind = expr.get_type(&input.schema).map_err(|e| plan_error(&e))?;
            let compiled = self.compile(expr, &input.schema)?;
            match trace {
                Some(Trace::WindowStart) => {
                    let place = columns.add(compiled, kind);
                    ends = ends.or(Some((place, true)));
                    group.push(GroupColumn::Start);
                }
                Some(Trace::WindowEnd) => {
                    ends = Some((columns.add(compiled, kind), false));
                    group.push(GroupColumn::End);
                }
                _ => {
                    group.push(GroupColumn::Key(key.len()));
                    key.push((columns.add(compiled, kind.clone()), kind));
                }
            }
        }
        let (end, by_start) = ends.ok_or_else(updates)?;
        let aggregates = self.aggregates(plan, &input, &mut columns)?;
        let schema = batch_schema(&plan.schema);
        let late = self.catalog.late_us.filter(|_| matches!(open.kind, Kind::Fixed(_)));
        let updates = late.map(|_| known_by(&group));
        let operator: Box<dyn Blueprint> = match open.kind {
            Kind::Session { gap } => {
                Box::new(SessionPlan { gap, time: end, by_end: !by_start, key, aggregates, group, schema })
            }
            Kind::Fixed(windows) => {
                let (windows, spread) = (fixed(windows, by_start)?, open.spread);
                Box::new(WindowAggregatePlan { windows, spread, end, by_start, key, aggregates, group, late, schema })
            }
        };
        self.require(&traces, &input.topics);
        // A time within the window is no event time of what comes behind it.
        let times = self.times();
        let traces = traces.into_iter().map(|trace| trace.filter(|trace| !times.contains(trace)));
        let lineage = traces.chain(std::iter::repeat_n(None, plan.aggr_expr.len())).collect();
        let lowered = self.stage(input, columns, operator, &plan.schema, lineage)?;
        Ok(Lowered { updates, ..lowered })
    }

    /// A step with state over columns of `input`.
    pub(super) fn stage(
        &mut self,
        input: Lowered,
        columns: Columns,
        operator: Box<dyn Blueprint>,
        schema: &DFSchemaRef,
        lineage: Vec<Option<Trace>>,
    ) -> Result<Lowered> {
        let system = millstream_event::ColumnType::Timestamp.field(millstream_event::INGESTED_AT, false);
        let fields = columns.fields.iter().map(|(_, f)| f.as_ref().clone()).chain([system]);
        let batch = Arc::new(arrow_schema::Schema::new(fields.collect::<Vec<_>>()));
        let mut ops = input.ops;
        ops.push(Op::Project(Project { exprs: columns.exprs, schema: batch }));
        let stage = Stage { sides: vec![Chain { source: input.source, ops }], operator };
        let source = self.add_stage(stage)?;
        let schema = Arc::clone(schema);
        let fixed = input.windows.filter(|open| matches!(open.kind, Kind::Fixed(_)));
        let windows = fixed.map(|open| Open { spread: true, ..open });
        Ok(Lowered { source, ops: Vec::new(), schema, lineage, windows, topics: input.topics, updates: None })
    }

    /// The aggregates, over columns that are computed before.
    pub(super) fn aggregates(&self, plan: &Plan, input: &Lowered, columns: &mut Columns) -> Result<Vec<Aggregate>> {
        let mut rewritten = Vec::with_capacity(plan.aggr_expr.len());
        for expr in &plan.aggr_expr {
            let name = expr.schema_name().to_string();
            let Expr::AggregateFunction(call) = bare(expr) else {
                return Err(SqlError::new("sql-plan", format!("{expr} is no aggregate")));
            };
            rewritten.push((name, self.over_columns(call, input, columns)?));
        }
        let schema = DFSchema::new_with_metadata(columns.fields.clone(), Default::default());
        let schema = schema.map_err(|e| plan_error(&e))?;
        let build = |(name, call): (String, AggregateFunction)| {
            let expr = Expr::AggregateFunction(call);
            let context = Default::default();
            let builder = LoweredAggregateBuilder::new(&expr, &schema, schema.as_arrow(), props(), &context);
            let lowered = builder.with_name(name).build().map_err(|e| plan_error(&e))?;
            let function = lowered.aggregate;
            let order = function.order_bys().iter().map(|sort| Arc::clone(&sort.expr));
            let types = function.expressions().into_iter().chain(order).map(|expr| expr.data_type(schema.as_arrow()));
            let types = types.collect::<std::result::Result<_, _>>().map_err(|e| plan_error(&e))?;
            let aggregate = Aggregate { function, filter: lowered.filter, types };
            computable(&aggregate, &schema, input.updates.is_some())?;
            Ok(aggregate)
        };
        rewritten.into_iter().map(build).collect()
    }

    /// The call with its arguments, filter and order as columns.
    fn over_columns(
        &self,
        call: &AggregateFunction,
        input: &Lowered,
        columns: &mut Columns,
    ) -> Result<AggregateFunction> {
        let mut column = |expr: &Expr| -> Result<Expr> {
            if matches!(expr, Expr::Literal(..)) {
                return Ok(expr.clone());
            }
            let known = columns.known.iter().find(|(known, _)| known == expr).map(|(_, place)| *place);
            let place = match known {
                Some(place) => place,
                None => {
                    let kind = expr.get_type(&input.schema).map_err(|e| plan_error(&e))?;
                    let place = columns.add(self.compile(expr, &input.schema)?, kind);
                    columns.known.push((expr.clone(), place));
                    place
                }
            };
            Ok(Expr::Column(Column::new_unqualified(format!("c{place}"))))
        };
        let AggregateFunctionParams { args, distinct, filter, order_by, null_treatment } = &call.params;
        let adds = matches!(call.func.name(), "sum" | "avg");
        let args = args.iter().map(|arg| match wide(arg, &input.schema).filter(|_| adds) {
            Some(wide) => column(&wide),
            None => column(arg),
        });
        let args = args.collect::<Result<_>>()?;
        let filter = filter.as_ref().map(|f| column(f)).transpose()?.map(Box::new);
        let mut ordered = Vec::with_capacity(order_by.len());
        for sort in order_by {
            ordered.push(datafusion_expr::SortExpr { expr: column(&sort.expr)?, ..sort.clone() });
        }
        let params = AggregateFunctionParams {
            args,
            distinct: *distinct,
            filter,
            order_by: ordered,
            null_treatment: *null_treatment,
        };
        Ok(AggregateFunction { func: Arc::clone(&call.func), params })
    }
}

/// The columns by which the rows of windows are known: the key and one of the window's columns, which tells the other.
fn known_by(group: &[GroupColumn]) -> Vec<Option<usize>> {
    let ends = group.contains(&GroupColumn::End);
    let tells = |column: &GroupColumn| match column {
        GroupColumn::Start => !ends,
        GroupColumn::Key(_) | GroupColumn::End => true,
    };
    let places = group.iter().enumerate().filter(|(_, column)| tells(column));
    places.map(|(place, _)| Some(place)).collect()
}

/// A decimal whose sum or average may have more digits than a decimal has, with as many as that takes: what comes of it is
/// asked when it is given out, and never wraps.
fn wide(arg: &Expr, schema: &DFSchema) -> Option<Expr> {
    const DIGITS_SAFE: u8 = 20;
    match arg.get_type(schema).ok()? {
        DataType::Decimal128(digits, scale) if digits > DIGITS_SAFE && !is_integer(arg, schema) => {
            Some(cast(arg.clone(), DataType::Decimal256(76, scale)))
        }
        _ => None,
    }
}

/// Whether it is an integer as a decimal.
fn is_integer(arg: &Expr, schema: &DFSchema) -> bool {
    match arg {
        Expr::Alias(alias) => is_integer(&alias.expr, schema),
        Expr::Cast(cast) => cast.expr.get_type(schema).is_ok_and(|kind| kind.is_integer()),
        _ => false,
    }
}

/// Refuses an aggregate whose results would depend on how rows come, or that fails at every event.
fn computable(aggregate: &Aggregate, schema: &DFSchema, taken_back: bool) -> Result<()> {
    let function = &aggregate.function;
    let name = function.fun().name();
    let refused = |why: &str, help: &str| Err(SqlError::new("sql-aggregate", format!("{name}() {why}")).help(help));
    match name {
        // It takes it that rows come in that order.
        "nth_value" if !function.order_bys().is_empty() => {
            return refused(
                "takes rows in the order in which they come only",
                "write array_element(array_agg(x ORDER BY y), n)",
            );
        }
        "approx_median" => return refused("depends on how events are batched", "write median(x), which is exact"),
        "approx_percentile_cont" | "approx_percentile_cont_with_weight" => {
            let help = "write percentile_cont(p) WITHIN GROUP (ORDER BY x), which is exact";
            return refused("depends on how events are batched", help);
        }
        _ => {}
    }
    aggregate.try_out(&batch_schema(schema), taken_back).map_err(|e| {
        let error = SqlError::new("sql-aggregate", format!("{} cannot be computed: {e}", function.name()));
        error.help("cast its argument to another type, or compute it from other aggregates")
    })
}

pub(super) fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => bare(&alias.expr),
        other => other,
    }
}

/// What is computed from the rows: the aggregates, and what of the grouping is no plain column.
fn computed(plan: &Plan, schema: &DFSchema) -> Vec<Expr> {
    let group = plan.group_expr.iter().filter(|expr| column_of(expr, schema).is_none());
    plan.aggr_expr.iter().chain(group).cloned().collect()
}

fn fixed(windows: Windows, by_start: bool) -> Result<Windows> {
    if by_start && matches!(windows, Windows::Cumulate { .. }) {
        let error = SqlError::new("sql-group", "several windows of cumulate() begin together");
        return Err(error.help("group by window_end, or by both"));
    }
    Ok(windows)
}

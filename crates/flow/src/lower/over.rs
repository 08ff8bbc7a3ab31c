//! OVER.

use std::sync::Arc;

use arrow_schema::{DataType, Field};
use datafusion_common::{Column, ScalarValue};
use datafusion_expr::expr::{NullTreatment, WindowFunctionParams};
use datafusion_expr::{Expr, ExprSchemable, Window, WindowFrame, WindowFrameBound, WindowFrameUnits, cast, when};
use millstream_event::{ColumnType, INGESTED_AT};

use crate::catalog::{Order, TimeColumn};
use crate::error::SqlError;
use crate::expr::{Compiled, batch_schema};
use crate::lower::{Lowered, Lowering, Result, Trace, column_of, plan_error, window};
use crate::ops::Op;
use crate::ops::project::Project;
use crate::stream::function::{Finish, Frame, Function, Owned, What};
use crate::stream::{Chain, OverPlan, Stage, owned};

/// The most events back that a frame or LAG may count: they are kept for each key.
const ROWS_BACK_MAX: u64 = 1_000_000;

/// The columns of the stage's input: those of the plan's, then computed ones.
struct Columns<'p> {
    input: &'p Lowered,
    exprs: Vec<Compiled>,
    fields: Vec<Field>,
    /// What was computed already.
    known: Vec<(Expr, usize)>,
}

/// A call in OVER.
struct Call<'p> {
    name: String,
    params: &'p WindowFunctionParams,
    result: DataType,
}

impl Lowering<'_> {
    pub(super) fn over(&mut self, plan: &Window) -> Result<Lowered> {
        let input = window::spread(self.lower(&plan.input)?)?;
        self.only_appends(&input)?;
        let width = input.schema.fields().len();
        let mut calls = Vec::with_capacity(plan.window_expr.len());
        for (expr, field) in plan.window_expr.iter().zip(plan.schema.fields().iter().skip(width)) {
            let Expr::WindowFunction(call) = bare(expr) else {
                return Err(SqlError::new("sql-plan", format!("{expr} is no window function")));
            };
            let name = call.fun.name().to_lowercase();
            calls.push(Call { name, params: &call.params, result: field.data_type().clone() });
        }
        let by_time = self.catalog.order == Order::EventTime;
        let first = calls.first().ok_or_else(|| SqlError::new("sql-plan", "OVER has no function"))?;
        let partition = first.params.partition_by.clone();
        let mut columns = Columns::of(self, &input)?;
        let (time, plus) = self.time(first, &input)?;
        let trace = |expr: &Expr| input.lineage.get(column_of(expr, &input.schema)?).copied().flatten();
        let traces: Vec<Option<Trace>> = partition.iter().map(trace).collect();
        let mut key = Vec::with_capacity(partition.len());
        for expr in &partition {
            let kind = expr.get_type(&input.schema).map_err(|e| plan_error(&e))?;
            key.push((columns.place(self, expr)?, kind));
        }
        let mut kept = Vec::new();
        let mut functions = Vec::with_capacity(calls.len());
        for call in &calls {
            let keys = call.params.partition_by.iter().map(|expr| columns.place(self, expr));
            let keys: Vec<usize> = keys.collect::<Result<_>>()?;
            if self.time(call, &input)?.0 != time || !keys.iter().eq(key.iter().map(|(place, _)| place)) {
                return Err(SqlError::new("sql-plan", "one OVER has two orders"));
            }
            functions.push(self.function(call, &mut columns, &mut kept)?);
        }
        let Columns { exprs, mut fields, .. } = columns;
        fields.push(ColumnType::Timestamp.field(INGESTED_AT, false));
        let schema = Arc::new(arrow_schema::Schema::new(fields));
        let operator = OverPlan {
            by_time,
            ttl: self.catalog.state_ttl_us,
            through: width,
            time,
            plus,
            key,
            columns: kept,
            functions,
            results: calls.iter().map(|call| call.result.clone()).collect(),
            names: calls.iter().map(|call| call.name.clone()).collect(),
            input: Arc::clone(&schema),
            schema: batch_schema(&plan.schema),
        };
        self.require(&traces, &input.topics);
        let mut ops = input.ops;
        ops.push(Op::Project(Project { exprs, schema }));
        let sides = vec![Chain { source: input.source, ops }];
        let source = self.add_stage(Stage { sides, operator: Box::new(operator) })?;
        let lineage = input.lineage.into_iter().chain(std::iter::repeat_n(None, calls.len())).collect();
        Ok(Lowered {
            source,
            ops: Vec::new(),
            schema: Arc::clone(&plan.schema),
            lineage,
            windows: None,
            topics: input.topics,
            updates: None,
        })
    }

    /// The place of the time that a call is ordered by, and what is added to it to be the event time.
    fn time(&self, call: &Call<'_>, input: &Lowered) -> Result<(usize, i64)> {
        let write = "write OVER (PARTITION BY … ORDER BY the event time)";
        let [sort] = call.params.order_by.as_slice() else {
            let message = format!("{}() OVER needs the time as its order, and nothing else", call.name);
            return Err(SqlError::new("sql-over", message).help(write));
        };
        if !sort.asc {
            let message = format!("{}() OVER looks back in time; DESC would look ahead", call.name);
            return Err(SqlError::new("sql-over", message).help("leave DESC out"));
        }
        let place = column_of(&sort.expr, &input.schema);
        let field = place.and_then(|place| input.schema.fields().get(place));
        let Some((place, field)) = place.zip(field).filter(|(_, f)| matches!(f.data_type(), DataType::Timestamp(..)))
        else {
            let message = format!("{}() OVER is ordered by {}, which is no column with a time", call.name, sort.expr);
            return Err(SqlError::new("sql-over", message).help(write));
        };
        let trace = input.lineage.get(place).copied().flatten();
        if trace == Some(Trace::WindowEnd) {
            return Ok((place, self.shift(trace)));
        }
        let Some(Trace::Column { table: Some(table), place: column }) = trace else {
            return match self.catalog.order {
                Order::Arrival => Ok((place, 0)),
                Order::EventTime => Err(self.no_event_time(call, field.name())),
            };
        };
        let topic = self.topics.get(table);
        let own = topic.and_then(|topic| self.catalog.event_times.get(topic));
        let is = |name: &str| {
            let schema = topic.and_then(|topic| self.catalog.topics.get(topic));
            schema.and_then(|schema| schema.column(name)).is_some_and(|(at, _)| at == column)
        };
        match own {
            Some(time) if is(&time.name) => Ok((place, time.plus_us)),
            Some(TimeColumn { name, .. }) => {
                let message =
                    format!("{}() OVER is ordered by `{}`, and the event time is `{name}`", call.name, field.name());
                Err(SqlError::new("sql-over", message).help(format!("write ORDER BY {name}")))
            }
            None if self.catalog.order == Order::Arrival => Ok((place, 0)),
            None => Err(self.no_event_time(call, field.name())),
        }
    }

    fn no_event_time(&self, call: &Call<'_>, column: &str) -> SqlError {
        let message = format!("{}() OVER waits for the event time, and `{column}` is none", call.name);
        SqlError::new("sql-over", message).help("declare event_time for the topic, or leave `order: event_time` out")
    }

    fn function(&self, call: &Call<'_>, columns: &mut Columns<'_>, kept: &mut Vec<Kept>) -> Result<Function> {
        if call.params.null_treatment == Some(NullTreatment::IgnoreNulls) {
            let error = SqlError::new("sql-over", format!("{}() OVER with IGNORE NULLS is not supported", call.name));
            return Err(error.help("filter the rows without a value before, in a subquery"));
        }
        let args = &call.params.args;
        let named = match call.name.as_str() {
            "row_number" => {
                let frame = Frame::Running { peers: false, before: false };
                return Ok(Function { what: What::Count, column: None, frame, finish: Finish::Plain });
            }
            "lag" => return self.lag(call, columns, kept),
            name => name,
        };
        let frame = frame(call, self.catalog.order == Order::EventTime)?;
        let plain = |what: What, column: Option<usize>| Function { what, column, frame, finish: Finish::Plain };
        let Some(first) = args.first() else { return Err(not_offered(call)) };
        let positional = matches!(named, "first_value" | "last_value" | "nth_value");
        // `count(*)` counts rows.
        let first = if star(first) { &datafusion_expr::lit(1_i64) } else { first };
        let argument = match &call.params.filter {
            Some(_) if positional => {
                let error = SqlError::new("sql-over", format!("{}() OVER has no FILTER", call.name));
                return Err(error.help("write CASE WHEN … THEN … END as its argument"));
            }
            Some(filter) => when(filter.as_ref().clone(), first.clone()).end().map_err(|e| plan_error(&e))?,
            None => first.clone(),
        };
        let kind = argument.get_type(&columns.input.schema).map_err(|e| plan_error(&e))?;
        if call.params.distinct {
            if named != "count" || args.len() != 1 {
                let error = SqlError::new("sql-over", format!("{}(DISTINCT …) OVER is not supported", call.name));
                return Err(error.help("only count(DISTINCT …) is"));
            }
            if matches!(frame, Frame::Running { .. }) {
                let error =
                    SqlError::new("sql-over", "count(DISTINCT …) OVER all that came before keeps every value for ever");
                return Err(
                    error.help("give it a frame, as in RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW")
                );
            }
            return Ok(plain(What::Distinct, Some(self.kept_column(&argument, OverPlan::kind(&kind), columns, kept)?)));
        }
        if named == "count" {
            return match (args.as_slice(), &argument) {
                ([_], Expr::Literal(value, _)) if !value.is_null() => Ok(plain(What::Count, None)),
                ([_], _) => Ok(plain(What::Count, Some(self.kept_column(&argument, OverPlan::MARK, columns, kept)?))),
                _ => Err(not_offered(call)),
            };
        }
        let (what, argument) = match named {
            "first_value" => (What::Nth(0), argument),
            "last_value" => (What::Last, argument),
            "nth_value" => {
                let nth = literal(args.get(1)).filter(|nth| *nth >= 1);
                let nth = nth.ok_or_else(|| SqlError::new("sql-over", "nth_value() counts from 1, with a number"))?;
                (What::Nth(nth as u64 - 1), argument)
            }
            "sum" | "avg" | "min" | "max" if args.len() == 1 => {
                (adding(named, &kind).ok_or_else(|| not_offered(call))?, argument)
            }
            "var" | "var_pop" | "stddev" | "stddev_pop" => {
                let (sample, root) = (!named.ends_with("_pop"), named.starts_with("stddev"));
                (What::Variance { sample, root }, cast(argument, DataType::Float64))
            }
            _ => return Err(not_offered(call)),
        };
        let finish = match (named, &kind, &call.result) {
            ("avg", DataType::Decimal128(_, from), DataType::Decimal128(_, to)) => {
                let digits = u32::try_from(to - from).unwrap_or(0);
                Finish::DecimalMean { scale: 10_i128.checked_pow(digits).unwrap_or(1) }
            }
            ("avg", ..) => Finish::FloatMean,
            _ => Finish::Plain,
        };
        let kind = argument.get_type(&columns.input.schema).map_err(|e| plan_error(&e))?;
        let column = self.kept_column(&argument, OverPlan::kind(&kind), columns, kept)?;
        Ok(Function { what, column: Some(column), frame, finish })
    }

    fn lag(&self, call: &Call<'_>, columns: &mut Columns<'_>, kept: &mut Vec<Kept>) -> Result<Function> {
        let args = &call.params.args;
        let offset = if args.len() > 1 { literal(args.get(1)) } else { Some(1) };
        let offset = offset.and_then(|offset| u64::try_from(offset).ok()).filter(|offset| *offset <= ROWS_BACK_MAX);
        let Some((argument, offset)) = args.first().zip(offset) else {
            let message = format!("lag() looks back by a number from 0 to {ROWS_BACK_MAX}");
            return Err(SqlError::new("sql-over", message).help("write lag(column, 2)"));
        };
        let default = match args.get(2) {
            None => Owned::Null,
            Some(expr) => {
                let value = constant(expr).and_then(|value| value.cast_to(&call.result).ok());
                let array = value.and_then(|value| value.to_array().ok());
                let array = array.ok_or_else(|| {
                    let error =
                        SqlError::new("sql-over", "the third argument of lag() must be a constant of the first's type");
                    error.help("write coalesce(lag(…) OVER (…), …)")
                })?;
                owned(&array).map_err(|e| SqlError::new("sql-plan", e.to_string()))?
            }
        };
        let kind = argument.get_type(&columns.input.schema).map_err(|e| plan_error(&e))?;
        let column = self.kept_column(argument, OverPlan::kind(&kind), columns, kept)?;
        let frame = Frame::Rows { from: offset, to: offset };
        Ok(Function { what: What::Lag { offset, default }, column: Some(column), frame, finish: Finish::Plain })
    }

    /// The number of a kept column.
    fn kept_column(
        &self,
        expr: &Expr,
        kind: KeptKind,
        columns: &mut Columns<'_>,
        kept: &mut Vec<Kept>,
    ) -> Result<usize> {
        let place = columns.place(self, expr)?;
        if let Some(known) = kept.iter().position(|(at, _)| *at == place) {
            if let Some((_, old)) = kept.get_mut(known).filter(|(_, old)| *old == OverPlan::MARK) {
                *old = kind;
            }
            return Ok(known);
        }
        kept.push((place, kind));
        Ok(kept.len() - 1)
    }
}

type KeptKind = crate::stream::Kind;
type Kept = (usize, KeptKind);

impl<'p> Columns<'p> {
    fn of(lowering: &Lowering<'_>, input: &'p Lowered) -> Result<Self> {
        let mut columns = Self { input, exprs: Vec::new(), fields: Vec::new(), known: Vec::new() };
        for (table, field) in input.schema.iter() {
            let column = Expr::Column(Column::new(table.cloned(), field.name()));
            columns.exprs.push(lowering.compile(&column, &input.schema)?);
            columns.fields.push(field.as_ref().clone().with_nullable(true));
        }
        Ok(columns)
    }

    /// The place of a value; it is computed if it is no column.
    fn place(&mut self, lowering: &Lowering<'_>, expr: &Expr) -> Result<usize> {
        if let Some(place) = column_of(expr, &self.input.schema) {
            return Ok(place);
        }
        let expr = bare(expr);
        if let Some((_, place)) = self.known.iter().find(|(known, _)| known == expr) {
            return Ok(*place);
        }
        let kind = expr.get_type(&self.input.schema).map_err(|e| plan_error(&e))?;
        let place = self.fields.len();
        self.exprs.push(lowering.compile(expr, &self.input.schema)?);
        self.fields.push(Field::new(format!("c{place}"), kind, true));
        self.known.push((expr.clone(), place));
        Ok(place)
    }
}

fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => bare(&alias.expr),
        other => other,
    }
}

fn star(expr: &Expr) -> bool {
    #[expect(deprecated, reason = "the planner writes count(*) so")]
    let star = matches!(expr, Expr::Wildcard { .. });
    star
}

fn constant(expr: &Expr) -> Option<ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value.clone()),
        Expr::Cast(inner) => constant(&inner.expr)?.cast_to(inner.field.data_type()).ok(),
        Expr::Negative(inner) => constant(inner)?.arithmetic_negate().ok(),
        _ => None,
    }
}

fn literal(expr: Option<&Expr>) -> Option<i64> {
    match constant(expr?)?.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(number)) => number,
        _ => None,
    }
}

/// What adds up values of a type.
fn adding(name: &str, kind: &DataType) -> Option<What> {
    let whole = matches!(kind, DataType::Decimal128(..)) || kind.is_signed_integer();
    let floating = kind == &DataType::Float64;
    let greatest = name == "max";
    match name {
        "sum" | "avg" if floating => Some(What::SumFloat),
        "sum" | "avg" if whole => Some(What::SumInt),
        "sum" | "avg" => None,
        _ => Some(match OverPlan::kind(kind) {
            KeptKind::Float => What::ExtremeFloat { greatest },
            KeptKind::Int | KeptKind::Wide => What::ExtremeInt { greatest },
            KeptKind::Bytes | KeptKind::Mark => What::ExtremeBytes { greatest },
        }),
    }
}

fn not_offered(call: &Call<'_>) -> SqlError {
    let (what, help) = match call.name.as_str() {
        "lead" => ("lead() OVER looks at events that have not come yet", "let the later event look back with lag()"),
        "rank" | "dense_rank" | "percent_rank" | "cume_dist" | "ntile" => {
            ("a rank changes with every event", "row_number() numbers events as they come")
        }
        _ => ("", ""),
    };
    if what.is_empty() {
        let message = format!("{}() OVER is not supported", call.name);
        let help = "count, sum, min, max, avg, stddev and variance are, lag, first_value, last_value, nth_value and \
                    row_number; or aggregate over a window of time";
        return SqlError::new("sql-over", message).help(help);
    }
    SqlError::new("sql-over", what).help(help)
}

/// The frame of a call.
fn frame(call: &Call<'_>, by_time: bool) -> Result<Frame> {
    let frame: &WindowFrame = &call.params.window_frame;
    let ahead = || {
        let message = format!("the frame of {}() OVER looks at events that have not come yet", call.name);
        SqlError::new("sql-over", message).help("end it with CURRENT ROW, or let the later event look back")
    };
    let odd = |why: &str| {
        let message = format!("the frame of {}() OVER is not supported", call.name);
        SqlError::new("sql-over", message).help(why.to_owned())
    };
    let unbounded = match &frame.start_bound {
        WindowFrameBound::Following(_) => return Err(ahead()),
        bound => bound.is_unbounded(),
    };
    if matches!(&frame.end_bound, WindowFrameBound::Following(_)) {
        return Err(ahead());
    }
    match frame.units {
        WindowFrameUnits::Groups => Err(odd("write ROWS or RANGE")),
        WindowFrameUnits::Rows => {
            let back = |bound: &WindowFrameBound| match bound {
                WindowFrameBound::CurrentRow => Some(0),
                WindowFrameBound::Preceding(ScalarValue::UInt64(Some(n))) => Some(*n),
                _ => None,
            };
            let within = |n: &u64| *n <= ROWS_BACK_MAX;
            let limit = format!("a frame may begin at most {ROWS_BACK_MAX} rows before");
            let to = back(&frame.end_bound).filter(within).ok_or_else(|| odd(&limit))?;
            match (unbounded, to) {
                (true, 0 | 1) => Ok(Frame::Running { peers: false, before: to == 1 }),
                (true, _) => Err(odd("what begins with all ends with CURRENT ROW or 1 PRECEDING")),
                (false, to) => {
                    let from = back(&frame.start_bound).filter(within).ok_or_else(|| odd(&limit))?;
                    Ok(Frame::Rows { from, to })
                }
            }
        }
        WindowFrameUnits::Range => {
            let current = frame.end_bound == WindowFrameBound::CurrentRow;
            if unbounded {
                return match current {
                    true => Ok(Frame::Running { peers: by_time, before: false }),
                    false => Err(odd("what begins with all ends with CURRENT ROW")),
                };
            }
            let months = || odd("months differ in length: give days or less");
            let from = micros(&frame.start_bound).ok_or_else(months)?;
            let to = micros(&frame.end_bound).ok_or_else(months)?;
            Ok(Frame::Range { from, to })
        }
    }
}

/// How many microseconds back a bound is.
fn micros(bound: &WindowFrameBound) -> Option<i64> {
    const DAY_MICROS: i64 = 86_400_000_000;
    match bound {
        WindowFrameBound::CurrentRow => Some(0),
        WindowFrameBound::Preceding(ScalarValue::IntervalMonthDayNano(Some(i))) if i.months == 0 => {
            let days = i64::from(i.days).checked_mul(DAY_MICROS)?;
            days.checked_add(i.nanoseconds / 1000).filter(|micros| *micros >= 0)
        }
        _ => None,
    }
}

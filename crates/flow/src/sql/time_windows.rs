//! `tumble`, `hop`, `cumulate` and `session` in FROM: a topic's columns and, behind them, `window_start` and `window_end`.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use datafusion_common::{
    Column, DFSchema, DFSchemaRef, DataFusionError, Result, ScalarValue, TableReference, plan_err,
};
use datafusion_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion_sql::sqlparser::ast::{
    Expr as Ast, FunctionArg, FunctionArgExpr, ObjectName, ObjectNamePart, TableAlias, TableFactor, TableFunctionArgs,
};
use millstream_event::ColumnType;

use crate::stream::Windows;

/// The columns that a window adds.
pub(crate) const WINDOW_START: &str = "window_start";
/// See [`WINDOW_START`].
pub(crate) const WINDOW_END: &str = "window_end";

/// How events are put into windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd)]
pub(crate) enum Kind {
    /// At fixed places.
    Fixed(Windows),
    /// As long as events of a key are less than a gap of so many microseconds apart.
    Session { gap: i64 },
}

/// A topic's rows in windows, as the planner sees them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct WindowNode {
    pub(crate) input: LogicalPlan,
    pub(crate) kind: Kind,
    /// The event time.
    pub(crate) time: Column,
    pub(crate) schema: DFSchemaRef,
}

impl PartialOrd for WindowNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self.kind, &self.time, &self.input).partial_cmp(&(other.kind, &other.time, &other.input))
    }
}

impl UserDefinedLogicalNodeCore for WindowNode {
    fn name(&self) -> &str {
        "TimeWindow"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TimeWindow: {:?} on {}", self.kind, self.time)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        match <[LogicalPlan; 1]>::try_from(inputs) {
            Ok([input]) => Self::new(input, self.kind, self.time.clone()),
            Err(_) => plan_err!("a window has one input"),
        }
    }

    /// What nobody asks for is neither copied nor held by what stands behind.
    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.input.schema().fields().len();
        let time = self.input.schema().maybe_index_of_column(&self.time)?;
        let asked: BTreeSet<usize> = output_columns.iter().copied().filter(|place| *place < width).collect();
        Some(vec![asked.into_iter().chain([time]).collect::<BTreeSet<usize>>().into_iter().collect()])
    }
}

impl WindowNode {
    fn new(input: LogicalPlan, kind: Kind, time: Column) -> Result<Self> {
        let table: Option<TableReference> = input.schema().iter().find_map(|(table, _)| table.cloned());
        let mut fields: Vec<_> = input.schema().iter().map(|(t, f)| (t.cloned(), Arc::clone(f))).collect();
        for name in [WINDOW_START, WINDOW_END] {
            fields.push((table.clone(), Arc::new(ColumnType::Timestamp.field(name, false))));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        Ok(Self { input, kind, time, schema })
    }
}

/// Plans the table functions.
#[derive(Debug)]
pub(crate) struct TimeWindows;

impl RelationPlanner for TimeWindows {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let called = match &relation {
            TableFactor::Table { name, args: Some(TableFunctionArgs { args, .. }), alias, .. }
            | TableFactor::Function { name, args, alias, .. } => called(name).map(|f| (f, args.clone(), alias.clone())),
            _ => None,
        };
        let Some((function, args, alias)) = called else { return Ok(RelationPlanning::Original(Box::new(relation))) };
        let plan = plan(function, &args, context)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

#[derive(Clone, Copy)]
struct Function {
    name: &'static str,
    usage: &'static str,
}

static FUNCTIONS: [Function; 4] = [
    Function { name: "tumble", usage: "tumble(topic, time, INTERVAL '1 minute')" },
    Function { name: "hop", usage: "hop(topic, time, INTERVAL '10 seconds', INTERVAL '1 minute'): slide, then size" },
    Function {
        name: "cumulate",
        usage: "cumulate(topic, time, INTERVAL '1 minute', INTERVAL '1 hour'): step, then size",
    },
    Function { name: "session", usage: "session(topic, time, INTERVAL '30 seconds')" },
];

/// The names of the table functions.
pub(crate) fn table_functions() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|function| function.name)
}

fn called(name: &ObjectName) -> Option<Function> {
    let [ObjectNamePart::Identifier(name)] = name.0.as_slice() else { return None };
    FUNCTIONS.iter().copied().find(|f| name.value.eq_ignore_ascii_case(f.name))
}

fn plan(function: Function, args: &[FunctionArg], context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let usage = || DataFusionError::Plan(format!("write {}", function.usage));
    let args: Vec<&Ast> = args.iter().map(plain).collect::<Option<_>>().ok_or_else(usage)?;
    let (Some((topic, rest)), true) = (args.split_first(), args.len() <= 4) else { return Err(usage()) };
    let Some((time, lengths)) = rest.split_first() else { return Err(usage()) };
    let input = context.plan(table(topic).ok_or_else(usage)?)?;
    if let Some(taken) =
        input.schema().fields().iter().find(|f| [WINDOW_START, WINDOW_END].contains(&f.name().as_str()))
    {
        return plan_err!(
            "`{}` is a column of the rows already, and {}() adds one of this name",
            taken.name(),
            function.name
        );
    }
    let Expr::Column(time) = context.sql_to_expr((*time).clone(), input.schema())? else {
        return plan_err!("the time of {}() must be the column with the event time", function.name);
    };
    let lengths = lengths.iter().map(|l| micros(context.sql_to_expr((*l).clone(), input.schema())?, function));
    let lengths: Vec<i64> = lengths.collect::<Result<_>>()?;
    let kind = match (function.name, lengths.as_slice()) {
        ("tumble", [size]) => Kind::Fixed(Windows::Tumble { size: *size }),
        ("hop", [slide, size]) => Kind::Fixed(Windows::Hop { slide: *slide, size: *size }),
        ("cumulate", [step, size]) if size % step == 0 => Kind::Fixed(Windows::Cumulate { step: *step, size: *size }),
        ("cumulate", [_, _]) => return plan_err!("the size of cumulate() must be a multiple of its step"),
        ("session", [gap]) => Kind::Session { gap: *gap },
        _ => return Err(usage()),
    };
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(WindowNode::new(input, kind, time)?) }))
}

fn plain(arg: &FunctionArg) -> Option<&Ast> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

/// The topic, or what WITH defines, that an argument names.
fn table(arg: &Ast) -> Option<TableFactor> {
    let parts = match arg {
        Ast::Identifier(name) => vec![name.clone()],
        Ast::CompoundIdentifier(names) => names.clone(),
        Ast::Subquery(query) => {
            let alias: Option<TableAlias> = None;
            return Some(TableFactor::Derived { lateral: false, subquery: query.clone(), alias, sample: None });
        }
        _ => return None,
    };
    let name = ObjectName(parts.into_iter().map(ObjectNamePart::Identifier).collect());
    Some(TableFactor::Table {
        name,
        alias: None,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    })
}

const DAY_MICROS: i64 = 86_400_000_000;

fn micros(expr: Expr, function: Function) -> Result<i64> {
    let unclear =
        || DataFusionError::Plan(format!("the lengths of {}() are intervals, as in {}", function.name, function.usage));
    let micros = match expr {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(i)), _) if i.months == 0 => {
            i64::from(i.days).checked_mul(DAY_MICROS).and_then(|days| days.checked_add(i.nanoseconds / 1000))
        }
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(_)), _) => {
            return plan_err!("months differ in length: give {}() days or less", function.name);
        }
        Expr::Literal(ScalarValue::IntervalDayTime(Some(i)), _) => {
            Some(i64::from(i.days) * DAY_MICROS + i64::from(i.milliseconds) * 1000)
        }
        _ => return Err(unclear()),
    };
    match micros {
        Some(micros) if micros > 0 => Ok(micros),
        _ => plan_err!("the lengths of {}() must be at least a microsecond", function.name),
    }
}

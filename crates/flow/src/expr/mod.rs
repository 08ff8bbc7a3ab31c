//! Expressions compiled for batches, exact where their types are.

pub(crate) mod exact;
pub(crate) mod fallible;
mod guard;
mod known;
mod list;
pub(crate) mod row;
#[cfg(test)]
mod tests;
pub(crate) mod value;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use arrow_array::cast::AsArray;
use arrow_array::types::Decimal128Type;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, DataFusionError, Result, TableReference};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::{Expr, bitwise_and, cast, lit};
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use millstream_event::{ColumnType, INGESTED_AT, Stamp};

use crate::functions::now;
use crate::outcome::REASON_CHARS_MAX;
use crate::sql::context::options;

/// The table name under which the system column is compiled; no user's table can have it.
const SYSTEM: &str = "__system";

/// An expression failed: on the one row, if the batch was one row.
#[derive(Debug, Clone)]
pub(crate) struct EvalError {
    pub(crate) code: &'static str,
    pub(crate) reason: String,
}

impl EvalError {
    /// An Arrow kernel failed on the expression `text`.
    pub(crate) fn arrow(error: &ArrowError, text: &str) -> Self {
        let code = match error {
            ArrowError::DivideByZero => "division-by-zero",
            ArrowError::ArithmeticOverflow(_) => "overflow",
            ArrowError::CastError(_) | ArrowError::ParseError(_) => "cast",
            other => by_message(&other.to_string()),
        };
        Self::new(code, &error.to_string(), text)
    }

    fn planner(error: &DataFusionError, text: &str) -> Self {
        match error {
            DataFusionError::ArrowError(inner, _) => Self::arrow(inner, text),
            DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => Self::planner(inner, text),
            DataFusionError::Shared(inner) => Self::planner(inner, text),
            other => {
                let message = other.message();
                Self::new(by_message(&message), &message, text)
            }
        }
    }

    fn new(code: &'static str, message: &str, text: &str) -> Self {
        let first = message.lines().next().unwrap_or_default();
        let first = first.rsplit_once(" error: ").map_or(first, |(_, rest)| rest);
        let text: String = text.chars().take(REASON_CHARS_MAX / 2).collect();
        let reason: String = format!("{first} in {text}").chars().take(REASON_CHARS_MAX).collect();
        Self { code, reason }
    }

    /// A step could not put its columns together: our fault, but the event's to bear.
    pub(crate) fn internal(step: &str, error: &ArrowError) -> Self {
        Self::new("expression", &error.to_string(), step)
    }

    /// A lookup that was not handed in.
    pub(crate) fn missing(lookup: &str) -> Self {
        Self { code: "lookup-missing", reason: format!("the lookup {lookup} is not loaded") }
    }
}

fn by_message(message: &str) -> &'static str {
    let lower = message.to_lowercase();
    if lower.contains("regular expression") {
        "expression"
    } else if lower.contains("divide by zero") || lower.contains("division by zero") {
        "division-by-zero"
    } else if lower.contains("overflow") || lower.contains("too large") || lower.contains("out of range") {
        "overflow"
    } else if lower.contains("cast") || lower.contains("pars") {
        "cast"
    } else {
        "expression"
    }
}

/// An expression that runs on a batch of known columns.
#[derive(Debug, Clone)]
pub(crate) struct Compiled {
    /// As it was planned.
    expr: Arc<dyn PhysicalExpr>,
    /// The same, faster.
    runs: Arc<dyn PhysicalExpr>,
    text: Arc<str>,
    fallible: bool,
    /// A decimal whose values may have outgrown its digits.
    digits: Option<(u8, i8)>,
}

static PROPS: LazyLock<ExecutionProps> =
    LazyLock::new(|| ExecutionProps { config_options: Some(Arc::new(options())), ..ExecutionProps::new() });

/// What expressions are compiled with.
pub(crate) fn props() -> &'static ExecutionProps {
    &PROPS
}

impl Compiled {
    /// Compiles `expr` for batches of `schema` and the system column behind.
    pub(crate) fn new(expr: &Expr, schema: &DFSchema) -> Result<Self> {
        let full = with_system(schema)?;
        // Without the marks of the stamp: a row that is taken back computes what it computed when it came.
        let system = Expr::Column(Column::new(Some(SYSTEM), INGESTED_AT));
        let kind = ColumnType::Timestamp.field(INGESTED_AT, false).data_type().clone();
        let micros = bitwise_and(cast(system, DataType::Int64), lit(!(Stamp::LATE | Stamp::DELETED)));
        let system = cast(micros, kind);
        let replaced = expr.clone().transform(|e| {
            let now = match &e {
                Expr::ScalarFunction(call) => now::replacement(&call.func, &system),
                _ => None,
            };
            Ok(now.map_or_else(|| Transformed::no(e), Transformed::yes))
        })?;
        let compared = list::compared(replaced.data)?;
        let physical = create_physical_expr(&compared, &full, &PROPS, &PhysicalPlanningContext::default())?;
        let relaxed = full.as_arrow();
        let physical = exact::exact(physical, relaxed)?;
        let digits = match physical.data_type(relaxed)? {
            DataType::Decimal128(p, s) if fallible::computes(&physical) => Some((p, s)),
            _ => None,
        };
        let fallible = digits.is_some() || fallible::fallible(&physical, relaxed);
        let fields = relaxed.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let runs = known::known(Arc::clone(&physical), &Schema::new(fields.collect::<Vec<_>>()))?;
        Ok(Self { expr: physical, runs, text: text_of(expr).into(), fallible, digits })
    }

    /// A part of a compiled expression.
    pub(crate) fn part(expr: Arc<dyn PhysicalExpr>) -> Self {
        Self { runs: Arc::clone(&expr), expr, text: "".into(), fallible: true, digits: None }
    }

    /// With another text.
    pub(crate) fn with_text(self, change: impl FnOnce(&str) -> String) -> Self {
        Self { text: change(&self.text).into(), ..self }
    }

    /// Whether some row can make it fail.
    pub(crate) fn fallible(&self) -> bool {
        self.fallible
    }

    /// The expression as it was planned.
    pub(crate) fn physical(&self) -> &Arc<dyn PhysicalExpr> {
        &self.expr
    }

    /// The digits that its decimals may have, where they may have outgrown them.
    pub(crate) fn digits(&self) -> Option<u8> {
        self.digits.map(|(precision, _)| precision)
    }

    /// The expression as text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// One value per row.
    pub(crate) fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, EvalError> {
        // A kernel that panics on an odd value fails its event like one that says so. Expressions have no state that
        // could be left half changed.
        let work = AssertUnwindSafe(|| self.runs.evaluate(batch).and_then(|v| v.into_array(batch.num_rows())));
        match catch_unwind(work) {
            Ok(value) => value.map_err(|e| EvalError::planner(&e, &self.text)),
            Err(payload) => {
                let said = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let said = said.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
                let message = format!("a function panicked on this event's values ({said})");
                Err(EvalError::new("expression", &message, &self.text))
            }
        }
    }

    /// One truth value per row.
    pub(crate) fn evaluate_bool(&self, batch: &RecordBatch) -> Result<BooleanArray, EvalError> {
        let array = self.evaluate(batch)?;
        match array.as_boolean_opt() {
            Some(mask) => Ok(mask.clone()),
            // A bare NULL has a type of its own; it is not true.
            None => Ok(BooleanArray::new_null(array.len())),
        }
    }

    /// Fails if a decimal has more digits than its type.
    pub(crate) fn check(&self, array: &ArrayRef) -> Result<(), EvalError> {
        let (Some(_), DataType::Decimal128(precision, _)) = (self.digits, array.data_type()) else { return Ok(()) };
        let values = array.as_primitive::<Decimal128Type>();
        values
            .validate_decimal_precision(*precision)
            .map_err(|e| EvalError::new("overflow", &e.to_string(), &self.text))
    }
}

/// The expression as text, without its alias.
pub(crate) fn text_of(expr: &Expr) -> String {
    match expr {
        Expr::Alias(alias) => text_of(&alias.expr),
        other => other.human_display().to_string(),
    }
}

/// The plan's columns and the system column.
fn with_system(schema: &DFSchema) -> Result<DFSchema> {
    let mut fields: Vec<(Option<TableReference>, Arc<Field>)> =
        schema.iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).collect();
    let system = Arc::new(ColumnType::Timestamp.field(INGESTED_AT, false));
    fields.push((Some(TableReference::bare(SYSTEM)), system));
    DFSchema::new_with_metadata(fields, Default::default())
}

/// The Arrow schema of a batch with a plan's columns: all nullable inside, and the system column behind.
pub(crate) fn batch_schema(schema: &DFSchema) -> SchemaRef {
    let fields = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true));
    let system = ColumnType::Timestamp.field(INGESTED_AT, false);
    Arc::new(Schema::new(fields.chain([system]).collect::<Vec<_>>()))
}

//! One condition over a topic's rows.

use std::sync::Arc;

use arrow_array::{BooleanArray, RecordBatch};
use datafusion_common::DFSchema;
use datafusion_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion_sql::planner::{PlannerContext, SqlToRel};
use millstream_event::{Name, Schema};

use crate::catalog::Catalog;
use crate::error::SqlError;
use crate::expr::Compiled;
use crate::isolate::isolate;
use crate::lower::plan_error;
use crate::outcome::Failed;
use crate::sql::context::{Context, Table, TableKind};
use crate::sql::optimize::simplify;
use crate::sql::text::Text;
use crate::sql::translate::translate;

/// The table name under which conditions see their rows; it never shows.
const ROWS: &str = "event";

/// Plans a condition over rows of `schema`.
pub fn plan_predicate(sql: &str, schema: &Schema) -> Result<Predicate, Vec<SqlError>> {
    let mut catalog = Catalog::default();
    if let Ok(name) = Name::new(ROWS) {
        catalog.topics.insert(name, schema.clone());
    }
    let text = Text::new(sql, &catalog).map_err(|e| vec![e])?;
    let parsed = text.expression()?;
    let context = Context::new(&catalog);
    let plan = || {
        let table = Table { kind: TableKind::Topic, schema: Arc::clone(schema.arrow()) };
        let scan = LogicalPlanBuilder::scan(ROWS, Arc::new(table), None)?.build()?;
        let rows: DFSchema = scan.schema().as_ref().clone();
        let expr = SqlToRel::new(&context).sql_to_expr(parsed, &rows, &mut PlannerContext::new())?;
        simplify(LogicalPlanBuilder::from(scan).project([expr.alias("condition")])?.build()?)
    };
    let plan = plan().map_err(|e| translate(&e, &text, &catalog))?;
    let wrong = |message: String| vec![SqlError::new("sql-condition", message).at(text.whole())];
    let LogicalPlan::Projection(projection) = &plan else {
        return Err(wrong("this is not a condition over one row".to_owned()));
    };
    let expr: &Expr = projection.expr.first().ok_or_else(|| wrong("this is not a condition".to_owned()))?;
    let kind = projection.schema.field(0).data_type();
    if !matches!(kind, arrow_schema::DataType::Boolean | arrow_schema::DataType::Null) {
        let mut errors = wrong(format!("a condition is true or false, this is of the type {kind}"));
        errors.iter_mut().for_each(|e| e.help = Some("compare it with something".to_owned()));
        return Err(errors);
    }
    let compiled = Compiled::new(expr, projection.input.schema()).map_err(|e| vec![plan_error(&e).at(text.whole())])?;
    Ok(Predicate { compiled, sql: sql.trim().to_owned() })
}

/// A planned condition.
#[derive(Debug)]
pub struct Predicate {
    compiled: Compiled,
    sql: String,
}

impl Predicate {
    /// The condition as it was written.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// Whether each row fulfils it (NULL: undecided), and the rows on which it failed, which are NULL.
    pub fn run(&self, rows: &RecordBatch) -> (BooleanArray, Vec<Failed>) {
        let count = rows.num_rows();
        let parts = isolate(count, |first, len| {
            let part = if len == count { rows.clone() } else { rows.slice(first, len) };
            self.compiled.evaluate_bool(&part)
        });
        match <[(u32, BooleanArray); 1]>::try_from(parts.parts) {
            Ok([(0, whole)]) if parts.failed.is_empty() => (whole, parts.failed),
            Ok(one) => (spread(one.into(), count), parts.failed),
            Err(many) => (spread(many, count), parts.failed),
        }
    }
}

/// The parts at their places, NULL between.
fn spread(parts: Vec<(u32, BooleanArray)>, count: usize) -> BooleanArray {
    let mut all = vec![None; count];
    for (first, part) in parts {
        for (place, value) in all.iter_mut().skip(first as usize).zip(&part) {
            *place = value;
        }
    }
    all.into()
}

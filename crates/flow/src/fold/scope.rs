//! One expression of a fold: its text, resolved against the event's and the state's columns.

use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Schema as ArrowSchema, SchemaRef};
use datafusion_common::{DFSchema, DFSchemaRef};
use datafusion_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast};
use datafusion_sql::planner::{PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Token, Word};
use millstream_event::{Column, Name, Schema};

use crate::catalog::Catalog;
use crate::error::SqlError;
use crate::expr::{Compiled, batch_schema, text_of};
use crate::lower::plan_error;
use crate::sql::context::{Context, Table, TableKind};
use crate::sql::optimize::simplify;
use crate::sql::text::Text;
use crate::sql::translate::translate;

/// What state columns are named behind.
const STATE: &str = "state";

/// The columns that an expression may name: those of an event, then those of the state.
pub(crate) struct Scope {
    catalog: Catalog,
    table: Name,
    schema: SchemaRef,
}

/// An expression that was understood.
pub(crate) struct Planned {
    pub(crate) expr: Expr,
    pub(crate) field: FieldRef,
    schema: DFSchemaRef,
    /// The table's name and the point.
    table: String,
}

type Errors = Vec<SqlError>;

impl Scope {
    pub(crate) fn new(table: &Name, events: &Schema, state: &[Column]) -> Self {
        let mut catalog = Catalog::default();
        catalog.topics.insert(table.clone(), events.clone());
        if let (Ok(name), Ok(columns)) = (Name::new(STATE), Schema::new(state.to_vec())) {
            catalog.topics.entry(name).or_insert(columns);
        }
        let state = state.iter().map(|c| c.kind.field(&format!("{STATE}.{}", c.name), c.nullable));
        let fields = events.arrow().fields().iter().map(|f| f.as_ref().clone()).chain(state);
        let schema = Arc::new(ArrowSchema::new(fields.collect::<Vec<Field>>()));
        Self { catalog, table: table.clone(), schema }
    }

    /// Resolves an expression.
    pub(crate) fn plan(&self, sql: &str) -> Result<Planned, Errors> {
        let mut text = Text::new(sql, &self.catalog).map_err(|e| vec![e])?;
        name_state(&mut text);
        let parsed = text.expression()?;
        let context = Context::new(&self.catalog);
        let plan = || {
            let table = Table { kind: TableKind::Topic, schema: Arc::clone(&self.schema) };
            let scan = LogicalPlanBuilder::scan(self.table.as_str(), Arc::new(table), None)?.build()?;
            let rows: DFSchema = scan.schema().as_ref().clone();
            let expr = SqlToRel::new(&context).sql_to_expr(parsed, &rows, &mut PlannerContext::new())?;
            simplify(LogicalPlanBuilder::from(scan).project([expr.alias("value")])?.build()?)
        };
        let plan = plan().map_err(|e| translate(&e, &text, &self.catalog))?;
        let wrong =
            || vec![SqlError::new("fold-expression", "this is not an expression over one row").at(text.whole())];
        let LogicalPlan::Projection(projection) = &plan else { return Err(wrong()) };
        if !matches!(projection.input.as_ref(), LogicalPlan::TableScan(_)) {
            return Err(wrong());
        }
        let expr = match projection.expr.first() {
            Some(Expr::Alias(alias)) => alias.expr.as_ref().clone(),
            Some(other) => other.clone(),
            None => return Err(wrong()),
        };
        let field = Arc::clone(projection.schema.fields().first().ok_or_else(wrong)?);
        let table = format!("{}.", self.table);
        Ok(Planned { expr, field, schema: Arc::clone(projection.input.schema()), table })
    }

    /// The schema of the batches that compiled expressions run on: event, state, and the system column.
    pub(crate) fn batch_schema(&self) -> Result<SchemaRef, Errors> {
        let fault = |e: datafusion_common::DataFusionError| vec![plan_error(&e)];
        Ok(batch_schema(&DFSchema::try_from(self.schema.as_ref().clone()).map_err(fault)?))
    }
}

impl Planned {
    /// The expression for batches, as values of `kind`.
    pub(crate) fn compile(&self, kind: Option<&DataType>) -> Result<Compiled, Errors> {
        let expr = match kind {
            Some(kind) if kind != self.field.data_type() => cast(self.expr.clone(), kind.clone()),
            _ => self.expr.clone(),
        };
        // Columns without the table before them, as they were written.
        let text = text_of(&self.expr).replace(&self.table, "");
        let compiled = Compiled::new(&expr, &self.schema).map_err(|e| vec![plan_error(&e)])?;
        Ok(compiled.with_text(|_| text))
    }
}

/// `state.x` becomes one name, which no event's column has.
fn name_state(text: &mut Text) {
    let mut tokens = std::mem::take(&mut text.tokens).into_iter().peekable();
    let mut named = Vec::new();
    while let Some(mut token) = tokens.next() {
        let state = matches!(&token.token, Token::Word(word) if word.value == STATE);
        let inner = named
            .last()
            .is_some_and(|t: &datafusion_sql::sqlparser::tokenizer::TokenWithSpan| t.token == Token::Period);
        if state
            && !inner
            && let Some(dot) = tokens.next_if(|t| t.token == Token::Period)
        {
            match tokens.next_if(|t| matches!(t.token, Token::Word(_))) {
                Some(column) => {
                    if let Token::Word(word) = &column.token {
                        let value = format!("{STATE}.{}", word.value);
                        token.token = Token::Word(Word { value, quote_style: Some('"'), keyword: Keyword::NoKeyword });
                    }
                    token.span.end = column.span.end;
                    named.push(token);
                }
                None => named.extend([token, dot]),
            }
            continue;
        }
        named.push(token);
    }
    text.tokens = named;
}

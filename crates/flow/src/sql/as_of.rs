//! `JOIN t FOR SYSTEM_TIME AS OF s.at ON …`: the planner knows no versions of tables, so the time becomes a condition of
//! the join, which lowering takes out again.

use std::sync::Arc;

use arrow_schema::DataType;
use datafusion_common::{Result, internal_err};
use datafusion_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion_sql::sqlparser::ast::{
    BinaryOperator, Expr as Ast, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments,
    Ident, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, Query, Select, SetExpr, TableFactor, TableVersion,
    TableWithJoins,
};

use crate::error::SqlError;

/// The function that the condition calls; no user's function has such a name.
const NAME: &str = "__as_of";

/// The function behind [`NAME`]; it never runs.
#[derive(Debug, PartialEq, Eq, Hash)]
struct AsOf {
    signature: Signature,
}

/// The function for the planner to find.
pub(crate) fn function() -> Arc<ScalarUDF> {
    // Volatile, so that nobody moves or computes it.
    Arc::new(ScalarUDF::from(AsOf { signature: Signature::any(1, Volatility::Volatile) }))
}

impl ScalarUDFImpl for AsOf {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("{NAME} is replaced when the plan is lowered")
    }
}

/// Whether a condition is one that says as of when a table is joined.
pub(crate) fn is_as_of(condition: &Expr) -> bool {
    time(condition).is_some()
}

/// The time as of which a table is joined.
pub(crate) fn time(condition: &Expr) -> Option<&Expr> {
    match condition {
        Expr::ScalarFunction(call) if call.func.name() == NAME => call.args.first(),
        _ => None,
    }
}

/// Turns the versions of joined tables into conditions.
pub(crate) fn rewrite(query: &mut Query) -> std::result::Result<(), SqlError> {
    for table in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
        rewrite(&mut table.query)?;
    }
    body(&mut query.body)
}

fn body(body_of: &mut SetExpr) -> std::result::Result<(), SqlError> {
    match body_of {
        SetExpr::Select(select) => from(select),
        SetExpr::Query(query) => rewrite(query),
        SetExpr::SetOperation { left, right, .. } => {
            body(left)?;
            body(right)
        }
        _ => Ok(()),
    }
}

fn from(select: &mut Select) -> std::result::Result<(), SqlError> {
    select.from.iter_mut().try_for_each(tables)
}

fn tables(tables_of: &mut TableWithJoins) -> std::result::Result<(), SqlError> {
    if version(&mut tables_of.relation)?.is_some() {
        let error = SqlError::new("sql-as-of", "FOR SYSTEM_TIME AS OF belongs to a table that a stream is joined with");
        return Err(error.help("write FROM s JOIN t FOR SYSTEM_TIME AS OF s.at ON s.k = t.k"));
    }
    for join in &mut tables_of.joins {
        let Some(time) = version(&mut join.relation)? else { continue };
        let on = match &mut join.join_operator {
            JoinOperator::Join(JoinConstraint::On(on))
            | JoinOperator::Inner(JoinConstraint::On(on))
            | JoinOperator::Left(JoinConstraint::On(on))
            | JoinOperator::LeftOuter(JoinConstraint::On(on))
            | JoinOperator::Right(JoinConstraint::On(on))
            | JoinOperator::RightOuter(JoinConstraint::On(on))
            | JoinOperator::FullOuter(JoinConstraint::On(on)) => on,
            _ => {
                let error = SqlError::new("sql-as-of", "a join AS OF a time needs ON");
                return Err(error.help("write JOIN t FOR SYSTEM_TIME AS OF s.at ON s.k = t.k"));
            }
        };
        let before = std::mem::replace(
            on,
            Ast::Wildcard(datafusion_sql::sqlparser::ast::helpers::attached_token::AttachedToken::empty()),
        );
        *on = Ast::BinaryOp {
            left: Box::new(Ast::Nested(Box::new(before))),
            op: BinaryOperator::And,
            right: Box::new(call(time)),
        };
    }
    Ok(())
}

/// Takes the version out of a table; goes on into subqueries.
fn version(table: &mut TableFactor) -> std::result::Result<Option<Ast>, SqlError> {
    match table {
        TableFactor::Table { version, .. } => match version.take() {
            Some(TableVersion::ForSystemTimeAsOf(time)) => Ok(Some(time)),
            Some(_) => {
                let error = SqlError::new("sql-as-of", "a version of a table is not supported in this form");
                Err(error.help("write FOR SYSTEM_TIME AS OF s.at"))
            }
            None => Ok(None),
        },
        TableFactor::Derived { subquery, .. } => rewrite(subquery).map(|()| None),
        TableFactor::NestedJoin { table_with_joins, .. } => tables(table_with_joins).map(|()| None),
        _ => Ok(None),
    }
}

fn call(time: Ast) -> Ast {
    let args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(time))];
    Ast::Function(Function {
        name: ObjectName(vec![ObjectNamePart::Identifier(Ident::new(NAME))]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

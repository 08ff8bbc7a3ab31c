//! UNNEST.

use std::sync::Arc;

use arrow_schema::DataType;
use datafusion_expr::logical_plan::Unnest as Plan;

use crate::error::SqlError;
use crate::expr::batch_schema;
use crate::lower::{Lowered, Result};
use crate::ops::Op;
use crate::ops::unnest::{Source, Unnest};

pub(super) fn unnest(mut input: Lowered, plan: &Plan) -> Result<Lowered> {
    if plan.list_type_columns.iter().any(|(_, list)| list.depth > 1) {
        let error = SqlError::new("sql-not-yet", "UNNEST of UNNEST in one SELECT is not supported");
        return Err(error.help("unnest the outer list in a subquery first"));
    }
    let mut sources = Vec::with_capacity(plan.dependency_indices.len());
    let mut field = 0;
    let mut last = None;
    for at in &plan.dependency_indices {
        let list = plan.list_type_columns.iter().any(|(i, _)| i == at);
        field = if last == Some(*at) { field + 1 } else { 0 };
        last = Some(*at);
        sources.push(if plan.struct_type_columns.contains(at) {
            Source::Field(*at, field)
        } else if list {
            Source::Elements(*at)
        } else {
            Source::Repeat(*at)
        });
    }
    let lineage = sources.iter().map(|s| match s {
        Source::Repeat(at) => input.lineage.get(*at).copied().flatten(),
        _ => None,
    });
    let lineage = lineage.collect();
    let null_list = |i: &usize| input.schema.field(*i).data_type() == &DataType::Null;
    if plan.list_type_columns.iter().any(|(i, _)| null_list(i)) {
        return Err(SqlError::new("sql-unnest", "UNNEST of NULL: give it a list"));
    }
    let op = Unnest {
        sources,
        keep_null: plan.options.preserve_nulls(),
        keep_empty: plan.options.expand_empty_as_null(),
        schema: batch_schema(&plan.schema),
    };
    input.ops.push(Op::Unnest(op));
    Ok(Lowered { schema: Arc::clone(&plan.schema), lineage, ..input })
}

//! The scalar functions of our SQL: DataFusion's, our JSON access, and `now()` as the time of ingestion.

mod json;
pub(crate) mod now;

use std::sync::Arc;

use datafusion_expr::ScalarUDF;
use datafusion_expr::planner::ExprPlanner;

/// All scalar functions; a later one replaces an earlier one of the same name.
pub(crate) fn all() -> Vec<Arc<ScalarUDF>> {
    let mut functions = datafusion_functions::all_default_functions();
    functions.extend(datafusion_functions_nested::all_default_nested_functions());
    functions.extend(now::functions());
    functions.extend(json::functions());
    functions
}

/// What turns operators and literals (`a[1]`, `{…}`, EXTRACT) into function calls; the first that answers wins.
pub(crate) fn planners() -> Vec<Arc<dyn ExprPlanner>> {
    vec![
        Arc::new(json::Operators),
        Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
        Arc::new(datafusion_functions_nested::planner::NestedFunctionPlanner),
        Arc::new(datafusion_functions_nested::planner::FieldAccessPlanner),
        Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
        Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
    ]
}

//! The scalar functions of our SQL: DataFusion's, our JSON access, and `now()` as the time of ingestion.

mod bounded;
mod json;
pub(crate) mod now;
mod row_number;

use std::sync::Arc;

use datafusion_expr::planner::ExprPlanner;
use datafusion_expr::{ScalarUDF, Volatility};

/// All scalar functions that give the same answer for the same event; a later one replaces an earlier one of the same
/// name. The time of day of the wall clock is left out with the volatile ones.
pub(crate) fn all() -> Vec<Arc<ScalarUDF>> {
    let mut functions = datafusion_functions::all_default_functions();
    functions.extend(datafusion_functions_nested::all_default_nested_functions());
    functions.retain(|f| f.signature().volatility != Volatility::Volatile && f.name() != "current_time");
    functions.extend(now::functions());
    functions.extend(json::functions());
    functions.into_iter().map(bounded::bounded).collect()
}

/// What turns operators and literals (`a[1]`, `{…}`, EXTRACT) into function calls; the first that answers wins.
pub(crate) fn planners() -> Vec<Arc<dyn ExprPlanner>> {
    vec![
        Arc::new(json::Operators),
        Arc::new(datafusion_functions_aggregate::planner::AggregateFunctionPlanner),
        Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
        Arc::new(datafusion_functions_nested::planner::NestedFunctionPlanner),
        Arc::new(datafusion_functions_nested::planner::FieldAccessPlanner),
        Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
        Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
    ]
}

/// All aggregate functions.
pub(crate) fn aggregates() -> Vec<Arc<datafusion_expr::AggregateUDF>> {
    // `grouping` belongs to GROUPING SETS.
    let all = datafusion_functions_aggregate::all_default_aggregate_functions();
    all.into_iter().filter(|function| function.name() != "grouping").collect()
}

/// All functions that only OVER gives a meaning.
pub(crate) fn windows() -> Vec<Arc<datafusion_expr::WindowUDF>> {
    let all = datafusion_functions_window::all_default_window_functions();
    let others = all.into_iter().filter(|function| function.name() != "row_number");
    others.chain([row_number::function()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_function_gives_another_answer_each_time() {
        let all = all();
        assert!(all.len() > 150, "{}", all.len());
        for function in &all {
            let name = function.name();
            let fixed = match function.signature().volatility {
                Volatility::Immutable => true,
                Volatility::Stable => ["now", "current_date"].contains(&name),
                Volatility::Volatile => false,
            };
            // DataFusion's own now() is replaced by ours, which comes later and wins.
            assert!(fixed, "{name}");
        }
    }
}

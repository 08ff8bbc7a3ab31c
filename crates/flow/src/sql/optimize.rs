//! The rules that may rewrite a plan: an allow-list.
//!
//! Left out on purpose: rules that assume a finite input (limits, empty relations, distinct), rules that would move an
//! expression that can fail before the filter that guards it (filter push-down; lowering moves safe filters itself),
//! and rules that turn an outer into an inner join, which would count dropped rows that nobody joined away.

use std::sync::Arc;

use datafusion_common::Result;
use datafusion_expr::LogicalPlan;
use datafusion_optimizer::analyzer::Analyzer;
use datafusion_optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion_optimizer::decorrelate_lateral_join::DecorrelateLateralJoin;
use datafusion_optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion_optimizer::optimize_projections::OptimizeProjections;
use datafusion_optimizer::simplify_expressions::SimplifyExpressions;
use datafusion_optimizer::{Optimizer, OptimizerContext, OptimizerRule};

use crate::sql::context::options;
use crate::sql::lateral::spread;
use crate::sql::numbers::settle;

type Rules = Vec<Arc<dyn OptimizerRule + Send + Sync>>;

/// Resolves types, then simplifies.
pub(crate) fn optimize(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rules: Rules = vec![
        Arc::new(SimplifyExpressions::new()),
        Arc::new(DecorrelateLateralJoin::new()),
        Arc::new(EliminateCrossJoin::new()),
        Arc::new(CommonSubexprEliminate::new()),
        Arc::new(OptimizeProjections::new()),
    ];
    run(plan, rules)
}

/// Resolves types and simplifies expressions where they are.
pub(crate) fn simplify(plan: LogicalPlan) -> Result<LogicalPlan> {
    run(plan, vec![Arc::new(SimplifyExpressions::new())])
}

fn run(plan: LogicalPlan, rules: Rules) -> Result<LogicalPlan> {
    let options = Arc::new(options());
    let plan = settle(spread(plan)?)?;
    let plan = Analyzer::new().execute_and_check(plan, &options, |_, _| {})?;
    // Without a start time nothing of the clock gets into the plan.
    let context = OptimizerContext::new_with_config_options(options).without_query_execution_start_time();
    Optimizer::with_rules(rules).optimize(plan, &context, |_, _| {})
}

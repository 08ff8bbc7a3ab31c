//! Operators with state: windows, histories, joins.
//!
//! A stateful query is a line of *stages*. Each stage has an operator and the row-wise steps before it; the rows that it
//! gives out flow on to the stages behind. [`Running`] is a query at work on one partition of its inputs: it is pushed
//! batches and watermarks, and gives out rows and [`Changes`], from which another one can go on.

mod aggregates;
mod as_of_join;
mod changes;
mod dedup;
mod groups;
mod held;
mod interval_join;
mod kept;
#[cfg(test)]
#[expect(clippy::panic, reason = "a test may panic")]
mod laws;
mod legend;
mod lists;
mod operator;
mod over;
mod paired;
mod panes;
mod retract;
mod row_table;
mod running;
mod session;
mod session_table;
mod table_join;
mod table_rows;
mod top_n;
mod two;
mod union;
mod update_aggregate;
mod window_aggregate;

pub(crate) use aggregates::Aggregate;
pub(crate) use as_of_join::AsOfJoinPlan;
pub(crate) use changes::STAGES_MAX;
pub use changes::{ChangeRows, Changes};
pub(crate) use dedup::{DedupPlan, Until};
pub(crate) use groups::{Groups, Keys};
pub(crate) use interval_join::IntervalJoinPlan;
pub(crate) use legend::{KeyColumns, Legend, cell, moment};
pub use legend::{StateCell, StateLegend, StateRow};
pub(crate) use operator::Blueprint;
pub use operator::Broken;
pub(crate) use over::OverPlan;
pub(crate) use over::columns::owned;
pub(crate) use over::{Kind, function};
pub(crate) use paired::PairedPlan;
pub(crate) use panes::Windows;
pub(crate) use retract::Arguments;
pub(crate) use row_table::RowTable;
pub(crate) use running::{Chain, Source, Stage, text_of_row};
pub use running::{Derived, Running, Step};
pub(crate) use session::SessionPlan;
pub(crate) use table_join::TableJoinPlan;
pub(crate) use table_rows::TableRowsPlan;
pub(crate) use top_n::TopNPlan;
pub(crate) use two::Two;
pub(crate) use union::UnionPlan;
pub(crate) use update_aggregate::UpdateAggregatePlan;
pub(crate) use window_aggregate::{GroupColumn, WindowAggregatePlan};

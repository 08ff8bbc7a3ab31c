//! Operators with state: windows, histories, joins.
//!
//! A stateful query is a line of *stages*. Each stage has an operator and the row-wise steps before it; the rows that it
//! gives out flow on to the stages behind. [`Running`] is a query at work on one partition of its inputs: it is pushed
//! batches and watermarks, and gives out rows and [`Changes`], from which another one can go on.

mod aggregates;
mod changes;
mod groups;
mod operator;
mod panes;
mod row_table;
mod running;
mod window_aggregate;

pub(crate) use aggregates::Aggregate;
pub(crate) use changes::STAGES_MAX;
pub use changes::{ChangeRows, Changes};
pub(crate) use operator::Blueprint;
pub use operator::Broken;
pub(crate) use panes::Windows;
pub(crate) use running::{Chain, Source, Stage};
pub use running::{Derived, Running, Step};
pub(crate) use window_aggregate::{GroupColumn, WindowAggregatePlan};

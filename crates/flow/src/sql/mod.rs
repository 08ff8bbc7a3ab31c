//! From SQL text to an optimised logical plan.

pub(crate) mod as_of;
pub(crate) mod context;
pub(crate) mod dialect;
pub(crate) mod keep;
pub(crate) mod lateral;
pub(crate) mod numbers;
pub(crate) mod optimize;
pub(crate) mod places;
pub(crate) mod refuse;
pub(crate) mod relations;
pub(crate) mod text;
pub(crate) mod time_windows;
pub(crate) mod translate;

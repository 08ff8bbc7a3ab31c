//! The life of tasks on a whole log, from the outside.

mod bed;
mod exactly_once;
mod failures;
mod letters;
mod steps;
mod supervision;

//! The life of tasks on a whole log, from the outside.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test that cannot go on should stop")]

mod bed;
mod exactly_once;
mod failures;
mod folds;
mod letters;
mod rewind;
mod runs;
mod steps;
mod supervision;
mod table_lookups;
mod time;

//! Integration tests of the node.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod apply;
mod bad_days;
mod change;
mod columns;
mod full_disk;
mod golden;
mod meeting;
mod run;
mod table_lookups;
mod world;

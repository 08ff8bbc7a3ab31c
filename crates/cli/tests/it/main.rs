//! Drives the real binary: each command's happy path and its usual mistakes.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

mod backup;
mod bench;
mod change;
mod drain;
mod late;
mod letters;
mod offline;
mod pipes;
mod rewind;
mod running;
mod start;
mod state_show;
mod stop;
mod support;
mod table_lookup;
mod time;
mod usage;
mod written;

//! Drives the real binary: each command's happy path and its usual mistakes.

mod change;
mod drain;
mod letters;
mod offline;
mod pipes;
mod running;
mod start;
mod support;
mod usage;
mod written;

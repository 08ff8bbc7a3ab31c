//! The logs from the outside: the contract's rules, power cuts, failing disks, flipped bytes, planted bugs.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

mod allocation;
mod backing_up;
mod checkpoint;
mod compacted_copies;
mod compacted_repairs;
mod compactions;
mod conformance;
mod faults;
mod first_open;
mod flips;
mod full_disk;
mod fuzz_frames;
mod hooked;
mod power_loss;
mod repairing;
mod rig;
mod sabotage;
mod table_columns;
mod table_space;
mod tables;
mod unreadable;

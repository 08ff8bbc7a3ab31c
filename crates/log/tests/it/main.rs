//! The logs from the outside: the contract's rules, power cuts, failing disks, flipped bytes, planted bugs.

mod allocation;
mod conformance;
mod faults;
mod flips;
mod fuzz_frames;
mod power_loss;
mod rig;
mod sabotage;

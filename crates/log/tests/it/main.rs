//! The logs from the outside: the contract's rules, power cuts, failing disks, flipped bytes, planted bugs.

mod conformance;

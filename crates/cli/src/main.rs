//! the millstream binary
fn main() {}

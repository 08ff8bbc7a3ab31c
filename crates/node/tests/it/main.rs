//! Integration tests of the node.

mod change;
mod golden;
mod run;
mod world;

//! Integration tests of the node.

mod golden;

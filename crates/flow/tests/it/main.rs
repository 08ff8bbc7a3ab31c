//! The tests of the crate's public face.

mod queries;

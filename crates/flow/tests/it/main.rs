//! The tests of the crate's public face.

mod golden;
mod one_by_one;
mod properties;
mod queries;
mod routes;

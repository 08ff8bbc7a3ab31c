//! Backups of real logs in real directories, and in a server that speaks S3.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

mod bed;
mod owners;
mod restoring;
mod rounds;
#[cfg(feature = "s3")]
mod s3;

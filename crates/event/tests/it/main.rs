//! The codecs of events against their promises: nothing lost, nothing rounded, no panic, and a bad event alone.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod any;
mod conform;
mod csv;
mod ipc;
mod json_nasty;
mod json_round_trip;

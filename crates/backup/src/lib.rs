//! Copies of a log in an object store, and back.
//!
//! A **round** ([`Backup::round`]) copies what changed since the last one and then writes a **manifest**, which names all
//! objects that together are the log at one moment. Nothing pauses meanwhile. [`restore`] makes a directory out of a
//! manifest, in which the log opens as after a power cut at that moment.
//!
//! Invariants:
//! - An object is written once, under a name that has its content's checksum, and is named by a manifest only when it is
//!   there. A round that ends half-way leaves the earlier manifests as they were.
//! - An object that a kept manifest names is not removed; nor is anything of a log with another number, so that a
//!   pipeline that was started anew by mistake does not push the copies of the lost one out.
//! - One process at a time copies a log to a place. Who begins takes it over; who is taken over from says so with every
//!   further round, and changes nothing.
//!
//! What this crate is *not*: it knows nothing of services, of schedules, or of what the files hold beyond what
//! [`millstream_log::backup`] says.

mod cover;
mod error;
mod manifest;
mod owner;
mod restore;
mod round;
mod seen;
mod store;

pub use error::Error;
pub use manifest::{Manifest, ManifestFile, Piece};
pub use millstream_log as log;
pub use restore::{Chosen, Restored, choose, list, refuse_if_used, restore};
pub use round::{Backup, Beside, Done};
pub use store::{Place, Store};

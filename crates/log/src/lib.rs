//! The durable event log: the contract every log keeps, a log in memory and the log embedded in the binary.
//!
//! The log knows topics, partitions, commits and positions. It does *not* know state, SQL, services' definitions,
//! dead letters or anything of the outside: those are appends like any other.

mod clock;
#[cfg(feature = "testing")]
pub mod conformance;
mod contract;
mod embedded;
mod error;
mod evolution;
mod group;
mod memory;
mod newest;
mod positions;
mod promises;
pub mod vfs;

pub use clock::{Clock, ManualClock, SystemClock};
pub use contract::{
    AbortReason, Append, Change, Class, Commit, Committed, Consumed, Epoch, Join, Lead, Log, Membership, Outcome,
    Pending, Position, Read, Reader, Retention, Task, TaskId, TopicInfo, TopicKind, TopicSpec,
};
#[cfg(any(test, feature = "sabotage"))]
pub use embedded::Sabotage;
pub use embedded::backup;
#[cfg(feature = "testing")]
pub use embedded::fuzzing;
pub use embedded::{
    Counts, EmbeddedLog, Lost, Options as EmbeddedOptions, Problem, Report, Stat, SyncMode, TopicStat, is_free, repair,
    stat, verify,
};
pub use error::Error;
pub use evolution::{SpecChange, check_rows, keeping, spec_change, upgrade};
pub use group::Groups;
pub use memory::MemoryLog;

//! The wire: what the node's HTTP API says and hears, and what `--json` prints.
//!
//! One set of types for both ends, so that node and command line cannot drift apart. Rules for all of them:
//! - Times are RFC 3339 text in UTC. Counts are totals since the node started unless their name says otherwise;
//!   a field that ends in `_per_s` is a rate over the last few seconds, one that ends in `_ms` is milliseconds.
//! - An absent value is `null`, never a missing meaning such as `0` or `""`.
//! - A reader ignores fields that it does not know, so that an older command line can ask a newer node.
//! - A refusal is an [`ApiError`] with a stable code, at any HTTP status from 400 on.

mod backup;
mod change;
mod control;
mod error;
mod events;
mod letters;
mod log;
pub mod paths;
mod rewind;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod topics;

pub use crate::diagnostic::{Diagnostic, Diagnostics, Place, Related, Severity};
pub use backup::{BackupInfo, BackupState, RestoreReport, Snapshot};
pub use change::{Applied, Change, ChangeKind, PartKind, PipelineText, Plan};
pub use control::{Fault, InjectRequest, ScaleRequest, ServiceAnswer};
pub use error::{ApiError, codes};
pub use events::{EventLine, EventsQuery, From, ParseFromError};
pub use letters::{
    Letter, LetterAnswer, LetterId, LetterOutcome, LetterState, LettersQuery, LettersRequest, LettersResult,
    ParseLetterIdError,
};
pub use log::{LogStat, LogTopic, RepairReport, VerifyFault, VerifyReport};
pub use rewind::{RewindAnswer, RewindRequest, RewoundInput};
pub use state::{Cells, StateAnswer, StateLine, StateQuery};
pub use status::{
    DrainSummary, Failure, HeldBack, Holding, InputLag, Latency, LogState, LookupState, NodeInfo, Phase, RunState,
    ServiceStatus, SinkStatus, SourceStatus, Status, Summary, TopicCount,
};
pub use topics::{ColumnInfo, PartitionInfo, Topic, Topics};

//! The life of a task: read, process, commit; dead letters, restarts, scaling.
//!
//! A pipeline is made of sources, services and sinks over one log. The [`Runner`] starts each of them as instances that
//! own tasks; each task is supervised alone and goes on from its own last commit, whatever happens. This crate knows no
//! YAML, no files and no network: [`Source`] and [`Sink`] are implemented elsewhere.

mod again;
mod begun;
mod clock;
mod component;
mod control;
pub mod dead_letter;
pub mod dead_letters;
mod def;
mod entry;
mod error;
mod flight;
mod inputs;
mod intake;
mod isolation;
mod lateness;
mod letters;
mod lookup;
mod meters;
mod open_letters;
mod outlet;
mod piece;
mod placing;
mod process;
mod program;
mod promises;
mod replay;
mod replayed;
pub mod rewind;
mod runner;
mod service;
mod sink;
mod source;
pub mod state;
pub mod state_rows;
mod status;
mod store;
mod supervise;
mod table_lookup;
mod task;
mod task_time;
mod together;
mod watermarks;

pub use millstream_event as event;
pub use millstream_flow as flow;
pub use millstream_log as log;
pub use millstream_log::{Clock, SystemClock};

pub use component::{INSTANCES_MAX, lag_of};
pub use def::{
    BATCH_ROWS_DEFAULT, BROKEN_RULES, Check, Else, EventTimeDef, InputTime, Keep, Late, Output, Processor, Producers,
    ServiceDef, ServiceTime, SinkDef, SourceDef, Work, tagged,
};
pub use error::{ConnectError, Error};
pub use lookup::{LookupHandle, LookupPublisher, LookupStatus};
pub use meters::{Counts, LATENCY_BOUNDS_US, Meters};
pub use placing::{Carries, unchanged, writes_in_place};
pub use runner::{Handle, Injected, Options, Runner};
pub use sink::{Sink, SinkTask};
pub use source::{INTAKE_ROWS_MAX, Intake, Receipt, Refusal, RefusedEvent, RowFate, Source, SourceRead, SourceTask};
pub use status::{HeldBack, InputLag, Kind, State, Status, TaskStatus, TimeStatus};
pub use store::{Owner, StateChanges, StateRow, StateStore, StoreError, StoredRows, StoredState};
pub use table_lookup::{LOOKUP_PARTITIONS_MAX, TableLookup, lookup_input};
pub use task_time::time_of;

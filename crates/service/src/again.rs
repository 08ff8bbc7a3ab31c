//! What a task does with events that it has read before: because it was set back (`services rewind`), or because it keeps
//! its state in memory and builds it anew.
//!
//! 1. Each input has a barrier: where it was. Nobody reads past their barrier before all have come to theirs, so that no
//!    new event meets a state that is half built.
//! 2. Meanwhile what is made is given out, suppressed or written to another topic, as was ordered. Who builds state in
//!    memory gives nothing out and commits nothing.
//! 3. Time begins anew as well: operators conclude from the marks that are read again. The task itself goes on promising
//!    what it had promised, no more and no less.
//! 4. At the barriers the task knows again what it had heard of time; what that concludes belongs to the past too. Then it
//!    goes on as if nothing had been.
//!
//! Where a task is set back, this stands in its positions ([`REWIND_INPUT`], [`FORMER_TIME_INPUT`]), moved in the commit that
//! sets it back and in the one that ends it: a crash in the middle goes on where it was.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray};
use bytes::Bytes;
use millstream_event::{Name, Stamp, Watermark};
use millstream_log::{Consumed, Log, Position, TaskId, TopicInfo};
use serde::{Deserialize, Serialize};

use crate::def::ServiceTime;
use crate::process::Staged;
use crate::task::Fault;

/// The input under which it stands how far a task was before it was set back. No topic has this name (`__` is reserved).
pub(crate) const REWIND_INPUT: &str = "__rewind";
/// The input under which it stands what such a task had heard of time.
pub(crate) const FORMER_TIME_INPUT: &str = "__rewind_time";

/// The version of [`Order`] as bytes.
const ORDER_VERSION: u8 = 1;
const US_PER_DAY: i64 = 86_400_000_000;

/// What becomes of what is made of events that are read again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outputs {
    /// Nothing: it is there already.
    Suppress,
    /// It is appended again, with dead letters.
    Append,
    /// It is written to this topic instead.
    Topic(Name),
}

/// What a task was told when it was set back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    version: u8,
    pub(crate) outputs: Outputs,
    /// Where each input was; empty: all are there again.
    pub(crate) until: BTreeMap<Name, u64>,
    /// The time that the task had promised, in microseconds since 1970 UTC: it never promises less.
    pub(crate) floor: Option<i64>,
}

impl Order {
    pub(crate) fn new(outputs: Outputs, until: BTreeMap<Name, u64>, floor: Option<i64>) -> Self {
        Self { version: ORDER_VERSION, outputs, until, floor }
    }

    /// As a position.
    pub(crate) fn position(&self) -> Result<Position, String> {
        let bytes = serde_json::to_vec(self).map_err(|e| e.to_string())?;
        if bytes.len() > Position::OPAQUE_BYTES_MAX {
            return Err(format!("it has too many inputs to be set back ({} bytes of positions)", bytes.len()));
        }
        Ok(Position::Opaque(bytes.into()))
    }

    fn read(position: &Position) -> Result<Self, String> {
        let wrong = || "the stored order to read events again cannot be read; was it written by a newer version?";
        let Position::Opaque(bytes) = position else { return Err(wrong().to_owned()) };
        let order: Self = serde_json::from_slice(bytes).map_err(|_| wrong())?;
        (order.version == ORDER_VERSION).then_some(order).ok_or_else(|| wrong().to_owned())
    }
}

/// What a task's positions say about being set back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stored {
    /// The order and its position.
    pub(crate) order: Option<(Order, Position)>,
    /// What was heard of time before, and its position.
    pub(crate) former: Option<Position>,
}

async fn position_of(log: &dyn Log, task: &TaskId, input: &str) -> Result<Option<Position>, Fault> {
    let input = Name::new(input).map_err(|e| Fault::Failed(e.to_string()))?;
    log.position(task, &input).await.map_err(|e| Fault::log(&e))
}

impl Stored {
    /// As it stands in the log.
    pub(crate) async fn read(log: &dyn Log, task: &TaskId) -> Result<Self, Fault> {
        let order = match position_of(log, task, REWIND_INPUT).await? {
            Some(position) => Some((Order::read(&position).map_err(Fault::Failed)?, position)),
            None => None,
        };
        Ok(Self { order, former: position_of(log, task, FORMER_TIME_INPUT).await? })
    }

    /// Whether the task has not come back yet to where it was.
    pub(crate) fn is_under_way(&self) -> bool {
        self.order.as_ref().is_some_and(|(order, _)| !order.until.is_empty())
    }

    /// The time that the task has promised at least.
    pub(crate) fn floor(&self) -> Watermark {
        self.order.as_ref().and_then(|(order, _)| order.floor).map_or(Watermark::OPEN, Watermark)
    }

    /// What had been heard of time, while the task is under way.
    pub(crate) fn former_time(&self) -> Option<Bytes> {
        match &self.former {
            Some(Position::Opaque(bytes)) if !bytes.is_empty() => Some(bytes.clone()),
            _ => None,
        }
    }

    /// The same, when the task is where it was: what it has promised it has promised.
    pub(crate) fn over(&self) -> Self {
        let ended = |(order, at): &(Order, Position)| {
            (Order { until: BTreeMap::new(), outputs: Outputs::Append, ..order.clone() }, at.clone())
        };
        Self { order: self.order.as_ref().map(ended), former: None }
    }

    /// The moves of positions that say that the task is where it was.
    pub(crate) fn concluded(&self) -> Result<Vec<Consumed>, Fault> {
        let wrong = |e: String| Fault::Failed(e);
        let input = |input: &str| Name::new(input).map_err(|e| wrong(e.to_string()));
        let mut moves = Vec::new();
        if let Some((order, position)) = &self.order {
            let done = Order::new(Outputs::Append, BTreeMap::new(), order.floor);
            let to = done.position().map_err(wrong)?;
            moves.push(Consumed { input: input(REWIND_INPUT)?, from: Some(position.clone()), to });
        }
        if let Some(from) = self.former.clone().filter(|_| self.former_time().is_some()) {
            let to = Position::Opaque(Bytes::new());
            moves.push(Consumed { input: input(FORMER_TIME_INPUT)?, from: Some(from), to });
        }
        Ok(moves)
    }
}

/// Reading again, while it lasts.
pub(crate) struct Again {
    pub(crate) kind: Kind,
    /// What the task had heard of time when it was where the barriers are.
    pub(crate) former_time: Option<Bytes>,
}

/// Why events are read again.
pub(crate) enum Kind {
    /// To build state in memory.
    Rebuild,
    /// As ordered; results may go to a topic of their own.
    Rewound { outputs: Outputs, to: Option<TopicInfo> },
}

impl Again {
    /// Whether nothing is committed.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self.kind, Kind::Rebuild)
    }

    /// Lets what was made go where it shall go.
    pub(crate) fn divert(&self, staged: &mut Staged, time: Option<&ServiceTime>, floor: Watermark) {
        let read = staged.tally.events_in;
        match &self.kind {
            Kind::Rewound { outputs: Outputs::Append, .. } => {
                if let Some((time, floor)) = time.zip(floor.time()) {
                    mark_late(staged, time, floor);
                }
                return;
            }
            Kind::Rewound { to: Some(to), .. } => {
                let fits = |rows: &RecordBatch| rows.schema_ref().fields() == to.spec.schema.physical().fields();
                staged.appends.retain(|(.., rows)| fits(rows));
                for (topic, version, ..) in &mut staged.appends {
                    (*topic, *version) = (to.spec.name.clone(), to.schema_version);
                }
            }
            _ => staged.appends.clear(),
        }
        // They were written and counted when the events were read for the first time.
        staged.letters.clear();
        staged.tally = crate::meters::Tally::default();
        staged.tally.events_in = if self.is_silent() { 0 } else { read };
        for (topic, .., rows) in &staged.appends {
            staged.tally.out(topic, rows.num_rows() as u64);
        }
    }
}

/// Marks rows as late whose time is behind what was promised: for their readers they come out of time.
fn mark_late(staged: &mut Staged, time: &ServiceTime, floor: i64) {
    for (topic, .., rows) in &mut staged.appends {
        let column = time.columns.get(topic).and_then(|column| rows.column_by_name(column));
        if let Some(marked) = column.and_then(|column| marked(rows, column, floor)) {
            *rows = marked;
        }
    }
}

fn marked(rows: &RecordBatch, times: &ArrayRef, floor: i64) -> Option<RecordBatch> {
    let micros: Vec<Option<i64>> = if let Some(times) = times.as_primitive_opt::<TimestampMicrosecondType>() {
        times.iter().collect()
    } else {
        let days = times.as_primitive_opt::<Date32Type>()?;
        days.iter().map(|day| day.map(|day| i64::from(day).saturating_mul(US_PER_DAY))).collect()
    };
    let (system, user) = rows.columns().split_last()?;
    let stamps = system.as_primitive_opt::<TimestampMicrosecondType>()?;
    // The end of a window is a moment behind its last one.
    let late = |time: &Option<i64>| time.is_some_and(|time| time <= floor);
    let stamp =
        |(stamp, time): (&i64, &Option<i64>)| if late(time) { Stamp(*stamp).with(Stamp::LATE).0 } else { *stamp };
    let stamps: Vec<i64> = stamps.values().iter().zip(&micros).map(stamp).collect();
    let system: ArrayRef = Arc::new(TimestampMicrosecondArray::from(stamps).with_timezone_opt(zone(system)));
    RecordBatch::try_new(rows.schema(), user.iter().cloned().chain([system]).collect()).ok()
}

fn zone(column: &ArrayRef) -> Option<Arc<str>> {
    match column.data_type() {
        arrow_schema::DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    }
}

//! Event time where events enter: a source task's lateness, kept in the log, and its promises to the source's topic.
//!
//! What was promised is a position of the task (its input [`TIME_INPUT`]), moved in the commit that carries the events
//! which moved it, so that a restart goes on exactly.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, TimestampMicrosecondType};
use arrow_array::{ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use millstream_event::{Name, PartitionId, Schema, Stamp, Watermark};
use millstream_log::{Commit, Consumed, Log, Position, TaskId};

use crate::def::EventTimeDef;
use crate::lateness::{Judged, Lateness};
use crate::placing::{Outlet, filter};
use crate::promises::Promises;
use crate::status::TimeStatus;
use crate::task::{Context, Fault};

/// The input under which a task's event time is committed. No topic has this name (`__` is reserved).
pub(crate) const TIME_INPUT: &str = "__time";

const US_PER_DAY: i64 = 86_400_000_000;

/// One source task's event time.
pub(crate) struct Entry {
    column: String,
    /// The topic's key.
    key: Vec<String>,
    lateness: Lateness,
    promises: Promises,
    input: Name,
    /// The position behind the last commit handed over.
    position: Option<Position>,
    idle: Option<Duration>,
    /// When events came last, or the task began to wait for them.
    since: Instant,
}

/// What became of the rows that have a key.
struct Keyed {
    rows: usize,
    judged: Judged,
}

/// The rows of an intake as they enter.
pub(crate) struct Sifted {
    /// The good rows, with the system's column.
    pub(crate) rows: RecordBatch,
    /// Their numbers in the intake; `None`: all, in order.
    pub(crate) numbers: Option<Vec<u32>>,
    /// Rows that are refused, by their number in the intake, with code and reason.
    pub(crate) refused: Vec<(u32, &'static str, String)>,
    /// How many of the good rows are late.
    pub(crate) late: u64,
}

impl Entry {
    /// Goes on where the task's last commit left it, open: that it was idle, or had closed, readers believe in the run in
    /// which it was said. `said`: what the attempt before has said, where it is known; then it stays as it was.
    pub(crate) async fn open(
        context: &Context,
        def: &EventTimeDef,
        outlet: &Outlet,
        said: Option<Promises>,
    ) -> Result<Self, Fault> {
        let (mut lateness, position) = stored(context.log.as_ref(), def, &context.task.id).await?;
        let input = time_input()?;
        let promises = said.unwrap_or_else(|| {
            lateness.open_again();
            let mut promises = Promises::default();
            // Rows of a topic without a key go to its partitions in turn.
            (0..outlet.info.spec.partitions).for_each(|from| promises.add(outlet, PartitionId(from)));
            promises
        });
        let column = def.column.clone();
        let key = outlet.info.spec.key.clone();
        Ok(Self { column, key, lateness, promises, input, position, idle: def.idle, since: Instant::now() })
    }

    /// Goes on behind a commit that was kept and is handed over again.
    pub(crate) fn follow(&mut self, commit: &mut Commit) -> Result<(), Fault> {
        let Some(consumed) = commit.consumed.iter_mut().find(|c| c.input == self.input) else { return Ok(()) };
        if let Position::Opaque(state) = &consumed.to {
            self.lateness.restore(state).map_err(Fault::Failed)?;
        }
        consumed.from = self.position.replace(consumed.to.clone());
        Ok(())
    }

    /// What it has said, for the run behind this one; these commits did not happen.
    pub(crate) fn said<'c>(&mut self, lost: impl Iterator<Item = &'c Commit>) -> Promises {
        let mut promises = std::mem::take(&mut self.promises);
        lost.for_each(|commit| promises.unsay(&commit.appends));
        promises
    }

    /// Begins to wait for events anew: what passed before was no idleness of the source.
    pub(crate) fn awake(&mut self) {
        self.since = Instant::now();
    }

    fn judge(&mut self, rows: &RecordBatch, now_us: i64) -> Result<Judged, String> {
        let judged = self.judge_keyed(rows, now_us)?;
        // What is refused is not in the topic, so it keeps nobody awake: neither here nor among the readers.
        if judged.rows > judged.judged.refused.len() {
            self.awake();
        }
        Ok(judged.judged)
    }

    fn judge_keyed(&mut self, rows: &RecordBatch, now_us: i64) -> Result<Keyed, String> {
        let nulls = self.key.iter().filter_map(|column| rows.column_by_name(column)?.nulls().cloned());
        let nulls: Vec<_> = nulls.filter(|nulls| nulls.null_count() > 0).collect();
        if nulls.is_empty() {
            let judged = judge(&mut self.lateness, &self.column, rows, now_us)?;
            return Ok(Keyed { rows: rows.num_rows(), judged });
        }
        // Rows without a key are refused when they are placed: they are never in the topic, so they move nothing there.
        let has_key = |row: &u32| nulls.iter().all(|nulls| nulls.is_valid(*row as usize));
        let numbers: Vec<u32> = (0..rows.num_rows() as u32).filter(has_key).collect();
        let keep: BooleanArray = (0..rows.num_rows() as u32).map(|row| Some(has_key(&row))).collect();
        let rows = filter(rows, &keep).map_err(|e| e.to_string())?;
        let judged = judge(&mut self.lateness, &self.column, &rows, now_us)?;
        let number = |row: u32| numbers.get(row as usize).copied().unwrap_or(row);
        let judged = Judged {
            late: judged.late.into_iter().map(number).collect(),
            refused: judged.refused.into_iter().map(|(row, code, why)| (number(row), code, why)).collect(),
        };
        Ok(Keyed { rows: rows.num_rows(), judged })
    }

    /// Whoever does not know yet what is promised is to be told now.
    pub(crate) fn hurry(&mut self) {
        self.promises.hurry();
    }

    /// Nothing comes any more. False: this was said.
    pub(crate) fn close(&mut self) -> bool {
        self.lateness.close()
    }

    /// Whether the task has just become idle.
    pub(crate) fn idled(&mut self) -> bool {
        self.idle.is_some_and(|idle| self.since.elapsed() >= idle) && self.lateness.idle()
    }

    /// How long until something must be said or done without events.
    pub(crate) fn wait(&self) -> Option<Duration> {
        let promise = self.lateness.watermark();
        let idle =
            self.idle.filter(|_| promise < Watermark::IDLE).map(|idle| idle.saturating_sub(self.since.elapsed()));
        self.promises.wait(promise, Instant::now()).into_iter().chain(idle).min()
    }

    /// Adds what is promised behind the events of a commit, and what the task will go on from.
    pub(crate) fn sign(&mut self, commit: &mut Commit) {
        self.promises.put(&mut commit.appends, self.lateness.watermark(), Instant::now());
        let to = Position::Opaque(self.lateness.state());
        if self.position.as_ref() != Some(&to) {
            let from = self.position.replace(to.clone());
            commit.consumed.push(Consumed { input: self.input.clone(), from, to });
        }
    }

    /// How it stands.
    pub(crate) fn status(&self) -> TimeStatus {
        TimeStatus { watermark: self.lateness.watermark(), furthest: None, held_back: None }
    }
}

pub(crate) fn time_input() -> Result<Name, Fault> {
    Name::new(TIME_INPUT).map_err(|e| Fault::Failed(e.to_string()))
}

/// What a source's task has promised, and where that is kept.
pub(crate) async fn stored(
    log: &dyn Log,
    def: &EventTimeDef,
    task: &TaskId,
) -> Result<(Lateness, Option<Position>), Fault> {
    let mut lateness = Lateness::new(def.max_out_of_orderness_us, def.future_us);
    let position = log.position(task, &time_input()?).await.map_err(|e| Fault::log(&e))?;
    if let Some(Position::Opaque(state)) = &position {
        lateness.restore(state).map_err(Fault::Failed)?;
    }
    Ok((lateness, position))
}

fn judge(lateness: &mut Lateness, column: &str, rows: &RecordBatch, now_us: i64) -> Result<Judged, String> {
    let array = rows.column_by_name(column).ok_or_else(|| format!("there is no column `{column}`"))?;
    if let Some(times) = array.as_primitive_opt::<TimestampMicrosecondType>() {
        return Ok(lateness.judge(times.iter(), now_us));
    }
    let days = array.as_primitive_opt::<Date32Type>();
    let days = days.ok_or_else(|| format!("the event time `{column}` is neither a timestamp nor a date"))?;
    Ok(lateness.judge(days.iter().map(|day| day.map(|day| i64::from(day).saturating_mul(US_PER_DAY))), now_us))
}

/// Stamps the rows of an intake and takes out those that have no place in time.
pub(crate) fn sift(
    entry: Option<&mut Entry>,
    schema: &Schema,
    rows: &RecordBatch,
    now_us: i64,
) -> Result<Sifted, String> {
    let judged = match entry {
        Some(entry) => entry.judge(rows, now_us)?,
        None => Judged::default(),
    };
    let stamp = Stamp::at(now_us);
    let late = judged.late.len() as u64;
    let mut rows = match late {
        0 => schema.with_system(rows, stamp.0),
        _ => schema.with_system_column(rows, stamps(rows.num_rows(), stamp, &judged.late)),
    }
    .map_err(|e| e.to_string())?;
    let mut numbers = None;
    if !judged.refused.is_empty() {
        let mut keep = vec![true; rows.num_rows()];
        for (row, ..) in &judged.refused {
            if let Some(keep) = keep.get_mut(*row as usize) {
                *keep = false;
            }
        }
        numbers = Some((0_u32..).zip(&keep).filter(|(_, keep)| **keep).map(|(row, _)| row).collect());
        rows = filter(&rows, &BooleanArray::from(keep)).map_err(|e| e.to_string())?;
    }
    Ok(Sifted { rows, numbers, refused: judged.refused, late })
}

fn stamps(rows: usize, stamp: Stamp, late: &[u32]) -> ArrayRef {
    let mut stamps = vec![stamp.0; rows];
    for row in late {
        if let Some(stamp) = stamps.get_mut(*row as usize) {
            *stamp = Stamp(*stamp).with(Stamp::LATE).0;
        }
    }
    Arc::new(TimestampMicrosecondArray::from(stamps).with_timezone("+00:00"))
}

/// The stamp of an event that a dead letter brings again, or why it is refused again. It is late where its source has
/// promised more meanwhile, and moves nothing.
pub(crate) fn again(
    lateness: &Lateness,
    column: &str,
    rows: &RecordBatch,
    stamp: Stamp,
    now_us: i64,
) -> Result<Result<Stamp, (&'static str, String)>, String> {
    // On a copy, so that it moves nothing.
    let judged = judge(&mut lateness.clone(), column, rows, now_us)?;
    if let Some((_, code, reason)) = judged.refused.into_iter().next() {
        return Ok(Err((code, reason)));
    }
    Ok(Ok(if judged.late.is_empty() { stamp } else { stamp.with(Stamp::LATE) }))
}

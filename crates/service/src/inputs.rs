//! The inputs of a task: its partition of each topic it reads, and how far it has read them.
//!
//! Where events are read again (see [`crate::again`]), each input has a barrier that nobody passes before all have come to
//! theirs. Several inputs are read in the order in which their events came into the pipeline then, as nearly as their stamps
//! tell: so they met, more or less, when they were read for the first time.

use std::collections::BTreeMap;

use futures::future::select_all;
use millstream_event::{Batch, Name, Offset, Schema, Stamp, TopicPartition};
use millstream_log::{Consumed, Log, Position, Read, Reader, TaskId};

use crate::task::Fault;

/// The partitions that one task reads, in turn.
pub(crate) struct Inputs {
    inputs: Vec<Input>,
    /// Who is asked first next time, so that a busy input does not starve the others.
    turn: usize,
}

struct Input {
    name: Name,
    reader: Box<dyn Reader>,
    /// What the next commit's `from` must be.
    position: Option<Position>,
    /// Behind the last event handed out.
    next: Offset,
    /// A batch that did not fit any more.
    held: Option<Batch>,
    /// Where it waits for the others.
    barrier: Option<Offset>,
    /// The first event that is kept.
    start: Offset,
    /// The committed position, while nothing is committed.
    committed: Option<Option<Position>>,
}

/// Events of several inputs that came in within so many microseconds may be read in another order than they came.
const TOGETHER_US: i64 = 50_000;

/// What was read of one input without a break. May be without events: then only the position moved.
pub(crate) struct Run {
    /// The number of the input.
    pub(crate) input: usize,
    pub(crate) consumed: Consumed,
    pub(crate) batches: Vec<Batch>,
}

impl Run {
    pub(crate) fn rows(&self) -> usize {
        self.batches.iter().map(|b| b.rows.num_rows()).sum()
    }
}

impl Inputs {
    /// Opens each topic at the task's committed position.
    pub(crate) async fn open(log: &dyn Log, task: &TaskId, topics: &[Name]) -> Result<Self, Fault> {
        let mut inputs = Vec::with_capacity(topics.len());
        for name in topics {
            inputs.push(Input::open(log, task, name, false).await.map_err(|e| Fault::log(&e))?);
        }
        Ok(Self { inputs, turn: 0 })
    }

    /// Opens each topic at the first event that is kept, with a barrier at the task's committed position.
    pub(crate) async fn open_at_start(log: &dyn Log, task: &TaskId, topics: &[Name]) -> Result<Self, Fault> {
        let mut inputs = Vec::with_capacity(topics.len());
        for name in topics {
            inputs.push(Input::open(log, task, name, true).await.map_err(|e| Fault::log(&e))?);
        }
        Ok(Self { inputs, turn: 0 })
    }

    /// Gives each input a barrier: where it was, or where it is.
    pub(crate) fn bar(&mut self, was: &BTreeMap<Name, u64>) {
        for input in &mut self.inputs {
            let was = was.get(&input.name).copied().map_or(input.next, Offset);
            input.barrier = Some(was.max(input.next));
        }
    }

    /// Whether all stand at their barriers, if there are any.
    pub(crate) fn arrived(&self) -> bool {
        self.inputs.iter().all(Input::waits)
    }

    /// Takes the barriers away.
    pub(crate) fn lift(&mut self) {
        for input in &mut self.inputs {
            input.barrier = None;
            if let Some(committed) = input.committed.take() {
                input.position = committed;
            }
        }
    }

    /// The task's position in an input; `None` where it has none.
    pub(crate) fn position(&self, input: usize) -> Option<Offset> {
        self.inputs.get(input).filter(|input| input.position.is_some()).map(|input| input.next)
    }

    /// How many offsets are left up to the barriers.
    pub(crate) fn left(&self) -> u64 {
        let left = |input: &Input| input.barrier.map_or(0, |barrier| barrier.0.saturating_sub(input.next.0));
        self.inputs.iter().map(left).sum()
    }

    /// The inputs of which events are gone, and the first that each has.
    pub(crate) fn trimmed(&self) -> impl Iterator<Item = (&Name, Offset)> {
        self.inputs.iter().filter(|input| input.start > Offset(0)).map(|input| (&input.name, input.start))
    }

    /// When the first event came in that is to be read again; `None`: all inputs stand at their barriers.
    pub(crate) async fn first_again(&mut self) -> Result<Option<i64>, Fault> {
        let mut first = None;
        for input in &mut self.inputs {
            let head = input.head().await.map_err(|e| Fault::log(&e))?;
            first = first.into_iter().chain(head).min();
        }
        Ok(first)
    }

    /// Takes what is there, at most about `rows_max` events: a batch is never cut.
    pub(crate) async fn gather(&mut self, rows_max: usize) -> Result<Vec<Run>, Fault> {
        self.gather_until(rows_max, i64::MAX).await
    }

    /// The same; of events that are read again only those that came in not much later than `until`.
    pub(crate) async fn gather_until(&mut self, rows_max: usize, until: i64) -> Result<Vec<Run>, Fault> {
        if self.inputs.iter().any(|input| input.barrier.is_some()) {
            return self.again(rows_max, until.saturating_add(TOGETHER_US)).await.map_err(|e| Fault::log(&e));
        }
        let count = self.inputs.len();
        let first = self.turn;
        self.turn = (self.turn + 1) % count.max(1);
        let mut runs = Vec::with_capacity(count);
        let mut room = rows_max;
        for step in 0..count {
            let place = (first + step) % count;
            let Some(input) = self.inputs.get_mut(place) else { continue };
            if let Some(run) = input.take(place, &mut room).await.map_err(|e| Fault::log(&e))? {
                runs.push(run);
            }
            if room == 0 {
                break;
            }
        }
        Ok(runs)
    }

    /// Takes what is before the barriers, by the stamps of the events.
    async fn again(&mut self, rows_max: usize, last: i64) -> Result<Vec<Run>, millstream_log::Error> {
        let mut runs = Vec::new();
        let mut room = rows_max;
        while room > 0 {
            let mut heads: Vec<(i64, usize)> = Vec::new();
            for (place, input) in self.inputs.iter_mut().enumerate() {
                if let Some(stamp) = input.head().await? {
                    heads.push((stamp, place));
                } else {
                    runs.extend(input.moved(place, Vec::new()));
                }
            }
            heads.sort_unstable();
            let Some((stamp, first)) = heads.first().copied() else { break };
            // The first events are taken in any case.
            if stamp > last && !runs.is_empty() {
                break;
            }
            let until = heads.get(1).map_or(i64::MAX, |(stamp, _)| stamp.saturating_add(TOGETHER_US)).min(last);
            let Some(input) = self.inputs.get_mut(first) else { break };
            let Some(batch) = input.cut(until) else { break };
            room = room.saturating_sub(batch.rows.num_rows().max(1));
            runs.extend(input.moved(first, vec![batch]));
        }
        Ok(runs)
    }

    /// Waits until one of them may have more. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        if self.inputs.is_empty() {
            return std::future::pending().await;
        }
        select_all(self.inputs.iter_mut().map(|input| input.reader.changed())).await;
    }
}

impl Input {
    async fn open(log: &dyn Log, task: &TaskId, name: &Name, at_start: bool) -> Result<Self, millstream_log::Error> {
        let at = TopicPartition { topic: name.clone(), partition: task.partition };
        let position = log.position(task, name).await?;
        let start = log.start(&at).await?;
        let next = position.as_ref().and_then(Position::offset).unwrap_or(start);
        if next < start {
            tracing::warn!(%task, input = %at, position = %next, %start, "events were removed before they were read");
        }
        let barrier = at_start.then(|| next.max(start));
        let next = if at_start { start } else { next.max(start) };
        let reader = log.read(&at, next)?;
        let committed = at_start.then(|| position.clone());
        Ok(Self { name: name.clone(), reader, position, next, held: None, barrier, start, committed })
    }

    /// Whether it stands at its barrier.
    fn waits(&self) -> bool {
        self.barrier.is_none_or(|barrier| self.next >= barrier)
    }

    /// The stamp of the first event before the barrier; `None` where there is none left, and it stands at the barrier.
    async fn head(&mut self) -> Result<Option<i64>, millstream_log::Error> {
        let Some(barrier) = self.barrier.filter(|_| !self.waits()) else { return Ok(None) };
        if self.held.is_none() {
            match self.reader.next().await? {
                Read::Batch(batch) => self.held = Some(batch),
                // Whatever was read once is before the end: what is missing is gone.
                Read::AtEnd { .. } => self.next = barrier,
            }
        }
        if self.held.as_ref().is_some_and(|batch| batch.base >= barrier) {
            self.next = barrier;
        }
        let Some(batch) = self.held.as_ref().filter(|_| !self.waits()) else { return Ok(None) };
        let stamps = Schema::ingested_at(&batch.rows);
        Ok(Some(stamps.filter(|stamps| !stamps.is_empty()).map_or(i64::MIN, |stamps| Stamp(stamps.value(0)).micros())))
    }

    /// The first rows of the head, up to the barrier and to a stamp; the first row always.
    fn cut(&mut self, until: i64) -> Option<Batch> {
        let batch = self.held.take()?;
        let barrier = self.barrier.unwrap_or(Offset(u64::MAX));
        let stamps = Schema::ingested_at(&batch.rows);
        let later = |row: &usize| stamps.is_some_and(|stamps| Stamp(stamps.value(*row)).micros() > until);
        let rows = (1..batch.rows.num_rows()).find(later).unwrap_or(batch.rows.num_rows());
        let to = batch.offset(rows).min(barrier);
        if to >= batch.next() {
            self.next = self.next.max(batch.next());
            return Some(batch);
        }
        self.held = Some(batch.from_offset(to));
        self.next = self.next.max(to);
        Some(batch.before_offset(to))
    }

    /// What was read, and the position behind it, if it has moved.
    fn moved(&mut self, place: usize, batches: Vec<Batch>) -> Option<Run> {
        let to = Position::Offset(self.next);
        // A partition that was never read and is empty needs no position.
        let known = self.position.as_ref().map_or(self.next > Offset(0), |position| *position != to);
        if batches.is_empty() && !known {
            return None;
        }
        let from = self.position.replace(to.clone());
        Some(Run { input: place, consumed: Consumed { input: self.name.clone(), from, to }, batches })
    }

    async fn take(&mut self, place: usize, room: &mut usize) -> Result<Option<Run>, millstream_log::Error> {
        let mut batches = Vec::new();
        while *room > 0 {
            let batch = match self.held.take() {
                Some(batch) => batch,
                None => match self.reader.next().await? {
                    Read::Batch(batch) => batch,
                    Read::AtEnd { next } => {
                        self.next = self.next.max(next);
                        break;
                    }
                },
            };
            if batch.rows.num_rows() > *room && !batches.is_empty() {
                self.held = Some(batch);
                *room = 0;
                break;
            }
            // One without events takes room too: of marks there may be many.
            *room = room.saturating_sub(batch.rows.num_rows().max(1));
            self.next = self.next.max(batch.next());
            batches.push(batch);
        }
        Ok(self.moved(place, batches))
    }
}

/// Adds a run to what a commit has consumed; one that goes on where the last entry of its input ended extends it.
pub(crate) fn extend(consumed: &mut Vec<Consumed>, run: Consumed) {
    match consumed.iter_mut().rev().find(|c| c.input == run.input) {
        Some(entry) if Some(&entry.to) == run.from.as_ref() => entry.to = run.to,
        _ => consumed.push(run),
    }
}

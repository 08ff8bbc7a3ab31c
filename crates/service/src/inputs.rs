//! The inputs of a task: its partition of each topic it reads, and how far it has read them.

use futures::future::select_all;
use millstream_event::{Batch, Name, Offset, TopicPartition};
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
}

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
            inputs.push(Input::open(log, task, name).await.map_err(|e| Fault::log(&e))?);
        }
        Ok(Self { inputs, turn: 0 })
    }

    /// Takes what is there, at most about `rows_max` events: a batch is never cut.
    pub(crate) async fn gather(&mut self, rows_max: usize) -> Result<Vec<Run>, Fault> {
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

    /// Waits until one of them may have more. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        if self.inputs.is_empty() {
            return std::future::pending().await;
        }
        select_all(self.inputs.iter_mut().map(|input| input.reader.changed())).await;
    }
}

impl Input {
    async fn open(log: &dyn Log, task: &TaskId, name: &Name) -> Result<Self, millstream_log::Error> {
        let at = TopicPartition { topic: name.clone(), partition: task.partition };
        let position = log.position(task, name).await?;
        let start = log.start(&at).await?;
        let next = position.as_ref().and_then(Position::offset).unwrap_or(start);
        if next < start {
            tracing::warn!(%task, input = %at, position = %next, %start, "events were removed before they were read");
        }
        let next = next.max(start);
        let reader = log.read(&at, next)?;
        Ok(Self { name: name.clone(), reader, position, next, held: None })
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
        let to = Position::Offset(self.next);
        // A partition that was never read and is empty needs no position.
        let moved = !batches.is_empty() || self.position.as_ref().map_or(self.next > Offset(0), |p| *p != to);
        if !moved {
            return Ok(None);
        }
        let from = self.position.replace(to.clone());
        let consumed = Consumed { input: self.name.clone(), from, to };
        Ok(Some(Run { input: place, consumed, batches }))
    }
}

/// Adds a run to what a commit has consumed; one that goes on where the last entry of its input ended extends it.
pub(crate) fn extend(consumed: &mut Vec<Consumed>, run: Consumed) {
    match consumed.iter_mut().rev().find(|c| c.input == run.input) {
        Some(entry) if Some(&entry.to) == run.from.as_ref() => entry.to = run.to,
        _ => consumed.push(run),
    }
}

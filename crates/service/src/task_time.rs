//! Event time of one service task: what its inputs' producers promised, and what it promises itself.
//!
//! What was heard is a position of the task (its input [`crate::entry::TIME_INPUT`]), moved in the commit that consumes
//! the marks, so that a restart waits for nobody twice. That a producer is idle, or has closed, counts where it was said in
//! this run (see [`crate::begun`]): of what was said before, by its place; of what was known before, by the task's position.

use std::time::{Duration, Instant};

use bytes::Bytes;
use millstream_event::{Batch, Name, Offset, PartitionId, TopicPartition, Watermark};
use millstream_log::{Append, Consumed, Log, Position, TaskId};

use crate::Error;
use crate::def::{InputTime, ServiceTime};
use crate::entry::{TIME_INPUT, time_input};
use crate::placing::Outlet;
use crate::promises::Promises;
use crate::status::{HeldBack, TimeStatus};
use crate::task::{Context, Fault};
use crate::watermarks::Watermarks;

/// The event time of a service's task.
pub(crate) struct TaskTime {
    watermarks: Watermarks,
    promises: Promises,
    input: Name,
    /// The position behind the last commit handed over.
    position: Option<Position>,
    /// By input: from where on it counts that a producer is idle or has closed.
    words: Vec<Words>,
}

/// Which words of an input count.
struct Words {
    /// The end of the input when this run began.
    run: Offset,
    /// Up to here the task knows what was said. A reader tells it again where it begins, but not when it was said.
    known: Offset,
}

/// Why the watermarks of so many producers cannot be kept; `None`: they can.
pub(crate) fn too_many(time: &ServiceTime, partitions: u32) -> Option<String> {
    let bytes = Watermarks::new(&time.inputs, 0, partitions).state_bytes_max();
    (bytes > Position::OPAQUE_BYTES_MAX).then(|| {
        format!(
            "its tasks wait for more producers than they can keep the watermarks of ({bytes} bytes, at most {}); give \
             its inputs fewer partitions or fewer writers",
            Position::OPAQUE_BYTES_MAX
        )
    })
}

/// How far the tasks of a service had come that does not run, from the log alone.
pub async fn time_of(
    log: &dyn Log,
    service: &Name,
    time: &ServiceTime,
    partitions: u32,
) -> Result<Option<TimeStatus>, Error> {
    let wrong = |why: String| Error::Definition { name: service.clone(), why };
    let input = Name::new(TIME_INPUT).map_err(|e| wrong(e.to_string()))?;
    let mut tasks = Vec::new();
    for partition in 0..partitions {
        let mut watermarks = Watermarks::new(&time.inputs, partition, partitions);
        if let Some(Position::Opaque(state)) = log.position(&TaskId::new(service.clone(), partition), &input).await? {
            watermarks.restore(&state).map_err(wrong)?;
        }
        tasks.push(status_of(&watermarks));
    }
    Ok(TimeStatus::least(tasks.into_iter()))
}

fn status_of(watermarks: &Watermarks) -> TimeStatus {
    let held_back = watermarks.holder().map(|holder| HeldBack {
        topic: holder.topic,
        producer: holder.producer.name,
        partition: holder.producer.partition.0,
        promised: holder.promised,
    });
    TimeStatus { watermark: watermarks.promise(), furthest: watermarks.furthest(), held_back }
}

impl TaskTime {
    /// Goes on where the task's last commit left it. `outlets`: the ways into all topics that it writes.
    pub(crate) async fn open<'a>(
        context: &Context,
        time: &ServiceTime,
        partitions: u32,
        outlets: impl Iterator<Item = &'a Outlet>,
    ) -> Result<Self, Fault> {
        let id = &context.task.id;
        let input = time_input()?;
        let mut watermarks = Watermarks::new(&time.inputs, id.partition.0, partitions);
        let position = context.log.position(id, &input).await.map_err(|e| Fault::log(&e))?;
        if let Some(Position::Opaque(state)) = &position {
            watermarks.restore(state).map_err(Fault::Failed)?;
        }
        let mut promises = Promises::default();
        let timed = outlets.filter(|outlet| time.outputs.contains(&outlet.info.spec.name));
        timed.for_each(|outlet| promises.add(outlet, PartitionId(id.partition.0)));
        let words = |input: &InputTime| {
            let at = TopicPartition { topic: input.topic.clone(), partition: id.partition };
            Words { run: context.begun.end(&at), known: Offset(0) }
        };
        let words = time.inputs.iter().map(words).collect();
        Ok(Self { watermarks, promises, input, position, words })
    }

    /// Begins to read on from its positions, by input: what was heard before this run began, of who is idle or has closed,
    /// was said for another run.
    pub(crate) fn begin(&mut self, positions: impl Fn(usize) -> Option<Offset>) {
        for (input, words) in self.words.iter_mut().enumerate() {
            let Some(position) = positions(input) else { continue };
            words.known = if self.position.is_some() { position } else { Offset(0) };
            if position <= words.run {
                self.watermarks.open_again(input);
            }
        }
    }

    /// Forgets what was heard, for a task that reads it again; gives back what it was.
    pub(crate) fn forget(&mut self) -> Bytes {
        let heard = self.watermarks.state();
        self.watermarks.clear();
        heard
    }

    /// Knows again what was heard before.
    pub(crate) fn recall(&mut self, heard: &[u8]) -> Result<(), Fault> {
        self.watermarks.clear();
        self.watermarks.restore(heard).map_err(Fault::Failed)
    }

    /// Takes in what the producers of an input promised. `again`: it was read before, in whatever run.
    pub(crate) fn heard(&mut self, input: usize, batches: &[Batch], again: bool) {
        let words = self.words.get(input).filter(|_| !again);
        for batch in batches {
            let behind = batch.next();
            let (former, known) = words.map_or((false, false), |w| (behind <= w.run, behind <= w.known));
            for mark in batch.marks.iter() {
                match mark.watermark {
                    Watermark::IDLE | Watermark::CLOSED if former => self.watermarks.unheard(input, &mark.producer),
                    Watermark::IDLE | Watermark::CLOSED if known => {}
                    _ => self.watermarks.heard(input, mark),
                }
            }
        }
    }

    /// How far the task's inputs are: what its operators may conclude.
    pub(crate) fn watermark(&self) -> Watermark {
        self.watermarks.watermark()
    }

    /// What the task may promise of what it has made of them.
    pub(crate) fn promise(&self) -> Watermark {
        self.watermarks.promise()
    }

    /// How long until something must be said without events.
    pub(crate) fn wait(&self, promise: Watermark) -> Option<Duration> {
        self.promises.wait(promise, Instant::now())
    }

    /// Whoever does not know yet what is promised is to be told now.
    pub(crate) fn hurry(&mut self) {
        self.promises.hurry();
    }

    /// Whether something must be said now.
    pub(crate) fn due(&self, promise: Watermark) -> bool {
        self.wait(promise) == Some(Duration::ZERO)
    }

    /// Adds what is promised behind the events of a commit, and what the task will go on from.
    pub(crate) fn sign(&mut self, promise: Watermark, appends: &mut Vec<Append>, consumed: &mut Vec<Consumed>) {
        self.promises.put(appends, promise, Instant::now());
        let to = Position::Opaque(self.watermarks.state());
        if self.position.as_ref() != Some(&to) {
            let from = self.position.replace(to.clone());
            consumed.push(Consumed { input: self.input.clone(), from, to });
        }
    }

    /// How it stands.
    pub(crate) fn status(&self) -> TimeStatus {
        status_of(&self.watermarks)
    }
}

//! The loop of a sink's task: read, write, and every so often prepare and commit positions and the sink's state together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use millstream_event::{Batch, Name, NameError, Schema};
use millstream_log::{Consumed, Outcome, Position, TopicInfo};

use crate::control::Asked;
use crate::def::{BATCH_ROWS_DEFAULT, SinkDef};
use crate::flight::{commit_of, judge};
use crate::inputs::{Inputs, Run, extend};
use crate::meters::{Tally, add, sub};
use crate::placing::columns_of;
use crate::sink::SinkTask;
use crate::status::State;
use crate::task::{Context, End, Fault, Job};

/// The input under which a sink's own state is committed. No topic has this name (`__` is reserved), so a sink may be
/// named like a topic that it reads.
const STATE_INPUT: &str = "__state";

pub(crate) fn job(def: SinkDef, inputs: Vec<TopicInfo>) -> Result<Arc<dyn Job>, NameError> {
    Ok(Arc::new(Outlet { def, state_input: Name::new(STATE_INPUT)?, inputs }))
}

struct Outlet {
    def: SinkDef,
    /// The input under which the sink's own state is committed.
    state_input: Name,
    inputs: Vec<TopicInfo>,
}

impl Job for Outlet {
    fn run(self: Arc<Self>, context: Context) -> BoxFuture<'static, Result<End, Fault>> {
        Box::pin(async move { Running::open(&self, context).await?.run().await })
    }
}

struct Running<'a> {
    def: &'a SinkDef,
    state_input: &'a Name,
    context: Context,
    topics: Vec<Name>,
    /// The columns that go out, by input; `None`: all.
    planned: Vec<Option<Schema>>,
    inputs: Inputs,
    sink: Box<dyn SinkTask>,
    /// The state of the last commit.
    state: Option<Position>,
    unsaved: Unsaved,
}

/// What was written since the last commit.
#[derive(Default)]
struct Unsaved {
    consumed: Vec<Consumed>,
    rows: u64,
    bytes: usize,
    since: Option<Instant>,
}

/// A batch with the columns that the sink was planned for: what a topic has gained since does not go out.
fn narrowed(batch: &Batch, columns: &Schema) -> Result<Batch, Fault> {
    let rows = columns_of(&batch.rows, columns).map_err(|e| Fault::Failed(e.to_string()))?;
    Ok(Batch { rows, ..batch.clone() })
}

impl<'a> Running<'a> {
    async fn open(outlet: &'a Outlet, context: Context) -> Result<Self, Fault> {
        let def = &outlet.def;
        let id = &context.task.id;
        let has = |info: &&TopicInfo| info.spec.partitions > id.partition.0;
        let infos = || outlet.inputs.iter().filter(has);
        let topics: Vec<Name> = infos().map(|i| i.spec.name.clone()).collect();
        let planned = infos().map(|i| def.columns.contains_key(&i.spec.name).then(|| i.spec.schema.clone())).collect();
        let inputs = Inputs::open(context.log.as_ref(), id, &topics).await?;
        let state = context.log.position(id, &outlet.state_input).await.map_err(|e| Fault::log(&e))?;
        let bytes: Option<Bytes> = match &state {
            Some(Position::Opaque(bytes)) => Some(bytes.clone()),
            _ => None,
        };
        let sink = def.sink.open(id.partition, bytes).await.map_err(|e| Fault::outside(&e))?;
        context.shared.set(State::Running);
        Ok(Self {
            def,
            state_input: &outlet.state_input,
            topics,
            planned,
            inputs,
            sink,
            state,
            unsaved: Unsaved::default(),
            context,
        })
    }

    async fn run(mut self) -> Result<End, Fault> {
        loop {
            match self.context.control.asked() {
                Asked::Work => {}
                Asked::Pause => {
                    self.save(false).await?;
                    self.context.pause().await;
                    continue;
                }
                Asked::Leave { finish } => return self.save(finish).await.map(|()| End::Left),
                Asked::Drop => return Ok(End::Left),
            }
            self.context.shared.set(State::Running);
            self.context.meet_injected_fault();
            let runs = self.inputs.gather(BATCH_ROWS_DEFAULT).await?;
            let idle = runs.is_empty();
            for run in runs {
                self.write(run).await?;
            }
            if self.due() {
                self.save(false).await?;
            } else if idle {
                self.rest().await;
            } else {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn write(&mut self, run: Run) -> Result<(), Fault> {
        let Some(topic) = self.topics.get(run.input) else { return Ok(()) };
        let begun = Instant::now();
        let planned = self.planned.get(run.input).and_then(Option::as_ref);
        // What a producer promised is for services; of a batch without events nothing goes out.
        for batch in run.batches.iter().filter(|batch| batch.rows.num_rows() > 0) {
            let narrowed = planned.map(|columns| narrowed(batch, columns)).transpose()?;
            let batch = narrowed.as_ref().unwrap_or(batch);
            self.sink.write(topic, batch).await.map_err(|e| Fault::outside(&e))?;
            self.unsaved.bytes += batch.rows.get_array_memory_size();
        }
        self.context.meters.busy(begun.elapsed());
        self.unsaved.rows += run.rows() as u64;
        self.unsaved.since.get_or_insert(begun);
        extend(&mut self.unsaved.consumed, run.consumed);
        Ok(())
    }

    fn left(&self) -> Option<Duration> {
        self.unsaved.since.map(|since| self.def.sink.commit_every().saturating_sub(since.elapsed()))
    }

    fn due(&self) -> bool {
        self.left().is_some_and(|left| left.is_zero()) || self.unsaved.bytes >= self.def.sink.commit_bytes()
    }

    /// Nothing to do: waits for events, for orders, or for the time to commit.
    async fn rest(&mut self) {
        let left = self.left();
        let due = async {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.inputs.changed() => {}
            () = self.context.control.changed() => {}
            () = due => {}
        }
    }

    async fn save(&mut self, finish: bool) -> Result<(), Fault> {
        if self.unsaved.since.is_none() && !finish {
            return Ok(());
        }
        let begun = Instant::now();
        // Where only positions moved, the sink has nothing to prepare.
        let wrote = self.unsaved.rows > 0;
        let state = match (finish, wrote) {
            (true, _) => self.sink.finish().await,
            (false, true) => self.sink.prepare().await,
            (false, false) => Ok(None),
        };
        let state = state.map_err(|e| Fault::outside(&e))?.map(Position::Opaque);
        self.context.meters.busy(begun.elapsed());
        let unsaved = std::mem::take(&mut self.unsaved);
        let mut commit = commit_of(&self.context);
        commit.consumed = unsaved.consumed;
        if let Some(to) = state.filter(|state| self.state.as_ref() != Some(state)) {
            let from = self.state.replace(to.clone());
            commit.consumed.push(Consumed { input: self.state_input.clone(), from, to });
        }
        if !commit.consumed.is_empty() {
            let mut tally = Tally { events_in: unsaved.rows, ..Tally::default() };
            tally.out(&self.def.name, unsaved.rows);
            let begun = Instant::now();
            add(&self.context.meters.in_flight, 1);
            let outcome = self.context.log.commit(commit).await;
            if matches!(outcome, Outcome::Committed(_)) {
                self.context.meters.committed(&tally, begun.elapsed());
            } else {
                add(&self.context.meters.commits_failed, 1);
            }
            sub(&self.context.meters.in_flight, 1);
            judge(outcome, self.context.log.as_ref())?;
            self.context.committed();
        }
        if finish || wrote { self.sink.committed().await.map_err(|e| Fault::outside(&e)) } else { Ok(()) }
    }
}

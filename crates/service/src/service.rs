//! The loop of a service's task: take what is there, process it, hand the commit over, go on while it is made durable.
//!
//! Never waits to fill a batch: at low load one event is one commit, at high load a batch is what came in while the one
//! before was worked on. A commit that only moves positions (every event was filtered) waits a moment for company.
//!
//! Where input and output have event time, the task listens to what its inputs' producers promise and promises the same
//! of what it makes of them (see [`crate::task_time`]).

mod apart;
mod reading_again;
mod telling_time;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use millstream_event::Name;
use millstream_flow::{ChangeRows, LookupSet};
use millstream_log::{Append, Consumed, TopicInfo};

use crate::Error;
use crate::again::{Again, Stored};
use crate::control::Asked;
use crate::dead_letter::Topics;
use crate::def::{Keep, ServiceDef};
use crate::flight::{Flight, commit_of};
use crate::inputs::{Inputs, Run, extend};
use crate::letters::Sender;
use crate::lookup::Lookups;
use crate::meters::Tally;
use crate::piece::{Piece, pieces};
use crate::process::{Plan, Staged};
use crate::replayed;
use crate::state::{State as Kept, memory};
use crate::status::State;
use crate::table_lookup::Past;
use crate::task::{Context, End, Fault, Job};
use crate::task_time::{TaskTime, too_many};
use crate::together::together;

/// How long a commit that only moves positions waits for company.
const POSITIONS_WAIT: Duration = Duration::from_millis(25);

pub(crate) fn job(def: ServiceDef, inputs: Vec<TopicInfo>) -> Result<Arc<dyn Job>, Error> {
    let wrong = |why: String| Error::Definition { name: def.name.clone(), why };
    let topics = Topics::of(&def.name).map_err(|e| wrong(e.to_string()))?;
    let lead = inputs.first().ok_or_else(|| wrong("it has no input".into()))?;
    let differ = inputs.iter().find(|i| i.spec.schema != lead.spec.schema);
    if let Some(other) = differ.filter(|_| def.stateful().is_none()) {
        return Err(wrong(format!(
            "its inputs must have the same columns; `{}` has ({}), `{}` has ({})",
            lead.spec.name, lead.spec.schema, other.spec.name, other.spec.schema
        )));
    }
    if let Some(why) = def.time.as_ref().and_then(|time| too_many(time, lead.spec.partitions)) {
        return Err(wrong(why));
    }
    let sender = Sender::new(&def.name, &def.version);
    Ok(Arc::new(Service { def: Arc::new(def), inputs, topics, sender }))
}

struct Service {
    def: Arc<ServiceDef>,
    /// The inputs with the columns that the service is planned against.
    inputs: Vec<TopicInfo>,
    topics: Topics,
    sender: Sender,
}

impl Service {
    /// How many partitions its inputs have.
    fn partitions(&self) -> u32 {
        self.inputs.first().map_or(1, |input| input.spec.partitions)
    }

    /// Prepares the definition for the topics as they are now.
    fn plan(&self, context: &Context) -> Result<Plan, String> {
        Plan::new(Arc::clone(&self.def), &self.inputs, &|name| context.log.topic(name))
    }
}

impl Job for Service {
    fn run(self: Arc<Self>, context: Context) -> BoxFuture<'static, Result<End, Fault>> {
        Box::pin(async move {
            let mut running = Running::open(&self, context).await?;
            let ended = running.run().await;
            if ended.is_err() {
                // The commits behind the failed one fail because of it; the position is read after them.
                drop(running.flight.drain().await);
            }
            let kept = |fault| running.state.as_ref().and_then(Kept::fault).unwrap_or(fault);
            ended.map_err(kept)
        })
    }
}

struct Running<'a> {
    service: &'a Service,
    context: Context,
    plan: Plan,
    /// What the work keeps, if it does.
    state: Option<Kept>,
    /// The topics of `inputs`; the last is the service's own replay topic.
    topics: Vec<Name>,
    letters: TopicInfo,
    inputs: Inputs,
    lookups: Lookups,
    flight: Flight<()>,
    held: Held,
    /// Where its topics have event time.
    time: Option<TaskTime>,
    /// While it reads again what it has read before.
    again: Option<Again>,
    /// Meanwhile: the tables in which it looks rows up, as they were.
    past: Option<Past>,
    /// What it was told when it was set back.
    stored: Stored,
    /// What is to be noted with the next commit.
    note: Option<Consumed>,
    /// Not all is concluded yet that the inputs' watermark allows; nothing is read before.
    more: bool,
}

/// Positions that moved without anything to append.
#[derive(Default)]
struct Held {
    consumed: Vec<Consumed>,
    tally: Tally,
    since: Option<Instant>,
}

impl<'a> Running<'a> {
    async fn open(service: &'a Service, context: Context) -> Result<Self, Fault> {
        let plan = service.plan(&context).map_err(Fault::Failed)?;
        let gone = || Fault::Failed(format!("there is no topic `{}`", service.topics.letters));
        let letters = context.log.topic(&service.topics.letters).ok_or_else(gone)?;
        let mut topics = service.def.inputs.clone();
        topics.push(service.topics.replay.clone());
        let state = match service.def.stateful() {
            Some(work) => Some(Kept::open(work, &service.def.keep, &topics, &context).await?),
            None => None,
        };
        let log = context.log.as_ref();
        let in_memory = service.def.stateful().is_some() && matches!(service.def.keep, Keep::Memory);
        let inputs = match in_memory {
            true => Inputs::open_at_start(log, &context.task.id, &topics).await?,
            false => Inputs::open(log, &context.task.id, &topics).await?,
        };
        let stored = Stored::read(log, &context.task.id).await?;
        let note = match service.def.stateful() {
            Some(_) if in_memory => memory::note(&context).await?,
            Some(_) => None,
            None => memory::note_nowhere(&context).await?,
        };
        let time = match &service.def.time {
            Some(time) => Some(TaskTime::open(&context, time, service.partitions(), plan.outlets()).await?),
            None => None,
        };
        context.shared.set(State::Running);
        context.shared.set_note(None);
        context.shared.again.store(false, Ordering::Release);
        let mut running = Self {
            plan,
            state,
            time,
            letters,
            inputs,
            topics,
            lookups: Lookups::open(&service.def.lookups, context.log.as_ref(), &context.task.id).await?,
            flight: Flight::new(&context),
            held: Held::default(),
            again: None,
            past: None,
            stored,
            note,
            more: false,
            service,
            context,
        };
        running.begin_again(in_memory)?;
        if running.again.is_none() {
            running.begin_time();
        }
        // It may have stopped in the middle of what a watermark concludes.
        let resumed = running.state.as_mut().zip(running.time.as_ref());
        let more = resumed.is_some_and(|(state, time)| state.program.resume(time.watermark().0));
        running.set_more(more);
        // Readers conclude nothing before this task has opened.
        running.release()?;
        running.show_time();
        Ok(running)
    }

    async fn run(&mut self) -> Result<End, Fault> {
        loop {
            match self.context.control.asked() {
                Asked::Work => {}
                Asked::Pause => {
                    self.settle().await?;
                    self.lookups.let_go();
                    self.context.pause().await;
                    continue;
                }
                Asked::Leave { .. } => return self.settle().await.map(|()| End::Left),
                Asked::Drop => return Ok(End::Left),
            }
            self.context.meet_injected_fault();
            let lookups = match self.lookups.snapshot() {
                Ok(lookups) => lookups.clone(),
                Err(reason) => {
                    self.wait_for_lookups(reason).await?;
                    continue;
                }
            };
            self.context.shared.set(State::Running);
            self.flight.settle_ready()?;
            self.tell_concluded();
            while self.flight.is_full() {
                self.flight.settle_one().await?;
            }
            if self.more {
                // As the events found the lookups that are being concluded.
                let lookups = match &self.past {
                    Some(past) => past.instead(&lookups),
                    None => self.as_it_was(lookups).await?.0,
                };
                let begun = Instant::now();
                self.go_on(&lookups)?;
                self.context.meters.busy(begun.elapsed());
                tokio::task::yield_now().await;
                continue;
            }
            let (lookups, until) = self.as_it_was(lookups).await?;
            let runs = self.inputs.gather_until(self.service.def.batch_rows_max.max(1), until).await?;
            if self.again.is_some() && runs.is_empty() && self.inputs.arrived() {
                self.conclude_again(&lookups)?;
                continue;
            }
            if runs.is_empty() {
                drop(lookups);
                self.lookups.let_go();
                self.rest().await?;
                continue;
            }
            let begun = Instant::now();
            self.step(runs, &lookups)?;
            self.context.meters.busy(begun.elapsed());
            tokio::task::yield_now().await;
        }
    }

    async fn wait_for_lookups(&mut self, reason: String) -> Result<(), Fault> {
        self.settle().await?;
        self.context.shared.set(State::Waiting { reason });
        tokio::select! {
            () = self.lookups.changed() => {}
            () = self.context.control.changed() => {}
        }
        Ok(())
    }

    /// Brings everything that was done into the log, and tells everybody what is promised.
    async fn settle(&mut self) -> Result<(), Fault> {
        self.time.iter_mut().for_each(TaskTime::hurry);
        self.release()?;
        self.flight.drain().await?;
        self.tell_concluded();
        Ok(())
    }

    /// Nothing to read: waits for events, for orders, for commits, or for the time to move positions.
    async fn rest(&mut self) -> Result<(), Fault> {
        let left = self.held.since.map(|since| POSITIONS_WAIT.saturating_sub(since.elapsed()));
        let promise = self.time.as_ref().zip(self.output_watermark()).and_then(|(time, promise)| time.wait(promise));
        let left = left.into_iter().chain(promise).min();
        let due = async {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            settled = self.flight.settle_one() => { settled?; }
            () = self.inputs.changed() => {}
            () = self.context.control.changed() => {}
            () = due => self.release()?,
        }
        Ok(())
    }

    /// Processes what was read and hands the commit over.
    fn step(&mut self, runs: Vec<Run>, lookups: &LookupSet) -> Result<(), Fault> {
        let mut staged = Staged::default();
        let shared = Arc::clone(&self.context.shared);
        shared.isolation.lock().begin(runs.iter().map(|run| &run.consumed));
        for run in &runs {
            staged.tally.events_in += run.rows() as u64;
            let suspicious = shared.isolation.lock().suspects(&run.consumed);
            for piece in self.pieces(run, &mut staged).map_err(Fault::Failed)? {
                self.process(&piece, suspicious, lookups, &mut staged).map_err(Fault::Failed)?;
            }
        }
        // While it reads again, it meets tables as they were, and stays where it was in them.
        if self.again.is_none() {
            for read in self.lookups.moved()? {
                extend(&mut self.held.consumed, read);
            }
        }
        for run in runs {
            if let Some(time) = &mut self.time {
                time.heard(run.input, &run.batches, self.again.is_some());
            }
            extend(&mut self.held.consumed, run.consumed);
        }
        shared.isolation.lock().conclude();
        self.advance(lookups, &mut staged).map_err(Fault::Failed)?;
        self.finish(staged)
    }

    /// Concludes what is left of what the watermark allows: as much as one step does.
    fn go_on(&mut self, lookups: &LookupSet) -> Result<(), Fault> {
        let mut staged = Staged::default();
        self.context.shared.isolation.lock().conclude();
        self.advance(lookups, &mut staged).map_err(Fault::Failed)?;
        self.finish(staged)
    }

    /// Hands over what was made, or holds it for a moment where only positions move.
    fn finish(&mut self, mut staged: Staged) -> Result<(), Fault> {
        self.context.shared.isolation.lock().rest();
        self.divert(&mut staged);
        let changes = self.state.as_mut().and_then(|state| state.program.changes());
        self.show_time();
        if self.is_silent() {
            self.held = Held::default();
            return Ok(());
        }
        self.tell_again();
        self.held.tally.add(std::mem::take(&mut staged.tally));
        if staged.appends.is_empty() && staged.letters.is_empty() && changes.is_none() && !self.must_promise() {
            let since = *self.held.since.get_or_insert_with(Instant::now);
            if since.elapsed() >= POSITIONS_WAIT && !self.flight.is_full() {
                self.release()?;
            }
            return Ok(());
        }
        let appends = self.appends(staged)?;
        self.send(appends, changes)
    }

    fn pieces(&self, run: &Run, staged: &mut Staged) -> Result<Vec<Piece>, String> {
        let Some(topic) = self.topics.get(run.input) else { return Ok(Vec::new()) };
        let inputs = &self.service.def.inputs;
        let mut made = Vec::new();
        if let Some(schema) = self.plan.schema(run.input) {
            let partition = self.context.task.id.partition;
            made = pieces(topic, partition, schema, &run.batches).map_err(|e| e.to_string())?;
            made.iter_mut().for_each(|piece| piece.input = run.input);
            return Ok(made);
        }
        for batch in &run.batches {
            for input in 0..inputs.len() {
                let rows = replayed::of_input(&batch.rows, inputs, &self.service.def.aliases, input)?;
                let Some(schema) = self.plan.schema(input).filter(|_| rows.num_rows() > 0) else { continue };
                let (mut piece, letters) = replayed::piece(&rows, schema)?;
                piece.input = input;
                staged.letters.extend(letters);
                made.push(piece);
            }
        }
        Ok(made)
    }

    fn appends(&mut self, staged: Staged) -> Result<Vec<Append>, Fault> {
        let mut appends = together(staged.appends).map_err(Fault::Failed)?;
        if !staged.letters.is_empty() {
            staged.letters.iter().for_each(|letter| self.held.tally.dead_letter(&letter.code));
            let rows = self.service.sender.rows(&staged.letters, self.context.clock.now_us());
            appends.push(Append {
                topic: self.letters.spec.name.clone(),
                partition: self.context.task.id.partition,
                schema_version: self.letters.schema_version,
                rows: rows.map_err(|e| Fault::Failed(e.to_string()))?,
                watermark: None,
            });
        }
        Ok(appends)
    }

    /// Hands over positions that wait, and promises whose time has come.
    fn release(&mut self) -> Result<(), Fault> {
        let wanted = !self.is_silent() && (!self.held.consumed.is_empty() || self.must_promise());
        match wanted {
            true => self.send(Vec::new(), None),
            false => Ok(()),
        }
    }

    /// Hands a commit over, with what has changed in the state.
    fn send(&mut self, appends: Vec<Append>, changes: Option<ChangeRows>) -> Result<(), Fault> {
        let held = std::mem::take(&mut self.held);
        let promise = self.output_watermark();
        let mut commit = commit_of(&self.context);
        commit.consumed = held.consumed;
        commit.consumed.extend(self.note.take());
        commit.appends = appends;
        if let (Some(time), Some(promise)) = (&mut self.time, promise) {
            time.sign(promise, &mut commit.appends, &mut commit.consumed);
            // Before the commit lets its events look done.
            self.context.shared.owes.store(true, Ordering::Release);
        }
        let pending = match &mut self.state {
            Some(state) => state.commit(commit, changes, &self.context)?,
            None => self.context.log.commit(commit),
        };
        self.flight.put(pending, held.tally, ());
        Ok(())
    }
}

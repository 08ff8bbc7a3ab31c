//! The loop of a source's task: take an intake, split it by key, commit rows, refused events and position together.
//!
//! When space is short, an intake that cannot be asked for again (no receipt, or it has a position) is kept with its
//! source as it is, and committed when the task starts again; a caller with a receipt is told instead.
//!
//! Where the topic has event time, the task says in each partition what it promises (see [`crate::entry`]): when it opens,
//! with its events, when it is idle, and when it has finished.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use futures::future::BoxFuture;
use millstream_event::json::{Decimals, Encoder};
use millstream_event::{PartitionId, Stamp};
use millstream_log::{AbortReason, Append, Class, Commit, Committed, Consumed, Outcome, Position, TopicInfo};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::Error;
use crate::control::Asked;
use crate::dead_letter::Topics;
use crate::def::SourceDef;
use crate::entry::{Entry, sift};
use crate::flight::{Flight, commit_of, judge};
use crate::letters::{Letter, Sender};
use crate::meters::{Tally, add};
use crate::placing::Outlet;
use crate::promises::Promises;
use crate::source::{Intake, Receipt, Refusal, RowFate, SourceRead, SourceTask};
use crate::status::State;
use crate::task::{Context, End, Fault, Job};

pub(crate) fn job(def: SourceDef, to: &TopicInfo) -> Result<Arc<dyn Job>, Error> {
    let topics = Topics::of(&def.name).map_err(|e| Error::Definition { name: def.name.clone(), why: e.to_string() })?;
    let sender = Sender::new(&def.name, &def.version);
    Ok(Arc::new(IntakeJob { def, planned: to.clone(), topics, sender, kept: Mutex::default(), said: Mutex::default() }))
}

struct IntakeJob {
    def: SourceDef,
    /// The topic with the columns that intakes have.
    planned: TopicInfo,
    topics: Topics,
    sender: Sender,
    /// Sources with what they could not commit for want of space, by task.
    kept: Mutex<BTreeMap<u32, Kept>>,
    /// What tasks that wait for space have promised: they do not fill the reserve with saying it again.
    said: Mutex<BTreeMap<u32, Promises>>,
}

struct Kept {
    source: Box<dyn SourceTask>,
    held: VecDeque<Note>,
    /// The position behind the held intakes.
    position: Option<Position>,
    /// The position before them.
    committed: Option<Position>,
}

/// What is remembered of a commit on its way.
struct Note {
    commit: Commit,
    tally: Tally,
    receipt: Option<(oneshot::Sender<Receipt>, Vec<Fate>)>,
    made_of: MadeOf,
}

/// What a commit of a source was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MadeOf {
    /// An intake that moved the source's position.
    Positioned,
    /// Another intake.
    Intake,
    /// Nothing but promises, which the task makes again.
    Promises,
}

impl Note {
    /// Whether the intake is lost unless it is kept here.
    fn must_be_kept(&self) -> bool {
        match self.made_of {
            MadeOf::Positioned => true,
            MadeOf::Intake => self.receipt.is_none(),
            MadeOf::Promises => false,
        }
    }

    fn answer(self, receipt: Receipt) {
        if let Some((sender, _)) = self.receipt
            && sender.send(receipt).is_err()
        {
            tracing::debug!("nobody waits for the receipt any more");
        }
    }
}

/// What becomes of a row of an intake.
enum Fate {
    /// In this append, so many rows behind its first.
    Append(usize, u64),
    Refused(Refusal),
}

impl Job for IntakeJob {
    fn run(self: Arc<Self>, context: Context) -> BoxFuture<'static, Result<End, Fault>> {
        Box::pin(async move {
            let mut running = Running::open(&self, context).await?;
            let ended = running.run().await;
            if let Err(fault) = &ended {
                running.keep_or_answer(fault).await;
            }
            ended
        })
    }
}

struct Running<'a> {
    job: &'a IntakeJob,
    context: Context,
    outlet: Outlet,
    encoder: Encoder,
    letters: TopicInfo,
    source: Option<Box<dyn SourceTask>>,
    /// The position behind the last intake.
    position: Option<Position>,
    /// The position of the last commit that succeeded.
    committed: Option<Position>,
    flight: Flight<Note>,
    /// Commits that did not succeed, oldest first.
    failed: VecDeque<(Note, Outcome)>,
    /// Spreads rows over a topic without a key.
    turn: u32,
    /// The topic's event time.
    entry: Option<Entry>,
}

impl<'a> Running<'a> {
    async fn open(job: &'a IntakeJob, context: Context) -> Result<Self, Fault> {
        let def = &job.def;
        let find = |name| context.log.topic(name).ok_or_else(|| Fault::Failed(format!("there is no topic `{name}`")));
        let info = find(&def.to)?;
        let letters = find(&job.topics.letters)?;
        let schema = &job.planned.spec.schema;
        let outlet = Outlet::new(info, schema, false).map_err(Fault::Failed)?;
        let encoder = Encoder::new(schema, Decimals::Numbers);
        let id = &context.task.id;
        let committed = context.log.position(id, &def.name).await.map_err(|e| Fault::log(&e))?;
        let said = job.said.lock().remove(&id.partition.0);
        let entry = match &def.event_time {
            Some(time) => Some(Entry::open(&context, time, &outlet, said).await?),
            None => None,
        };
        let kept = job.kept.lock().remove(&id.partition.0).filter(|kept| kept.committed == committed);
        let (source, held, position) = match kept {
            Some(kept) => (kept.source, kept.held, kept.position),
            None => {
                let source = def.source.open(id.partition, committed.clone()).await.map_err(|e| Fault::outside(&e))?;
                // A source that was kept for want of space runs again only when a commit succeeds.
                context.shared.set(State::Running);
                (source, VecDeque::new(), committed.clone())
            }
        };
        let mut running = Self {
            job,
            outlet,
            encoder,
            letters,
            source: Some(source),
            position,
            committed,
            flight: Flight::new(&context),
            failed: VecDeque::new(),
            turn: id.partition.0,
            entry,
            context,
        };
        running.promise();
        for mut note in held {
            note.commit.epoch = running.context.task.epoch;
            if let Some(entry) = &mut running.entry {
                entry.follow(&mut note.commit)?;
            }
            running.send(note);
        }
        Ok(running)
    }

    async fn run(&mut self) -> Result<End, Fault> {
        loop {
            match self.context.control.asked() {
                Asked::Work => {}
                Asked::Pause => {
                    self.settle().await?;
                    self.context.pause().await;
                    self.entry.iter_mut().for_each(Entry::awake);
                    continue;
                }
                Asked::Leave { .. } => {
                    self.promise_all();
                    return self.settle().await.map(|()| End::Left);
                }
                Asked::Drop => return Ok(End::Left),
            }
            self.context.meet_injected_fault();
            let Some(source) = self.source.as_mut() else { return Ok(End::Left) };
            let full = self.flight.is_full();
            let wait = self.entry.as_ref().and_then(Entry::wait);
            let read = tokio::select! {
                biased;
                (outcome, note) = self.flight.next() => {
                    self.settled(outcome, note)?;
                    continue;
                }
                () = self.context.control.changed() => continue,
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() && !full => {
                    self.time_passes();
                    continue;
                }
                read = source.next(), if !full => read.map_err(|e| Fault::outside(&e))?,
            };
            match read {
                SourceRead::Intake(intake) => {
                    let begun = Instant::now();
                    let note = self.take(*intake)?;
                    if let Some(note) = note {
                        self.send(note);
                    }
                    self.context.meters.busy(begun.elapsed());
                }
                SourceRead::Finished => {
                    if self.entry.as_mut().is_some_and(Entry::close) {
                        self.promise();
                    }
                    self.settle().await?;
                    return Ok(End::Finished);
                }
            }
        }
    }

    async fn settle(&mut self) -> Result<(), Fault> {
        while !self.flight.is_empty() {
            let (outcome, note) = self.flight.next().await;
            self.settled(outcome, note)?;
        }
        Ok(())
    }

    fn settled(&mut self, outcome: Outcome, note: Note) -> Result<(), Fault> {
        match outcome {
            Outcome::Committed(committed) => {
                self.context.shared.set(State::Running);
                let own = &self.job.def.name;
                if let Some(last) = note.commit.consumed.iter().rev().find(|consumed| consumed.input == *own) {
                    self.committed = Some(last.to.clone());
                    if let Some(source) = &mut self.source {
                        source.committed(&last.to);
                    }
                }
                durable(note, &committed);
                Ok(())
            }
            outcome => {
                let asked = note.receipt.is_some();
                self.failed.push_back((note, outcome.clone()));
                match outcome {
                    // Its sender is told, and others may send less.
                    Outcome::Aborted(reason @ AbortReason::TooLarge(_)) if asked => {
                        Err(Fault::Again(reason.to_string()))
                    }
                    outcome => judge(outcome, self.context.log.as_ref()).map(|_| ()),
                }
            }
        }
    }

    /// Says what is not said yet, in a commit of its own.
    fn promise(&mut self) {
        let Some(entry) = &mut self.entry else { return };
        let mut commit = commit_of(&self.context);
        entry.sign(&mut commit);
        self.context.shared.set_time(entry.status());
        if !commit.appends.is_empty() || !commit.consumed.is_empty() {
            let made_of = MadeOf::Promises;
            self.send(Note { commit, tally: Tally::default(), receipt: None, made_of });
        }
    }

    /// Says at once what is not said yet: nobody will for a while.
    fn promise_all(&mut self) {
        self.entry.iter_mut().for_each(Entry::hurry);
        self.promise();
    }

    /// No event came for a while.
    fn time_passes(&mut self) {
        let idled = self.entry.as_mut().is_some_and(Entry::idled);
        if idled {
            tracing::info!(task = %self.context.task.id, "no events for a while: readers do not wait for this source");
            add(&self.context.meters.idled, 1);
        }
        self.promise();
    }

    /// Splits an intake into the appends of one commit. `None`: there is nothing to commit.
    fn take(&mut self, intake: Intake) -> Result<Option<Note>, Fault> {
        let now_us = self.context.clock.now_us();
        let broken = |e: &dyn std::fmt::Display| Fault::Failed(format!("the source's rows do not fit: {e}"));
        let schema = &self.job.planned.spec.schema;
        let sifted = sift(self.entry.as_mut(), schema, &intake.rows, now_us).map_err(|e| broken(&e))?;
        let rows = sifted.rows;
        let number = |row: u32| sifted.numbers.as_ref().map_or(Some(row), |n| n.get(row as usize).copied());
        self.turn = self.turn.wrapping_add(1);
        let placing = self.outlet.place(&rows, PartitionId(self.turn)).map_err(|e| broken(&e))?;

        let events = intake.rows.num_rows() + intake.refused.len();
        let mut tally = Tally { events_in: events as u64, late: sifted.late, ..Tally::default() };
        let mut commit = commit_of(&self.context);
        commit.class = Class::Intake;
        let wanted = intake.receipt.is_some();
        let mut fates: Vec<Option<Fate>> = Vec::new();
        if wanted {
            fates.resize_with(intake.rows.num_rows(), || None);
        }
        for (append, placed) in placing.placed.into_iter().enumerate() {
            if wanted {
                for at in 0..placed.rows.num_rows() {
                    let row = placed.indices.as_ref().map_or(u32::try_from(at).ok(), |i| i.get(at).copied());
                    if let Some(fate) = row.and_then(number).and_then(|row| fates.get_mut(row as usize)) {
                        *fate = Some(Fate::Append(append, at as u64));
                    }
                }
            }
            let info = &self.outlet.info;
            tally.out(&info.spec.name, placed.rows.num_rows() as u64);
            commit.appends.push(Append {
                topic: info.spec.name.clone(),
                partition: placed.partition,
                schema_version: info.schema_version,
                rows: placed.rows,
                watermark: None,
            });
        }
        let mut letters = Vec::new();
        let stamp = Stamp::at(now_us).0;
        let misplaced = placing.refused.into_iter().filter_map(|(row, code, why)| Some((number(row)?, code, why)));
        for (row, code, reason) in sifted.refused.iter().cloned().chain(misplaced) {
            letters.push(Letter {
                code: code.to_owned(),
                reason: reason.clone(),
                event: self.encoder.encode_row(&intake.rows, row as usize).ok(),
                ingested_at: Some(stamp),
                ..Letter::default()
            });
            if let Some(fate) = fates.get_mut(row as usize) {
                *fate = Some(Fate::Refused(Refusal { code, reason }));
            }
        }
        letters.extend(intake.refused.into_iter().map(|refused| Letter {
            code: refused.code.to_owned(),
            reason: refused.reason,
            place: Some(refused.place),
            raw: Some(refused.raw),
            ingested_at: Some(stamp),
            ..Letter::default()
        }));
        if !letters.is_empty() {
            letters.iter().for_each(|letter| tally.dead_letter(&letter.code));
            let rows = self.job.sender.rows(&letters, now_us).map_err(|e| broken(&e))?;
            commit.appends.push(Append {
                topic: self.letters.spec.name.clone(),
                partition: self.context.task.id.partition,
                schema_version: self.letters.schema_version,
                rows,
                watermark: None,
            });
        }
        commit.appends.extend(intake.extra);
        let mut made_of = MadeOf::Intake;
        if let Some(to) = intake.position.filter(|to| self.position.as_ref() != Some(to)) {
            let from = self.position.replace(to.clone());
            commit.consumed.push(Consumed { input: self.job.def.name.clone(), from, to });
            made_of = MadeOf::Positioned;
        }
        if let Some(entry) = &mut self.entry {
            entry.sign(&mut commit);
            self.context.shared.set_time(entry.status());
        }
        let lost = || Fate::Refused(Refusal { code: "lost", reason: "the row was not placed".to_owned() });
        let fates = fates.into_iter().map(|fate| fate.unwrap_or_else(lost)).collect();
        let note = Note { tally, receipt: intake.receipt.map(|sender| (sender, fates)), commit, made_of };
        if note.commit.appends.is_empty() && note.commit.consumed.is_empty() {
            note.answer(Receipt::Durable { rows: Vec::new() });
            return Ok(None);
        }
        Ok(Some(note))
    }

    fn send(&mut self, note: Note) {
        self.flight.send(note.commit.clone(), note.tally.clone(), note);
    }

    /// After a fault: waits for what is on its way, keeps what must not be lost, and tells the others. Where the fault is
    /// not the log's, readers learn what was promised.
    async fn keep_or_answer(&mut self, fault: &Fault) {
        if self.failed.is_empty() && matches!(fault, Fault::Wait(_) | Fault::Refused(_) | Fault::Failed(_)) {
            self.promise_all();
        }
        while !self.flight.is_empty() {
            let (outcome, note) = self.flight.next().await;
            // The first failure decides; here only what it left is sorted.
            drop(self.settled(outcome, note));
        }
        let short_of_space = matches!(fault, Fault::Space(_));
        if short_of_space {
            let lost = self.failed.iter().map(|(note, _)| &note.commit);
            if let Some(said) = self.entry.as_mut().map(|entry| entry.said(lost)) {
                self.job.said.lock().insert(self.context.task.id.partition.0, said);
            }
        }
        let disk_full = self.failed.iter().any(|(_, o)| matches!(o, Outcome::Aborted(AbortReason::DiskFull(_))));
        let mut held = VecDeque::new();
        for (note, outcome) in std::mem::take(&mut self.failed) {
            match outcome {
                Outcome::Unknown(reason) => note.answer(Receipt::Unknown { reason }),
                _ if short_of_space && note.must_be_kept() => held.push_back(note),
                Outcome::Aborted(reason) if short_of_space => {
                    note.answer(Receipt::Backpressure { disk_full, reason: reason.to_string() });
                }
                Outcome::Aborted(reason) => note.answer(Receipt::Refused { reason: reason.to_string() }),
                _ => note.answer(Receipt::Refused { reason: "the source has another owner now".to_owned() }),
            }
        }
        if short_of_space && let Some(source) = self.source.take() {
            let (position, committed) = (self.position.clone(), self.committed.clone());
            let kept = Kept { source, held, position, committed };
            self.job.kept.lock().insert(self.context.task.id.partition.0, kept);
        }
    }
}

/// Tells a caller where its rows stand.
fn durable(note: Note, committed: &Committed) {
    let Some((sender, fates)) = note.receipt else { return };
    let rows = fates.into_iter().map(|fate| match fate {
        Fate::Refused(refusal) => RowFate::Refused(refusal),
        Fate::Append(append, behind) => RowFate::Placed {
            partition: note.commit.appends.get(append).map_or(PartitionId(0), |a| a.partition),
            offset: committed.offsets.get(append).copied().flatten().map(|o| millstream_event::Offset(o.0 + behind)),
        },
    });
    if sender.send(Receipt::Durable { rows: rows.collect() }).is_err() {
        tracing::debug!("nobody waits for the receipt any more");
    }
}

//! The committer: the one thread that writes the journal.
//!
//! 1. Takes all that waits, up to the size of a group; nothing waits for company.
//! 2. Decides each commit: fenced, refused, or written at the next offsets of its partitions.
//! 3. Writes the group, and syncs it.
//! 4. Publishes it: readers see it, positions move.
//! 5. Answers. A failure in 3 stops the log: the group's outcome is unknown, all that waits is refused.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::frame::Content;
use super::group_header::Kind;
use super::index::{Entry, Partition, Topic};
use super::options::SyncMode;
use super::shared::{CLOSED, Shared, count};
use super::space::Room;
use super::stage::{Closing, Waiting};
use super::writer::{WriteError, Writer, Written};
use crate::{AbortReason, Class, Committed, Outcome};
use millstream_event::Offset;

pub(super) struct Committer {
    shared: Arc<Shared>,
    writer: Writer,
    cache: TailCache,
    /// Whether the journal says that all groups with commits are durable.
    noted: bool,
    last_sync: Instant,
}

/// What to do next.
enum Turn {
    Group(Vec<Waiting>),
    /// A sync is due (interval mode).
    Sync,
    /// Nothing has come for a while.
    Idle,
    Close(Closing),
}

/// So often it is looked whether what waits for settling must be refused.
const HELD_CHECK: Duration = Duration::from_millis(50);

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, writer: Writer) -> Self {
        let cache = TailCache { max: shared.options.tail_cache_bytes, ..TailCache::default() };
        // What the opening wrote again is proven by the opening's own group alone, until another says so as well.
        Self { shared, writer, cache, noted: false, last_sync: Instant::now() }
    }

    /// Works until the log is closed or stops.
    pub(super) fn run(mut self) {
        loop {
            let done = match self.turn() {
                Turn::Group(frames) => self.group(frames).map(|()| false),
                Turn::Sync => self.sync().map(|()| false),
                Turn::Idle => self.note(Kind::Idle).map(|()| false),
                Turn::Close(Closing::Orderly) => self.note(Kind::Closing).map(|()| true),
                Turn::Close(Closing::Dropped) => Ok(true),
            };
            match done {
                Ok(false) => self.hand_over_sealed(),
                Ok(true) => return self.shared.stop(CLOSED),
                Err(why) => {
                    tracing::error!(%why, "the log has stopped");
                    return self.shared.stop(&why);
                }
            }
        }
    }

    fn turn(&self) -> Turn {
        let mut stage = self.shared.stage.lock();
        loop {
            let intake = stage.closing.is_some() || !self.shared.settling_is_behind();
            if stage.has_work(intake) {
                return Turn::Group(stage.take(self.shared.options.group_bytes, intake));
            }
            if let Some(closing) = stage.closing {
                return Turn::Close(closing);
            }
            let dirty = self.writer.durable_through < self.writer.seq;
            let due = match self.shared.options.sync {
                SyncMode::Interval(every) if dirty => Some(every.saturating_sub(self.last_sync.elapsed())),
                SyncMode::Never => None,
                _ if self.noted => None,
                _ => Some(self.shared.options.idle_after),
            };
            match due {
                // Sources wait: that there is no room for them any more, so that they must be told, wakes nobody.
                None if !stage.queue.is_empty() => drop(self.shared.work.wait_for(&mut stage, HELD_CHECK)),
                None => self.shared.work.wait(&mut stage),
                Some(wait) => {
                    let late = self.shared.work.wait_for(&mut stage, wait).timed_out();
                    if late && !stage.has_work(!self.shared.settling_is_behind()) && stage.closing.is_none() {
                        return if dirty { Turn::Sync } else { Turn::Idle };
                    }
                }
            }
        }
    }

    /// Writes an empty group, which says that all before it is durable.
    fn note(&mut self, kind: Kind) -> Result<(), String> {
        if self.noted && kind == Kind::Idle {
            return Ok(());
        }
        if self.writer.durable_through < self.writer.seq {
            self.sync()?;
        }
        let now = self.shared.options.clock.now_us();
        match self.writer.write(kind, now, &[], &[], &self.shared.preparer) {
            Ok(_) => {}
            // It is of use only; a full disk is no reason to stop.
            Err(WriteError::NoSpace(_)) => {
                self.noted = true;
                return Ok(());
            }
            Err(WriteError::Broken(why)) => return Err(why),
        }
        self.sync()?;
        self.noted = true;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), String> {
        self.last_sync = Instant::now();
        #[cfg(any(test, feature = "sabotage"))]
        if self.shared.options.broken(super::options::Sabotage::NoSync) {
            self.writer.durable_through = self.writer.seq;
            return Ok(());
        }
        let synced = self.writer.sync();
        self.shared.counters.syncs.store(self.writer.syncs, Ordering::Relaxed);
        synced.map_err(|e| match e {
            WriteError::NoSpace(why) | WriteError::Broken(why) => why,
        })
    }

    fn sync_before_answer(&mut self) -> Result<(), String> {
        match self.shared.options.sync {
            SyncMode::Group => self.sync(),
            SyncMode::Interval(every) if self.last_sync.elapsed() >= every => self.sync(),
            SyncMode::Interval(_) | SyncMode::Never => Ok(()),
        }
    }

    fn group(&mut self, waiting: Vec<Waiting>) -> Result<(), String> {
        if let Some(why) = self.shared.preparer.broken() {
            self.shared.stop(&why);
            self.settle(waiting, |_| Outcome::Aborted(AbortReason::Stopped(why.clone())));
            return Err(why);
        }
        let mut accepted = self.decide(waiting);
        while !accepted.is_empty() {
            let offsets = self.offsets(&accepted);
            let now = self.shared.options.clock.now_us();
            match self.writer.write(Kind::Data, now, &accepted, &offsets, &self.shared.preparer) {
                Ok(written) => return self.finish(accepted, offsets, &written),
                Err(WriteError::NoSpace(why)) => accepted = self.without_space(accepted, &why),
                Err(WriteError::Broken(why)) => return self.give_up(accepted, why),
            }
        }
        Ok(())
    }

    fn finish(&mut self, accepted: Vec<Waiting>, offsets: Vec<Vec<u64>>, written: &Written) -> Result<(), String> {
        #[cfg(any(test, feature = "sabotage"))]
        if self.shared.options.broken(super::options::Sabotage::EarlyAcknowledgement) {
            self.publish(&accepted, &offsets, written);
            self.answer(accepted, offsets);
            return self.sync_before_answer();
        }
        self.noted = false;
        if let Err(why) = self.sync_before_answer() {
            return self.give_up(accepted, why);
        }
        self.publish(&accepted, &offsets, written);
        self.answer(accepted, offsets);
        Ok(())
    }

    /// Gives full segments to the settler, whatever filled them: a group, a note, or a group that found no space in the
    /// next one. Only between turns that went well: all that is in them is visible then, and the settler forgets nothing.
    fn hand_over_sealed(&mut self) {
        if !self.writer.sealed.is_empty() {
            self.shared.sealed.lock().extend(self.writer.sealed.drain(..));
            self.shared.settle_now.notify_one();
        }
    }

    /// Nobody knows what of the group reached the disk.
    fn give_up(&mut self, accepted: Vec<Waiting>, why: String) -> Result<(), String> {
        self.shared.stop(&why);
        self.settle(accepted, |_| Outcome::Unknown(why.clone()));
        Err(why)
    }

    /// Answers what cannot be written, and gives back the rest.
    fn decide(&mut self, waiting: Vec<Waiting>) -> Vec<Waiting> {
        let room = self.shared.preparer.room();
        let mut accepted = Vec::with_capacity(waiting.len());
        for waiting in waiting {
            let (current, refusal) = match &waiting.frame.content {
                Content::Commit(head) => (
                    self.shared.is_current(&head.task, head.epoch),
                    room.refuses(head.class).or_else(|| self.backlog(&waiting)),
                ),
                _ => (true, None),
            };
            let mut stage = self.shared.stage.lock();
            let verdict = stage.recheck(&waiting, current);
            match verdict.and_then(|()| refusal.map_or(Ok(()), |reason| Err(Outcome::Aborted(reason)))) {
                Ok(()) => accepted.push(waiting),
                Err(outcome) => {
                    // Under the same lock, so that a successor in this group is refused.
                    stage.settle(&waiting.frame.content, &outcome);
                    drop(stage);
                    self.reply(waiting, outcome);
                }
            }
        }
        accepted
    }

    /// Refuses new events where a topic holds as much unread data as it may.
    fn backlog(&self, waiting: &Waiting) -> Option<AbortReason> {
        let Content::Commit(head) = &waiting.frame.content else { return None };
        if head.class == Class::Processing {
            return None;
        }
        let topics = self.shared.topics.read();
        head.appends.iter().filter_map(|append| topics.by_id.get(&append.topic)).find_map(|topic| {
            let max = topic.with_info(|info| info.spec.retention.max_bytes)?;
            let full = super::retention::unread_bytes(&self.shared, topic) >= max;
            full.then(|| AbortReason::BacklogFull(topic.with_info(|info| info.spec.name.clone())))
        })
    }

    /// The disk is full: sources are refused at once, the rest goes where the reserve is, while there is any.
    fn without_space(&mut self, accepted: Vec<Waiting>, why: &str) -> Vec<Waiting> {
        let reserve = self.shared.preparer.no_space(why);
        if reserve != Room::None {
            self.writer.leave_segment();
        }
        let refused = |waiting: &Waiting| match &waiting.frame.content {
            Content::Commit(head) => head.class == Class::Intake || reserve == Room::None,
            _ => reserve == Room::None,
        };
        let (refused, kept): (Vec<_>, Vec<_>) = accepted.into_iter().partition(refused);
        self.settle(refused, |_| Outcome::Aborted(AbortReason::DiskFull(why.to_owned())));
        // What followed a refused commit of its task is refused as well.
        let mut left = Vec::with_capacity(kept.len());
        for waiting in kept {
            let verdict = self.shared.stage.lock().recheck(&waiting, true);
            match verdict {
                Ok(()) => left.push(waiting),
                Err(outcome) => self.settle(vec![waiting], |_| outcome.clone()),
            }
        }
        left
    }

    /// The offsets of each frame's appends.
    fn offsets(&self, frames: &[Waiting]) -> Vec<Vec<u64>> {
        let topics = self.shared.topics.read();
        let mut ends: HashMap<(u32, u32), u64> = HashMap::new();
        let mut all = Vec::with_capacity(frames.len());
        for waiting in frames {
            let appends = waiting.frame.content.appends().iter();
            let place = |append: &super::frame::AppendHead| {
                let end = ends.entry((append.topic, append.partition)).or_insert_with(|| {
                    let partition = topics.partition_by_id(append.topic, append.partition);
                    partition.map_or(0, |p| p.contents.lock().end)
                });
                let base = *end;
                *end += append.span();
                base
            };
            all.push(appends.map(place).collect());
        }
        all
    }

    /// Makes a durable group visible.
    fn publish(&mut self, frames: &[Waiting], offsets: &[Vec<u64>], written: &Written) {
        for ((waiting, offsets), body_at) in frames.iter().zip(offsets).zip(&written.bodies) {
            match &waiting.frame.content {
                Content::Commit(_) => self.publish_commit(waiting, offsets, *body_at, written),
                Content::Topic { id, schema_version, spec } => {
                    let mut topics = self.shared.topics.write();
                    match topics.by_id.get(id) {
                        Some(topic) => topic.change(*schema_version, (**spec).clone()),
                        None => {
                            let versions = vec![spec.schema.clone()];
                            topics.add(Arc::new(Topic::new(*id, (**spec).clone(), versions)));
                        }
                    }
                }
                Content::Trim { topic, partition, before } => {
                    if let Some(partition) = self.shared.topics.read().partition_by_id(*topic, *partition) {
                        partition.contents.lock().advance_start(before.0);
                    }
                }
                Content::Other => {}
            }
        }
        count(&self.shared.counters.groups, 1);
        let commits = frames.iter().filter(|waiting| matches!(waiting.frame.content, Content::Commit(_))).count();
        count(&self.shared.counters.commits, commits as u64);
        self.shared.counters.group.store(self.writer.seq, Ordering::Relaxed);
    }

    fn publish_commit(&mut self, waiting: &Waiting, offsets: &[u64], body_at: u64, written: &Written) {
        let Content::Commit(commit) = &waiting.frame.content else { return };
        let topics = self.shared.topics.read();
        let appends = commit.appends.iter().zip(&waiting.frame.batches).zip(offsets);
        for ((append, rows), base) in appends {
            let Some(partition) = topics.partition_by_id(append.topic, append.partition) else { continue };
            let entry = Entry {
                base: *base,
                rows: append.rows,
                schema_version: append.schema_version,
                marks: commit.mark(append).into_iter().collect(),
                time: written.time,
                segment: written.segment.clone(),
                at: body_at + u64::from(append.at),
                len: append.len,
                crc: append.crc,
                before: 0,
                cached: Some(rows.clone()),
            };
            let end = entry.next();
            let mut contents = partition.contents.lock();
            contents.push(entry);
            drop(contents);
            partition.grown.send_replace(end);
            self.cache.add(partition, *base, u64::from(append.len));
        }
    }

    fn answer(&mut self, frames: Vec<Waiting>, offsets: Vec<Vec<u64>>) {
        let mut offsets = offsets.into_iter();
        self.settle(frames, |_| {
            let offsets = offsets.next().unwrap_or_default();
            Outcome::Committed(Committed { offsets: offsets.into_iter().map(|o| Some(Offset(o))).collect() })
        });
    }

    fn settle(&self, frames: Vec<Waiting>, mut outcome: impl FnMut(&Waiting) -> Outcome) {
        let outcomes: Vec<Outcome> = frames.iter().map(&mut outcome).collect();
        let mut stage = self.shared.stage.lock();
        for (waiting, outcome) in frames.iter().zip(&outcomes) {
            stage.settle(&waiting.frame.content, outcome);
        }
        drop(stage);
        let mut buffers = Vec::with_capacity(frames.len());
        for (waiting, outcome) in frames.into_iter().zip(outcomes) {
            // Nobody has to listen: a commit is not undone when its caller goes away.
            drop(waiting.answer.send(outcome));
            buffers.push(waiting.frame.body);
        }
        self.shared.reuse(buffers.into_iter());
    }

    fn reply(&self, waiting: Waiting, outcome: Outcome) {
        drop(waiting.answer.send(outcome));
    }
}

/// The newest batches, which are kept decoded.
#[derive(Default)]
struct TailCache {
    max: u64,
    bytes: u64,
    batches: VecDeque<(Arc<Partition>, u64, u64)>,
}

impl TailCache {
    fn add(&mut self, partition: &Arc<Partition>, base: u64, bytes: u64) {
        self.bytes += bytes;
        self.batches.push_back((partition.clone(), base, bytes));
        while self.bytes > self.max {
            let Some((partition, base, bytes)) = self.batches.pop_front() else { return };
            self.bytes -= bytes;
            partition.contents.lock().uncache(base);
        }
    }
}

//! An embedded log with tiny files on a simulated disk, a workload for it, and an oracle that knows what must be left.
//!
//! The workload: some tasks, each with commits on their way one behind the other, appending to several partitions and
//! moving a position by one per commit. So task `t` at position `p` must have left exactly the events of its steps
//! below `p`, whole and in order, in every partition; and of tables the newest row of each of its keys.

mod resting;
pub(crate) mod tables;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millstream_event::Offset;
use millstream_log::conformance::kit::*;
use millstream_log::vfs::Vfs;
use millstream_log::vfs::sim::{Rng, SimVfs};
use millstream_log::{
    Append, Committed, EmbeddedLog, EmbeddedOptions, Error, Log, ManualClock, Membership, Outcome, Pending, Read,
    Reader, Task,
};

pub(crate) use self::resting::{nothing_stays_behind, rest, work_resting};
use self::tables::{Acknowledged, TABLES, Table, Tail};

/// Where the log is on the simulated disk.
pub(crate) const DIR: &str = "/log";

/// How many threads share the work: far more than there are processors, because most of the time is spent waiting.
const THREADS: usize = 16;

/// The partitions that the workload writes.
pub(crate) const PLACES: [(&str, u32); 3] = [("a", 0), ("a", 1), ("b", 0)];

/// An empty disk with a durable directory.
pub(crate) fn disk() -> SimVfs {
    let vfs = SimVfs::new();
    vfs.create_dir_all(Path::new(DIR)).unwrap();
    vfs.sync_all();
    vfs
}

/// Settings under which everything happens often: sealing, settling, recycling, reading from files.
pub(crate) fn options(vfs: &SimVfs) -> EmbeddedOptions {
    EmbeddedOptions {
        segment_bytes: EmbeddedOptions::SEGMENT_BYTES_MIN,
        settled_file_bytes: 32 << 10,
        compact_bytes: 8 << 10,
        tail_cache_bytes: 4 << 10,
        group_bytes: 8 << 10,
        reserve_bytes: 16 << 10,
        idle_after: Duration::from_millis(5),
        tidy_every: Duration::from_millis(5),
        vfs: Arc::new(vfs.clone()),
        clock: Arc::new(ManualClock::new(1_000_000_000_000_000)),
        ..EmbeddedOptions::new(DIR)
    }
}

/// Settings under which tables are compacted whenever something was settled, into several files of several blocks.
pub(crate) fn eager(vfs: &SimVfs) -> EmbeddedOptions {
    EmbeddedOptions { block_bytes: 1 << 10, settled_file_bytes: 2 << 10, compact_bytes: 0, ..options(vfs) }
}

/// Opens the log on this disk.
pub(crate) fn open(vfs: &SimVfs) -> Result<Arc<dyn Log>, Error> {
    Ok(open_log(vfs)?)
}

/// The same, of which one may ask what it does in the background.
pub(crate) fn open_log(vfs: &SimVfs) -> Result<Arc<EmbeddedLog>, Error> {
    Ok(Arc::new(EmbeddedLog::open(options(vfs))?))
}

/// Runs asynchronous test code on this thread.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(within(work))
}

/// Whether the long form of the tests was asked for.
pub(crate) fn long() -> bool {
    std::env::var_os("MILLSTREAM_LONG").is_some()
}

/// How a workload runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) tasks: u32,
    pub(crate) steps: u64,
}

/// What was seen before the end: what must be there, and what may.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    /// Each task's position after its last acknowledged commit.
    acknowledged: BTreeMap<u32, u64>,
    /// What readers saw, per place, with offsets.
    seen: BTreeMap<usize, Vec<(u64, i64)>>,
    tables: Acknowledged,
    /// Commits that were answered `Committed` although the log had said that it stopped.
    pub(crate) after_stop: u64,
    /// What the log said when it refused, if it did.
    pub(crate) refusals: Vec<String>,
    /// The disk in whose record what is seen is noted.
    remarks: Option<SimVfs>,
}

impl Witness {
    /// One that notes what it sees in the record of this disk.
    pub(crate) fn of(vfs: &SimVfs) -> Self {
        Self { remarks: Some(vfs.clone()), ..Self::default() }
    }

    fn promised(&mut self, plan: Plan, task: u32, to: u64, done: &Committed) -> Option<u64> {
        self.tables.note(plan.seed, task, to - 1, &done.offsets);
        if let Some(vfs) = &self.remarks {
            vfs.remark(format!("task {task}: step {to} is acknowledged"));
        }
        self.acknowledged.insert(task, to)
    }
}

/// The numbers that step `step` of task `task` appends to place `place`. Some steps leave places out, some all.
fn numbers_of(seed: u64, task: u32, step: u64, place: usize) -> Vec<i64> {
    let mut rng = Rng::new(seed ^ (u64::from(task) << 40) ^ (step << 8) ^ place as u64);
    let count = match rng.below(10) {
        0..=2 => 0,
        3 => 1 + rng.below(120),
        _ => 1 + rng.below(6),
    };
    (0..count as i64).map(|row| i64::from(task) * 1_000_000_000 + step as i64 * 1_000 + row).collect()
}

fn appends_of(seed: u64, task: u32, step: u64) -> Vec<Append> {
    let of = |(i, (topic, partition)): (usize, &(&str, u32))| {
        let numbers = numbers_of(seed, task, step, i);
        (!numbers.is_empty()).then(|| append(topic, *partition, &numbers))
    };
    PLACES.iter().enumerate().filter_map(of).chain(tables::appends_of(seed, task, step)).collect()
}

struct Worker {
    task: Task,
    next: u64,
    waiting: VecDeque<(u64, Pending)>,
}

/// Makes the topics and works until the plan is done or the log refuses; writes down what was promised.
pub(crate) async fn work(log: &Arc<dyn Log>, plan: Plan, witness: &mut Witness) {
    for name in ["a", "b"] {
        let partitions = PLACES.iter().filter(|(topic, _)| *topic == name).count() as u32;
        if let Err(error) = log.create_topic(spec(name, partitions)).await {
            return witness.refusals.push(error.to_string());
        }
    }
    if let Err(error) = tables::make(log).await {
        return witness.refusals.push(error.to_string());
    }
    let Ok((member, mut workers)) = begin(log, plan).await else { return };
    let mut readers: Vec<Option<Box<dyn Reader>>> = Vec::new();
    for (i, (topic, partition)) in PLACES.iter().enumerate() {
        let from = witness.seen.get(&i).and_then(|seen| seen.last()).map_or(0, |(last, _)| last + 1);
        readers.push(log.read(&at(topic, *partition), Offset(from)).ok());
    }
    let mut tails: Vec<Option<Tail>> = (0..TABLES.len()).map(|place| Tail::begin(log, place).ok()).collect();
    let mut rng = Rng::new(plan.seed);
    let mut alive = true;
    while alive && workers.iter().any(|w| w.next < plan.steps || !w.waiting.is_empty()) {
        let chosen = rng.below(workers.len() as u64) as usize;
        alive = step(log, plan, &mut workers[chosen], &mut rng, witness).await;
        if rng.chance(30) {
            let place = rng.below(PLACES.len() as u64) as usize;
            look(&mut readers[place], place, witness).await;
            let table = rng.below(TABLES.len() as u64) as usize;
            follow(&mut tails[table], witness).await;
        }
    }
    // What is still on its way must be answered too, whatever the answer is.
    for worker in &mut workers {
        while alive && !worker.waiting.is_empty() {
            alive = answer(log, plan, worker, witness).await;
        }
        for (to, pending) in worker.waiting.drain(..) {
            if let Outcome::Committed(done) = pending.await {
                witness.promised(plan, worker.task.id.partition.0, to, &done);
            }
        }
    }
    if log.stopped().is_some() {
        for worker in &workers {
            let late = log.commit(commit(&worker.task, vec![], vec![])).await;
            witness.after_stop += u64::from(matches!(late, Outcome::Committed(_)));
        }
    }
    for (place, reader) in readers.iter_mut().enumerate() {
        look(reader, place, witness).await;
    }
    for (place, tail) in tails.iter_mut().enumerate() {
        if let (Some(tail), None) = (tail, log.stopped())
            && let Err(error) = tail.agrees_with_a_fresh_one(log, place).await
        {
            witness.refusals.push(error.to_string());
        }
    }
    drop(member);
}

async fn begin(log: &Arc<dyn Log>, plan: Plan) -> Result<(Box<dyn Membership>, Vec<Worker>), Error> {
    let (member, tasks) = service(log, "s", plan.tasks).await;
    let mut workers = Vec::new();
    for task in tasks {
        let next = log.position(&task.id, &name("in")).await?.and_then(|p| p.offset()).map_or(0, |o| o.0);
        workers.push(Worker { task, next, waiting: VecDeque::new() });
    }
    Ok((member, workers))
}

/// One commit handed over, or one answer awaited; `false` when the log refuses for good.
async fn step(log: &Arc<dyn Log>, plan: Plan, worker: &mut Worker, rng: &mut Rng, witness: &mut Witness) -> bool {
    let full = worker.waiting.len() as u64 > rng.below(6);
    if worker.next < plan.steps && !full {
        let (at, to) = (worker.next, worker.next + 1);
        let appends = appends_of(plan.seed, worker.task.id.partition.0, at);
        let from = (at > 0).then_some(at);
        let pending = log.commit(commit(&worker.task, vec![consumed("in", from, to)], appends));
        worker.waiting.push_back((to, pending));
        worker.next = to;
        return true;
    }
    worker.waiting.is_empty() || answer(log, plan, worker, witness).await
}

async fn answer(log: &Arc<dyn Log>, plan: Plan, worker: &mut Worker, witness: &mut Witness) -> bool {
    let Some((to, pending)) = worker.waiting.pop_front() else { return true };
    let task = worker.task.id.partition.0;
    match pending.await {
        Outcome::Committed(done) => {
            let before = witness.promised(plan, task, to, &done).unwrap_or(0);
            assert!(before < to, "acknowledged out of order");
            true
        }
        Outcome::Aborted(reason) if reason.retryable() => {
            witness.refusals.push(reason.to_string());
            worker.waiting.clear();
            let Ok(Some(again)) = log.restart(&worker.task).await else { return false };
            worker.task = again;
            let position = log.position(&worker.task.id, &name("in")).await;
            worker.next = position.ok().flatten().and_then(|p| p.offset()).map_or(0, |o| o.0);
            witness.refusals.len() < 200
        }
        Outcome::Aborted(reason) => {
            witness.refusals.push(reason.to_string());
            false
        }
        Outcome::Unknown(why) => {
            witness.refusals.push(why);
            false
        }
        Outcome::Fenced => panic!("nobody else owns task {task}"),
    }
}

/// Reads what is there and writes it down; a reader that fails loudly is given up.
async fn look(reader: &mut Option<Box<dyn Reader>>, place: usize, witness: &mut Witness) {
    let Some(open) = reader else { return };
    loop {
        match open.next().await {
            Ok(Read::Batch(batch)) => {
                let seen = witness.seen.entry(place).or_default();
                assert!(seen.last().is_none_or(|(last, _)| *last < batch.base.0), "offsets grow");
                seen.extend(events(&batch));
            }
            Ok(Read::AtEnd { .. }) => return,
            Err(error) => {
                witness.refusals.push(error.to_string());
                *reader = None;
                return;
            }
        }
    }
}

/// Reads on in a table; a reader that fails loudly is given up.
async fn follow(tail: &mut Option<Tail>, witness: &mut Witness) {
    if let Some(open) = tail
        && let Err(error) = open.go_on().await
    {
        witness.refusals.push(error.to_string());
        *tail = None;
    }
}

/// What a log opened again holds, or why it does not say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    positions: BTreeMap<u32, u64>,
    places: Vec<Vec<(u64, i64)>>,
    pub(crate) tables: Vec<Table>,
}

impl Found {
    /// How many events there are.
    pub(crate) fn count(&self) -> usize {
        self.places.iter().map(Vec::len).sum()
    }
}

/// Reads everything.
pub(crate) async fn find(log: &Arc<dyn Log>, tasks: u32) -> Result<Found, Error> {
    let mut positions = BTreeMap::new();
    for task in 0..tasks {
        let id = millstream_log::TaskId::new(name("s"), task);
        let position = log.position(&id, &name("in")).await?;
        positions.insert(task, position.and_then(|p| p.offset()).map_or(0, |o| o.0));
    }
    let mut places = Vec::new();
    for (topic, partition) in PLACES {
        let Some(_) = log.topic(&name(topic)) else {
            places.push(Vec::new());
            continue;
        };
        let mut reader = log.read(&at(topic, partition), Offset(0))?;
        places.push(to_end(&mut reader).await?.0);
    }
    Ok(Found { positions, places, tables: tables::find(log).await? })
}

/// Compares what was promised with what is there; says what is wrong.
pub(crate) fn judge(plan: Plan, witness: &Witness, found: &Found) -> Result<(), String> {
    for (task, acknowledged) in &witness.acknowledged {
        let position = found.positions.get(task).copied().unwrap_or(0);
        if position < *acknowledged {
            return Err(format!("task {task}: step {acknowledged} was acknowledged, the position is {position}"));
        }
    }
    for (i, (place, events)) in PLACES.iter().zip(&found.places).enumerate() {
        for (task, position) in &found.positions {
            let want = (0..*position).flat_map(|step| numbers_of(plan.seed, *task, step, i));
            let have = events.iter().map(|(_, n)| *n).filter(|n| n / 1_000_000_000 == i64::from(*task));
            if !have.clone().eq(want.clone()) {
                let wrong = have.zip(want).find(|(have, want)| have != want);
                return Err(format!("{place:?}: task {task} at {position} does not match; first difference {wrong:?}"));
            }
        }
        let seen = witness.seen.get(&i).map(Vec::as_slice).unwrap_or_default();
        if events.get(..seen.len()) != Some(seen) {
            return Err(format!("{place:?}: a reader saw {} events that are not all there now", seen.len()));
        }
    }
    tables::judge(plan.seed, &witness.tables, &found.positions, &found.tables)
}

/// Opens what is left and judges it.
pub(crate) async fn check_once(vfs: &SimVfs, plan: Plan, witness: &Witness) -> Result<(), String> {
    let log = open(vfs).map_err(|error| format!("opening: {error}"))?;
    let found = find(&log, plan.tasks).await.map_err(|error| format!("reading: {error}"))?;
    judge(plan, witness, &found)
}

/// Does `work` for each number below `count`, on several threads.
pub(crate) fn in_parallel(count: u64, work: impl Fn(u64) + Sync) {
    let next = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if i >= count {
                        break;
                    }
                    work(i);
                }
            });
        }
    });
}

/// Opens what is left, judges it, works a little more, closes, opens and judges again.
pub(crate) async fn check(vfs: &SimVfs, plan: Plan, witness: &Witness) -> Result<(), String> {
    let embedded = open_log(vfs).map_err(|error| format!("opening: {error}"))?;
    let log: Arc<dyn Log> = embedded.clone();
    let found = find(&log, plan.tasks).await.map_err(|error| format!("reading: {error}"))?;
    judge(plan, witness, &found)?;
    nothing_stays_behind(vfs, &embedded).await?;
    drop(embedded);
    vfs.remark("all promised was there; working on");
    let more = Plan { steps: found.positions.values().max().copied().unwrap_or(0) + 3, ..plan };
    let mut again = Witness::of(vfs);
    work(&log, more, &mut again).await;
    if let Some(refusal) = again.refusals.first() {
        return Err(format!("working on: {refusal}"));
    }
    log.close().await.map_err(|error| format!("closing: {error}"))?;
    drop(log);
    vfs.remark("closed; opening again");
    let log = open(vfs).map_err(|error| format!("opening after closing: {error}"))?;
    let found = find(&log, plan.tasks).await.map_err(|error| format!("reading after closing: {error}"))?;
    judge(plan, witness, &found).map_err(|wrong| format!("after closing: {wrong}"))?;
    judge(more, &again, &found).map_err(|wrong| format!("of what came after the cut, after closing: {wrong}"))
}

//! `bench log`: the embedded log alone, without anything that computes.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use millstream_node::service::event::{
    Column, ColumnType, Name, Offset, PartitionId, Schema, TopicPartition, Unknown, ipc, json,
};
use millstream_node::service::log::{
    Append, Change, Class, Commit, EmbeddedLog, EmbeddedOptions, Join, Lead, Log, Outcome, Pending, Read, Retention,
    Task, TopicKind, TopicSpec, TopicStat, stat,
};
use rustix::fs::{Advice, fadvise};

use super::Common;
use super::quantiles::Quantiles;
use super::report::Report;
use super::usage::{own_cpu_s, own_rss_peak};
use crate::failure::Failure;
use crate::terminal::bytes;

/// The rate that is enough on a fast disk.
const GOAL_MB_PER_S: f64 = 500.0;
/// The share of the disk's rate that is enough on a slow one.
const GOAL_SHARE: f64 = 0.9;
const GOAL_READ_MB_PER_S: f64 = 300.0;
const GOAL_OPEN_MS: f64 = 1000.0;
const GOAL_SETTLED: f64 = 1.1;
/// Commits on their way for each writer.
const IN_FLIGHT: usize = 2;
/// How many partitions are read.
const READS: u32 = 8;
/// How long nothing may change before everything counts as settled.
const QUIET: Duration = Duration::from_millis(1500);
const QUIET_TIMEOUT: Duration = Duration::from_secs(300);
/// The size of the log in `--big`.
const BIG_MB: u64 = 10 * 1024;

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// How much is appended
    #[arg(long, value_name = "MiB", default_value_t = 2048)]
    mb: u64,
    /// The bytes of an event
    #[arg(long, value_name = "N", default_value_t = 1024)]
    event_bytes: usize,
    /// How many partitions the topic has
    #[arg(long, value_name = "N", default_value_t = 64)]
    partitions: u32,
    /// Events per commit
    #[arg(long, value_name = "N", default_value_t = 512)]
    batch: usize,
    /// Writers at a time, each with two commits on their way
    #[arg(long, value_name = "N", default_value_t = 8)]
    writers: usize,
    /// Also open a log of 10 GiB
    #[arg(long)]
    big: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

/// What is appended again and again.
struct Load {
    append: Append,
    events: u64,
    /// The columns in the form in which they are stored.
    bytes: u64,
}

/// What appending took.
struct Appended {
    events: u64,
    bytes: u64,
    wall_s: f64,
    cpu_s: f64,
}

pub(super) async fn run(args: &Args) -> Result<Report, Failure> {
    let scratch = args.common.scratch()?;
    let mut report = args.common.report("log", &scratch, "group")?;
    let load = load(args)?;
    let dir = scratch.path().join("log");
    eprintln!("appending {} MiB", args.mb);
    let began = (Instant::now(), own_cpu_s());
    let log = open(&dir)?;
    let appended = append(&log, args, &load, args.mb).await?;
    tell_append(&mut report, &appended, load.bytes as f64 / load.events as f64);
    wait_until_settled(&dir).await?;
    // Without closing, as after a crash.
    drop(log);
    tell_settled(&mut report, &dir)?;
    tell_opening(&mut report, "opening", &dir)?;
    tell_reading(&mut report, args, &dir, &load).await?;
    report.usage(began.0.elapsed().as_secs_f64(), own_cpu_s() - began.1, own_rss_peak());
    if args.big {
        eprintln!("appending {BIG_MB} MiB");
        let dir = scratch.path().join("big");
        let log = open(&dir)?;
        append(&log, args, &load, BIG_MB).await?;
        wait_until_settled(&dir).await?;
        drop(log);
        tell_opening(&mut report, "opening, 10 GiB", &dir)?;
    }
    report.note("the events are text that does not compress");
    report.note("cold: after posix_fadvise(DONTNEED) on every file of the log");
    Ok(report)
}

fn tell_append(report: &mut Report, appended: &Appended, event_bytes: f64) {
    let rate = appended.bytes as f64 / 1e6 / appended.wall_s;
    let disk = report.disk().write_mb_per_s;
    let goal = (disk * GOAL_SHARE).min(GOAL_MB_PER_S);
    report.figure("events", appended.events as f64, "");
    report.figure("columns of an event", event_bytes, "B");
    report.figure("append", rate, "MB/s");
    report.figure("append, share of the disk's rate", rate / disk, "");
    report.figure("append, CPU per event", appended.cpu_s * 1e6 / appended.events as f64, "us");
    report.goal(format!("append at least {goal:.0} MB/s (90 % of the disk, or 500 MB/s)"), rate >= goal);
}

fn tell_settled(report: &mut Report, dir: &Path) -> Result<(), Failure> {
    let stat = stat(&EmbeddedOptions::new(dir)).map_err(anyhow::Error::from)?;
    let sum = |of: fn(&TopicStat) -> u64| stat.topics.iter().map(of).sum::<u64>() as f64;
    let (events, bytes) = (sum(|t| t.settled_events), sum(|t| t.settled_bytes));
    let share = bytes / sum(|t| t.column_bytes).max(1.0);
    report.figure("groups (syncs)", stat.group as f64, "");
    report.figure("settled events", events, "");
    report.figure("settled bytes per event", bytes / events.max(1.0), "B");
    report.figure("settled bytes, share of the columns", share, "");
    report.goal(format!("settled bytes at most {GOAL_SETTLED} x the columns"), share <= GOAL_SETTLED);
    Ok(())
}

fn tell_opening(report: &mut Report, name: &'static str, dir: &Path) -> Result<(), Failure> {
    let of = size(dir)?;
    forget(dir)?;
    let began = Instant::now();
    let log = open(dir)?;
    let ms = began.elapsed().as_secs_f64() * 1e3;
    drop(log);
    report.figure(name, ms, "ms");
    report.goal(format!("opening {} after a crash in less than 1 s", bytes(of)), ms < GOAL_OPEN_MS);
    Ok(())
}

async fn tell_reading(report: &mut Report, args: &Args, dir: &Path, load: &Load) -> Result<(), Failure> {
    let log = open(dir)?;
    let step = (args.partitions / READS).max(1);
    let mut rates = Vec::new();
    let event_bytes = load.bytes as f64 / load.events as f64;
    for partition in (0..args.partitions).step_by(step as usize) {
        forget(dir)?;
        let began = Instant::now();
        let events = read(&log, &TopicPartition::new(topic()?, partition)).await?;
        rates.push(events as f64 * event_bytes / 1e6 / began.elapsed().as_secs_f64());
    }
    let rate = Quantiles::of(rates).at(0.5);
    report.figure("catching up on one cold partition", rate, "MB/s");
    let what = format!("catching up on one of {} cold partitions at {GOAL_READ_MB_PER_S} MB/s", args.partitions);
    report.goal(what, rate >= GOAL_READ_MB_PER_S);
    log.close().await.map_err(anyhow::Error::from)?;
    Ok(())
}

fn topic() -> Result<Name, Failure> {
    Ok(Name::new("events").map_err(anyhow::Error::from)?)
}

fn open(dir: &Path) -> Result<Arc<EmbeddedLog>, Failure> {
    let log = EmbeddedLog::open(EmbeddedOptions::new(dir));
    Ok(Arc::new(log.with_context(|| format!("opening the log in {}", dir.display()))?))
}

fn schema() -> anyhow::Result<Schema> {
    let columns = vec![Column::required("id", ColumnType::BigInt), Column::required("payload", ColumnType::String)];
    Ok(Schema::new(columns)?)
}

/// One batch of events; random text, so that nothing is gained by compressing it.
fn load(args: &Args) -> Result<Load, Failure> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let mut letter = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        char::from(LETTERS.get((seed >> 58) as usize).copied().unwrap_or(b'A'))
    };
    // The number takes eight bytes, the time of ingestion as many.
    let text_bytes = args.event_bytes.saturating_sub(16).max(1);
    let mut lines = String::new();
    for id in 0..args.batch.max(1) {
        let text: String = (0..text_bytes).map(|_| letter()).collect();
        lines.push_str(&format!("{{\"id\":{id},\"payload\":\"{text}\"}}\n"));
    }
    let schema = schema()?;
    let decoded = json::Decoder::new(&schema, Unknown::Drop).decode_lines(lines.as_bytes());
    let decoded = decoded.map_err(anyhow::Error::from)?;
    let rows = schema.with_system(&decoded.rows, 0).map_err(anyhow::Error::from)?;
    let mut stored = Vec::new();
    ipc::encode(&rows, &mut stored).map_err(anyhow::Error::from)?;
    let events = rows.num_rows() as u64;
    let append = Append { topic: topic()?, partition: PartitionId(0), schema_version: 1, rows, watermark: None };
    Ok(Load { append, events, bytes: stored.len() as u64 })
}

async fn append(log: &Arc<EmbeddedLog>, args: &Args, load: &Load, mb: u64) -> Result<Appended, Failure> {
    let spec = TopicSpec {
        name: topic()?,
        partitions: args.partitions,
        key: Vec::new(),
        schema: schema()?,
        kind: TopicKind::Stream,
        retention: Retention::default(),
        consumers: Vec::new(),
    };
    log.create_topic(spec).await.map_err(anyhow::Error::from)?;
    let tasks = tasks(log, args.partitions).await?;
    let commits = (mb << 20).div_ceil(load.bytes) as usize;
    let writers = args.writers.clamp(1, tasks.len());
    let began = (Instant::now(), own_cpu_s());
    let mut running = Vec::new();
    for writer in 0..writers {
        let mine: Vec<Task> = tasks.iter().skip(writer).step_by(writers).cloned().collect();
        let commits = commits / writers + usize::from(writer < commits % writers);
        running.push(tokio::spawn(write(log.clone(), mine, load.append.clone(), commits)));
    }
    for writer in running {
        writer.await.map_err(anyhow::Error::from)??;
    }
    Ok(Appended {
        events: commits as u64 * load.events,
        bytes: commits as u64 * load.bytes,
        wall_s: began.0.elapsed().as_secs_f64(),
        cpu_s: own_cpu_s() - began.1,
    })
}

/// The tasks of a source with as many tasks as the topic has partitions.
async fn tasks(log: &Arc<EmbeddedLog>, partitions: u32) -> Result<Vec<Task>, Failure> {
    let service = Name::new("writer").map_err(anyhow::Error::from)?;
    let join = Join { service, instance: 0, lead: Lead::Tasks(partitions) };
    let mut membership = log.join(join).map_err(anyhow::Error::from)?;
    let mut tasks = Vec::new();
    while tasks.len() < partitions as usize {
        if let Change::Assigned(more) = membership.next().await {
            tasks.extend(more);
        }
    }
    // Whoever leaves loses its tasks; this process ends with the benchmark.
    std::mem::forget(membership);
    Ok(tasks)
}

async fn write(log: Arc<EmbeddedLog>, tasks: Vec<Task>, append: Append, commits: usize) -> anyhow::Result<()> {
    let mut waiting: VecDeque<Pending> = VecDeque::new();
    for task in tasks.iter().cycle().take(commits) {
        if waiting.len() >= IN_FLIGHT {
            settle(&mut waiting).await?;
        }
        waiting.push_back(log.commit(Commit {
            task: task.id.clone(),
            epoch: task.epoch,
            class: Class::Processing,
            consumed: Vec::new(),
            appends: vec![Append { partition: task.id.partition, ..append.clone() }],
        }));
    }
    while !waiting.is_empty() {
        settle(&mut waiting).await?;
    }
    Ok(())
}

async fn settle(waiting: &mut VecDeque<Pending>) -> anyhow::Result<()> {
    let pending = waiting.pop_front().ok_or_else(|| anyhow!("nothing is on its way"))?;
    match pending.await {
        Outcome::Committed(_) => Ok(()),
        other => bail!("a commit ended with {other:?}"),
    }
}

async fn read(log: &Arc<EmbeddedLog>, at: &TopicPartition) -> anyhow::Result<u64> {
    let mut reader = log.read(at, Offset(0))?;
    let mut events = 0;
    while let Read::Batch(batch) = reader.next().await? {
        events += batch.rows.num_rows() as u64;
    }
    Ok(events)
}

async fn wait_until_settled(dir: &Path) -> Result<(), Failure> {
    eprintln!("waiting for the settler");
    let began = Instant::now();
    let (mut last, mut since) = (0, Instant::now());
    while since.elapsed() < QUIET {
        if began.elapsed() > QUIET_TIMEOUT {
            return Err(Failure::Failed(anyhow!("the settler was not done after five minutes")));
        }
        let now = size(&dir.join("topics"))?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Every file below a directory; none where it does not exist.
fn files(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(all),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            all.extend(files(&path)?);
        } else {
            all.push(path);
        }
    }
    Ok(all)
}

fn size(dir: &Path) -> Result<u64, Failure> {
    // A file may go between the look at its directory and the look at it.
    let sizes = files(dir)?.into_iter().filter_map(|path| std::fs::metadata(path).ok());
    Ok(sizes.map(|file| file.len()).sum())
}

/// Lets the system forget what it has in memory of a log's files.
fn forget(dir: &Path) -> Result<(), Failure> {
    for path in files(dir)? {
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            // A recycled segment has another name by now.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e.into()),
        };
        // Only clean pages can be forgotten.
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed).map_err(std::io::Error::from)?;
    }
    Ok(())
}

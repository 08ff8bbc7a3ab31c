//! `state`: what services keep, and backups of all that the pipeline knows: one now, what there is, and back.

mod show;

use std::io::Write as _;

use clap::Subcommand;
use millstream_node::api::{BackupInfo, RestoreReport, Snapshot, paths};
use millstream_node::backups;
use millstream_node::config::Config;
use serde_json::json;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::target::{Target, TargetArgs};
use crate::terminal::{Align, Out, Table, bytes, count};

/// Show what services keep; back up all state, positions and events; list backups; restore one
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    /// Ask the node at this address instead of the pipeline's own
    #[arg(long, value_name = "HOST:PORT", global = true)]
    address: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a backup now, of a running or a stopped pipeline
    Snapshot {
        #[command(flatten)]
        pipeline: PipelineArg,
    },
    /// Show the backups
    List {
        /// Where they are: `file:///path` or `s3://bucket/prefix`; else where the pipeline makes its own
        #[arg(long, value_name = "URL")]
        from: Option<String>,
        #[command(flatten)]
        pipeline: PipelineArg,
    },
    /// Show what a service keeps, as of its last commits
    Show(show::Args),
    /// Make an empty data directory what it was; then the pipeline runs on from there
    Restore {
        /// Where the backups are: `file:///path` or `s3://bucket/prefix`; else where the pipeline makes its own
        #[arg(long, value_name = "URL")]
        from: Option<String>,
        /// The newest backup that is not later than this, such as 2026-01-31T12:00:00Z
        #[arg(long, value_name = "TIME", default_value = "latest", value_parser = at)]
        at: At,
        /// Of the log whose number begins so (`state list` shows it), where there are backups of several
        #[arg(long, value_name = "PREFIX")]
        log: Option<String>,
        #[command(flatten)]
        pipeline: PipelineArg,
    },
}

/// The pipeline.
#[derive(Debug, clap::Args)]
struct PipelineArg {
    /// The pipeline: a directory with pipeline.yaml, or a file
    #[arg(value_name = "PIPELINE", default_value = ".")]
    pipeline: std::path::PathBuf,
}

/// A moment.
#[derive(Debug, Clone, Copy)]
struct At(Option<i64>);

fn at(text: &str) -> Result<At, String> {
    if text == "latest" {
        return Ok(At(None));
    }
    let time = chrono::DateTime::parse_from_rfc3339(text);
    let time = time.map_err(|e| format!("{e}; write `latest` or a time such as 2026-01-31T12:00:00Z"))?;
    Ok(At(Some(time.timestamp_micros())))
}

pub(crate) async fn run(args: &Args, out: &mut Out) -> Result<Exit, Failure> {
    match &args.command {
        Command::Snapshot { pipeline } => {
            let target = TargetArgs { pipeline: pipeline.pipeline.clone(), address: args.address.clone() };
            let snapshot: Snapshot = match target.find().await? {
                Target::Running(client) => client.post(paths::SNAPSHOT, &json!({})).await?,
                Target::Stopped(loaded) => backups::snapshot(&loaded).await?,
            };
            print_snapshot(&snapshot, out)?;
        }
        Command::List { from, pipeline } => {
            let loaded = match (Config::load(&pipeline.pipeline), from) {
                (Ok(loaded), _) => Some(loaded),
                // An address says it all; there need not be a pipeline here.
                (Err(_), Some(_)) => None,
                (Err(wrong), None) => return Err(wrong.into()),
            };
            let found = backups::list(loaded.as_ref(), from.as_deref()).await?;
            print_list(&found, out)?;
        }
        Command::Show(show) => show::run(show, args.address.as_deref(), out).await?,
        Command::Restore { from, at, log, pipeline } => {
            let loaded = Config::load(&pipeline.pipeline)?;
            let progress = Progress::new();
            let tell = |done, all| progress.tell(done, all);
            let report = backups::restore(&loaded, from.as_deref(), at.0, log.as_deref(), tell).await;
            progress.end();
            print_restore(&report?, out)?;
        }
    }
    Ok(Exit::Done)
}

fn print_snapshot(snapshot: &Snapshot, out: &mut Out) -> Result<(), Failure> {
    if out.json {
        return out.value(snapshot);
    }
    let Snapshot { to, at, objects, written_bytes, bytes: all, .. } = snapshot;
    if *objects == 0 {
        return out.line(&format!("nothing has changed since the backup of {at} ({} in {to})", bytes(*all)));
    }
    out.line(&format!("backed up as of {at}: {} new of {} in {to}", bytes(*written_bytes), bytes(*all)))
}

fn print_list(found: &[BackupInfo], out: &mut Out) -> Result<(), Failure> {
    if out.json {
        return found.iter().try_for_each(|backup| out.value_line(backup));
    }
    if found.is_empty() {
        eprintln!("there are no backups");
        return Ok(());
    }
    let mut table = Table::new(&[
        ("PIPELINE", Align::Left),
        ("AT", Align::Left),
        ("SIZE", Align::Right),
        ("POSITIONS", Align::Right),
        ("LOG", Align::Left),
    ]);
    for backup in found {
        table.row(vec![
            backup.pipeline.clone(),
            backup.at.clone(),
            bytes(backup.bytes),
            count(backup.positions),
            backup.log.chars().take(8).collect(),
        ]);
    }
    out.table(&table)
}

fn print_restore(report: &RestoreReport, out: &mut Out) -> Result<(), Failure> {
    if out.json {
        return out.value(report);
    }
    let RestoreReport { dir, from, bytes: all, events, .. } = report;
    out.line(&format!(
        "restored as of {}: {} with {} events in {dir}, every checksum verified",
        from.at,
        bytes(*all),
        count(*events)
    ))
}

/// How far it is, where somebody watches.
struct Progress {
    watched: bool,
}

impl Progress {
    fn new() -> Self {
        Self { watched: std::io::IsTerminal::is_terminal(&std::io::stderr()) }
    }

    fn tell(&self, done: u64, all: u64) {
        if self.watched {
            let percent = (done * 100).checked_div(all).unwrap_or(100);
            // Nobody left to watch is no failure.
            drop(write!(std::io::stderr(), "\rfetched {} of {} ({percent} %)\u{1b}[K", bytes(done), bytes(all)));
        }
    }

    fn end(&self) {
        if self.watched {
            drop(write!(std::io::stderr(), "\r\u{1b}[K"));
        }
    }
}

//! `bench`: what this program costs on this machine.
//!
//! One file per benchmark, and one for each thing they share: the machine, its disk, the copy of a pipeline that is
//! measured, the child process that runs it, the report. A pipeline is always run by a child process, so that the
//! figures are those of `millstream run` and not of the benchmark.

mod before;
mod child;
mod copy;
mod disk;
mod events;
mod hop;
mod latency;
mod load;
mod log;
mod machine;
mod pipeline;
mod quantiles;
mod report;
mod scratch;
mod usage;

use std::path::PathBuf;

use clap::Subcommand;

use self::disk::Disk;
use self::machine::Machine;
use self::report::Report;
use self::scratch::Scratch;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::terminal::Out;

/// Measure a pipeline, its latency, a hop, or the log alone
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
`millstream bench DIR` is short for `millstream bench pipeline DIR`.
Every result names the machine, the disk's own speed, the sync mode, the CPU time and the peak memory."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    pipeline: pipeline::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a pipeline from a file of events to files, as fast as it goes
    Pipeline(pipeline::Args),
    /// Send events by HTTP at a fixed rate and time the decisions
    Latency(latency::Args),
    /// Measure the embedded log alone: appending, catching up, opening
    Log(log::Args),
    /// Measure what one more service costs
    Hop(hop::Args),
}

/// What every benchmark can be told.
#[derive(Debug, Clone, clap::Args)]
struct Common {
    /// Work below this directory, on the disk to be measured
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    work: PathBuf,
    /// How much is written to measure the disk itself
    #[arg(long, value_name = "MiB", default_value_t = 512)]
    disk_mb: u64,
    /// Leave what was written there
    #[arg(long)]
    keep: bool,
    /// Also write the result to benchmarks/results/DATE-NAME.md
    #[arg(long)]
    save: bool,
}

impl Common {
    fn scratch(&self) -> Result<Scratch, Failure> {
        Scratch::make(&self.work, self.keep)
    }

    /// An empty report about work in `scratch`; measures its disk.
    fn report(&self, name: &str, scratch: &Scratch, sync: &str) -> Result<Report, Failure> {
        eprintln!("measuring the disk");
        Ok(Report::new(name, Machine::of(scratch.path()), Disk::measure(scratch.path(), self.disk_mb)?, sync))
    }
}

pub(crate) async fn run(args: Args, out: &mut Out) -> Result<Exit, Failure> {
    let (common, report) = match args.command {
        None => (args.pipeline.common.clone(), pipeline::run(&args.pipeline).await?),
        Some(Command::Pipeline(args)) => (args.common.clone(), pipeline::run(&args).await?),
        Some(Command::Latency(args)) => (args.common.clone(), latency::run(&args).await?),
        Some(Command::Log(args)) => (args.common.clone(), log::run(&args).await?),
        Some(Command::Hop(args)) => (args.common.clone(), hop::run(&args).await?),
    };
    finish(&common, &report, out)
}

fn finish(common: &Common, report: &Report, out: &mut Out) -> Result<Exit, Failure> {
    report.print(out)?;
    if common.save {
        eprintln!("written to {}", report.save()?.display());
    }
    Ok(if report.sound() { Exit::Done } else { Exit::Failed })
}

//! The commands, one file each.

mod apply;
mod completions;
mod dlq;
mod events;
mod init;
mod letters;
mod log;
mod plan;
mod run;
mod schema;
mod services;
mod show;
mod state;
mod tap;
mod test;
mod topics;
mod validate;

use clap::{Parser, Subcommand};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::terminal::Out;

const AFTER: &str = "\
Begin with:
  millstream init hello     write a small pipeline that runs
  millstream run hello      run it, and watch it from a second terminal

Exit codes: 0 done, 1 failed, 2 wrong command line, 78 wrong pipeline.";

/// Runs data pipelines as independent services over a durable event log
#[derive(Debug, Parser)]
#[command(name = "millstream", version, after_help = AFTER, max_term_width = 100, propagate_version = true)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Print data as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
    Run(run::Args),
    Validate(validate::Args),
    Show(show::Args),
    Test(test::Args),
    Plan(plan::Args),
    Apply(apply::Args),
    Tap(tap::Args),
    Topics(topics::Args),
    Services(services::Args),
    Dlq(dlq::Args),
    Log(log::Args),
    State(state::Args),
    Bench(crate::bench::Args),
    Schema(schema::Args),
    Completions(completions::Args),
}

impl Cli {
    /// Does what was asked.
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let mut out = Out::new(self.json);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let exit = match self.command {
            Command::Init(args) => init::run(&args, &mut out),
            Command::Run(args) => runtime.block_on(run::run(args, &mut out)),
            Command::Validate(args) => validate::run(&args, &mut out),
            Command::Show(args) => show::run(&args, &mut out),
            Command::Test(args) => runtime.block_on(test::run(&args, &mut out)),
            Command::Plan(args) => runtime.block_on(plan::run(&args, &mut out)),
            Command::Apply(args) => runtime.block_on(apply::run(&args, &mut out)),
            Command::Tap(args) => runtime.block_on(tap::run(args, &mut out)),
            Command::Topics(args) => runtime.block_on(topics::run(&args, &mut out)),
            Command::Services(args) => runtime.block_on(services::run(&args, &mut out)),
            Command::Dlq(args) => runtime.block_on(dlq::run(args, &mut out)),
            Command::Log(args) => runtime.block_on(log::run(&args, &mut out)),
            Command::State(args) => runtime.block_on(state::run(&args, &mut out)),
            Command::Bench(args) => runtime.block_on(crate::bench::run(args, &mut out)),
            Command::Schema(args) => schema::run(&args, &mut out),
            Command::Completions(args) => completions::run(&args, &mut out),
        };
        // Whoever blocks on standard input would hold up the end of the program.
        runtime.shutdown_background();
        let exit = exit?;
        out.flush()?;
        Ok(exit)
    }
}

//! The `millstream` binary: commands, output, exit codes.
//!
//! One file for each command under `command/`: its arguments, what it asks of the node, and how the answer looks.
//! Data goes to standard output and everything else to standard error; a reader that goes away is no failure.

mod bench;
mod client;
mod command;
mod exit;
mod failure;
mod stopped;
mod suggest;
mod target;
mod terminal;

use std::process::ExitCode;

use clap::Parser;
use tikv_jemallocator::Jemalloc;

use crate::command::Cli;
use crate::exit::Exit;
use crate::terminal::Style;

// A single event makes many small buffers: the system's allocator takes a tenth of its time more, and keeps more memory.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(said) => {
            let exit = if said.use_stderr() { Exit::Usage } else { Exit::Done };
            // Nobody left to read help or a usage error is no further failure.
            drop(said.print());
            return exit.into();
        }
    };
    match cli.run() {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.report(Style::stderr());
            failure.exit().into()
        }
    }
}

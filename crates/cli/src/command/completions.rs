//! `completions`: lets the shell complete commands.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::command::Cli;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::terminal::Out;

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For bash:  millstream completions bash > ~/.local/share/bash-completion/completions/millstream
For zsh:   millstream completions zsh > ~/.zfunc/_millstream   (with ~/.zfunc in fpath)
For fish:  millstream completions fish > ~/.config/fish/completions/millstream.fish")]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Exit, Failure> {
    // Into memory first: the generator panics where the reader has gone.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "millstream", &mut text);
    out.text(&String::from_utf8_lossy(&text))?;
    Ok(Exit::Done)
}

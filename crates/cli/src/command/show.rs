//! `show`: the pipeline as written.

use std::path::PathBuf;

use clap::ValueEnum;
use millstream_node::config::Config;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::terminal::Out;

/// Show the pipeline as written: who reads and writes what, with all columns
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The pipeline: a directory with pipeline.yaml, or a file
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,
    /// How to show it
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// How a pipeline is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For Graphviz: | dot -Tsvg > pipeline.svg
    Dot,
    /// For Markdown
    Mermaid,
    /// For programs (also: --json)
    Json,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Exit, Failure> {
    let loaded = Config::load(&args.path)?;
    let pipeline = millstream_node::plan(&loaded)?;
    let format = if out.json { Format::Json } else { args.format };
    match format {
        Format::Text => out.text(&pipeline.show_text())?,
        Format::Dot => out.text(&pipeline.show_dot())?,
        Format::Mermaid => out.text(&pipeline.show_mermaid())?,
        Format::Json => out.value(&pipeline.show_json())?,
    }
    Ok(Exit::Done)
}

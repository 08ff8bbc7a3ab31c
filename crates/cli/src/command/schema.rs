//! `schema`: the JSON Schema of the pipeline file.

use millstream_node::config::Config;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::terminal::Out;

/// Print the JSON Schema of pipeline.yaml, for editors
#[derive(Debug, clap::Args)]
#[command(after_help = "\
In an editor with the YAML language server: save it as pipeline.schema.json and begin pipeline.yaml with
  # yaml-language-server: $schema=pipeline.schema.json")]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args, out: &mut Out) -> Result<Exit, Failure> {
    out.value(&Config::json_schema())?;
    Ok(Exit::Done)
}

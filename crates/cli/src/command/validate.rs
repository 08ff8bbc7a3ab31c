//! `validate`: everything that is wrong with a pipeline, in one pass.

use std::path::PathBuf;

use millstream_node::config::Config;
use serde_json::json;

use crate::exit::Exit;
use crate::failure::{Failure, render};
use crate::target::shown;
use crate::terminal::{Out, Style};

/// Check a pipeline: columns, SQL, topics, keys; reports everything at once
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The pipeline: a directory with pipeline.yaml, or a file
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Exit, Failure> {
    let checked = Config::load(&args.path).and_then(|loaded| {
        let pipeline = millstream_node::plan(&loaded)?;
        Ok((loaded, pipeline))
    });
    let (loaded, pipeline) = match checked {
        Ok(checked) => checked,
        Err(diagnostics) if out.json => {
            out.value(&json!({"valid": false, "diagnostics": diagnostics}))?;
            return Ok(Exit::Config);
        }
        Err(diagnostics) => return Err(diagnostics.into()),
    };
    if out.json {
        out.value(&json!({"valid": true, "diagnostics": pipeline.warnings}))?;
        return Ok(Exit::Done);
    }
    if !pipeline.warnings.0.is_empty() {
        eprintln!("{}", render(&pipeline.warnings, Style::stderr()));
    }
    let config = &loaded.config;
    let parts = [
        (config.sources.len(), "source"),
        (config.services.len(), "service"),
        (config.sinks.len(), "sink"),
        (config.lookups.len(), "lookup"),
        (config.tests.len(), "test"),
    ];
    let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| counted(*n, what)).collect();
    let good = out.style.good("valid");
    out.line(&format!("{}: {good}: pipeline `{}`, {}", shown(&loaded.path), config.pipeline.value, parts.join(", ")))?;
    Ok(Exit::Done)
}

/// `1 sink`, `2 sinks`.
pub(crate) fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

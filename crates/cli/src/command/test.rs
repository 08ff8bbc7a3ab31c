//! `test`: runs the pipeline's own examples.

use std::path::PathBuf;

use millstream_node::config::{Config, TestSettings};
use millstream_node::testing::run_tests;
use serde_json::json;

use crate::command::validate::counted;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::terminal::Out;

/// Run the pipeline's tests: given these events, expect those
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The pipeline: a directory with pipeline.yaml, or a file
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,
    /// Only tests whose name contains this
    #[arg(short, long, value_name = "TEXT")]
    name: Option<String>,
}

pub(crate) async fn run(args: &Args, out: &mut Out) -> Result<Exit, Failure> {
    let loaded = Config::load(&args.path)?;
    let pipeline = millstream_node::plan(&loaded)?;
    let wanted = |name: &str| args.name.as_ref().is_none_or(|part| name.contains(part.as_str()));
    let tests: Vec<TestSettings> = loaded.config.tests.iter().filter(|t| wanted(&t.name.value)).cloned().collect();
    let results = run_tests(&pipeline, &tests).await;
    let failed = results.iter().filter(|r| !r.faults.is_empty()).count();
    let exit = if failed == 0 { Exit::Done } else { Exit::Failed };
    if out.json {
        let results =
            results.iter().map(|r| json!({"name": r.name, "passed": r.faults.is_empty(), "faults": r.faults}));
        out.value(&results.collect::<Vec<_>>())?;
        return Ok(exit);
    }
    let style = out.style;
    for result in &results {
        let mark = if result.faults.is_empty() { style.good("ok    ") } else { style.bad("FAILED") };
        out.line(&format!("{mark} {}", result.name))?;
        for line in result.faults.iter().flat_map(|fault| fault.lines()) {
            out.line(&format!("       {line}"))?;
        }
    }
    match (results.len(), failed) {
        (0, _) if args.name.is_some() => eprintln!("no test has a name like that"),
        (0, _) => eprintln!("no tests; write some under `tests:`"),
        (_, 0) => out.line(&format!("{} passed", counted(results.len(), "test")))?,
        _ => out.line(&format!("{failed} of {} failed", counted(results.len(), "test")))?,
    }
    Ok(exit)
}

//! `apply`: changes the running pipeline to what the file says.

use millstream_node::api::{Applied, paths};

use crate::command::plan;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::target::shown;
use crate::terminal::{Out, millis};

/// Change the running pipeline to what the file says; only what differs restarts
#[derive(Debug, clap::Args)]
#[command(after_help = "`millstream plan` shows beforehand what would change. To go back, apply the old file.")]
pub(crate) struct Args {
    #[command(flatten)]
    changed: plan::Changed,
}

pub(crate) async fn run(args: &Args, out: &mut Out) -> Result<Exit, Failure> {
    let (loaded, client) = args.changed.read().await?;
    let Some(client) = client else {
        return Err(Failure::refused(
            "node-stopped",
            format!("pipeline `{}` is not running, so there is nothing to change", loaded.config.pipeline.value),
            format!("`millstream run {}` starts it as the file says", shown(&args.changed.path)),
        ));
    };
    let applied: Applied = client.post(paths::APPLY, &plan::text(&loaded)).await?;
    if out.json {
        out.value(&applied)?;
        return Ok(Exit::Done);
    }
    plan::print(&applied.plan, out)?;
    if !applied.plan.changes.is_empty() {
        let (all, stop) = (millis(applied.elapsed_ms), millis(applied.longest_stop_ms));
        out.line(&format!("applied in {all} ms; no part stood still longer than {stop} ms"))?;
    }
    Ok(Exit::Done)
}

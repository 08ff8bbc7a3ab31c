//! `plan`: what `apply` would change on the running node.

use std::path::PathBuf;

use millstream_node::api::{Change, ChangeKind, PartKind, PipelineText, Plan, paths};
use millstream_node::config::{Config, Loaded};

use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::terminal::{Out, Style};

/// Show what `apply` would change; nothing is changed
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    changed: Changed,
}

/// A changed pipeline, and the node that runs it.
#[derive(Debug, clap::Args)]
pub(crate) struct Changed {
    /// The changed pipeline: a directory with pipeline.yaml, or a file
    #[arg(value_name = "PATH", default_value = ".")]
    pub(crate) path: PathBuf,
    /// The node, if it is not the one that runs this pipeline here
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
}

impl Changed {
    /// The file, once nothing is wrong with it, and the node: the one named, or the one that runs this pipeline.
    pub(crate) async fn read(&self) -> Result<(Loaded, Option<Client>), Failure> {
        let loaded = Config::load(&self.path)?;
        millstream_node::plan(&loaded)?;
        let client = match &self.address {
            Some(address) => Some(Client::new(address)?),
            None => crate::target::running(&loaded).await?,
        };
        Ok((loaded, client))
    }
}

pub(crate) async fn run(args: &Args, out: &mut Out) -> Result<Exit, Failure> {
    let (loaded, client) = args.changed.read().await?;
    let plan: Plan = match client {
        Some(client) => client.post(paths::PLAN, &text(&loaded)).await?,
        None => {
            eprintln!("pipeline `{}` is not running; compared with what ran last", loaded.config.pipeline.value);
            crate::stopped::plan(&loaded).await?
        }
    };
    print(&plan, out)?;
    Ok(if plan.refused() { Exit::Failed } else { Exit::Done })
}

/// The file and everything it names, to be judged by the node.
pub(crate) fn text(loaded: &Loaded) -> PipelineText {
    PipelineText {
        file: loaded.path.display().to_string(),
        yaml: loaded.text.clone(),
        sql_files: loaded.sql_files.iter().cloned().collect(),
    }
}

/// What differs, grouped by nothing: the order is the node's.
pub(crate) fn print(plan: &Plan, out: &mut Out) -> Result<(), Failure> {
    if out.json {
        return out.value(plan);
    }
    let style = out.style;
    for warning in &plan.warnings {
        eprintln!("{}", crate::failure::render(&warning.clone().into(), Style::stderr()));
    }
    if plan.changes.is_empty() {
        return out.line(&format!("no changes: `{}` runs as written", plan.pipeline));
    }
    for change in &plan.changes {
        for line in lines(change, style) {
            out.line(&line)?;
        }
    }
    if !plan.unchanged.is_empty() {
        out.line(&style.dim(&format!("goes on unchanged: {}", plan.unchanged.join(", "))))?;
    }
    Ok(())
}

fn lines(change: &Change, style: Style) -> Vec<String> {
    let part = match change.part {
        PartKind::Topic => "topic",
        PartKind::Lookup => "lookup",
        PartKind::Source => "source",
        PartKind::Service => "service",
        PartKind::Sink => "sink",
        PartKind::Setting => "setting",
    };
    let name = format!("{part} {}", change.name);
    let mut lines = vec![match change.change {
        ChangeKind::Added => style.good(&format!("+ {name}")),
        ChangeKind::Removed => style.bad(&format!("- {name}")),
        ChangeKind::Changed => style.warn(&format!("~ {name}")),
        ChangeKind::Restart => style.warn(&format!("! {name} (at the next start)")),
        ChangeKind::Refused => style.bad(&format!("x {name}: refused")),
    }];
    lines.extend(change.reason.iter().flat_map(|r| r.lines()).map(|l| format!("    {l}")));
    lines.extend(change.details.iter().map(|d| format!("    {d}")));
    if change.details.is_empty() && change.change == ChangeKind::Refused {
        lines.extend(change.before.iter().map(|b| format!("    now:   {b}")));
        lines.extend(change.after.iter().map(|a| format!("    asked: {a}")));
    }
    lines
}

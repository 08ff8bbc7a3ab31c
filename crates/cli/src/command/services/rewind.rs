//! `services rewind`: a service reads again what it has read.

use millstream_node::api::{RewindAnswer, RewindRequest, paths};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::target::{Target, TargetArgs};
use crate::terminal::{Out, confirm, count};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The service
    name: String,
    /// Where to: `start`, an offset, or the time at which events came in, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "PLACE")]
    to: String,
    /// What becomes of its results until it is where it was: `suppress`, `append`, or a topic for them. No default
    #[arg(long, value_name = "suppress|append|TOPIC")]
    outputs: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

pub(super) async fn run(args: &Args, target: &TargetArgs, out: &mut Out) -> Result<Exit, Failure> {
    let request = |preview| RewindRequest { to: args.to.clone(), outputs: args.outputs.clone(), preview };
    let found = target.find().await?;
    let ask = async |request: RewindRequest| -> Result<RewindAnswer, Failure> {
        match &found {
            Target::Running(client) => client.post(&paths::fill(paths::REWIND, &args.name), &request).await,
            Target::Stopped(loaded) => crate::stopped::rewind(loaded, &args.name, request).await,
        }
    };
    let plan = ask(request(true)).await?;
    if !out.json {
        for line in lines(&plan) {
            eprintln!("{line}");
        }
    }
    if !confirm(&format!("Rewind `{}`?", args.name), args.yes)? {
        eprintln!("nothing was done");
        return Ok(Exit::Failed);
    }
    let answer = ask(request(false)).await?;
    if out.json {
        out.value(&answer)?;
    } else {
        let tasks = if answer.rewound == answer.tasks { "all".to_owned() } else { count(u64::from(answer.rewound)) };
        out.line(&format!("`{}` was rewound ({tasks} of {} partitions)", answer.service, answer.tasks))?;
    }
    Ok(Exit::Done)
}

/// What it would do, for a person.
fn lines(plan: &RewindAnswer) -> Vec<String> {
    let mut lines = vec![format!("rewinding `{}` to {}:", plan.service, plan.to)];
    for input in &plan.inputs {
        let partitions = if input.partitions == 1 { "partition" } else { "partitions" };
        lines.push(format!(
            "  {}: up to {} events in {} {partitions} are read again",
            input.topic,
            count(input.events),
            input.partitions
        ));
    }
    if !plan.twice.is_empty() {
        lines.push(format!("  written a second time: {}", plan.twice.join(", ")));
    }
    lines.extend(plan.notes.iter().map(|note| format!("  {note}")));
    lines
}

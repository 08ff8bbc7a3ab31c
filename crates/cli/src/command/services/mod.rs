//! `services`: how the services are doing; pause, resume, scale and rewind one of them.

mod rewind;

use clap::Subcommand;
use millstream_node::api::{
    BackupState, HeldBack, Phase, RunState, ScaleRequest, ServiceAnswer, ServiceStatus, Status, paths,
};
use serde_json::json;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::target::TargetArgs;
use crate::terminal::{Align, Out, Style, Table, count, duration, millis, rate};

/// Show the services; pause, resume, scale or rewind one while the others go on
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: TargetArgs,
    #[command(subcommand)]
    order: Option<Order>,
}

#[derive(Debug, Subcommand)]
enum Order {
    /// Stop a service at its next commit; its events wait in the log
    Pause {
        /// The service
        name: String,
    },
    /// Let a paused service go on where it stopped
    Resume {
        /// The service
        name: String,
    },
    /// Share a service's partitions among so many instances
    Scale {
        /// The service
        name: String,
        /// Instances, at least 1
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        instances: u32,
    },
    /// Let a service read again what it has read, with empty state
    Rewind(rewind::Args),
}

pub(crate) async fn run(args: &Args, out: &mut Out) -> Result<Exit, Failure> {
    let Some(order) = &args.order else {
        return list(&args.target, out).await;
    };
    if let Order::Rewind(order) = order {
        return rewind::run(order, &args.target, out).await;
    }
    let client = args.target.node("this").await?;
    let (answer, already): (ServiceAnswer, &str) = match order {
        Order::Pause { name } => (client.post(&paths::fill(paths::PAUSE, name), &json!({})).await?, "paused"),
        Order::Resume { name } => (client.post(&paths::fill(paths::RESUME, name), &json!({})).await?, "running"),
        Order::Scale { name, instances } => {
            let request = ScaleRequest { instances: *instances };
            (client.post(&paths::fill(paths::SCALE, name), &request).await?, "so")
        }
        Order::Rewind(_) => return Ok(Exit::Done),
    };
    if out.json {
        out.value(&answer)?;
        return Ok(Exit::Done);
    }
    let service = &answer.service;
    let state = state_text(service.state, out.style);
    let already = if answer.changed { String::new() } else { format!(" (it was {already} already)") };
    let instances = match service.instances {
        1 => "1 instance".to_owned(),
        n => format!("{n} instances"),
    };
    out.line(&format!("{}: {state}, {instances}, lag {}{already}", service.name, count(service.lag)))?;
    if let Some(reason) = &service.reason {
        out.line(&format!("  {reason}"))?;
    }
    Ok(Exit::Done)
}

async fn list(target: &TargetArgs, out: &mut Out) -> Result<Exit, Failure> {
    let status: Status = target.status().await?;
    let stopped = status.phase == Phase::Stopped;
    if out.json {
        out.value(&status.known()?)?;
        return Ok(Exit::Done);
    }
    if stopped {
        eprintln!(
            "pipeline `{}` is not running; this is what its log says (DEAD: dead letters that are open)",
            status.pipeline
        );
    }
    let mut table = Table::new(&[
        ("SERVICE", Align::Left),
        ("STATE", Align::Left),
        ("IN/S", Align::Right),
        ("OUT/S", Align::Right),
        ("IN", Align::Right),
        ("OUT", Align::Right),
        ("LAG", Align::Right),
        ("DEAD", Align::Right),
        ("RESTARTS", Align::Right),
        ("COMMIT p50/p99 ms", Align::Right),
        ("INST", Align::Right),
        ("VERSION", Align::Left),
        ("WATERMARK", Align::Left),
    ]);
    for service in &status.services {
        table.row(row(service, stopped, out.style));
    }
    out.table(&table)?;
    for service in &status.services {
        if let Some(line) = held_back(service) {
            out.line(&line)?;
        }
    }
    let sources = status.sources.iter().map(|s| (&s.name, &s.reason));
    let services = status.services.iter().map(|s| (&s.name, &s.reason));
    let sinks = status.sinks.iter().map(|s| (&s.name, &s.reason));
    let lookups = status.lookups.iter().map(|l| (&l.name, &l.error));
    for (name, reason) in sources.chain(services).chain(sinks).chain(lookups) {
        if let Some(reason) = reason {
            out.line(&format!("{name}: {reason}"))?;
        }
    }
    if let Some(backup) = &status.backup {
        out.line(&backup_text(backup, out.style))?;
    }
    Ok(Exit::Done)
}

/// Whom a service waits for, where that is worth a line: producers of one topic are never quite level.
fn held_back(service: &ServiceStatus) -> Option<String> {
    const WORTH_S: f64 = 1.0;
    let held = service.held_back.as_ref()?;
    let behind = match held.behind_s {
        Some(seconds) if seconds < WORTH_S => return None,
        Some(seconds) => format!("is {} behind the furthest", seconds_text(seconds)),
        None => "has not opened".to_owned(),
    };
    let HeldBack { producer, partition, topic, .. } = held;
    Some(format!(
        "{}: its watermark waits for `{producer}` partition {partition} in topic `{topic}`, which {behind}",
        service.name
    ))
}

fn seconds_text(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.1} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

/// How backups stand, in a line.
fn backup_text(backup: &BackupState, style: Style) -> String {
    let since = duration(backup.seconds_since_success);
    match (&backup.last_success, &backup.error) {
        (_, Some(error)) => style.bad(&format!("backup: none for {since}: {error}")),
        (Some(at), None) => format!("backup: {since} ago ({at}) to {}", backup.to),
        (None, None) => format!("backup: the first is on its way to {}", backup.to),
    }
}

/// What only a running node counts is a dash for a stopped one.
fn row(service: &ServiceStatus, stopped: bool, style: Style) -> Vec<String> {
    let counted = |text: String| if stopped { "-".to_owned() } else { text };
    let latency = match &service.commit_latency {
        Some(latency) => format!("{} / {}", millis(latency.p50_ms), millis(latency.p99_ms)),
        None => "-".into(),
    };
    vec![
        service.name.clone(),
        state_text(service.state, style),
        counted(rate(service.in_per_s)),
        counted(rate(service.out_per_s)),
        counted(count(service.events_in)),
        counted(count(service.events_out)),
        count(service.lag),
        count(service.dead_letters),
        counted(count(service.restarts)),
        latency,
        service.instances.to_string(),
        service.version.chars().take(8).collect(),
        service.watermark.clone().unwrap_or_else(|| "-".into()),
    ]
}

/// A state in its colour.
pub(crate) fn state_text(state: RunState, style: Style) -> String {
    match state {
        RunState::Starting => style.warn("starting"),
        RunState::Running => style.good("running"),
        RunState::Finished => style.good("finished"),
        RunState::Paused => style.warn("paused"),
        RunState::Waiting => style.warn("waiting"),
        RunState::Restarting => style.bad("restarting"),
        RunState::Failed => style.bad("failed"),
        RunState::Stopped => style.warn("stopped"),
    }
}

//! `topics`: what there is, and what one of them looks like.

use millstream_node::api::{Topic, Topics, paths};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::target::{Target, TargetArgs};
use crate::terminal::{Align, Out, Table, bytes, count};

/// Show the topics, or one with its columns and partitions
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this topic, in detail
    name: Option<String>,
    /// Also the topics that the system keeps for itself
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn run(args: &Args, out: &mut Out) -> Result<Exit, Failure> {
    let mut topics = match args.target.find().await? {
        Target::Running(client) => client.get::<Topics>(paths::TOPICS).await?,
        Target::Stopped(loaded) => crate::stopped::topics(&loaded).await?,
    };
    if let Some(name) = &args.name {
        let Some(topic) = topics.topics.iter().find(|t| t.name == *name) else {
            let names: Vec<&str> = topics.topics.iter().filter(|t| !t.internal).map(|t| t.name.as_str()).collect();
            return Err(crate::suggest::unknown("topic", name, &names));
        };
        return detail(topic, out);
    }
    topics.topics.retain(|t| args.all || !t.internal);
    if out.json {
        out.value(&topics)?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&[
        ("TOPIC", Align::Left),
        ("EVENTS", Align::Right),
        ("PARTITIONS", Align::Right),
        ("KEY", Align::Left),
        ("WRITTEN BY", Align::Left),
        ("READ BY", Align::Left),
    ]);
    for topic in &topics.topics {
        table.row(vec![
            topic.name.clone(),
            count(topic.events),
            topic.partitions.len().to_string(),
            list(&topic.key),
            list(&topic.writers),
            list(&topic.readers),
        ]);
    }
    out.table(&table)?;
    Ok(Exit::Done)
}

fn detail(topic: &Topic, out: &mut Out) -> Result<Exit, Failure> {
    if out.json {
        out.value(topic)?;
        return Ok(Exit::Done);
    }
    let style = out.style;
    out.line(&style.bold(&topic.name))?;
    let size = topic.bytes.map(|b| format!(", {}", bytes(b))).unwrap_or_default();
    for (name, value) in [
        ("events", format!("{}{size}", count(topic.events))),
        ("key", list(&topic.key)),
        ("event time", topic.event_time.clone().unwrap_or_else(|| "-".into())),
        ("retention", topic.retention.clone()),
        ("written by", list(&topic.writers)),
        ("read by", list(&topic.readers)),
    ] {
        out.line(&format!("  {}{value}", style.dim(&format!("{name:<12}"))))?;
    }
    out.line(&format!("  {}", style.dim(&format!("columns (version {})", topic.schema_version))))?;
    let wide = topic.columns.iter().map(|c| c.name.len()).max().unwrap_or(0);
    for column in &topic.columns {
        out.line(&format!("    {:<wide$}  {}", column.name, column.kind))?;
    }
    let mut table =
        Table::new(&[("PARTITION", Align::Right), ("START", Align::Right), ("END", Align::Right)]).indent(2);
    for partition in &topic.partitions {
        table.row(vec![partition.partition.to_string(), partition.start.to_string(), partition.end.to_string()]);
    }
    out.table(&table)?;
    Ok(Exit::Done)
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "-".into() } else { names.join(", ") }
}

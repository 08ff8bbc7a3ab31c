//! `tap`: watch the events of a topic.

use millstream_node::api::{EventLine, EventsQuery, From, paths};

use crate::client::events_path;
use crate::command::events::print;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::target::{Target, TargetArgs};
use crate::terminal::{Out, count};

/// How many events are shown unless more are asked for, or what comes is followed.
const SHOWN: u64 = 10_000;

/// Watch the events of a topic, one JSON object per line
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream tap transactions --limit 5
  millstream tap scored --where \"score >= 0.9\" --follow
  millstream tap blocked --from -20 | jq .amount
  millstream tap spend --table")]
pub(crate) struct Args {
    /// The topic
    topic: String,
    /// Where to begin: earliest, latest, an offset, or -N for the last N events
    /// [default: earliest; latest with --follow]
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
    from: Option<From>,
    /// Stop after so many events
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<u64>,
    /// Only events for which this SQL predicate is true
    #[arg(short = 'w', long = "where", value_name = "SQL")]
    filter: Option<String>,
    /// Stay and show what comes
    #[arg(short, long)]
    follow: bool,
    /// Only this partition
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Of a table topic: the newest row of each key, as it is now
    #[arg(long, conflicts_with_all = ["follow", "from"])]
    table: bool,
    /// Only the event, without its place and time
    #[arg(long)]
    bare: bool,
    #[command(flatten)]
    target: TargetArgs,
}

impl Args {
    fn query(&self) -> EventsQuery {
        let from = if self.follow { From::Latest } else { From::Earliest };
        EventsQuery {
            from: self.from.unwrap_or(from),
            limit: self.limit.or((!self.follow).then_some(SHOWN)),
            filter: self.filter.clone(),
            follow: self.follow,
            partition: self.partition,
            table: self.table,
        }
    }

    /// Says what a person could miss.
    fn end(&self, shown: u64, out: &mut Out) -> Result<Exit, Failure> {
        out.flush()?;
        if shown == 0 {
            eprintln!("no events{}", if self.filter.is_some() { " for which that is true" } else { "" });
        } else if shown == SHOWN && self.limit.is_none() && !self.follow {
            eprintln!("these are {}; --limit N shows more", count(shown));
        }
        Ok(Exit::Done)
    }
}

pub(crate) async fn run(args: Args, out: &mut Out) -> Result<Exit, Failure> {
    let query = args.query();
    let client = match args.target.find().await? {
        Target::Running(client) => client,
        Target::Stopped(loaded) if query.follow => {
            return Err(Failure::refused(
                "node-stopped",
                format!("pipeline `{}` is not running, so nothing new will come", loaded.config.pipeline.value),
                "leave --follow away to see what is in its log",
            ));
        }
        Target::Stopped(loaded) => {
            let lines = crate::stopped::events(&loaded, &args.topic, &query).await?;
            for line in &lines {
                print(line, args.bare, out)?;
            }
            return args.end(lines.len() as u64, out);
        }
    };
    let mut lines = client.lines(&events_path(&paths::fill(paths::EVENTS, &args.topic), &query)?).await?;
    let mut shown = 0u64;
    loop {
        let line = tokio::select! {
            line = lines.next() => line?,
            // Watching ends when the watcher says so; that is no failure.
            _ = tokio::signal::ctrl_c() => None,
        };
        let Some(line) = line else { break };
        match serde_json::from_slice(&line)? {
            EventLine::Error { error } => {
                out.flush()?;
                return Err(error.into());
            }
            event => print(&event, args.bare, out)?,
        }
        shown += 1;
        if query.follow {
            out.flush()?;
        }
    }
    args.end(shown, out)
}

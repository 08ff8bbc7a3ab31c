//! `run`: starts the pipeline and stays with it.

mod fresh;
mod holder;
mod live;
mod plain;
mod report;
mod screen;
mod signals;
mod summary;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use millstream_node::api::{ApiError, DrainSummary};
use millstream_node::config::{Config, Loaded, Sync};
use millstream_node::{Node, NodeOptions};

use self::report::{Memory, Report};
use self::signals::Signals;
use crate::exit::Exit;
use crate::failure::{Failure, render};
use crate::target::{Note, data_dir, shown};
use crate::terminal::{Out, Style};

/// How often the live status is drawn.
const TICK: Duration = Duration::from_millis(250);
/// How many ticks lie between two plain lines: five seconds.
const TICKS_PER_LINE: u64 = 20;
/// The environment variable that lets faults be injected.
const FAULTS_ENV: &str = "MILLSTREAM_ALLOW_FAULTS";
/// How long the first signal leaves for finishing what is in flight.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Run a pipeline; a second run goes on where the first stopped
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The first Ctrl-C (or SIGTERM) finishes what is in flight, at most 30 s; the second stops at once. Both are safe.
MILLSTREAM_LOG=debug shows what the program notes to itself.")]
pub(crate) struct Args {
    /// The pipeline: a directory with pipeline.yaml, or a file
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,
    /// End when the sources that have an end are read and everything is processed
    #[arg(long)]
    drain: bool,
    /// Forget what the log holds and begin anew; asks first
    #[arg(long)]
    fresh: bool,
    /// Do not ask
    #[arg(short, long, requires = "fresh")]
    yes: bool,
    /// Listen here instead of the file's `server.listen`; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<SocketAddr>,
    /// When a commit counts as durable, instead of the file's `log.embedded.sync`
    #[arg(long, value_enum, value_name = "MODE")]
    sync: Option<SyncMode>,
    /// Plain lines also on a terminal
    #[arg(long)]
    plain: bool,
}

/// `--sync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SyncMode {
    /// After a sync to disk shared with all commits that wait (the default)
    Group,
    /// At once, with a sync every 50 ms
    Interval,
    /// At once; the operating system writes when it likes
    Never,
}

pub(crate) async fn run(args: Args, out: &mut Out) -> Result<Exit, Failure> {
    let mut loaded = Config::load(&args.path)?;
    override_settings(&args, &mut loaded);
    let pipeline = millstream_node::plan(&loaded)?;
    if !pipeline.warnings.0.is_empty() {
        eprintln!("{}", render(&pipeline.warnings, Style::stderr()));
    }
    if args.fresh && !fresh::forget(&loaded, args.yes).await? {
        eprintln!("nothing was done");
        return Ok(Exit::Failed);
    }
    let prints_data = loaded.config.sinks.iter().any(|(_, sink)| sink.stdout.is_some());
    let data_on_terminal = prints_data && std::io::stdout().is_terminal();
    let report = Report::new(std::io::stderr().is_terminal() && !args.plain && !data_on_terminal);
    report.take_log_lines();

    let mut signals = Signals::new()?;
    let inject_faults = std::env::var_os(FAULTS_ENV).is_some_and(|v| v == "1");
    if inject_faults {
        report.say(&format!("{FAULTS_ENV}=1: faults may be injected over HTTP; for proofs, never in production"))?;
    }
    let options = NodeOptions { drain: args.drain, inject_faults };
    let node = Node::start(&loaded, pipeline, options).await.map_err(|error| name_holder(error, &loaded))?;
    let note = Note { pid: std::process::id(), address: node.address().to_string() };
    let note = note.leave(&data_dir(&loaded))?;
    for line in banner(&node, &loaded, &args.path, Style::stderr()) {
        report.say(&line)?;
    }
    let ended = stay(&node, &args, &report, &mut signals).await;
    // Taken away before the screen's last lines, so that nobody finds a node that is about to go.
    drop(note);
    report.close();
    let summary = match ended? {
        Ended::Summary(summary) => summary,
        Ended::AtOnce => {
            eprintln!("stopped at once; the next run goes on from the last commit");
            return Ok(Exit::Failed);
        }
    };
    say_summary(&summary, &args, prints_data, out)?;
    Ok(if args.drain && !summary.complete { Exit::Failed } else { Exit::Done })
}

/// How a run ends.
enum Ended {
    /// In order.
    Summary(Box<DrainSummary>),
    /// By a second signal.
    AtOnce,
}

/// Shows the status until everything is processed or a signal comes.
async fn stay(node: &Node, args: &Args, report: &Report, signals: &mut Signals) -> Result<Ended, Failure> {
    let mut ticks = tokio::time::interval(TICK);
    let mut memory = Memory::default();
    let mut done = std::pin::pin!(node.finished());
    loop {
        tokio::select! {
            _ = ticks.tick() => report.tick(node.status().await, &mut memory, TICKS_PER_LINE)?,
            () = signals.next() => break,
            ended = &mut done => {
                ended?;
                return Ok(Ended::Summary(Box::new(node.shutdown(STOP_TIMEOUT).await?)));
            }
        }
    }
    if !report.is_live() {
        report.say("finishing what is in flight; a second signal stops at once")?;
    }
    let mut shutdown = std::pin::pin!(node.shutdown(STOP_TIMEOUT));
    loop {
        tokio::select! {
            ended = &mut shutdown => {
                let mut summary = ended?;
                summary.complete &= args.drain;
                return Ok(Ended::Summary(Box::new(summary)));
            }
            () = signals.next() => return Ok(Ended::AtOnce),
            _ = ticks.tick() => report.tick(node.status().await, &mut memory, TICKS_PER_LINE)?,
        }
    }
}

/// Says who holds a port that is taken.
fn name_holder(mut error: ApiError, loaded: &Loaded) -> Failure {
    let holder = || holder::of_port(loaded.config.server.listen.port());
    if let Some((pid, program)) = (error.code == "port-taken").then(holder).flatten() {
        error.message = format!("{} is in use by process {pid} ({program})", loaded.config.server.listen);
        error.help = Some("stop it, or choose another address with --listen".into());
    }
    error.into()
}

fn override_settings(args: &Args, loaded: &mut Loaded) {
    if let Some(listen) = args.listen {
        loaded.config.server.listen = listen;
    }
    if let Some(sync) = args.sync {
        loaded.config.log.embedded.sync = match sync {
            SyncMode::Group => Sync::Group,
            SyncMode::Interval => Sync::Interval(Duration::from_millis(50)),
            SyncMode::Never => Sync::Never,
        };
    }
}

fn say_summary(summary: &DrainSummary, args: &Args, prints_data: bool, out: &mut Out) -> Result<(), Failure> {
    if out.json {
        return out.value(summary);
    }
    let lines = summary::lines(summary, args.drain, if prints_data { Style::stderr() } else { out.style });
    // Where events go to standard output, a table between them would spoil them.
    if prints_data {
        lines.iter().for_each(|line| eprintln!("{line}"));
        return Ok(());
    }
    // A run that was stopped by hand has been watched; the figures are enough.
    let skip = if args.drain { 0 } else { lines.len().saturating_sub(2 + summary.failed.len()) };
    lines.iter().skip(skip).try_for_each(|line| out.line(line))
}

/// What a person wants to know first: where it is, and what can be done with it.
fn banner(node: &Node, loaded: &Loaded, path: &Path, style: Style) -> Vec<String> {
    let config = &loaded.config;
    let at = if path == Path::new(".") { String::new() } else { format!(" -p {}", shown(path)) };
    let mut lines = vec![
        format!(
            "millstream {} runs {} at {}",
            env!("CARGO_PKG_VERSION"),
            style.bold(config.pipeline.value.as_str()),
            style.bold(&format!("http://{}", node.address()))
        ),
        format!("  data     {} ({})", shown(&data_dir(loaded)), if node.resumed() { "resumed" } else { "new" }),
    ];
    for name in node.paused() {
        lines.push(format!("  paused   {} as before; millstream services resume {name}{at}", style.warn(&name)));
    }
    let topic = loaded.config.sinks.first().and_then(|(_, sink)| sink.from.first());
    let topic = topic.map(|t| t.value.to_string());
    let refuses = config.services.iter().find(|(_, s)| !s.check.is_empty()).or(config.services.first());
    let mut next = Vec::new();
    next.extend(topic.map(|t| (format!("millstream tap {t} --follow{at}"), "watch events")));
    next.push((format!("millstream services{at}"), "rates, lag, latency; pause, resume, scale"));
    next.extend(refuses.map(|(s, _)| (format!("millstream dlq list {}{at}", s.value), "what was refused, and why")));
    let wide = next.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    for (i, (command, what)) in next.iter().enumerate() {
        let head = if i == 0 { "  try      " } else { "           " };
        lines.push(format!("{head}{command:<wide$}  {}", style.dim(what)));
    }
    lines
}

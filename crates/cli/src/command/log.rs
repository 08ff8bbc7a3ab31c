//! `log`: the files below, their figures and their health.

use clap::Subcommand;
use millstream_node::api::{LogStat, RepairReport, VerifyReport, paths};
use millstream_node::config::Config;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::target::{Target, TargetArgs, data_dir, shown};
use crate::terminal::{Align, Out, Table, bytes, confirm, count};

/// Look at the log below: its size, its health, and its repair
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show its size, by topic
    Stat,
    /// Read every byte and compute every checksum again; changes nothing
    Verify,
    /// Make a damaged log open again, giving up what cannot be read
    Repair {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

pub(crate) async fn run(args: &Args, out: &mut Out) -> Result<Exit, Failure> {
    match &args.command {
        Command::Stat => {
            let stat = match args.target.find().await? {
                Target::Running(client) => client.get(paths::LOG_STAT).await?,
                Target::Stopped(loaded) => crate::stopped::log_stat(&loaded).await?,
            };
            print_stat(&stat, out)?;
            Ok(Exit::Done)
        }
        Command::Verify => {
            let report = crate::stopped::verify(&Config::load(&args.target.pipeline)?).await?;
            print_verify(&report, out)?;
            Ok(if report.sound() { Exit::Done } else { Exit::Failed })
        }
        Command::Repair { yes } => {
            let loaded = Config::load(&args.target.pipeline)?;
            crate::stopped::log_is_free(&loaded).await?;
            let question = format!(
                "Repair the log in {}? Commits that cannot be read are given up (their bytes are kept beside it).",
                shown(&data_dir(&loaded))
            );
            if !confirm(&question, *yes)? {
                eprintln!("nothing was done");
                return Ok(Exit::Failed);
            }
            print_repair(&crate::stopped::repair(&loaded).await?, out)?;
            Ok(Exit::Done)
        }
    }
}

fn print_stat(stat: &LogStat, out: &mut Out) -> Result<(), Failure> {
    if out.json {
        return out.value(stat);
    }
    let style = out.style;
    let mut lines = vec![
        ("where", stat.dir.clone()),
        ("on disk", bytes(stat.bytes)),
        (
            "journal",
            format!("{} in {} segments, {} free", bytes(stat.journal_bytes), stat.segments, stat.segments_free),
        ),
        ("settled", bytes(stat.settled_bytes)),
        ("sync", stat.sync.clone()),
    ];
    if let (Some(commits), Some(syncs)) = (stat.commits, stat.syncs) {
        lines.push(("commits", format!("{} in {} syncs since it was opened", count(commits), count(syncs))));
    }
    if let Some(why) = &stat.stopped {
        lines.push(("stopped", style.bad(why)));
    }
    for (name, value) in lines {
        out.line(&format!("{}{value}", style.dim(&format!("{name:<9}"))))?;
    }
    let mut table = Table::new(&[
        ("TOPIC", Align::Left),
        ("EVENTS", Align::Right),
        ("PARTITIONS", Align::Right),
        ("JOURNAL", Align::Right),
        ("SETTLED", Align::Right),
        ("FILES", Align::Right),
    ]);
    for topic in &stat.topics {
        table.row(vec![
            topic.topic.clone(),
            count(topic.events),
            topic.partitions.to_string(),
            bytes(topic.journal_bytes),
            bytes(topic.settled_bytes),
            count(topic.files),
        ]);
    }
    if table.is_empty() { Ok(()) } else { out.table(&table) }
}

fn print_verify(report: &VerifyReport, out: &mut Out) -> Result<(), Failure> {
    if out.json {
        return out.value(report);
    }
    let style = out.style;
    for fault in &report.faults {
        let mark = if fault.harmless { style.warn("torn tail") } else { style.bad("damaged") };
        out.line(&format!("{mark} {} at byte {}: {}", fault.file, fault.at_byte, fault.message))?;
        if !fault.topics.is_empty() {
            out.line(&format!("  touches {}", fault.topics.join(", ")))?;
        }
    }
    for note in &report.notes {
        out.line(&format!("  {note}"))?;
    }
    let read = format!("{} files, {}, {} groups of commits", report.files, bytes(report.bytes), count(report.groups));
    if report.sound() {
        let torn =
            if report.faults.is_empty() { "" } else { "; opening removes the torn tail, which nobody was told of" };
        return out.line(&format!("{}: {read}{torn}", style.good("sound")));
    }
    out.line(&format!("{}: {read}", style.bad("damaged")))?;
    eprintln!("`millstream log repair` makes it open again; a copy of {} first is wise", report.dir);
    Ok(())
}

fn print_repair(report: &RepairReport, out: &mut Out) -> Result<(), Failure> {
    if out.json {
        return out.value(report);
    }
    for action in &report.actions {
        out.line(action)?;
    }
    if report.actions.is_empty() {
        return out.line("nothing had to be given up");
    }
    let events = report.events_lost.map(|n| format!("{} events", count(n))).unwrap_or_default();
    let kept = report.kept.as_ref().map(|dir| format!("; the damaged files are kept in {dir}")).unwrap_or_default();
    out.line(&format!("given up: {events}{kept}"))
}

//! `bench pipeline`: from a file of events to files, as fast as it goes.

use std::path::PathBuf;

use millstream_node::api::{DrainSummary, Status};
use millstream_node::config::{Config, Loaded};
use millstream_node::service::log::{EmbeddedOptions, TopicStat, stat};
use serde_json::{Value, json};

use super::child::{Drained, drain};
use super::copy::{Copy, Input};
use super::report::{Report, per_event};
use super::{Common, Scratch, events};
use crate::failure::Failure;
use crate::terminal::{Align, count};

/// What a pipeline shall do on a CPU, in events per second.
const GOAL_PER_CPU_S: f64 = 300_000.0;
/// The most memory it shall take.
const GOAL_RSS_BYTES: u64 = 400_000_000;

#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// The pipeline: a directory with pipeline.yaml, or a file
    #[arg(value_name = "DIR", default_value = ".")]
    path: PathBuf,
    /// How many events are made up, after the pipeline's own `generate` source
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    events: u64,
    /// Take these events (NDJSON) instead
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) common: Common,
}

/// What went in, as far as it is known from outside.
struct Known {
    events: Option<u64>,
    bytes: Option<u64>,
}

pub(super) async fn run(args: &Args) -> Result<Report, Failure> {
    let loaded = Config::load(&args.path)?;
    let scratch = args.common.scratch()?;
    let sync = format!("{:?}", loaded.config.log.embedded.sync).to_lowercase();
    let mut report = args.common.report(loaded.config.pipeline.value.as_str(), &scratch, &sync)?;
    let (copy, known) = prepare(args, &loaded, &scratch)?;
    eprintln!("running the pipeline");
    let drained = drain(&copy).await?;
    tell(&mut report, &drained, &known);
    tell_log(&mut report, &copy)?;
    check(&mut report, &drained.summary, &known, &copy)?;
    Ok(report)
}

fn prepare(args: &Args, loaded: &Loaded, scratch: &Scratch) -> Result<(Copy, Known), Failure> {
    let dir = scratch.dir("pipeline")?;
    if let Some(file) = &args.file {
        let file = std::path::absolute(file)?;
        let events = events::lines_of(&file)?.len() as u64;
        let known = Known { events: Some(events), bytes: Some(std::fs::metadata(&file)?.len()) };
        return Ok((Copy::of(loaded, &dir, Input::File(&file))?, known));
    }
    let Some(settings) = events::settings(&loaded.config) else {
        return Ok((Copy::of(loaded, &dir, Input::OwnFiles)?, Known { events: None, bytes: None }));
    };
    eprintln!("making {} events", count(args.events));
    let file = scratch.path().join("events.ndjson");
    let counts = events::write(settings, args.events, &file)?;
    let known = Known { events: Some(counts.events), bytes: Some(std::fs::metadata(&file)?.len()) };
    Ok((Copy::of(loaded, &dir, Input::File(&file))?, known))
}

fn tell(report: &mut Report, drained: &Drained, known: &Known) {
    let Drained { summary, wall_s, usage } = drained;
    let events = known.events.unwrap_or(summary.total.events_in);
    let per_cpu_s = events as f64 / usage.cpu_s.max(1e-9);
    let rss_peak = usage.rss_peak_bytes.max(summary.total.rss_peak_bytes);
    report.figure("events", events as f64, "");
    if let Some(bytes) = known.bytes {
        report.figure("input", bytes as f64, "bytes");
    }
    report.figure("events per CPU second", per_cpu_s, "");
    report.figure("events per second", events as f64 / wall_s, "");
    report.usage(*wall_s, usage.cpu_s, rss_peak);
    report.figure("CPU per event", usage.cpu_s * 1e6 / events.max(1) as f64, "us");
    let columns = [
        ("PART", Align::Left),
        ("EVENTS IN", Align::Right),
        ("OUT", Align::Right),
        ("DEAD LETTERS", Align::Right),
        ("COMMITS", Align::Right),
        ("BUSY s", Align::Right),
        ("us/EVENT", Align::Right),
    ];
    report.table("parts", &columns, parts(&summary.status));
    report.threads(usage, events);
    report
        .goal(format!("at least {} events per CPU second", count(GOAL_PER_CPU_S as u64)), per_cpu_s >= GOAL_PER_CPU_S);
    report.goal("peak RSS at most 400 MB".into(), rss_peak <= GOAL_RSS_BYTES);
}

/// What the run left in its log, which was empty before.
fn tell_log(report: &mut Report, copy: &Copy) -> Result<(), Failure> {
    let stat = stat(&EmbeddedOptions::new(&copy.log)).map_err(anyhow::Error::from)?;
    let sum = |of: fn(&TopicStat) -> u64| stat.topics.iter().map(of).sum::<u64>() as f64;
    report.figure("groups (syncs)", stat.group as f64, "");
    report.figure("events in the log", sum(|t| t.settled_events + t.journal_events), "");
    report.figure("their columns", sum(|t| t.column_bytes + t.journal_bytes), "bytes");
    Ok(())
}

/// Each source, service and sink with the time it was busy, also by event.
fn parts(status: &Status) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for s in &status.sources {
        let taken = s.events + s.refused;
        let cells = [json!(s.name), json!(taken), json!(s.events), json!(s.refused), Value::Null];
        rows.push([cells.to_vec(), vec![json!(s.busy_s), per_event(s.busy_s, taken)]].concat());
    }
    for s in &status.services {
        let cells = [json!(s.name), json!(s.events_in), json!(s.events_out), json!(s.dead_letters), json!(s.commits)];
        rows.push([cells.to_vec(), vec![json!(s.busy_s), per_event(s.busy_s, s.events_in)]].concat());
    }
    for s in &status.sinks {
        let cells = [json!(s.name), json!(s.events), json!(s.events), Value::Null, Value::Null];
        rows.push([cells.to_vec(), vec![json!(s.busy_s), per_event(s.busy_s, s.events)]].concat());
    }
    rows
}

/// Nothing may be lost and nothing made twice; the lines of the sinks' files are counted, not believed.
fn check(report: &mut Report, summary: &DrainSummary, known: &Known, copy: &Copy) -> Result<(), Failure> {
    let total = &summary.total;
    let (lines, bytes) = copy.written()?;
    report.figure("lines written", lines as f64, "");
    report.figure("output", bytes as f64, "bytes");
    if !summary.complete {
        report.fault("the run was stopped before the end".into());
    }
    // Input that was refused came in as well.
    let taken = total.events_in;
    if let Some(events) = known.events.filter(|events| *events != taken) {
        report.fault(format!("{} events were made and {} were taken in", count(events), count(taken)));
    }
    if lines != total.events_out {
        let (lines, out) = (count(lines), count(total.events_out));
        report.fault(format!("the sinks' files have {lines} lines, and {out} events were counted"));
    }
    balance(report, summary, taken);
    Ok(())
}

/// Each service must account for what it read. That sums do so end to end only holds for pipelines that are a line.
fn balance(report: &mut Report, summary: &DrainSummary, taken: u64) {
    let mut dropped = 0;
    for s in &summary.status.services {
        dropped += s.dropped;
        if s.events_in > s.events_out + s.dead_letters + s.dropped {
            let (name, given) = (&s.name, count(s.events_out + s.dead_letters + s.dropped));
            report
                .note(format!("service `{name}` read {} events and gave {given}: its SQL filters", count(s.events_in)));
        }
    }
    let total = &summary.total;
    let accounted = total.events_out + total.dead_letters + dropped;
    if accounted == taken {
        report.note(format!(
            "{} events in = {} out + {} dead letters + {} dropped",
            count(taken),
            count(total.events_out),
            count(total.dead_letters),
            count(dropped)
        ));
    } else {
        let (taken, accounted) = (count(taken), count(accounted));
        report.fault(format!("{taken} events went in, and {accounted} came out, were refused or were dropped"));
    }
}

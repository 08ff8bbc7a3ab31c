//! `bench latency`: the time from an event's request to its decision, at a fixed rate.
//!
//! The load comes from this process, on the same machine: what it takes of the CPU is missing to the pipeline.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use millstream_node::Pipeline;
use millstream_node::config::{Config, HttpSourceSettings, Loaded, SourceSettings};
use serde_json::json;

use super::before::{self, Before};
use super::child::Serving;
use super::copy::{Copy, Input};
use super::load::Load;
use super::quantiles::Quantiles;
use super::report::Report;
use super::{Common, events};
use crate::failure::Failure;
use crate::terminal::Align;

/// What all hops may take beside their syncs.
const GOAL_BESIDE_MS: f64 = 2.0;
/// What 99 of 100 decisions shall take at most.
const GOAL_P99_MS: f64 = 20.0;
/// The first requests are not counted, as many seconds of them.
const WARM_UP_S: f64 = 1.0;

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// The pipeline: a directory with pipeline.yaml, or a file; it needs an `http` source with `reply`
    #[arg(value_name = "DIR", default_value = ".")]
    path: PathBuf,
    /// Events per second
    #[arg(long, value_name = "N", default_value_t = 2000.0)]
    rate: f64,
    /// For how long
    #[arg(long, value_name = "N", default_value_t = 20.0)]
    seconds: f64,
    /// Keep-alive connections
    #[arg(long, value_name = "N", default_value_t = 16)]
    connections: usize,
    /// Let so many made-up events through first, then kill the process and start it again
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "file")]
    before: u64,
    /// Take these events (NDJSON, one request each) instead of made-up ones
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) async fn run(args: &Args) -> Result<Report, Failure> {
    if !(args.rate > 0.0 && args.seconds > 0.0 && args.connections > 0) {
        return Err(Failure::Usage("--rate, --seconds and --connections are above 0".into()));
    }
    let loaded = Config::load(&args.path)?;
    let (source, http) = source(&loaded)?;
    let hops = hops(&millstream_node::plan(&loaded)?, source);
    let scratch = args.common.scratch()?;
    let sync = format!("{:?}", loaded.config.log.embedded.sync).to_lowercase();
    let mut report = args.common.report(&format!("{}-latency", loaded.config.pipeline.value), &scratch, &sync)?;
    let input = if args.before == 0 { Input::Http } else { Input::HttpAfter(args.before) };
    let copy = Copy::of(&loaded, &scratch.dir("pipeline")?, input)?;
    let bodies = bodies(args, &loaded)?;
    if args.before > 0 {
        Before::run(&copy, args.before).await?.tell(&mut report);
    }
    let serving = Serving::start(&copy).await?;
    if args.before > 0 {
        before::tell_start(&mut report, &serving, &http.path.value, &bodies).await?;
    }
    let load = Load {
        address: serving.client.address().to_owned(),
        path: http.path.value.clone(),
        rate: args.rate,
        connections: args.connections,
        warm_up: (args.rate * WARM_UP_S) as usize,
        bodies: Arc::new(bodies),
    };
    eprintln!("sending {} events per second for {} s", args.rate, args.seconds);
    let answers = load.run().await;
    let (wall_s, usage) = serving.stop().await?;
    let answers = answers?;

    let took = Quantiles::of(answers.took_us.clone());
    let ms = |share: f64| took.at(share) / 1000.0;
    report.figure("decisions", answers.took_us.len() as f64, "");
    report.figure("rate", args.rate, "events/s");
    report.figure("durable hops", f64::from(hops), "");
    for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
        report.figure(name, ms(share), "ms");
    }
    report.figure("longest gap between answers", answers.longest_gap_us() / 1000.0, "ms");
    let allowed = 2.0 * f64::from(hops) * report.disk().fdatasync_p50_us / 1000.0 + GOAL_BESIDE_MS;
    report.figure("2 x hops x fdatasync + 2 ms", allowed, "ms");
    report.figure("held up by the answer before", answers.held_up as f64, "");
    report.usage(wall_s, usage.cpu_s, usage.rss_peak_bytes);
    let statuses = answers.statuses.iter().map(|(status, n)| vec![json!(status.to_string()), json!(n)]);
    report.table("answers", &[("STATUS", Align::Left), ("ANSWERS", Align::Right)], statuses.collect());
    let by_second = answers.by_second().into_iter().map(|(second, took)| {
        let took = Quantiles::of(took);
        let ms = |share: f64| json!((took.at(share) / 10.0).round() / 100.0);
        vec![json!(second), ms(0.5), ms(0.99), ms(1.0)]
    });
    let columns =
        [("SECOND", Align::Right), ("p50 ms", Align::Right), ("p99 ms", Align::Right), ("MAX ms", Align::Right)];
    report.table("latency by second", &columns, by_second.collect());
    report.threads(&usage, answers.took_us.len() as u64);
    report.goal(format!("p50 at most 2 x hops x fdatasync + 2 ms = {allowed:.2} ms"), ms(0.5) <= allowed);
    report.goal(format!("p99 at most {GOAL_P99_MS} ms"), ms(0.99) <= GOAL_P99_MS);
    let undecided = answers.statuses.iter().filter(|(s, _)| !matches!(s, 200 | 422)).map(|(_, n)| n).sum::<u64>();
    if answers.failed + undecided > 0 {
        report.fault(format!("{} requests failed, {undecided} were answered without a decision", answers.failed));
    }
    Ok(report)
}

/// The source that answers with decisions.
fn source(loaded: &Loaded) -> Result<(&SourceSettings, &HttpSourceSettings), Failure> {
    let mut sources = loaded.config.sources.iter().filter_map(|(_, s)| Some((s, s.http.as_ref()?)));
    let source = sources.find(|(_, http)| http.reply.is_some());
    source.ok_or_else(|| Failure::Usage("the pipeline has no `http` source with `reply`".into()))
}

/// How many commits lie between a request and its answer on the longest way: the source's own, and one for each service.
fn hops(pipeline: &Pipeline, source: &SourceSettings) -> u32 {
    let mut depths = BTreeMap::from([(source.to.value.clone(), 1)]);
    // Each service stands behind those whose output it reads.
    for service in &pipeline.services {
        let Some(deepest) = service.inputs.iter().filter_map(|topic| depths.get(topic)).max().copied() else {
            continue;
        };
        for topic in &service.outputs {
            depths.insert(topic.clone(), deepest + 1);
        }
    }
    let reply = source.http.as_ref().and_then(|http| http.reply.as_ref());
    let ends = reply.into_iter().flat_map(|reply| &reply.from);
    ends.filter_map(|topic| depths.get(&topic.value)).max().copied().unwrap_or(1)
}

fn bodies(args: &Args, loaded: &Loaded) -> Result<Vec<Vec<u8>>, Failure> {
    let wanted = (args.rate * (args.seconds + WARM_UP_S)) as usize;
    let mut lines = match (&args.file, events::settings(&loaded.config)) {
        (Some(file), _) => events::lines_of(file)?,
        (None, Some(settings)) => events::lines(settings, args.before, wanted as u64)?,
        (None, None) => {
            return Err(Failure::Usage(
                "the pipeline has no `generate` source: name a file of events with --file".into(),
            ));
        }
    };
    if lines.len() < wanted {
        return Err(Failure::Usage(format!("{wanted} events are needed, and there are {}", lines.len())));
    }
    lines.truncate(wanted);
    Ok(lines)
}

//! `bench hop`: what one more service costs.
//!
//! The same events go through lines of services that do nothing; all else being equal, the difference is the hop's:
//! reading a topic, committing positions and events, and the share of the sync.

use std::path::Path;

use millstream_node::connect::generate::Settings;
use serde_json::{Map, Value, json};

use super::child::drain;
use super::copy::Copy;
use super::report::{Report, per_event};
use super::{Common, events};
use crate::failure::Failure;
use crate::terminal::{Align, count};

/// What a hop shall cost at most, in microseconds of CPU time for each event.
const GOAL_US: f64 = 0.5;
/// The longest line of services.
const SERVICES_MAX: u32 = 32;

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// How many events
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    events: u64,
    /// How many services, at least two numbers from the smallest to the largest
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [1, 3, 5])]
    services: Vec<u32>,
    /// How many partitions the topics have
    #[arg(long, value_name = "N", default_value_t = 8)]
    partitions: u32,
    /// Whether the services have a query (`SELECT *`)
    #[arg(long)]
    sql: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) async fn run(args: &Args) -> Result<Report, Failure> {
    let [first, .., last] = args.services.as_slice() else {
        return Err(Failure::Usage("--services: give at least two numbers, such as 1,5".into()));
    };
    if !args.services.is_sorted() || first == last || *last > SERVICES_MAX {
        return Err(Failure::Usage(format!("--services: numbers that grow, at most {SERVICES_MAX}")));
    }
    let scratch = args.common.scratch()?;
    let mut report = args.common.report("hop", &scratch, "group")?;
    eprintln!("making {} events", count(args.events));
    let file = scratch.path().join("events.ndjson");
    let made = events::write(Settings { bad: 0.0, ..Settings::default() }, args.events, &file)?;
    let mut rows = Vec::new();
    let mut ends = (0.0, 0.0);
    let (mut wall_s, mut rss_peak) = (0.0, 0);
    for services in &args.services {
        eprintln!("running {services} services");
        let dir = scratch.dir(&format!("services-{services}"))?;
        let copy = Copy::write(&dir, line(args, *services, &file))?;
        let drained = drain(&copy).await?;
        let cpu_s = drained.usage.cpu_s;
        rows.push(vec![json!(services), json!(cpu_s), per_event(cpu_s, made.events), json!(drained.wall_s)]);
        ends = (if services == first { cpu_s } else { ends.0 }, cpu_s);
        wall_s += drained.wall_s;
        rss_peak = rss_peak.max(drained.usage.rss_peak_bytes);
        let (lines, _) = copy.written()?;
        if lines != made.events {
            report.fault(format!("{} events went in and {} came out", count(made.events), count(lines)));
        }
        if !args.common.keep {
            std::fs::remove_dir_all(&dir)?;
        }
    }
    let hop_us = (ends.1 - ends.0) * 1e6 / made.events.max(1) as f64 / f64::from(last - first);
    report.figure("events", made.events as f64, "");
    report.figure("CPU per event and added service", hop_us, "us");
    let cpu_s = rows.iter().filter_map(|row| row.get(1)?.as_f64()).sum();
    report.usage(wall_s, cpu_s, rss_peak);
    let columns =
        [("SERVICES", Align::Right), ("CPU s", Align::Right), ("us/EVENT", Align::Right), ("WALL s", Align::Right)];
    report.table("runs", &columns, rows);
    report.goal(format!("an added service costs at most {GOAL_US} us per event"), hop_us <= GOAL_US);
    Ok(report)
}

/// A pipeline whose services hand on what they read.
fn line(args: &Args, services: u32, file: &Path) -> Value {
    let steps: Map<String, Value> = (0..services)
        .map(|i| {
            let (from, to) = (format!("hop{i}"), format!("hop{}", i + 1));
            let step = match args.sql {
                true => json!({"sql": format!("SELECT * FROM {from}"), "from": from, "to": to}),
                false => json!({"from": from, "to": to}),
            };
            (format!("pass{}", i + 1), step)
        })
        .collect();
    json!({
        "version": 1,
        "pipeline": "hops",
        "defaults": {"topic": {"partitions": args.partitions, "key": ["card_id"]}},
        "topics": {"hop0": {"columns": events::columns()}},
        "sources": {"file": {"file": {"path": file, "format": "ndjson"}, "to": "hop0"}},
        "services": steps,
        "sinks": {"out": {"from": format!("hop{services}"), "file": {"path": "out", "format": "ndjson"}}},
    })
}

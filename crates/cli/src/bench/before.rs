//! What happens before a latency is measured: events that leave a history, then a killed process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_node::api::{RunState, Status, paths};

use super::child::Serving;
use super::copy::Copy;
use super::load::Load;
use super::report::Report;
use super::usage::Usage;
use crate::failure::Failure;
use crate::terminal::count;

/// How often to look whether all are through.
const LOOK: Duration = Duration::from_millis(200);

/// The thread that compacts tables, and so the changelogs of states: their snapshots.
const SNAPSHOTS: &str = "log-compact";
/// How long a start with the state read back may take.
const GOAL_START_S: f64 = 5.0;
/// What of the CPU time they may take.
const SNAPSHOTS_SHARE_MAX: f64 = 10.0;

/// A pipeline with a history, whose process was killed.
pub(super) struct Before {
    events: u64,
    wall_s: f64,
    usage: Usage,
}

impl Before {
    /// Lets the made-up events through, and kills the process when they are.
    pub(super) async fn run(copy: &Copy, events: u64) -> Result<Self, Failure> {
        eprintln!("letting {} events through", count(events));
        let serving = Serving::start(copy).await?;
        loop {
            let status: Status = serving.client.get(paths::STATUS).await?;
            if let Some(failed) = status.services.iter().find(|s| s.state == RunState::Failed) {
                let why = failed.reason.clone().unwrap_or_default();
                return Err(Failure::refused("bench-run", format!("service `{}` has failed", failed.name), why));
            }
            let made = status.sources.iter().filter(|source| source.bounded);
            let done = made.map(|source| source.state).all(|state| state == RunState::Finished);
            let lag: u64 = status.services.iter().map(|s| s.lag).chain(status.sinks.iter().map(|s| s.lag)).sum();
            if done && lag == 0 {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        eprintln!("killing the process and starting it again");
        let (wall_s, usage) = serving.kill().await?;
        Ok(Self { events, wall_s, usage })
    }

    pub(super) fn tell(&self, report: &mut Report) {
        report.figure("events before", self.events as f64, "");
        report.figure("events before, per CPU second", self.events as f64 / self.usage.cpu_s.max(1e-9), "");
        report.figure("events before, wall", self.wall_s, "s");
        report.figure("events before, peak RSS", self.usage.rss_peak_bytes as f64, "bytes");
        let snapshots = self.usage.threads.get(SNAPSHOTS).copied().unwrap_or_default();
        let share = 100.0 * snapshots / self.usage.cpu_s.max(1e-9);
        report.figure("events before, snapshots' share of the CPU time", share, "%");
        report.goal(
            format!("snapshots take at most {SNAPSHOTS_SHARE_MAX} % of the CPU time"),
            share <= SNAPSHOTS_SHARE_MAX,
        );
    }
}

/// How long the start after the kill took, state read back, and the first decision after it.
pub(super) async fn tell_start(
    report: &mut Report,
    serving: &Serving,
    path: &str,
    bodies: &[Vec<u8>],
) -> Result<(), Failure> {
    let ready = serving.since_start();
    let asked = Instant::now();
    let load = Load {
        address: serving.client.address().to_owned(),
        path: path.to_owned(),
        rate: 1000.0,
        connections: 1,
        warm_up: 0,
        bodies: Arc::new(bodies.iter().take(1).cloned().collect()),
    };
    let answers = load.run().await?;
    if answers.took_us.is_empty() {
        report.fault("the first event after the start was not decided".into());
    }
    report.figure("start after kill -9, until ready", ready.as_secs_f64(), "s");
    let decided = (ready + asked.elapsed()).as_secs_f64();
    report.figure("start after kill -9, until the first decision", decided, "s");
    report.goal(format!("the first decision at most {GOAL_START_S} s after kill -9"), decided <= GOAL_START_S);
    Ok(())
}

//! The status where nobody watches: a line now and then, and a line for each change.

use std::collections::BTreeMap;

use millstream_node::api::{RunState, Status};

use crate::command::services::state_text;
use crate::terminal::{Style, count, duration, rate};

/// What was said last, so that only changes are said.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    states: BTreeMap<String, (RunState, Option<String>)>,
}

impl Plain {
    /// Lines for the parts that do something else than last time. The first time only what does not simply run.
    pub(crate) fn changes(&mut self, now: &Status, style: Style) -> Vec<String> {
        let sources = now.sources.iter().map(|s| ("source", &s.name, s.state, &s.reason));
        let services = now.services.iter().map(|s| ("service", &s.name, s.state, &s.reason));
        let sinks = now.sinks.iter().map(|s| ("sink", &s.name, s.state, &s.reason));
        let mut lines = Vec::new();
        for (kind, name, state, reason) in sources.chain(services).chain(sinks) {
            let key = format!("{kind} {name}");
            // Starting is on the way to running and worth no line of its own.
            let state = if state == RunState::Starting { RunState::Running } else { state };
            let before = self.states.get(&key).map_or(RunState::Running, |(state, _)| *state);
            if before != state {
                let why = reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
                lines.push(format!("{key} {}{why}", state_text(state, style)));
            }
            self.states.insert(key, (state, reason.clone()));
        }
        lines
    }
}

/// One line for everything.
pub(crate) fn line(now: &Status) -> String {
    let into: u64 = now.sources.iter().map(|s| s.events).sum();
    let into_per_s: f64 = now.sources.iter().map(|s| s.per_s).sum();
    let out: u64 = now.sinks.iter().map(|s| s.events).sum();
    let out_per_s: f64 = now.sinks.iter().map(|s| s.per_s).sum();
    let lag: u64 = now.services.iter().map(|s| s.lag).chain(now.sinks.iter().map(|s| s.lag)).sum();
    let dead: u64 = now.services.iter().map(|s| s.dead_letters).chain(now.sources.iter().map(|s| s.refused)).sum();
    format!(
        "{}: in {} ({}/s), out {} ({}/s), lag {}, dead letters {}",
        duration(now.node.uptime_s),
        count(into),
        rate(into_per_s),
        count(out),
        rate(out_per_s),
        count(lag),
        count(dead)
    )
}

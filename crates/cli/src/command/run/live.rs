//! The live status: one frame from the node's status, as lines.

use millstream_node::api::{Latency, Phase, RunState, Status};

use crate::command::services::state_text;
use crate::terminal::{Align, Style, Table, bytes, count, duration, millis, rate, width, wrap};

/// A column of the live table: heading, alignment, and how soon it goes where the terminal is narrow (0 stays).
const COLUMNS: [(&str, Align, u8); 10] = [
    ("", Align::Left, 0),
    ("", Align::Left, 4),
    ("STATE", Align::Left, 0),
    ("IN/S", Align::Right, 0),
    ("OUT/S", Align::Right, 3),
    ("LAG", Align::Right, 0),
    ("DEAD", Align::Right, 0),
    ("COMMIT p50/p99 ms", Align::Right, 5),
    ("RESTARTS", Align::Right, 6),
    ("INST", Align::Right, 7),
];
/// How many reasons are shown, and on how many lines the only one.
const REASONS_MAX: usize = 4;
const REASON_LINES_MAX: usize = 4;
/// The soonest to go.
const SOONEST: u8 = 7;

/// The lines of one frame.
pub(crate) fn frame(now: &Status, before: Option<&Status>, columns: usize, rows: usize, style: Style) -> Vec<String> {
    let mut lines = vec![headline(now, before, style), String::new()];
    let mut table = table(now, style, 0);
    for goes in (1..=SOONEST).rev() {
        if table.iter().all(|l| width(l) <= columns) {
            break;
        }
        table = self::table(now, style, goes);
    }
    let reasons = reasons(now, columns, style);
    // The head, an empty line below the table, the hint, and the row of the cursor.
    let room = rows.saturating_sub(lines.len() + reasons.len() + 3).max(3);
    let left_out = table.len().saturating_sub(room);
    if left_out > 0 {
        table.truncate(room.saturating_sub(1));
        table.push(style.dim(&format!("… {} more: `millstream services` shows all", left_out + 1)));
    }
    lines.extend(table);
    lines.extend(reasons);
    lines.push(String::new());
    lines.push(style.dim(match now.phase {
        Phase::Stopping => "finishing what is in flight; Ctrl-C again stops at once",
        _ => "Ctrl-C finishes what is in flight and stops",
    }));
    lines
}

fn headline(now: &Status, before: Option<&Status>, style: Style) -> String {
    let phase = match now.phase {
        Phase::Starting => style.warn("starting"),
        Phase::Running => style.good("running"),
        Phase::Draining => style.good("draining"),
        Phase::Drained => style.good("drained"),
        Phase::Stopping => style.warn("stopping"),
        Phase::Stopped => style.bad("stopped"),
    };
    let into: f64 = now.sources.iter().map(|s| s.per_s).sum();
    let out: f64 = now.sinks.iter().map(|s| s.per_s).sum();
    let mut parts = vec![
        format!("{} {phase} {}", style.bold(&now.pipeline), duration(now.node.uptime_s)),
        format!("in {}/s", rate(into)),
        format!("out {}/s", rate(out)),
        format!("log {}", bytes(now.log.bytes)),
    ];
    if let Some(before) = before {
        let wall = now.node.uptime_s - before.node.uptime_s;
        if wall > 0.0 {
            parts.push(format!("cpu {:.0} %", 100.0 * (now.node.cpu_s - before.node.cpu_s).max(0.0) / wall));
        }
    }
    parts.push(format!("peak {}", bytes(now.node.rss_peak_bytes)));
    parts.join(&style.dim(" · "))
}

/// All parts in one table, so that the columns stand in one line. `goes`: columns that go this soon are left out.
fn table(now: &Status, style: Style, goes: u8) -> Vec<String> {
    let kept = |soon: u8| soon == 0 || goes == 0 || soon < goes;
    let columns: Vec<(&'static str, Align)> =
        COLUMNS.iter().filter(|c| kept(c.2)).map(|(name, align, _)| (*name, *align)).collect();
    let mut table = Table::new(&columns);
    let mut row = |cells: [String; 10]| {
        table.row(cells.into_iter().zip(COLUMNS).filter(|(_, c)| kept(c.2)).map(|(cell, _)| cell).collect());
    };
    let none = String::new;
    for s in &now.sources {
        let (name, state) = (s.name.clone(), state_text(s.state, style));
        let dead = dead(s.refused, style);
        row([
            name,
            style.dim("source"),
            state,
            none(),
            rate(s.per_s),
            none(),
            dead,
            none(),
            restarts(s.restarts),
            none(),
        ]);
    }
    for s in &now.services {
        row([
            s.name.clone(),
            style.dim("service"),
            state_text(s.state, style),
            rate(s.in_per_s),
            rate(s.out_per_s),
            count(s.lag),
            dead(s.dead_letters, style),
            latency(s.commit_latency),
            restarts(s.restarts),
            s.instances.to_string(),
        ]);
    }
    for s in &now.sinks {
        let (name, state) = (s.name.clone(), state_text(s.state, style));
        let lag = count(s.lag);
        row([name, style.dim("sink"), state, rate(s.per_s), none(), lag, none(), none(), restarts(s.restarts), none()]);
    }
    table.lines(style)
}

/// Why something does not simply run, at most a few lines.
fn reasons(now: &Status, columns: usize, style: Style) -> Vec<String> {
    let sources = now.sources.iter().map(|s| (&s.name, s.state, &s.reason));
    let services = now.services.iter().map(|s| (&s.name, s.state, &s.reason));
    let sinks = now.sinks.iter().map(|s| (&s.name, s.state, &s.reason));
    let parts = sources.chain(services).chain(sinks).filter(|(_, state, _)| *state != RunState::Finished);
    let mut reasons: Vec<String> = parts
        .filter_map(|(name, state, reason)| {
            let reason = reason.as_ref()?.lines().next().unwrap_or_default();
            Some(format!("{name} {}: {reason}", state_text(state, style)))
        })
        .collect();
    reasons.extend(now.lookups.iter().filter_map(|l| Some(format!("lookup {}: {}", l.name, l.error.as_ref()?))));
    reasons.extend(now.log.stopped.iter().map(|why| style.bad(&format!("the log has stopped: {why}"))));
    // What is wrong in an address often stands at the end.
    let lines_max = if reasons.len() > 1 { 2 } else { REASON_LINES_MAX };
    let mut lines: Vec<String> =
        reasons.iter().take(REASONS_MAX).flat_map(|reason| wrap(reason, columns, lines_max)).collect();
    if !lines.is_empty() {
        lines.insert(0, String::new());
    }
    lines
}

fn dead(n: u64, style: Style) -> String {
    if n == 0 { "0".into() } else { style.warn(&count(n)) }
}

fn restarts(n: u64) -> String {
    if n == 0 { String::new() } else { count(n) }
}

fn latency(latency: Option<Latency>) -> String {
    latency.map(|l| format!("{} / {}", millis(l.p50_ms), millis(l.p99_ms))).unwrap_or_default()
}

//! What a run that has ended did.

use millstream_node::api::{DrainSummary, ServiceStatus};

use crate::terminal::{Align, Style, Table, bytes, count, duration, rate};

/// The code of letters that broke rules.
const CHECK: &str = "check";

/// The lines of the summary. `drain`: whether the run was to end by itself.
pub(crate) fn lines(summary: &DrainSummary, drain: bool, style: Style) -> Vec<String> {
    let total = &summary.total;
    let status = &summary.status;
    let mut lines = Vec::new();

    let mut table = Table::new(&[
        ("SOURCE", Align::Left),
        ("EVENTS", Align::Right),
        ("REFUSED", Align::Right),
        ("WHY", Align::Left),
    ])
    .indent(2);
    for source in &status.sources {
        let why = source.refused_by_code.iter().map(|(code, n)| format!("{code} {}", count(*n)));
        let why: Vec<String> = why.collect();
        table.row(vec![source.name.clone(), count(source.events), count(source.refused), why.join(", ")]);
    }
    section(table, &mut lines, style);

    let mut table = Table::new(&[
        ("SERVICE", Align::Left),
        ("IN", Align::Right),
        ("OUT", Align::Right),
        ("DEAD LETTERS", Align::Right),
        ("DROPPED", Align::Right),
        ("RESTARTS", Align::Right),
    ])
    .indent(2);
    for s in &status.services {
        let numbers = [s.events_in, s.events_out, s.dead_letters, s.dropped, s.restarts].map(count);
        table.row([s.name.clone()].into_iter().chain(numbers).collect());
    }
    section(table, &mut lines, style);

    let mut table =
        Table::new(&[("DEAD LETTERS OF", Align::Left), ("RULE OR CODE", Align::Left), ("EVENTS", Align::Right)])
            .indent(2);
    // Broken rules make dead letters only where the service does nothing else with such events.
    let kept = |s: &ServiceStatus| s.broken_rules.is_empty() || s.dead_letters_by_code.contains_key(CHECK);
    for s in &status.services {
        // A broken rule is named; the code `check` would only say that one was.
        let codes = s.dead_letters_by_code.iter().filter(|(code, _)| *code != CHECK || s.broken_rules.is_empty());
        let rules = s.broken_rules.iter().filter(|_| kept(s));
        for (code, n) in rules.chain(codes).filter(|(_, n)| **n > 0) {
            table.row(vec![s.name.clone(), code.clone(), count(*n)]);
        }
    }
    section(table, &mut lines, style);

    let mut table = Table::new(&[
        ("BROKEN RULES OF", Align::Left),
        ("RULE", Align::Left),
        ("EVENTS", Align::Right),
        ("BECAME", Align::Left),
    ])
    .indent(2);
    for s in status.services.iter().filter(|s| !kept(s)) {
        let became = summary.broken.get(&s.name).map_or("no dead letters", String::as_str);
        for (rule, n) in s.broken_rules.iter().filter(|(_, n)| **n > 0) {
            table.row(vec![s.name.clone(), rule.clone(), count(*n), became.to_owned()]);
        }
    }
    section(table, &mut lines, style);

    let mut table = Table::new(&[("TOPIC", Align::Left), ("EVENTS", Align::Right)]).indent(2);
    for topic in &summary.topics {
        table.row(vec![topic.topic.clone(), count(topic.events)]);
    }
    section(table, &mut lines, style);

    let mut table = Table::new(&[("SINK", Align::Left), ("EVENTS", Align::Right), ("TO", Align::Left)]).indent(2);
    for sink in &status.sinks {
        table.row(vec![sink.name.clone(), count(sink.events), sink.target.clone().unwrap_or_default()]);
    }
    section(table, &mut lines, style);

    for failure in &summary.failed {
        lines.push(format!("{} {} has failed: {}", style.bad("!"), failure.name, failure.reason));
    }
    for held in &summary.holding {
        let why = held.waits_for.as_ref().map_or(String::new(), |name| format!(", because `{name}` has not ended"));
        let mark = style.warn("!");
        lines.push(format!("{mark} {} holds results that are not due yet{why}; a later run gives them out", held.name));
    }
    let per = |n: u64, s: f64| if s > 0.0 { n as f64 / s } else { 0.0 };
    let outcome = match (summary.complete, drain) {
        (true, _) if !summary.holding.is_empty() => style.good("all events processed"),
        (true, _) => style.good("all processed"),
        (false, true) if !summary.failed.is_empty() => {
            style.warn("not everything could be processed; mend what has failed, the next run goes on from here")
        }
        (false, true) => style.warn("stopped before the end"),
        (false, false) => "stopped, the next run goes on from here".to_owned(),
    };
    lines.push(format!(
        "{}: {outcome}: {} events in, {} out, {} dead letters",
        style.bold(&status.pipeline),
        count(total.events_in),
        count(total.events_out),
        count(total.dead_letters)
    ));
    lines.push(format!(
        "{} elapsed ({} events/s), {:.2} CPU s ({} events per CPU s), peak memory {}",
        duration(total.elapsed_s),
        rate(per(total.events_in, total.elapsed_s)),
        total.cpu_s,
        rate(per(total.events_in, total.cpu_s)),
        bytes(total.rss_peak_bytes)
    ));
    lines
}

fn section(table: Table, lines: &mut Vec<String>, style: Style) {
    if !table.is_empty() {
        lines.extend(table.lines(style));
        lines.push(String::new());
    }
}

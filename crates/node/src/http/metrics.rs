//! `/metrics` in Prometheus's text format. Names are constants; labels are names of the pipeline's own parts and codes,
//! which are bounded.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use millstream_service::event::Name;
use millstream_service::log::Log;
use millstream_service::{Kind, LATENCY_BOUNDS_US, LookupHandle, LookupStatus};

use crate::Node;

/// Collects lines, with the head of each metric once.
#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.0.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{}\"", escaped(v))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.0.push_str(&format!("{name}{labels} {value}\n"));
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

pub(super) async fn metrics(State(node): State<Node>) -> impl IntoResponse {
    let mut page = Page::default();
    let mut statuses = Vec::new();
    for handle in node.inner.runner.handles() {
        if let Ok(status) = handle.status().await {
            statuses.push(status);
        }
    }
    let kind = |k: Kind| match k {
        Kind::Source => "source",
        Kind::Service => "service",
        Kind::Sink => "sink",
    };
    let mut counter = |name: &str, help: &str, value: &dyn Fn(&millstream_service::Status) -> String| {
        page.head(name, if name.ends_with("_total") { "counter" } else { "gauge" }, help);
        for s in &statuses {
            page.line(name, &[("name", s.name.as_str()), ("kind", kind(s.kind))], value(s));
        }
    };
    counter("millstream_events_in_total", "Events read.", &|s| s.counts.events_in.to_string());
    counter("millstream_events_out_total", "Events committed.", &|s| s.counts.events_out.to_string());
    counter("millstream_commits_total", "Commits that succeeded.", &|s| s.counts.commits.to_string());
    counter("millstream_commits_failed_total", "Commits that did not.", &|s| s.counts.commits_failed.to_string());
    counter("millstream_restarts_total", "Tasks started again.", &|s| s.counts.restarts.to_string());
    counter("millstream_useful_seconds_total", "Time spent computing.", &|s| {
        format!("{:.6}", s.counts.busy_ns as f64 / 1e9)
    });
    counter("millstream_lag_events", "Events not read yet.", &|s| s.lag.to_string());
    counter("millstream_instances", "Workers.", &|s| s.instances.to_string());
    dropped(&mut page, &statuses);
    event_time(&mut page, &statuses, crate::runtime::now_us());
    page.head("millstream_dead_letters_total", "counter", "Dead letters by component and code.");
    for s in &statuses {
        for (code, n) in &s.counts.dead_letters {
            page.line("millstream_dead_letters_total", &[("name", s.name.as_str()), ("code", code)], n);
        }
    }
    latency(&mut page, &statuses);
    lookups(&mut page, &node.inner.view().lookups);
    page.head("millstream_log_accepting", "gauge", "Whether the log accepts commits.");
    page.line("millstream_log_accepting", &[], u8::from(node.inner.log.stopped().is_none()));
    page.head("millstream_log_bytes", "gauge", "Bytes of the log on disk.");
    let dir = node.inner.view().loaded.config.log.embedded.dir.clone();
    page.line("millstream_log_bytes", &[], crate::runtime::disk_use(&dir));
    if let Some(backup) = node.inner.backup_state() {
        const SINCE: &str = "millstream_backup_seconds_since_success";
        page.head(SINCE, "gauge", "How long ago a backup last succeeded; since the start while none has.");
        page.line(SINCE, &[], format!("{:.3}", backup.seconds_since_success));
        page.head("millstream_backup_rounds_failed_total", "counter", "Rounds of the backup that failed.");
        page.line("millstream_backup_rounds_failed_total", &[], backup.rounds_failed);
    }
    let (cpu, rss) = crate::runtime::usage();
    page.head("process_cpu_seconds_total", "counter", "CPU time, user and system.");
    page.line("process_cpu_seconds_total", &[], cpu);
    page.head("process_resident_memory_peak_bytes", "gauge", "The most memory ever resident.");
    page.line("process_resident_memory_peak_bytes", &[], rss);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], page.0)
}

fn dropped(page: &mut Page, statuses: &[millstream_service::Status]) {
    const NAME: &str = "millstream_dropped_total";
    page.head(NAME, "counter", "Events left out on purpose, by what left them out.");
    for s in statuses.iter().filter(|s| s.kind == Kind::Service) {
        let by_lookup: u64 = s.counts.dropped_by_lookup.values().sum();
        let by = [
            ("check", s.counts.dropped_by_check),
            ("lookup", by_lookup),
            ("route", s.counts.dropped_by_route),
            ("fold", s.counts.dropped_by_fold),
            ("late", s.counts.dropped_late),
        ];
        for (reason, n) in by {
            page.line(NAME, &[("name", s.name.as_str()), ("kind", "service"), ("by", reason)], n);
        }
    }
}

/// What is held in memory to be looked up.
fn lookups(page: &mut Page, lookups: &BTreeMap<Name, LookupHandle>) {
    let all: Vec<_> = lookups.values().map(LookupHandle::status).collect();
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&LookupStatus) -> Option<u64>| {
        page.head(name, "gauge", help);
        for (lookup, n) in all.iter().filter_map(|lookup| Some((lookup, value(lookup)?))) {
            page.line(name, &[("lookup", lookup.name.as_str())], n);
        }
    };
    gauge("millstream_lookup_rows", "Rows that a lookup finds.", &|lookup| lookup.rows);
    gauge("millstream_lookup_bytes", "Memory of a lookup's table.", &|lookup| lookup.bytes);
}

/// How far sources and services are in event time; special values (nothing promised yet, idle, closed) have no line.
fn event_time(page: &mut Page, statuses: &[millstream_service::Status], now_us: i64) {
    const WATERMARK: &str = "millstream_watermark_seconds";
    const LAG: &str = "millstream_watermark_lag_seconds";
    let timed = || statuses.iter().filter_map(|s| Some((s, s.time.as_ref()?)));
    let known = || timed().filter_map(|(s, time)| Some((s.name.as_str(), time.watermark.time()?)));
    page.head(WATERMARK, "gauge", "Event time before which no event is expected, in seconds since 1970.");
    for (name, micros) in known() {
        page.line(WATERMARK, &[("service", name)], micros as f64 / 1e6);
    }
    page.head(LAG, "gauge", "How far the watermark is behind the clock.");
    for (name, micros) in known() {
        page.line(LAG, &[("service", name)], now_us.saturating_sub(micros) as f64 / 1e6);
    }
    let sources = || timed().filter(|(s, _)| s.kind == Kind::Source).map(|(s, _)| s);
    let mut counter = |name: &str, help: &str, value: &dyn Fn(&millstream_service::Counts) -> u64| {
        page.head(name, "counter", help);
        for s in sources() {
            page.line(name, &[("name", s.name.as_str())], value(&s.counts));
        }
    };
    counter("millstream_late_events_total", "Events later than max_out_of_orderness allows.", &|c| c.late);
    counter("millstream_future_events_total", "Events refused as too far ahead of their arrival.", &|c| {
        c.dead_letters.get("future").copied().unwrap_or(0)
    });
    counter("millstream_idle_total", "How often a source became idle.", &|c| c.idled);
}

fn latency(page: &mut Page, statuses: &[millstream_service::Status]) {
    const NAME: &str = "millstream_commit_seconds";
    page.head(NAME, "histogram", "How long commits took.");
    for s in statuses {
        let mut sum = 0;
        for (i, count) in s.counts.latency_buckets.iter().enumerate() {
            sum += count;
            let bound = LATENCY_BOUNDS_US.get(i).map_or("+Inf".to_owned(), |us| (*us as f64 / 1e6).to_string());
            page.line(&format!("{NAME}_bucket"), &[("name", s.name.as_str()), ("le", &bound)], sum);
        }
        page.line(&format!("{NAME}_sum"), &[("name", s.name.as_str())], s.counts.latency_sum_us as f64 / 1e6);
        page.line(&format!("{NAME}_count"), &[("name", s.name.as_str())], sum);
    }
}

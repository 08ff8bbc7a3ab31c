//! Reads `services:` and `sinks:`.

use std::path::Path;

use millstream_service::event::Name;

use super::decode::{Decoder, Fields, Later, first_line};
use super::postgres::read_postgres;
use super::read::{read_file_format, read_text_format};
use super::read_fold::read_fold;
use super::settings::*;
use super::source_text::{Span, Spanned};
use super::sql_text::Sql;
use super::yaml::{Node, Value};
use crate::diagnostic::Diagnostic;

/// The most events that a service computes at a time.
const BATCH_MAX: u64 = 1 << 20;
/// The most workers of one service.
const INSTANCES_MAX: u64 = 1024;
/// The most rules of a check, and cases of a route.
const CASES_MAX: usize = 1000;

const SERVICE: &[&str] = &[
    "from",
    "check",
    "else",
    "sql",
    "sql_file",
    "fold",
    "route",
    "to",
    "late",
    "state",
    "order",
    "instances",
    "batch_max",
    "on_dependency_failure",
];
const SERVICE_LATER: Later = &[
    ("exec", "commands come later"),
    ("processor", "processors in Rust come later"),
    ("model", "models come later"),
    ("learn", "online learning comes later"),
    ("forward", "edge forwarding comes later"),
    ("late_replay", "replayed events that are late follow `late`"),
    ("reject_budget", "budgets come later; watch `dead letters` in the metrics"),
    ("error_budget", "budgets come later; watch `dead letters` in the metrics"),
    ("consistency", "every topic is `strong` for now; leave the line out"),
    ("priority", "priorities come later"),
    ("memory", "memory budgets come later"),
];

/// Errors that leave open what a service does.
const UNCLEAR: [&str; 4] = ["unknown-key", "not-yet", "duplicate-key", "sql-twice"];

pub(crate) fn read_service(decoder: &mut Decoder<'_>, node: &Node, what: &str, head: Span) -> Option<ServiceSettings> {
    let before = decoder.found.0.len();
    let f = decoder.fields(node, head, what, SERVICE, SERVICE_LATER)?;
    let from = f.need(decoder, "from").and_then(|n| decoder.names(n, "`from`"));
    if let Some(n) = f.get("on_dependency_failure") {
        decoder.choice(n, "`on_dependency_failure`", &[("wait", ())]);
    }
    let check = f.get("check").map(|n| read_check(decoder, n, what)).unwrap_or_default();
    let otherwise = f.get("else").and_then(|n| read_else(decoder, n));
    if let (Some(span), true) = (f.key_span("else"), f.get("check").is_none()) {
        let message = format!("{what} has `else` but no `check`");
        decoder.report(span, Diagnostic::error("else-without-check", message).label("add the rules, or leave it out"));
    }
    let (sql, sql_file) = read_sql_of(decoder, &f);
    let fold = f.get("fold").map(|n| read_fold(decoder, n, what));
    if let (Some(span), true) = (f.key_span("fold"), f.get("sql").is_some() || f.get("sql_file").is_some()) {
        let message = format!("{what} has both `sql` and `fold`");
        decoder.report(span, Diagnostic::error("sql-and-fold", message).label("keep one of the two"));
    }
    let route = f.get("route").map(|n| read_route(decoder, n, what));
    let to = f.get("to").map(|n| decoder.name(n, "`to`"));
    match (&route, &to) {
        (Some(_), Some(_)) => {
            let message = format!("{what} has both `to` and `route`");
            let span = f.key_span("to").unwrap_or(head);
            decoder.report(span, Diagnostic::error("to-and-route", message).label("keep one of the two"));
        }
        (None, None) => {
            let message = format!("{what} does not say where its events go");
            decoder.report(head, Diagnostic::error("key-missing", message).label("add `to: TOPIC` or `route:`"));
        }
        _ => {}
    }
    let late = f.get("late").and_then(|n| {
        let choices =
            [("dead_letter", LateSettings::DeadLetter), ("drop", LateSettings::Drop), ("update", LateSettings::Update)];
        Some(Spanned { value: decoder.choice(n, "`late`", &choices)?, span: n.span })
    });
    let state = f.get("state").and_then(|n| read_state(decoder, n));
    let orders = [("arrival", OrderSettings::Arrival), ("event_time", OrderSettings::EventTime)];
    let order = f.get("order").and_then(|n| decoder.choice(n, "`order`", &orders));
    let instances = f.get("instances").and_then(|n| read_instances(decoder, n));
    let batch_max = f.get("batch_max").and_then(|n| small(decoder, n, "`batch_max`", BATCH_MAX));
    // A service of which a part was not understood may have other columns than what is left of it.
    let unclear = decoder.found.0.iter().skip(before).any(|d| UNCLEAR.contains(&d.code.as_ref()));
    let no_sql = sql.is_none() && (f.get("sql").is_some() || f.get("sql_file").is_some());
    (!unclear && !no_sql).then_some(())?;
    Some(ServiceSettings {
        from: from?,
        check,
        otherwise,
        sql,
        sql_file,
        fold: match fold {
            Some(fold) => Some(fold?),
            None => None,
        },
        route: route.flatten(),
        to: to.flatten(),
        late,
        state,
        order,
        instances,
        batch_max,
        span: head,
    })
}

fn read_state(decoder: &mut Decoder<'_>, node: &Node) -> Option<StateSettings> {
    const LATER: Later = &[
        ("memory", "write `keep: memory`"),
        ("backup", "a backup is of the whole pipeline: write `state: {backup: …}` at the top of the file"),
    ];
    let f = decoder.fields(node, first_line(node.span), "`state`", &["ttl", "keep", "postgres"], LATER)?;
    let keep = f.get("keep").and_then(|n| {
        let ways = [("local", KeepSettings::Local), ("memory", KeepSettings::Memory)];
        Some(Spanned { value: decoder.choice(n, "`keep`", &ways)?, span: n.span })
    });
    let ttl = f.get("ttl").and_then(|n| decoder.duration(n, "`ttl`"));
    let postgres = f.get("postgres").and_then(|n| read_postgres(decoder, n));
    if let (Some(keep), Some(_)) = (&keep, &postgres) {
        let diagnostic = Diagnostic::error("state-twice", "`keep` and `postgres` both say where the state is kept");
        decoder.report(keep.span, diagnostic.label("leave one of them out"));
    }
    Some(StateSettings { ttl, keep, postgres })
}

fn small(decoder: &mut Decoder<'_>, node: &Node, what: &str, max: u64) -> Option<u32> {
    decoder.integer(node, what, 1, max).and_then(|n| u32::try_from(n.value).ok())
}

fn read_instances(decoder: &mut Decoder<'_>, node: &Node) -> Option<u32> {
    if matches!(node.value, Value::Map(_)) {
        let diagnostic = Diagnostic::error("not-yet", "a range of instances is not in this version yet");
        decoder.report(first_line(node.span), diagnostic.label("write a number; `services scale` changes it live"));
        return None;
    }
    small(decoder, node, "`instances`", INSTANCES_MAX)
}

fn read_check(decoder: &mut Decoder<'_>, node: &Node, what: &str) -> Vec<(Spanned<String>, Sql)> {
    let Some(entries) = decoder.entries(node, &format!("the check of {what}")) else { return Vec::new() };
    if entries.is_empty() || entries.len() > CASES_MAX {
        let message = format!("the check of {what} has from 1 to {CASES_MAX} rules");
        decoder.report(first_line(node.span), Diagnostic::error("bad-value", message));
        return Vec::new();
    }
    let mut rules = Vec::with_capacity(entries.len());
    for (name, value, span) in entries {
        let name = decoder.name_text(name, span, "a rule");
        let sql = sql_scalar(decoder, value, "a rule");
        if let (Some(name), Some(sql)) = (name, sql) {
            rules.push((name.map(|n| n.to_string()), sql));
        }
    }
    rules
}

fn read_else(decoder: &mut Decoder<'_>, node: &Node) -> Option<Spanned<Otherwise>> {
    let name = decoder.name(node, "`else`")?;
    Some(name.map(|name| match name.as_str() {
        "dead_letter" => Otherwise::DeadLetter,
        "drop" => Otherwise::Drop,
        "tag" => Otherwise::Tag,
        _ => Otherwise::Topic(name),
    }))
}

/// An SQL text in the YAML itself.
pub(super) fn sql_scalar(decoder: &mut Decoder<'_>, node: &Node, what: &str) -> Option<Sql> {
    let scalar = decoder.scalar(node, what, "SQL")?;
    let source = decoder.sources.get(node.span.file).map(|f| f.text.clone()).unwrap_or_default();
    Some(Sql::scalar(scalar, node.span, &source))
}

fn read_sql_of(decoder: &mut Decoder<'_>, f: &Fields<'_>) -> (Option<Sql>, Option<Spanned<String>>) {
    let sql = f.get("sql").and_then(|n| sql_scalar(decoder, n, "`sql`"));
    let Some(path) = f.get("sql_file").and_then(|n| decoder.text(n, "`sql_file`")) else { return (sql, None) };
    if f.get("sql").is_some() {
        let message = format!("{} has both `sql` and `sql_file`", f.what);
        decoder.report(path.span, Diagnostic::error("sql-twice", message).label("keep one of the two"));
        return (sql, None);
    }
    match decoder.files.read(Path::new(&path.value)) {
        Ok(text) => {
            // Some editors write a mark of the byte order, which nobody sees and no SQL has.
            let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
            let file = decoder.sources.add(path.value.clone(), text.clone());
            decoder.sql_files.push((path.value.clone(), text.clone()));
            (Some(Sql::file(text, file)), Some(path))
        }
        Err(why) => {
            let message = format!("`{}` cannot be read: {why}", path.value);
            decoder.report(path.span, Diagnostic::error("file-unreadable", message));
            (None, Some(path))
        }
    }
}

fn read_route(decoder: &mut Decoder<'_>, node: &Node, what: &str) -> Option<RouteSettings> {
    let what = format!("the route of {what}");
    let head = first_line(node.span);
    let f = decoder.fields(node, head, what.as_str(), &["first", "all", "otherwise", "targets"], &[])?;
    if f.get("first").is_some() == f.get("all").is_some() {
        let message = format!("{what} needs one of `first` and `all`");
        let label = "`first`: the first case that matches; `all`: every case that matches";
        decoder.report(head, Diagnostic::error("route-mode", message).label(label));
    }
    let first = f.get("first").and_then(|n| read_cases(decoder, n));
    let all = f.get("all").and_then(|n| read_cases(decoder, n));
    let otherwise = f.need(decoder, "otherwise").and_then(|n| decoder.name(n, "`otherwise`"));
    let targets = f.get("targets").and_then(|n| decoder.names(n, "`targets`"));
    (first.is_some() || all.is_some()).then_some(())?;
    Some(RouteSettings { first, all, otherwise: otherwise?.map(|n: Name| n.to_string()), targets, span: head })
}

fn read_cases(decoder: &mut Decoder<'_>, node: &Node) -> Option<Vec<CaseSettings>> {
    let Value::List(items) = &node.value else {
        decoder.items(node, "the cases")?;
        let diagnostic = Diagnostic::error("wrong-type", "the cases must be a list");
        decoder.report(first_line(node.span), diagnostic.label("write `- {when: ..., to: ...}`"));
        return None;
    };
    if items.len() > CASES_MAX {
        let message = format!("a route has at most {CASES_MAX} cases");
        decoder.report(first_line(node.span), Diagnostic::error("too-many", message));
        return None;
    }
    let cases: Vec<CaseSettings> = items.iter().filter_map(|n| read_case(decoder, n)).collect();
    (cases.len() == items.len()).then_some(cases)
}

fn read_case(decoder: &mut Decoder<'_>, node: &Node) -> Option<CaseSettings> {
    let f = decoder.fields(node, first_line(node.span), "a case", &["when", "to"], &[])?;
    let when = f.need(decoder, "when").and_then(|n| sql_scalar(decoder, n, "`when`"));
    let to = f.need(decoder, "to").and_then(|n| decoder.text(n, "`to`"));
    Some(CaseSettings { when: when?, to: to? })
}

const SINK_LATER: Later = &[
    ("kafka", "Kafka sinks come later; use a file"),
    ("postgres", "Postgres sinks come later; use a file"),
    ("http", "HTTP sinks come later; use a file"),
    ("s3", "object storage comes later; use a file"),
    ("object", "object storage comes later; use a file"),
    ("mqtt", "MQTT sinks come later; use a file"),
];

pub(crate) fn read_sink(decoder: &mut Decoder<'_>, node: &Node, what: &str, head: Span) -> Option<SinkSettings> {
    let before = decoder.found.0.len();
    let f = decoder.fields(node, head, what, &["from", "file", "stdout"], SINK_LATER)?;
    let later = decoder.found.0.iter().skip(before).any(|d| d.code == "not-yet");
    let from = f.need(decoder, "from").and_then(|n| decoder.names(n, "`from`"));
    let (file, stdout) = (f.get("file"), f.get("stdout"));
    if file.is_some() == stdout.is_some() && !later {
        let message = format!("{what} needs one of `file` and `stdout`");
        decoder.report(head, Diagnostic::error("sink-kind", message));
    }
    let file = file.map(|n| read_file_sink(decoder, n));
    let stdout = stdout.map(|n| read_stdout(decoder, n));
    (file.is_some() != stdout.is_some()).then_some(())?;
    let settings = SinkSettings { from: from?, file: file.flatten(), stdout: stdout.flatten(), span: head };
    (settings.file.is_some() || settings.stdout.is_some()).then_some(settings)
}

fn read_file_sink(decoder: &mut Decoder<'_>, node: &Node) -> Option<FileSinkSettings> {
    let f = decoder.fields(node, first_line(node.span), "`file`", &["path", "format", "roll"], &[])?;
    let path = f.need(decoder, "path").and_then(|n| decoder.path(n, "`path`"));
    let roll = f.get("roll").and_then(|n| {
        let f = decoder.fields(n, first_line(n.span), "`roll`", &["bytes", "every"], &[])?;
        Some(RollSettings {
            bytes: f.get("bytes").and_then(|n| decoder.size(n, "`bytes`")),
            every: f.get("every").and_then(|n| decoder.duration(n, "`every`")),
        })
    });
    let format = f.get("format").and_then(|n| read_file_format(decoder, n));
    Some(FileSinkSettings { path: path?, format, roll })
}

fn read_stdout(decoder: &mut Decoder<'_>, node: &Node) -> Option<StdoutSettings> {
    if node.is_null() {
        return Some(StdoutSettings::default());
    }
    let f = decoder.fields(node, first_line(node.span), "`stdout`", &["format"], &[])?;
    Some(StdoutSettings { format: f.get("format").and_then(|n| read_text_format(decoder, n)) })
}

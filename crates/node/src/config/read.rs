//! Reads the top of the file, the log, the server, topics and lookups.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use millstream_service::event::{Column, ColumnType};

use super::decode::{Decoder, Fields, Later, first_line};
use super::read_flow::{read_service, read_sink};
use super::read_source::read_source;
use super::read_test::read_test;
use super::scalars;
use super::settings::*;
use super::source_text::{Span, Spanned};
use super::state::read_state;
use super::yaml::{Node, Style, Value};
use crate::diagnostic::{Diagnostic, did_you_mean};

/// Kafka allows more, but a topic with more partitions than this is a slip.
const PARTITIONS_MAX: u64 = 4096;
/// The most things of one kind.
const NAMED_MAX: usize = 1000;
/// The shortest time after which a source may count as idle.
const IDLE_MIN: Duration = Duration::from_millis(100);

const TOP: &[&str] = &[
    "version", "pipeline", "log", "server", "state", "defaults", "topics", "lookups", "sources", "services", "sinks",
    "tests",
];
const TOP_LATER: Later = &[
    ("views", "views come later; write the result to a topic and a file sink"),
    ("policy", "access policy comes later"),
    ("archive", "the archive comes later"),
    ("models", "models come later"),
    ("audit", "the audit log comes later"),
    ("encryption", "encryption at rest comes later"),
];

/// Reads the whole file.
pub(crate) fn read_config(decoder: &mut Decoder<'_>, root: &Node) -> Option<Config> {
    let f = decoder.fields(root, first_line(root.span), "the pipeline file", TOP, TOP_LATER)?;
    let version = f.need(decoder, "version").and_then(|n| read_version(decoder, n));
    let pipeline = f.need(decoder, "pipeline").and_then(|n| decoder.name(n, "`pipeline`"));
    let config = Config {
        version: 1,
        pipeline: pipeline.clone().unwrap_or(Spanned { value: placeholder()?, span: root.span }),
        log: f.get("log").map(|n| read_log(decoder, n)).unwrap_or_else(|| default_log(decoder)),
        server: f.get("server").map(|n| read_server(decoder, n)).unwrap_or_default(),
        state: f.get("state").map(|n| read_state(decoder, n)).unwrap_or_default(),
        defaults: f.get("defaults").map(|n| read_defaults(decoder, n)).unwrap_or_default(),
        topics: named(decoder, &f, "topics", "topic", read_topic),
        lookups: named(decoder, &f, "lookups", "lookup", read_lookup),
        sources: named(decoder, &f, "sources", "source", read_source),
        services: named(decoder, &f, "services", "service", read_service),
        sinks: named(decoder, &f, "sinks", "sink", read_sink),
        tests: read_tests(decoder, &f),
    };
    // A file of another version may mean anything; all else that is missing has had its error.
    version.map(|()| config)
}

fn read_version(decoder: &mut Decoder<'_>, node: &Node) -> Option<()> {
    let one = |text: &str| if text == "1" { Ok(()) } else { Err("this build reads version 1".to_owned()) };
    decoder.parsed(node, "`version`", "1", one)
}

/// A name for going on after a bad one was reported.
fn placeholder() -> Option<millstream_service::event::Name> {
    millstream_service::event::Name::new("unnamed").ok()
}

fn named<T>(
    decoder: &mut Decoder<'_>,
    fields: &Fields<'_>,
    key: &str,
    what: &str,
    read: impl Fn(&mut Decoder<'_>, &Node, &str, Span) -> Option<T>,
) -> Named<T> {
    let Some(node) = fields.get(key).filter(|n| !n.is_null()) else { return Vec::new() };
    let Some(entries) = decoder.entries(node, &format!("`{key}`")) else { return Vec::new() };
    if entries.len() > NAMED_MAX {
        let message = format!("`{key}` has more than {NAMED_MAX} entries");
        decoder.report(first_line(node.span), Diagnostic::error("too-many", message));
        return Vec::new();
    }
    let mut out = Vec::with_capacity(entries.len());
    for (name, value, span) in entries {
        let title = format!("{what} `{name}`");
        let name = decoder.name_text(name, span, &format!("a {what}"));
        let value = read(decoder, value, &title, span);
        out.extend(name.zip(value));
    }
    out
}

fn read_tests(decoder: &mut Decoder<'_>, fields: &Fields<'_>) -> Vec<TestSettings> {
    let Some(node) = fields.get("tests").filter(|n| !n.is_null()) else { return Vec::new() };
    let Some(items) = decoder.items(node, "`tests`") else { return Vec::new() };
    items.iter().filter_map(|n| read_test(decoder, n)).collect()
}

fn default_log(decoder: &Decoder<'_>) -> LogSettings {
    let dir = decoder.files.resolve(&EmbeddedSettings::default().dir);
    LogSettings { embedded: EmbeddedSettings { dir, ..EmbeddedSettings::default() } }
}

fn read_log(decoder: &mut Decoder<'_>, node: &Node) -> LogSettings {
    const LATER: Later = &[("kafka", "Kafka comes later; write `log: {embedded: {dir: data}}`")];
    let mut settings = default_log(decoder);
    let Some(f) = decoder.fields(node, first_line(node.span), "`log`", &["embedded"], LATER) else { return settings };
    let Some(node) = f.get("embedded") else { return settings };
    let keys = ["dir", "segment", "sync", "max_bytes"];
    let Some(f) = decoder.fields(node, first_line(node.span), "`embedded`", &keys, &[]) else { return settings };
    let log = &mut settings.embedded;
    if let Some(dir) = f.get("dir").and_then(|n| decoder.path(n, "`dir`")) {
        log.dir = dir.value;
    }
    log.segment = f.get("segment").and_then(|n| bounded_size(decoder, n, "`segment`", 1 << 20, 16 << 30));
    log.max_bytes = f.get("max_bytes").and_then(|n| bounded_size(decoder, n, "`max_bytes`", 16 << 20, u64::MAX));
    if let Some(sync) = f.get("sync").and_then(|n| read_sync(decoder, n)) {
        log.sync = sync;
    }
    settings
}

fn bounded_size(decoder: &mut Decoder<'_>, node: &Node, what: &str, min: u64, max: u64) -> Option<u64> {
    let size = decoder.size(node, what)?;
    if (min..=max).contains(&size) {
        return Some(size);
    }
    let label = if size < min { format!("at least {min} bytes") } else { format!("at most {max} bytes") };
    decoder.report(node.span, Diagnostic::error("bad-value", format!("{what} is out of range")).label(label));
    None
}

fn read_sync(decoder: &mut Decoder<'_>, node: &Node) -> Option<Sync> {
    if matches!(node.value, Value::Map(_)) {
        let f = decoder.fields(node, first_line(node.span), "`sync`", &["interval"], &[])?;
        let interval = f.need(decoder, "interval")?;
        return decoder.duration(interval, "`interval`").map(Sync::Interval);
    }
    let choices = [("group", Some(Sync::Group)), ("never", Some(Sync::Never)), ("interval", None)];
    let sync = decoder.choice(node, "`sync`", &choices)?;
    if sync.is_none() {
        let diagnostic = Diagnostic::error("bad-value", "`sync: interval` needs the interval");
        decoder.report(node.span, diagnostic.label("write `sync: {interval: 50ms}`"));
    }
    sync
}

fn read_server(decoder: &mut Decoder<'_>, node: &Node) -> ServerSettings {
    const LATER: Later = &[
        ("tls", "TLS comes later; listen on loopback and put a proxy in front"),
        ("token", "tokens come later; listen on loopback and put a proxy in front"),
    ];
    let mut settings = ServerSettings::default();
    let Some(f) = decoder.fields(node, first_line(node.span), "`server`", &["listen"], LATER) else { return settings };
    let Some(node) = f.get("listen") else { return settings };
    settings.listen_span = Some(node.span);
    let read = |text: &str| listen_address(text);
    if let Some(listen) = decoder.parsed(node, "`listen`", "an address and a port", read) {
        settings.listen = listen;
        if !listen.ip().is_loopback() {
            let message = format!("`{listen}` can be reached from other machines, which needs TLS and a token");
            let diagnostic = Diagnostic::error("listen-open", message).label("listen on 127.0.0.1").note(
                "TLS and tokens are not in this version yet: put a proxy with both in front of a loopback address",
            );
            decoder.report(node.span, diagnostic);
        }
    }
    settings
}

/// Reads `127.0.0.1:7070`, `localhost:7070`, `[::1]:7070` or `:7070`.
pub(crate) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let spelled = match text.strip_prefix("localhost:").or_else(|| text.strip_prefix(':')) {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    spelled.parse().map_err(|_| "write an address and a port, for example `127.0.0.1:7070`".to_owned())
}

fn read_defaults(decoder: &mut Decoder<'_>, node: &Node) -> Defaults {
    let mut defaults = Defaults::default();
    let Some(f) = decoder.fields(node, first_line(node.span), "`defaults`", &["topic"], &[]) else { return defaults };
    let Some(node) = f.get("topic") else { return defaults };
    let keys = ["partitions", "key", "retention"];
    let Some(f) = decoder.fields(node, first_line(node.span), "`defaults.topic`", &keys, TOPIC_LATER) else {
        return defaults;
    };
    defaults.topic = TopicDefaults {
        partitions: f.get("partitions").and_then(|n| decoder.integer(n, "`partitions`", 1, PARTITIONS_MAX)),
        key: f.get("key").and_then(|n| decoder.texts(n, "`key`")),
        retention: f.get("retention").and_then(|n| read_retention(decoder, n)),
    };
    defaults
}

const TOPIC_LATER: Later = &[
    ("consistency", "every topic is `strong` for now; leave the line out"),
    ("priority", "priorities come later"),
    ("aliases", "aliases of columns come later"),
    ("max_backlog", "write `retention: {max_bytes: ...}`"),
    ("encrypt", "encryption at rest comes later"),
    ("policy", "access policy comes later"),
];

fn read_topic(decoder: &mut Decoder<'_>, node: &Node, what: &str, head: Span) -> Option<TopicSettings> {
    if node.is_null() {
        return Some(TopicSettings::default());
    }
    let keys = ["event_time", "columns", "key", "partitions", "retention", "kind"];
    let f = decoder.fields(node, head, what, &keys, TOPIC_LATER)?;
    let columns = f.get("columns").and_then(|n| {
        let columns = read_columns(decoder, n, what)?;
        Some(Spanned { value: columns, span: n.span })
    });
    let kinds = [("stream", TopicKindSettings::Stream), ("table", TopicKindSettings::Table)];
    Some(TopicSettings {
        kind: f.get("kind").and_then(|n| {
            let value = decoder.choice(n, "`kind`", &kinds)?;
            Some(Spanned { value, span: n.span })
        }),
        event_time: f.get("event_time").and_then(|n| read_event_time(decoder, n)),
        columns,
        key: f.get("key").and_then(|n| decoder.texts(n, "`key`")),
        partitions: f.get("partitions").and_then(|n| decoder.integer(n, "`partitions`", 1, PARTITIONS_MAX)),
        retention: f.get("retention").and_then(|n| read_retention(decoder, n)),
    })
}

fn read_event_time(decoder: &mut Decoder<'_>, node: &Node) -> Option<EventTimeSettings> {
    if let Value::Scalar(s) = &node.value
        && !s.is_null()
    {
        let column = Spanned { value: s.text.clone(), span: node.span };
        return Some(EventTimeSettings { column, max_out_of_orderness: None, future: None, idle: None });
    }
    let keys = ["column", "max_out_of_orderness", "future", "idle"];
    let f = decoder.fields(node, first_line(node.span), "`event_time`", &keys, &[])?;
    let column = f.need(decoder, "column").and_then(|n| decoder.text(n, "`column`"));
    let max = f.get("max_out_of_orderness").and_then(|n| decoder.duration(n, "`max_out_of_orderness`"));
    let future = f.get("future").and_then(|n| read_future(decoder, n));
    let idle = f.get("idle").and_then(|n| decoder.parsed(n, "`idle`", "a duration such as `30s`", idle_duration));
    Some(EventTimeSettings { column: column?, max_out_of_orderness: max, future, idle })
}

fn read_future(decoder: &mut Decoder<'_>, node: &Node) -> Option<FutureSettings> {
    match &node.value {
        // YAML 1.1 takes `off` for false, and so may an editor.
        Value::Scalar(s) if matches!(s.text.as_str(), "off" | "false") => Some(FutureSettings::Off),
        _ => decoder.duration(node, "`future`").map(FutureSettings::Within),
    }
}

/// A source that is idle at once would be idle between any two of its events.
fn idle_duration(text: &str) -> Result<Duration, String> {
    let idle = scalars::duration(text)?;
    if idle < IDLE_MIN { Err(format!("at least {}ms", IDLE_MIN.as_millis())) } else { Ok(idle) }
}

fn read_retention(decoder: &mut Decoder<'_>, node: &Node) -> Option<RetentionSettings> {
    let mut retention = RetentionSettings { age: Some(Duration::from_secs(86_400)), until_read: true, max_bytes: None };
    if !matches!(node.value, Value::Map(_)) {
        retention.age = read_age(decoder, node)?;
        return Some(retention);
    }
    let f = decoder.fields(node, first_line(node.span), "`retention`", &["age", "until_read", "max_bytes"], &[])?;
    if let Some(node) = f.get("age") {
        retention.age = read_age(decoder, node)?;
    }
    if let Some(node) = f.get("until_read") {
        retention.until_read = decoder.boolean(node, "`until_read`")?;
    }
    retention.max_bytes = f.get("max_bytes").and_then(|n| decoder.size(n, "`max_bytes`"));
    Some(retention)
}

fn read_age(decoder: &mut Decoder<'_>, node: &Node) -> Option<Option<Duration>> {
    match &node.value {
        Value::Scalar(s) if s.text == "forever" => Some(None),
        _ => decoder.duration(node, "`retention`").map(Some),
    }
}

fn read_lookup(decoder: &mut Decoder<'_>, node: &Node, what: &str, head: Span) -> Option<LookupSettings> {
    const LATER: Later = &[
        ("postgres", "database lookups come later; export the table to a CSV file"),
        ("http", "HTTP lookups come later; write the data to a file"),
        ("table", "write `topic: NAME` for the rows of a table topic"),
    ];
    let f = decoder.fields(node, head, what, &["file", "topic", "key", "columns"], LATER)?;
    // A lookup of a later kind has had its error already.
    let later = matches!(&node.value, Value::Map(m) if m.iter().any(|(k, _)| {
        matches!(&k.value, Value::Scalar(s) if LATER.iter().any(|(l, _)| *l == s.text))
    }));
    if let Some(topic) = f.get("topic") {
        return read_lookup_topic(decoder, &f, topic, what);
    }
    let file = if later { None } else { f.need(decoder, "file").and_then(|n| read_lookup_file(decoder, n)) };
    let key = f.need(decoder, "key").and_then(|n| decoder.texts(n, "`key`"));
    let columns = f.need(decoder, "columns").and_then(|n| read_columns(decoder, n, what));
    let (key, columns) = (key?, columns?);
    for column in &key {
        if !columns.iter().any(|(c, _)| c.name == column.value) {
            let label = did_you_mean(&column.value, columns.iter().map(|(c, _)| c.name.as_str()));
            let message = format!("the key of {what} is `{}`, which is not among its columns", column.value);
            decoder.report(column.span, Diagnostic::error("column-unknown", message).label_if(label));
        }
    }
    if key.is_empty() {
        let message = format!("{what} needs at least one key column");
        decoder.report(f.key_span("key").unwrap_or(head), Diagnostic::error("bad-value", message));
    }
    Some(LookupSettings { file: Some(file?), topic: None, key, columns })
}

/// A lookup of a table topic: its columns and key are the topic's.
fn read_lookup_topic(decoder: &mut Decoder<'_>, f: &Fields<'_>, node: &Node, what: &str) -> Option<LookupSettings> {
    let topic = decoder.name(node, "`topic`");
    for (other, why, label) in [
        ("file", "reads either a file or a topic", "leave `file` or `topic` out"),
        ("columns", "has the columns of its topic", "leave `columns` out"),
    ] {
        if let Some(span) = f.key_span(other) {
            decoder.report(span, Diagnostic::error("lookup-kind", format!("{what} {why}")).label(label));
        }
    }
    let key = f.get("key").map(|n| decoder.texts(n, "`key`"));
    Some(LookupSettings { file: None, topic: Some(topic?), key: key.unwrap_or(Some(Vec::new()))?, columns: Vec::new() })
}

fn read_lookup_file(decoder: &mut Decoder<'_>, node: &Node) -> Option<LookupFileSettings> {
    let keys = ["path", "format", "refresh", "compression"];
    let f = decoder.fields(node, first_line(node.span), "`file`", &keys, &[])?;
    let path = f.need(decoder, "path").and_then(|n| decoder.path(n, "`path`"));
    Some(LookupFileSettings {
        format: f.get("format").and_then(|n| read_text_format(decoder, n)),
        compression: f.get("compression").and_then(|n| read_compression(decoder, n)),
        refresh: f.get("refresh").and_then(|n| decoder.duration(n, "`refresh`")),
        path: text_path(decoder, &f, path?),
    })
}

/// The path of a file that must be text.
fn text_path(decoder: &mut Decoder<'_>, f: &Fields<'_>, path: Spanned<PathBuf>) -> Spanned<PathBuf> {
    if f.get("format").is_none() && format_of(&path.value) == Some(Format::Arrow) {
        let diagnostic = Diagnostic::error("not-yet", "a lookup is not read from Arrow in this version");
        decoder.report(path.span, diagnostic.label("use CSV or NDJSON"));
    }
    check_format(decoder, f, path)
}

/// Where no format is given, the file's name must tell it.
pub(crate) fn check_format(decoder: &mut Decoder<'_>, f: &Fields<'_>, path: Spanned<PathBuf>) -> Spanned<PathBuf> {
    if f.get("format").is_none() && format_of(&path.value).is_none() {
        let message = "the file's name does not tell its format";
        decoder.report(path.span, Diagnostic::error("format-unknown", message).label("add `format: ndjson` or `csv`"));
    }
    path
}

/// The format that a file's name tells.
pub fn format_of(path: &std::path::Path) -> Option<Format> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(name);
    match name.rsplit_once('.')?.1 {
        "csv" => Some(Format::Csv),
        "arrow" | "arrows" | "feather" => Some(Format::Arrow),
        "ndjson" | "jsonl" | "json" => Some(Format::Ndjson),
        _ => None,
    }
}

/// The formats of text.
const TEXTS: [(&str, Format); 4] =
    [("ndjson", Format::Ndjson), ("json", Format::Ndjson), ("jsonl", Format::Ndjson), ("csv", Format::Csv)];

/// A format of files.
pub(crate) fn read_file_format(decoder: &mut Decoder<'_>, node: &Node) -> Option<Format> {
    let [ndjson, json, jsonl, csv] = TEXTS;
    decoder.choice(node, "`format`", &[ndjson, json, jsonl, csv, ("arrow", Format::Arrow)])
}

/// A format where Arrow has no place.
pub(crate) fn read_text_format(decoder: &mut Decoder<'_>, node: &Node) -> Option<Format> {
    decoder.choice(node, "`format`", &TEXTS)
}

pub(crate) fn read_compression(decoder: &mut Decoder<'_>, node: &Node) -> Option<Compression> {
    let choices = [("none", Compression::None), ("gzip", Compression::Gzip), ("zstd", Compression::Zstd)];
    decoder.choice(node, "`compression`", &choices)
}

/// Reads `{name: type, ...}`. `decimal(12,2)` without quotes in a flow mapping is cut at its comma by YAML; that is
/// recognised and explained.
fn read_columns(decoder: &mut Decoder<'_>, node: &Node, what: &str) -> Option<Vec<(Column, Span)>> {
    let entries = decoder.entries(node, &format!("the columns of {what}"))?;
    let mut columns: Vec<(Column, Span)> = Vec::with_capacity(entries.len());
    let mut good = true;
    let mut open = false;
    let names: Vec<&str> = entries.iter().map(|(name, ..)| *name).collect();
    for (i, (name, value, span)) in entries.into_iter().enumerate() {
        if open && value.is_null() && (name.contains(')') || name.contains('>')) {
            open = false;
            continue;
        }
        let what = format!("the type of column `{name}`");
        let Some(scalar) = decoder.scalar(value, &what, "a type such as `string!`") else {
            good = false;
            continue;
        };
        match Column::parse(name, &scalar.text) {
            Ok(column) => columns.push((column, span)),
            Err(error) => {
                good = false;
                open = scalar.style == Style::Plain && unclosed(&scalar.text);
                let diagnostic = if open {
                    let message = format!("YAML ends `{}` at the comma inside a {{flow mapping}}", scalar.text);
                    let rest = names.get(i + 1).copied().unwrap_or("...");
                    let label = format!("write it in quotes: \"{},{rest}\"", scalar.text);
                    Diagnostic::error("column-type-cut", message).label(label)
                } else {
                    let label = did_you_mean(&error.word, ColumnType::names().iter().copied());
                    Diagnostic::error("column-type", format!("{what}: {}", error.message)).label_if(label)
                };
                decoder.report(value.span, diagnostic);
            }
        }
    }
    if columns.is_empty() && good {
        let message = format!("{what} needs at least one column");
        decoder.report(first_line(node.span), Diagnostic::error("bad-value", message));
        return None;
    }
    if let Err(error) = millstream_service::event::Schema::new(columns.iter().map(|(c, _)| c.clone()).collect()) {
        decoder.report(first_line(node.span), Diagnostic::error("column-name", format!("{what}: {error}")));
        return None;
    }
    good.then_some(columns)
}

fn unclosed(text: &str) -> bool {
    let count = |c: char| text.matches(c).count();
    count('(') > count(')') || count('<') > count('>')
}

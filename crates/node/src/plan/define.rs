//! The definitions of parts: everything that decides what a part does, and nothing else.

use std::collections::BTreeMap;
use std::path::Path;

use millstream_service::event::{Name, Schema};
use millstream_service::flow::LookupSchema;
use millstream_service::{Producers, ServiceTime};

use super::EventTime;
use super::version::Definition;
use crate::config::{LookupSettings, Otherwise, ServiceSettings, SinkSettings, SourceSettings};

/// A path as it was written, where it lies below the pipeline file.
pub(super) fn within<'a>(path: &'a Path, dir: &Path) -> &'a Path {
    path.strip_prefix(dir).unwrap_or(path)
}

fn list<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|i| i.to_string()).collect::<Vec<_>>().join(", ")
}

fn optional(definition: &mut Definition, path: &str, value: Option<impl std::fmt::Debug>) {
    if let Some(value) = value {
        definition.set(path, format!("{value:?}").to_lowercase());
    }
}

pub(super) fn lookup(settings: &LookupSettings, schema: &LookupSchema, dir: &Path) -> Definition {
    let mut d = Definition::default();
    if let Some(topic) = &settings.topic {
        d.set("topic", &topic.value);
    }
    if let Some(file) = &settings.file {
        d.set("file.path", within(&file.path.value, dir).display());
        optional(&mut d, "file.format", file.format);
        optional(&mut d, "file.compression", file.compression);
        optional(&mut d, "file.refresh", file.refresh);
    }
    d.set("key", list(&schema.key));
    for column in schema.schema.columns() {
        let mark = if column.nullable { "" } else { "!" };
        d.set(format!("columns.{}", column.name), format!("{}{mark}", column.kind));
    }
    d
}

pub(super) fn source(
    settings: &SourceSettings,
    schema: &Schema,
    event_time: Option<&EventTime>,
    dir: &Path,
) -> Definition {
    let mut d = Definition::default();
    if let Some(time) = event_time {
        d.set("event_time.column", &time.column);
        optional(&mut d, "event_time.max_out_of_orderness", Some(time.max_out_of_orderness));
        optional(&mut d, "event_time.future", time.future);
        optional(&mut d, "event_time.idle", time.idle);
    }
    d.set("to", &settings.to.value);
    d.set("columns", schema);
    optional(&mut d, "unknown", Some(settings.unknown));
    if let Some(http) = &settings.http {
        d.set("http.path", &http.path.value);
        optional(&mut d, "http.max_body", http.max_body);
        optional(&mut d, "http.max_event", http.max_event);
        optional(&mut d, "http.max_requests", http.max_requests);
        optional(&mut d, "http.idempotency.ttl", http.idempotency.as_ref().map(|i| i.ttl));
        if let Some(reply) = &http.reply {
            d.set("http.reply.from", list(reply.from.iter().map(|n| &n.value)));
            d.set("http.reply.match", &reply.matching.value);
            optional(&mut d, "http.reply.timeout", reply.timeout);
        }
    }
    if let Some(file) = &settings.file {
        d.set("file.path", within(&file.path.value, dir).display());
        optional(&mut d, "file.format", file.format);
        optional(&mut d, "file.compression", file.compression);
        d.set("file.follow", file.follow);
    }
    if let Some(stdin) = &settings.stdin {
        optional(&mut d, "stdin.format", Some(stdin.format));
    }
    if let Some(generate) = &settings.generate {
        optional(&mut d, "generate.kind", Some(generate.kind));
        optional(&mut d, "generate.rate", generate.rate);
        optional(&mut d, "generate.count", generate.count);
        optional(&mut d, "generate.seed", generate.seed);
        optional(&mut d, "generate.customers", generate.customers);
        optional(&mut d, "generate.merchants", generate.merchants);
        optional(&mut d, "generate.start", generate.start.as_ref().map(|s| &s.value));
        optional(&mut d, "generate.bad", generate.bad);
        optional(&mut d, "generate.symbols", generate.symbols);
        optional(&mut d, "generate.accounts", generate.accounts);
        optional(&mut d, "generate.skus", generate.skus);
        optional(&mut d, "generate.warehouses", generate.warehouses);
    }
    d
}

/// What a service's definition says of an input.
pub(super) struct Input {
    pub(super) name: Name,
    pub(super) schema: Schema,
    /// Where the service's work depends on it.
    pub(super) event_time: Option<EventTime>,
}

/// A service's definition; `inputs` begin with the one that leads. The number of instances is no part of it: it changes
/// nothing but speed.
pub(super) fn service(
    settings: &ServiceSettings,
    inputs: &[Input],
    lookups: &BTreeMap<&Name, &LookupSchema>,
) -> Definition {
    let mut d = Definition::default();
    d.set("from", list(settings.from.iter().map(|n| &n.value)));
    for (i, input) in inputs.iter().enumerate() {
        match i {
            0 => d.set("input", &input.schema),
            _ => d.set(format!("input.{}", input.name), &input.schema),
        }
        if let Some(time) = &input.event_time {
            let plus = if time.plus_us == 0 { String::new() } else { format!(" {:+} us", time.plus_us) };
            d.set(format!("event_time.{}", input.name), format!("{}{plus}", time.column));
        }
    }
    for (name, sql) in &settings.check {
        d.set(format!("check.{}", name.value), &sql.text);
    }
    if let Some(otherwise) = &settings.otherwise {
        let text = match &otherwise.value {
            Otherwise::DeadLetter => "dead_letter".to_owned(),
            Otherwise::Drop => "drop".to_owned(),
            Otherwise::Tag => "tag".to_owned(),
            Otherwise::Topic(name) => name.to_string(),
        };
        d.set("else", text);
    }
    if let Some(sql) = &settings.sql {
        d.set("sql", &sql.text);
    }
    if let Some(fold) = &settings.fold {
        d.set("fold", format!("{:?}", fold.spec()));
    }
    for (name, lookup) in lookups {
        let columns: Vec<String> = lookup.schema.columns().iter().map(ToString::to_string).collect();
        d.set(format!("lookup.{name}"), format!("{} by {}", columns.join(", "), list(&lookup.key)));
    }
    if let Some(to) = &settings.to {
        d.set("to", &to.value);
    }
    if let Some(route) = &settings.route {
        let mode = if route.first.is_some() { "first" } else { "all" };
        for (i, case) in route.cases().iter().enumerate() {
            d.set(format!("route.{mode}.{i:03}"), format!("when {} to {}", case.when.text, case.to.value));
        }
        d.set("route.otherwise", &route.otherwise.value);
        if let Some(targets) = &route.targets {
            d.set("route.targets", list(targets.iter().map(|n| &n.value)));
        }
    }
    optional(&mut d, "batch_max", settings.batch_max);
    optional(&mut d, "order", settings.order);
    optional(&mut d, "state.ttl", settings.state.as_ref().and_then(|s| s.ttl));
    optional(&mut d, "state.keep", settings.state.as_ref().and_then(|s| s.keep.as_ref()).map(|keep| keep.value));
    if let Some(postgres) = settings.state.as_ref().and_then(|s| s.postgres.as_ref()) {
        // Only what may be shown: another password is no other service.
        d.set("state.postgres", postgres.place());
    }
    optional(&mut d, "late", settings.late.as_ref().map(|late| late.value));
    d
}

/// Adds to a service's definition whom it waits for in event time, and whom it tells.
pub(super) fn time(d: &mut Definition, time: &ServiceTime) {
    for input in &time.inputs {
        let writer = |p: &Producers| match p.in_place {
            true => format!("{} in place", p.name),
            false => format!("{} ({})", p.name, p.tasks),
        };
        d.set(format!("time.{}", input.topic), list(input.producers.iter().map(writer)));
    }
    d.set("time.to", list(&time.outputs));
}

pub(super) fn sink(settings: &SinkSettings, inputs: &[(Name, Schema)], dir: &Path) -> Definition {
    let mut d = Definition::default();
    d.set("from", list(settings.from.iter().map(|n| &n.value)));
    if let Some(file) = &settings.file {
        d.set("file.path", within(&file.path.value, dir).display());
        optional(&mut d, "file.format", file.format);
        optional(&mut d, "file.roll.bytes", file.roll.as_ref().and_then(|r| r.bytes));
        optional(&mut d, "file.roll.every", file.roll.as_ref().and_then(|r| r.every));
    }
    for (topic, schema) in inputs {
        d.set(format!("input.{topic}"), schema);
    }
    if let Some(stdout) = &settings.stdout {
        optional(&mut d, "stdout.format", Some(stdout.format));
    }
    d
}

//! From planned parts to running ones: connectors and definitions.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millstream_connect as connect;
use millstream_service::event::{Name, Schema, Unknown};
use millstream_service::log::{EmbeddedOptions, Log, SyncMode, TopicKind};
use millstream_service::{
    BATCH_ROWS_DEFAULT, Check, EventTimeDef, Keep, LookupHandle, ServiceDef, SinkDef, Source as RunningSource,
    SourceDef, TableLookup, Work,
};

use super::world::world;
use crate::api::{ApiError, codes};
use crate::config::{
    Compression, EmbeddedSettings, FileSourceSettings, Format, FutureSettings, HttpSourceSettings, LookupFileSettings,
    SinkSettings, Sync, UnknownFields, format_of,
};
use crate::plan::{EventTime, Lookup, Pipeline, Service, Sink, Source};

/// How long a caller waits for a decision unless told otherwise.
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// How far ahead of its arrival an event may be unless told otherwise.
const FUTURE: Duration = Duration::from_secs(3600);

/// The log's options.
pub(crate) fn log_options(settings: &EmbeddedSettings) -> EmbeddedOptions {
    let mut options = EmbeddedOptions::new(&settings.dir);
    if let Some(bytes) = settings.segment {
        options.segment_bytes = bytes;
    }
    options.max_bytes = settings.max_bytes;
    options.sync = match settings.sync {
        Sync::Group => SyncMode::Group,
        Sync::Interval(every) => SyncMode::Interval(every),
        Sync::Never => SyncMode::Never,
    };
    options
}

/// The sync mode in the words of the file.
pub(crate) fn sync_text(sync: Sync) -> String {
    match sync {
        Sync::Group => "group".into(),
        Sync::Interval(every) => format!("interval {}ms", every.as_millis()),
        Sync::Never => "never".into(),
    }
}

fn format(given: Option<Format>, path: &Path) -> connect::Format {
    match given.or_else(|| format_of(path)) {
        Some(Format::Csv) => connect::Format::Csv,
        Some(Format::Arrow) => connect::Format::Arrow,
        _ => connect::Format::Ndjson,
    }
}

fn compression(given: Option<Compression>) -> connect::Compression {
    match given {
        None => connect::Compression::Auto,
        Some(Compression::None) => connect::Compression::None,
        Some(Compression::Gzip) => connect::Compression::Gzip,
        Some(Compression::Zstd) => connect::Compression::Zstd,
    }
}

fn unknown(given: UnknownFields) -> Unknown {
    match given {
        UnknownFields::Keep => Unknown::Keep,
        UnknownFields::Drop => Unknown::Drop,
        UnknownFields::Reject => Unknown::Reject,
    }
}

/// What keeps a lookup fresh; dropping it stops that.
#[expect(dead_code, reason = "they are held, not used")]
pub(crate) enum LookupKeeper {
    File(connect::FileLookup),
    Table(TableLookup),
}

/// Starts to load a lookup; `None`: it says nowhere where its rows are, which no plan allows.
pub(crate) fn lookup(lookup: &Lookup, log: &Arc<dyn Log>) -> Option<(LookupKeeper, LookupHandle)> {
    if let Some(topic) = &lookup.topic {
        let (name, schema) = (lookup.name.clone(), lookup.schema.clone());
        let (keeper, handle) = TableLookup::start(Arc::clone(log), name, topic.clone(), schema);
        return Some((LookupKeeper::Table(keeper), handle));
    }
    let LookupFileSettings { path, format: form, compression: packed, refresh } = lookup.settings.file.as_ref()?;
    let settings = connect::lookup::Settings {
        path: path.value.clone(),
        format: format(*form, &path.value),
        compression: compression(*packed),
        refresh: *refresh,
    };
    let (keeper, handle) = connect::FileLookup::start(lookup.name.clone(), settings, lookup.schema.clone());
    Some((LookupKeeper::File(keeper), handle))
}

/// The columns of a topic of the pipeline; of dead letters only the log knows them.
fn columns(pipeline: &Pipeline, topic: &Name) -> Option<Schema> {
    pipeline.topics.get(topic).map(|topic| topic.spec.schema.clone())
}

/// The definition of a service.
pub(crate) fn service(pipeline: &Pipeline, service: &Service, lookups: &BTreeMap<Name, LookupHandle>) -> ServiceDef {
    ServiceDef {
        name: service.name.clone(),
        version: service.definition.version(),
        inputs: service.inputs.clone(),
        aliases: service.aliases.clone(),
        columns: service.inputs.iter().filter_map(|n| Some((n.clone(), columns(pipeline, n)?))).collect(),
        check: service
            .check
            .as_ref()
            .map(|(rules, otherwise)| Check { rules: Arc::clone(rules), otherwise: otherwise.clone() }),
        work: work(service),
        output: service.output.clone(),
        instances: service.instances,
        batch_rows_max: service.batch_max.and_then(|n| usize::try_from(n).ok()).unwrap_or(BATCH_ROWS_DEFAULT),
        lookups: service.lookups.iter().filter_map(|name| lookups.get(name).cloned()).collect(),
        late: service.late,
        time: service.time.clone(),
        keep: match &service.store {
            Some(store) => Keep::External(Arc::new(store.clone())),
            None if service.in_memory => Keep::Memory,
            None => Keep::Log,
        },
    }
}

fn work(service: &Service) -> Work {
    match (&service.query, &service.fold) {
        (Some(query), _) => Work::Query(Arc::clone(query)),
        (None, Some(fold)) => Work::Fold(Arc::clone(fold)),
        (None, None) => Work::None,
    }
}

fn is_table(pipeline: &Pipeline, topic: &Name) -> bool {
    pipeline.topics.get(topic).is_some_and(|topic| topic.spec.kind == TopicKind::Table)
}

/// The definition of a sink.
pub(crate) fn sink(pipeline: &Pipeline, sink: &Sink) -> SinkDef {
    let SinkSettings { file, .. } = &sink.settings;
    let running: Arc<dyn millstream_service::Sink> = match file {
        Some(file) => {
            let mut settings = connect::file_sink::Settings::new(&file.path.value);
            settings.format = format(Some(file.format.unwrap_or(Format::Ndjson)), &file.path.value);
            settings.tables = sink.inputs.iter().filter(|topic| is_table(pipeline, topic)).cloned().collect();
            if let Some(roll) = &file.roll {
                settings.roll.bytes = roll.bytes.unwrap_or(settings.roll.bytes);
                settings.roll.every = roll.every;
            }
            Arc::new(connect::FileSink::new(settings))
        }
        None => Arc::new(connect::StdoutSink::new()),
    };
    SinkDef {
        name: sink.name.clone(),
        version: sink.definition.version(),
        sink: running,
        inputs: sink.inputs.clone(),
        columns: sink.inputs.iter().filter_map(|n| Some((n.clone(), columns(pipeline, n)?))).collect(),
        instances: 1,
    }
}

/// The definition of a source that is no HTTP source.
pub(crate) fn source(source: &Source) -> Result<SourceDef, ApiError> {
    let settings = &source.settings;
    let extra = unknown(settings.unknown);
    let running: Arc<dyn RunningSource> = if let Some(file) = &settings.file {
        Arc::new(connect::FileSource::new(file_settings(file, extra), source.schema.clone()))
    } else if let Some(generate) = &settings.generate {
        let made = connect::GenerateSource::of(world(source, generate)?, source.schema.clone());
        Arc::new(made.map_err(|e| wrong(source, e.to_string()))?)
    } else {
        let form = settings.stdin.as_ref().and_then(|s| s.format);
        let form = format(Some(form.unwrap_or(Format::Ndjson)), Path::new(""));
        Arc::new(connect::StdinSource::new(form, extra, source.schema.clone()))
    };
    Ok(source_def(source, running))
}

/// An HTTP source: what the runner opens, and what brings the routes.
pub(crate) fn http_source(
    source: &Source,
    given: &HttpSourceSettings,
    refusals: Vec<Name>,
    log: &Arc<dyn Log>,
) -> Result<connect::HttpSource, ApiError> {
    let mut settings = connect::http::Settings::new(given.path.value.as_str());
    settings.unknown = unknown(source.settings.unknown);
    settings.reply = given.reply.as_ref().map(|reply| connect::http::Reply {
        from: reply.from.iter().map(|n| n.value.clone()).collect(),
        dead_letters: refusals,
        matching: reply.matching.value.clone(),
        timeout: reply.timeout.unwrap_or(REPLY_TIMEOUT),
    });
    if let Some(idempotency) = &given.idempotency {
        settings.idempotency.ttl = idempotency.ttl;
    }
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let limits = &mut settings.limits;
    limits.body_bytes_max = given.max_body.map_or(limits.body_bytes_max, size);
    limits.event_bytes_max = given.max_event.map_or(limits.event_bytes_max, size);
    limits.requests_max = given.max_requests.map_or(limits.requests_max, size);
    limits.bodies_bytes_max = limits.bodies_bytes_max.max(limits.body_bytes_max);
    let to = source.settings.to.value.clone();
    connect::HttpSource::new(&source.name, settings, to, source.schema.clone(), Arc::clone(log))
        .map_err(|e| wrong(source, e.to_string()))
}

/// A source's definition around what runs.
pub(crate) fn source_def(source: &Source, running: Arc<dyn RunningSource>) -> SourceDef {
    SourceDef {
        name: source.name.clone(),
        version: source.definition.version(),
        source: running,
        to: source.settings.to.value.clone(),
        columns: Some(source.schema.clone()),
        event_time: source.event_time.as_ref().map(|time| event_time(source, time)),
    }
}

fn event_time(source: &Source, time: &EventTime) -> EventTimeDef {
    let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    // Files and generators bring history; what comes from outside now is from now.
    let live = source.settings.http.is_some() || source.settings.stdin.is_some();
    let future = match time.future {
        Some(FutureSettings::Off) => None,
        Some(FutureSettings::Within(time)) => Some(time),
        None => live.then_some(FUTURE),
    };
    EventTimeDef {
        column: time.column.clone(),
        max_out_of_orderness_us: micros(time.max_out_of_orderness),
        future_us: future.map(micros),
        idle: time.idle,
    }
}

fn file_settings(file: &FileSourceSettings, unknown: Unknown) -> connect::file::Settings {
    let mut settings = connect::file::Settings::new(file.path.value.to_string_lossy());
    settings.format = format(file.format, &file.path.value);
    settings.compression = compression(file.compression);
    settings.follow = file.follow;
    settings.unknown = unknown;
    settings
}

pub(super) fn wrong(source: &Source, why: String) -> ApiError {
    ApiError::new(codes::PIPELINE_WRONG, format!("source `{}`: {why}", source.name))
}

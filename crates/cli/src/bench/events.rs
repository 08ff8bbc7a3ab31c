//! The events that a benchmark feeds: card payments after a pipeline's own `generate` settings, or lines of a file.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use millstream_node::config::{Config, GenerateKind, GenerateSettings};
use millstream_node::connect::generate::{self, Counts, Settings, Simulator, generate_ndjson};

use crate::failure::Failure;

/// The settings of the pipeline's first source of made-up payments, as fast as it goes and without end.
pub(super) fn settings(config: &Config) -> Option<Settings> {
    let made = config.sources.iter().filter_map(|(_, source)| source.generate.as_ref());
    made.filter(|made| made.kind == GenerateKind::CardTransactions).map(unbounded).next()
}

fn unbounded(from: &GenerateSettings) -> Settings {
    let default = Settings::default();
    let start = from.start.as_ref().and_then(|start| start.value.parse().ok());
    let size = |given: Option<u64>, default: u32| given.and_then(|n| u32::try_from(n).ok()).unwrap_or(default);
    Settings {
        rate: None,
        count: None,
        seed: from.seed.unwrap_or(default.seed),
        customers: size(from.customers, default.customers),
        merchants: size(from.merchants, default.merchants),
        bad: from.bad.unwrap_or(default.bad),
        start: start.unwrap_or(default.start),
    }
}

/// Writes events to a file and says what they are.
pub(super) fn write(settings: Settings, events: u64, path: &Path) -> Result<Counts, Failure> {
    let failed = || format!("writing {}", path.display());
    let mut simulator = simulator(settings)?;
    let mut file = File::create(path).with_context(failed)?;
    let counts = generate_ndjson(&mut simulator, events, &mut file).with_context(failed)?;
    file.flush().with_context(failed)?;
    // What the system has yet to write must not be paid for by the pipeline.
    file.sync_all().with_context(failed)?;
    Ok(counts)
}

/// Events as lines in memory, without their newlines; none of them bad, and so many left out before them.
pub(super) fn lines(settings: Settings, before: u64, events: u64) -> Result<Vec<Vec<u8>>, Failure> {
    let mut simulator = simulator(Settings { bad: 0.0, ..settings })?;
    let left_out = usize::try_from(before).unwrap_or(usize::MAX);
    for _ in simulator.by_ref().take(left_out) {}
    let mut text = Vec::new();
    generate_ndjson(&mut simulator, events, &mut text)?;
    Ok(split(&text))
}

/// The lines of a file.
pub(super) fn lines_of(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(split(&text))
}

fn split(text: &[u8]) -> Vec<Vec<u8>> {
    text.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

fn simulator(settings: Settings) -> Result<Simulator, Failure> {
    Simulator::new(settings).map_err(|e| Failure::Usage(format!("the pipeline's `generate`: {e}")))
}

/// The columns of a payment, as a pipeline file writes them.
pub(super) fn columns() -> serde_json::Value {
    let columns = generate::columns().into_iter().map(|column| {
        let mark = if column.nullable { "" } else { "!" };
        (column.name, serde_json::Value::String(format!("{}{mark}", column.kind)))
    });
    serde_json::Value::Object(columns.collect())
}

//! Runs the `tests:` of a pipeline: the real services on a log in memory.
//!
//! Each test has a log of its own. The given events are appended to their topics as a source would append them, the
//! services run until nothing is left to read, and the topics named under `expect` are compared: as many rows as
//! expected, each with the named columns' values, in any order (partitions have none between them). Of a table topic the
//! newest row of each key counts. Sources say at once that nothing more will come, so that windows close. A service that looks
//! rows up in a table topic begins when all that is given to the table, and all that services write to it, is there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use millstream_service::event::json::{Decimals, Decoder, Encoder};
use millstream_service::event::{
    Column, Name, Offset, PartitionId, Partitioner, Schema, Stamp, TopicPartition, Unknown, Watermark,
};
use millstream_service::log::{
    Append, Change, Class, Commit, Join, Lead, Log, MemoryLog, Outcome, Read, TopicInfo, TopicKind, TopicSpec,
};
use millstream_service::{Keep, LookupHandle, Options, Runner, ServiceDef, State};
use serde::{Deserialize, Serialize};

use crate::config::{TestRows, TestSettings};
use crate::plan::{Pipeline, Source};
use crate::runtime::build;

/// How long a test may take.
const TEST_SECONDS_MAX: u64 = 30;
/// The time at which given events come in, in microseconds since 1970: 2026-01-01T00:00:00Z, the same in every run.
const INGESTED_AT_MICROS: i64 = 1_767_225_600_000_000;
/// The most differences told of one topic.
const DIFFERENCES_MAX: usize = 10;

/// How one test went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestResult {
    /// The test's name.
    pub name: String,
    /// The differences, each a few lines for a person; empty where it passed.
    pub faults: Vec<String>,
}

/// Runs all tests of a pipeline, one after the other. Lookups of files are read once.
pub async fn run_tests(pipeline: &Pipeline, tests: &[TestSettings]) -> Vec<TestResult> {
    let nowhere: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let mut keepers = Vec::new();
    let mut lookups = BTreeMap::new();
    for lookup in pipeline.lookups.iter().filter(|lookup| lookup.topic.is_none()) {
        let Some((keeper, handle)) = build::lookup(lookup, &nowhere) else { continue };
        keepers.push(keeper);
        lookups.insert(lookup.name.clone(), handle);
    }
    let mut results = Vec::with_capacity(tests.len());
    for test in tests {
        let limit = Duration::from_secs(TEST_SECONDS_MAX);
        let faults = match tokio::time::timeout(limit, run_test(pipeline, &lookups, test)).await {
            Ok(Ok(faults)) => faults,
            Ok(Err(fault)) => vec![fault],
            Err(_) => vec![format!("it did not come to an end within {TEST_SECONDS_MAX} s")],
        };
        results.push(TestResult { name: test.name.value.clone(), faults });
    }
    results
}

async fn run_test(
    pipeline: &Pipeline,
    lookups: &BTreeMap<Name, LookupHandle>,
    test: &TestSettings,
) -> Result<Vec<String>, String> {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    for topic in pipeline.topics.values() {
        log.create_topic(topic.spec.clone()).await.map_err(|e| e.to_string())?;
    }
    let runner = Runner::new(Arc::clone(&log), Options::new(tokio::runtime::Handle::current()));
    // What sources say below is said in this run.
    runner.begin().await.map_err(|e| e.to_string())?;
    for given in &test.given {
        append(log.as_ref(), given).await?;
    }
    for source in &pipeline.sources {
        close(log.as_ref(), source).await?;
    }
    let mut outcome = Ok(());
    let mut lookups = lookups.clone();
    let mut keepers = Vec::new();
    // Each service stands behind those that write the tables in which it looks rows up.
    for service in &pipeline.services {
        let tables = pipeline.lookups.iter().filter(|l| l.topic.is_some() && service.lookups.contains(&l.name));
        for lookup in tables {
            if lookups.contains_key(&lookup.name) {
                continue;
            }
            outcome = outcome.and(at_rest(&runner).await);
            let Some((keeper, handle)) = build::lookup(lookup, &log) else { continue };
            handle.tried().await?;
            keepers.push(keeper);
            lookups.insert(lookup.name.clone(), handle);
        }
        // A test has a log of its own, and its state with it, wherever the service keeps it otherwise.
        let def = ServiceDef { keep: Keep::Log, ..build::service(pipeline, service, &lookups) };
        runner.start_service(def).await.map_err(|e| e.to_string())?;
    }
    let outcome = outcome.and(at_rest(&runner).await);
    let mut faults = Vec::new();
    if outcome.is_ok() {
        for expected in &test.expect {
            faults.extend(compare(log.as_ref(), expected).await?);
        }
    }
    runner.stop_all(true).await;
    outcome.map(|()| faults)
}

/// Waits until nothing is left to read, or a service cannot go on.
async fn at_rest(runner: &Runner) -> Result<(), String> {
    tokio::select! {
        () = runner.drained() => Ok(()),
        reason = stuck(runner) => Err(reason),
    }
}

/// Waits until a service can no longer go on by itself, and says why.
async fn stuck(runner: &Runner) -> String {
    loop {
        for handle in runner.handles() {
            let name = handle.name();
            match handle.state() {
                State::Waiting { reason } if reason.contains("no table yet") && !reason.contains("being read") => {
                    return format!("service `{name}` waits: {reason}");
                }
                State::Failed { reason } => return format!("service `{name}` failed: {reason}"),
                _ => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Appends the given events to their topic, as a source would.
async fn append(log: &dyn Log, given: &TestRows) -> Result<(), String> {
    let name = &given.topic.value;
    let info = log.topic(name).ok_or_else(|| format!("`given` names the topic `{name}`, which does not exist"))?;
    let TopicSpec { schema, key, partitions, .. } = &info.spec;
    let mut lines = Vec::new();
    for row in &given.rows {
        lines.extend_from_slice(row.value.as_bytes());
        lines.push(b'\n');
    }
    let decoded = Decoder::new(schema, Unknown::Reject).decode_lines(&lines).map_err(|e| e.to_string())?;
    if let Some(refused) = decoded.refused.first() {
        return Err(format!("given event {} of `{name}` is no event: {}", refused.row + 1, refused.reason));
    }
    let rows = schema.with_system(&decoded.rows, INGESTED_AT_MICROS).map_err(|e| e.to_string())?;
    let split = Partitioner::new(schema, key, *partitions).map_err(|e| e.to_string())?.split(&rows);
    let split = split.map_err(|e| e.to_string())?;
    if let Some(row) = split.null_rows.first() {
        return Err(format!("given event {} of `{name}` has no key: a key column is null", row + 1));
    }
    let mut appends = Vec::new();
    for part in split.parts {
        appends.push(Append {
            topic: name.clone(),
            partition: part.partition,
            schema_version: info.schema_version,
            rows: part.rows,
            watermark: None,
        });
    }
    if appends.is_empty() {
        return Ok(());
    }
    let giver = Name::new(format!("given.{name}")).map_err(|e| e.to_string())?;
    commit_as(log, giver, 1, &appends).await
}

/// Says for a source, which does not run in a test, that nothing more will come: windows close.
async fn close(log: &dyn Log, source: &Source) -> Result<(), String> {
    let Some(info) = log.topic(&source.settings.to.value) else { return Ok(()) };
    let nothing = |partition| Append {
        topic: info.spec.name.clone(),
        partition: PartitionId(partition),
        schema_version: info.schema_version,
        rows: RecordBatch::new_empty(Arc::clone(info.spec.schema.physical())),
        watermark: Some(Watermark::CLOSED),
    };
    let appends: Vec<Append> = (0..info.spec.partitions).map(nothing).collect();
    commit_as(log, source.name.clone(), source.tasks(), &appends).await
}

/// Commits appends as each task of a component.
async fn commit_as(log: &dyn Log, name: Name, tasks: u32, appends: &[Append]) -> Result<(), String> {
    let join = Join { service: name.clone(), instance: 0, lead: Lead::Tasks(tasks) };
    let mut member = log.join(join).map_err(|e| e.to_string())?;
    let mut left = tasks;
    while left > 0 {
        let Change::Assigned(assigned) = member.next().await else { continue };
        for task in assigned {
            let (task, epoch, appends) = (task.id, task.epoch, appends.to_vec());
            let commit = Commit { task, epoch, class: Class::Intake, consumed: Vec::new(), appends };
            match log.commit(commit).await {
                Outcome::Committed(_) => left = left.saturating_sub(1),
                other => return Err(format!("the events of `{name}` could not be appended: {other:?}")),
            }
        }
    }
    Ok(())
}

/// What is wrong with a topic's events; empty where they are as expected.
async fn compare(log: &dyn Log, expected: &TestRows) -> Result<Vec<String>, String> {
    let name = &expected.topic.value;
    let Some(info) = log.topic(name) else {
        let near: Vec<String> = log.topics().iter().map(|t| t.spec.name.to_string()).collect();
        return Err(format!("`expect` names the topic `{name}`; there are {}", near.join(", ")));
    };
    let found = read_all(log, &info).await?;
    let all = Encoder::new(&info.spec.schema, Decimals::Numbers);
    let mut fits: Vec<Vec<usize>> = Vec::new();
    let mut wanted = Vec::new();
    for row in &expected.rows {
        let (columns, line) = normalised(&info.spec.schema, &row.value)?;
        let named = Encoder::new(&columns, Decimals::Numbers);
        let mut places = Vec::new();
        for (place, (batch, at)) in found.iter().enumerate() {
            if project(batch, &info.spec.schema, &columns).and_then(|b| text(&named, &b, *at))? == line {
                places.push(place);
            }
        }
        fits.push(places);
        wanted.push(line);
    }
    let taken = assign(&fits, found.len());
    let mut faults = Vec::new();
    for (row, line) in wanted.iter().enumerate() {
        if !taken.contains(&Some(row)) {
            faults.push(format!("- expected in {name}: {line}"));
        }
    }
    for (place, (batch, at)) in found.iter().enumerate() {
        if taken.get(place).is_some_and(Option::is_none) {
            faults.push(format!("+ found in {name}:    {}", text(&all, batch, *at)?));
        }
    }
    if faults.len() > DIFFERENCES_MAX {
        let more = faults.len() - DIFFERENCES_MAX;
        faults.truncate(DIFFERENCES_MAX);
        faults.push(format!("  and {more} more differences in {name}"));
    }
    Ok(faults)
}

/// Every event of a topic, as batches and rows in them.
async fn read_all(log: &dyn Log, info: &TopicInfo) -> Result<Vec<(RecordBatch, usize)>, String> {
    let mut found = Vec::new();
    for partition in 0..info.spec.partitions {
        let at = TopicPartition::new(info.spec.name.clone(), partition);
        let mut reader = log.read(&at, Offset(0)).map_err(|e| e.to_string())?;
        while let Read::Batch(batch) = reader.next().await.map_err(|e| e.to_string())? {
            for row in 0..batch.rows.num_rows() {
                found.push((batch.rows.clone(), row));
            }
        }
    }
    if info.spec.kind == TopicKind::Table { newest(found, &info.spec) } else { Ok(found) }
}

/// The newest row of each key, without those that are deleted: what a table topic holds.
fn newest(rows: Vec<(RecordBatch, usize)>, spec: &TopicSpec) -> Result<Vec<(RecordBatch, usize)>, String> {
    let key = Partitioner::new(&spec.schema, &spec.key, 1).map_err(|e| e.to_string())?;
    let mut newest = BTreeMap::new();
    for (batch, row) in rows {
        let Some(of) = key.key_bytes(&batch, row).map_err(|e| e.to_string())? else { continue };
        let deleted = Schema::ingested_at(&batch).is_some_and(|stamps| Stamp(stamps.value(row)).is_deleted());
        if deleted {
            newest.remove(&of)
        } else {
            newest.insert(of, (batch, row))
        };
    }
    Ok(newest.into_values().collect())
}

/// The columns that an expected row names, and the row as the encoder would write it.
fn normalised(schema: &Schema, row: &str) -> Result<(Schema, String), String> {
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(row).map_err(|e| e.to_string())?;
    let mut columns = Vec::new();
    for name in fields.keys() {
        let (_, column) = schema.column(name).ok_or_else(|| {
            let near = schema.columns().iter().map(|c| (strsim::damerau_levenshtein(&c.name, name), &c.name));
            let near = near.min().map(|(_, near)| format!("; did you mean `{near}`?")).unwrap_or_default();
            format!("an expected row names the column `{name}`, which the topic does not have{near}")
        })?;
        columns.push(Column::nullable(name, column.kind.clone()));
    }
    let columns = Schema::new(columns).map_err(|e| e.to_string())?;
    let decoded = Decoder::new(&columns, Unknown::Reject).decode_lines(row.as_bytes()).map_err(|e| e.to_string())?;
    if let Some(refused) = decoded.refused.first() {
        return Err(format!("the expected row {row} cannot be: {}", refused.reason));
    }
    let line = text(&Encoder::new(&columns, Decimals::Numbers), &decoded.rows, 0)?;
    Ok((columns, line))
}

fn project(batch: &RecordBatch, schema: &Schema, columns: &Schema) -> Result<RecordBatch, String> {
    let indices: Vec<usize> = columns.columns().iter().filter_map(|c| schema.column(&c.name).map(|(i, _)| i)).collect();
    batch.project(&indices).map_err(|e| e.to_string())
}

fn text(encoder: &Encoder, batch: &RecordBatch, row: usize) -> Result<String, String> {
    encoder.encode_row(batch, row).map_err(|e| e.to_string())
}

/// Gives each expected row a found one of its own where that is possible at all (augmenting paths): for each found
/// row, the expected row that it stands for.
fn assign(fits: &[Vec<usize>], found: usize) -> Vec<Option<usize>> {
    fn give(row: usize, fits: &[Vec<usize>], taken: &mut [Option<usize>], tried: &mut [bool]) -> bool {
        for &place in fits.get(row).map(Vec::as_slice).unwrap_or_default() {
            match tried.get_mut(place) {
                Some(seen) if !*seen => *seen = true,
                _ => continue,
            }
            let holder = taken.get(place).copied().flatten();
            if holder.is_none_or(|other| give(other, fits, taken, tried)) {
                if let Some(slot) = taken.get_mut(place) {
                    *slot = Some(row);
                }
                return true;
            }
        }
        false
    }
    let mut taken = vec![None; found];
    for row in 0..fits.len() {
        give(row, fits, &mut taken, &mut vec![false; found]);
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::assign;

    #[test]
    fn a_vague_expectation_leaves_the_only_fit_to_the_exact_one() {
        // The first expected row fits both found rows, the second only the first.
        assert_eq!(assign(&[vec![0, 1], vec![0]], 2), [Some(1), Some(0)]);
        assert_eq!(assign(&[vec![0], vec![0]], 1), [Some(0)]);
        assert_eq!(assign(&[], 1), [None]);
    }
}

//! What a service keeps, for a person to read: from its changelog, or from the store that has its state, so that only
//! committed state is seen.
//!
//! A changelog has a key several times until it is compacted, so the rows wanted are brought together in memory: the first
//! ones by key, as many as [`ROWS_HELD_MAX`] and [`BYTES_HELD_MAX`] allow. A row that is let go of closes the way for all
//! behind it, so that what is held is always exactly the beginning of the state.

use std::collections::BTreeMap;

use millstream_event::{Batch, Name, TopicPartition};
use millstream_flow::{StateCell, StateLegend, StateRow};
use millstream_log::{Log, Read, TaskId};
use serde_json::Value;

use crate::Error;
use crate::state::{Rows, topic_name};
use crate::store::{StateStore, StoreError};

/// The most rows of a partition that are held together.
pub const ROWS_HELD_MAX: usize = 100_000;
/// The most bytes of them.
pub const BYTES_HELD_MAX: usize = 64 << 20;

/// Which rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Key columns and the texts of their values.
    pub key: Vec<(String, String)>,
    /// Only this partition.
    pub partition: Option<u32>,
    /// At most so many.
    pub limit: usize,
}

/// A row with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The partition.
    pub partition: u32,
    /// How many bytes it takes in the changelog.
    pub bytes: usize,
    /// The row.
    pub row: StateRow,
}

/// Rows, and whether there are more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The rows, by partition and key.
    pub rows: Vec<Kept>,
    /// Whether more would have been found.
    pub more: bool,
}

/// What a service keeps whose program reads its rows with `legend` and has the form `signature`. A service that has never
/// run keeps nothing.
pub async fn show(
    log: &dyn Log,
    service: &Name,
    legend: &StateLegend,
    signature: &str,
    wanted: &Wanted,
) -> Result<Found, Error> {
    let topic = topic_name(service).map_err(|e| Error::Refused(e.to_string()))?;
    let mut found = Found::default();
    let Some(info) = log.topic(&topic) else { return Ok(found) };
    for partition in wanted.partitions(service, info.spec.partitions)? {
        if found.rows.len() >= wanted.limit {
            // Whether there is more behind is not worth reading for.
            found.more = true;
            break;
        }
        let at = TopicPartition::new(topic.clone(), partition);
        let held = read(log, &at, legend, wanted).await?;
        if held.form.as_ref().is_some_and(|form| !fits(form, signature)) {
            return Err(other_form(service));
        }
        found.more |= held.closed.is_some();
        for (key, value) in held.rows {
            if found.rows.len() >= wanted.limit {
                found.more = true;
                break;
            }
            let row = legend.row(&key, &value).map_err(|e| Error::Refused(e.to_string()))?;
            found.rows.push(Kept { partition, bytes: key.len() + value.len(), row });
        }
    }
    Ok(found)
}

/// The same of a service whose state is in a store, and whose inputs have so many partitions.
pub async fn show_stored(
    store: &dyn StateStore,
    (service, partitions): (&Name, u32),
    legend: &StateLegend,
    signature: &str,
    wanted: &Wanted,
) -> Result<Found, Error> {
    let unread = |e: StoreError| Error::Refused(e.to_string());
    let mut found = Found::default();
    for partition in wanted.partitions(service, partitions)? {
        let task = TaskId::new(service.clone(), partition);
        let Some(mut stored) = store.look(&task).await.map_err(unread)? else { continue };
        loop {
            let rows = stored.rows().await.map_err(unread)?;
            if rows.is_empty() {
                break;
            }
            for (key, value) in rows {
                if key.is_empty() {
                    if !fits(&value, signature) {
                        return Err(other_form(service));
                    }
                    continue;
                }
                let row = legend.row(&key, &value).map_err(|e| Error::Refused(e.to_string()))?;
                if !matches(&row.key, &wanted.key) {
                    continue;
                }
                if found.rows.len() >= wanted.limit {
                    found.more = true;
                    return Ok(found);
                }
                found.rows.push(Kept { partition, bytes: key.len() + value.len(), row });
            }
        }
    }
    Ok(found)
}

/// Whether state of this form is read by the program with this signature; no form: there is no state yet.
fn fits(form: &[u8], signature: &str) -> bool {
    form.is_empty() || form == signature.as_bytes()
}

fn other_form(service: &Name) -> Error {
    Error::Refused(format!(
        "the state that `{service}` has stored has another form than this pipeline's: its SQL or fold was changed"
    ))
}

impl Wanted {
    fn partitions(&self, service: &Name, partitions: u32) -> Result<std::ops::Range<u32>, Error> {
        match self.partition {
            Some(partition) if partition < partitions => Ok(partition..partition + 1),
            Some(partition) => {
                Err(Error::Refused(format!("`{service}` has no partition {partition}; it has {partitions}")))
            }
            None => Ok(0..partitions),
        }
    }
}

/// The beginning of a partition's state.
#[derive(Default)]
struct Held {
    rows: BTreeMap<Box<[u8]>, Box<[u8]>>,
    bytes: usize,
    /// From this key on rows were let go of.
    closed: Option<Box<[u8]>>,
    /// The form that the changelog names.
    form: Option<Box<[u8]>>,
}

async fn read(log: &dyn Log, at: &TopicPartition, legend: &StateLegend, wanted: &Wanted) -> Result<Held, Error> {
    let start = log.start(at).await?;
    let mut reader = log.read(at, start)?;
    let mut held = Held::default();
    while let Read::Batch(batch) = reader.next().await? {
        held.take(&batch, legend, wanted)?;
        tokio::task::yield_now().await;
    }
    Ok(held)
}

impl Held {
    fn take(&mut self, batch: &Batch, legend: &StateLegend, wanted: &Wanted) -> Result<(), Error> {
        let form = || Error::Refused("the changelog does not have the columns of one".to_owned());
        for entry in Rows::of(batch).ok_or_else(form)?.iter() {
            match entry {
                // The state begins anew here.
                ([], form) => *self = Self { form: form.map(Box::from), ..Self::default() },
                (key, None) => self.remove(key),
                (key, Some(value)) => self.put(key, value, legend, wanted)?,
            }
        }
        Ok(())
    }

    fn put(&mut self, key: &[u8], value: &[u8], legend: &StateLegend, wanted: &Wanted) -> Result<(), Error> {
        if self.closed.as_deref().is_some_and(|closed| key >= closed) {
            return Ok(());
        }
        if !wanted.key.is_empty() && !self.rows.contains_key(key) {
            let row = legend.row(key, value).map_err(|e| Error::Refused(e.to_string()))?;
            if !matches(&row.key, &wanted.key) {
                return Ok(());
            }
        }
        self.remove(key);
        self.bytes += key.len() + value.len();
        self.rows.insert(key.into(), value.into());
        while self.rows.len() > ROWS_HELD_MAX || self.bytes > BYTES_HELD_MAX {
            let Some((key, value)) = self.rows.pop_last() else { break };
            self.bytes -= key.len() + value.len();
            self.closed = Some(key);
        }
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(old) = self.rows.remove(key) {
            self.bytes -= key.len() + old.len();
        }
    }
}

/// Whether a row has these values in its key. Numbers are compared as such, all else as text.
fn matches(cells: &[StateCell], wanted: &[(String, String)]) -> bool {
    wanted.iter().all(|(name, value)| cells.iter().any(|cell| cell.name == *name && is(&cell.json, value)))
}

fn is(json: &str, wanted: &str) -> bool {
    let text = match serde_json::from_str::<Value>(json) {
        Ok(Value::String(text)) => text,
        _ => json.to_owned(),
    };
    let numbers = || Some(text.parse::<f64>().ok()? == wanted.parse::<f64>().ok()?);
    text == wanted || (json == text && numbers() == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_as_a_person_writes_it() {
        assert!(is("\"a b\"", "a b") && is("1.50", "1.5") && is("null", "null") && is("true", "true"));
        assert!(!is("\"1.50\"", "1.5") && !is("\"a\"", "b") && !is("1", "2") && !is("\"a\"", "\"a\""));
    }
}

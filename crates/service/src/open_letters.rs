//! How many dead letters wait for somebody, counted from the log alone.

use std::collections::BTreeMap;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use millstream_event::Name;
use millstream_log::Log;

use crate::Error;
use crate::dead_letter::Topics;
use crate::dead_letters::{LetterId, LetterStatus, Letters, Statuses, ranges, text};

/// The open letters of a service or source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenLetters {
    /// All of them.
    pub total: u64,
    /// The same, by code.
    pub by_code: BTreeMap<String, u64>,
    /// How often each rule was broken; a letter may break several.
    pub by_rule: BTreeMap<String, u64>,
}

/// Counts the letters that were neither replayed nor discarded. Reads all letters; a component that has never run has none.
pub async fn open_letters(log: &dyn Log, name: &Name) -> Result<OpenLetters, Error> {
    let topics = Topics::of(name).map_err(|e| Error::Refused(e.to_string()))?;
    let mut open = OpenLetters::default();
    if log.topic(&topics.letters).is_none() {
        return Ok(open);
    }
    let statuses = Statuses::read(log, &topics.status).await?;
    for range in ranges(log, &topics.letters, &[]).await? {
        let mut letters = Letters::open(log, &topics.letters, range).await?;
        while let Some(batch) = letters.next().await? {
            let rows = &batch.rows;
            let rules = rows.column_by_name("rules").and_then(|c| c.as_list_opt::<i32>());
            for row in 0..rows.num_rows() {
                let id = LetterId { partition: range.partition, offset: batch.offset(row).0 };
                if statuses.of(id) != LetterStatus::Open {
                    continue;
                }
                open.total += 1;
                *open.by_code.entry(text(rows, "code", row).unwrap_or_default().to_owned()).or_default() += 1;
                let Some(broken) = rules.filter(|r| r.is_valid(row)).map(|r| r.value(row)) else { continue };
                for rule in broken.as_string_opt::<i32>().iter().flat_map(|names| names.iter().flatten()) {
                    *open.by_rule.entry(rule.to_owned()).or_default() += 1;
                }
            }
        }
    }
    Ok(open)
}

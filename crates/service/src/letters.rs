//! Letters under construction: from refused events to the rows of a dead-letter topic.

use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, Int32Builder, Int64Builder, ListBuilder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use bytes::Bytes;
use millstream_event::{Name, Schema, Stamp};

use crate::dead_letter::{RAW_BYTES_MAX, REASON_BYTES_MAX, letter_schema};

/// One refused event.
#[derive(Debug, Clone, Default)]
pub(crate) struct Letter {
    pub(crate) code: String,
    pub(crate) reason: String,
    pub(crate) rules: Vec<String>,
    pub(crate) origin: Option<Origin>,
    pub(crate) place: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) event: Option<String>,
    pub(crate) raw: Option<Bytes>,
    pub(crate) ingested_at: Option<i64>,
    /// How often an event without an origin (one of a source) was refused before, and the letter before this one.
    pub(crate) attempts: u32,
    pub(crate) replayed_of: Option<String>,
}

/// Where a refused event stands, and what became of it before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) topic: Name,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) schema_version: u32,
    /// How often it was refused before.
    pub(crate) attempts: u32,
    /// The letter that it was replayed from.
    pub(crate) replayed_of: Option<String>,
}

impl Letter {
    /// How often the event was refused, with this letter.
    fn attempts(&self) -> u32 {
        self.origin.as_ref().map_or(self.attempts, |o| o.attempts) + 1
    }

    fn replayed_of(&self) -> Option<String> {
        self.origin.as_ref().map_or_else(|| self.replayed_of.clone(), |o| o.replayed_of.clone())
    }
}

/// Who refuses.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub(crate) service: Name,
    pub(crate) version: String,
    pub(crate) schema: Schema,
}

impl Sender {
    pub(crate) fn new(service: &Name, version: &str) -> Self {
        Self { service: service.clone(), version: version.to_owned(), schema: letter_schema() }
    }

    /// The rows of the letters' topic, in the order of [`letter_schema`].
    pub(crate) fn rows(&self, letters: &[Letter], now_us: i64) -> Result<RecordBatch, arrow_schema::ArrowError> {
        let texts = |text: &dyn Fn(&Letter) -> Option<String>| -> ArrayRef {
            let mut builder = StringBuilder::new();
            letters.iter().for_each(|letter| builder.append_option(text(letter)));
            Arc::new(builder.finish())
        };
        let ints = |number: &dyn Fn(&Letter) -> Option<u32>| -> ArrayRef {
            let mut builder = Int32Builder::new();
            let number = |letter| number(letter).and_then(|n| i32::try_from(n).ok());
            letters.iter().for_each(|letter| builder.append_option(number(letter)));
            Arc::new(builder.finish())
        };
        let times = |time: &dyn Fn(&Letter) -> Option<i64>| -> ArrayRef {
            let mut builder = TimestampMicrosecondBuilder::new().with_timezone("+00:00");
            letters.iter().for_each(|letter| builder.append_option(time(letter)));
            Arc::new(builder.finish())
        };
        let mut offsets = Int64Builder::new();
        let mut rules = ListBuilder::new(StringBuilder::new());
        let mut raws = BinaryBuilder::new();
        for letter in letters {
            offsets.append_option(letter.origin.as_ref().and_then(|o| i64::try_from(o.offset).ok()));
            letter.rules.iter().for_each(|rule| rules.values().append_value(rule));
            rules.append(!letter.rules.is_empty());
            let kept = letter.raw.as_ref().map(|raw| raw.get(..raw.len().min(RAW_BYTES_MAX)).unwrap_or_default());
            raws.append_option(kept);
        }
        let columns: Vec<ArrayRef> = vec![
            times(&|_| Some(now_us)),
            texts(&|l| Some(l.code.clone())),
            texts(&|l| Some(shortened(&l.reason).to_owned())),
            Arc::new(rules.finish()),
            texts(&|_| Some(self.service.to_string())),
            texts(&|_| Some(self.version.clone())),
            texts(&|l| l.origin.as_ref().map(|o| o.topic.to_string())),
            ints(&|l| l.origin.as_ref().map(|o| o.partition)),
            Arc::new(offsets.finish()),
            ints(&|l| l.origin.as_ref().map(|o| o.schema_version)),
            texts(&|l| l.place.clone()),
            ints(&|l| Some(l.attempts())),
            texts(&|l| l.key.clone()),
            texts(&|l| l.event.clone()),
            Arc::new(raws.finish()),
            times(&|l| l.ingested_at),
            texts(&|l| l.replayed_of()),
            times(&|_| Some(Stamp::at(now_us).0)),
        ];
        RecordBatch::try_new(Arc::clone(self.schema.physical()), columns)
    }
}

fn shortened(reason: &str) -> &str {
    let end = (0..=REASON_BYTES_MAX.min(reason.len())).rev().find(|i| reason.is_char_boundary(*i));
    reason.get(..end.unwrap_or(0)).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_has_the_columns_of_its_topic() {
        let origin = Origin {
            topic: Name::new("t").unwrap(),
            partition: 3,
            offset: 17,
            schema_version: 1,
            attempts: 1,
            replayed_of: Some("0-4".into()),
        };
        let letters = [
            Letter { code: "check".into(), rules: vec!["a".into()], origin: Some(origin), ..Letter::default() },
            Letter { code: "json-syntax".into(), reason: "é".repeat(900), raw: Some("{".into()), ..Letter::default() },
        ];
        let rows = Sender::new(&Name::new("s").unwrap(), "v1").rows(&letters, 7).unwrap();
        assert_eq!(rows.num_rows(), 2);
        let stamp = arrow_array::cast::AsArray::as_primitive::<arrow_array::types::TimestampMicrosecondType>(
            rows.columns().last().unwrap(),
        );
        assert_eq!(stamp.value(0), 4, "a letter is neither late nor deleted, whenever it is written");
        assert_eq!(rows.column_by_name("attempts").unwrap().as_ref(), &arrow_array::Int32Array::from(vec![2, 1]));
    }
}

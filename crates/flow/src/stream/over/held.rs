//! What frames without a beginning have added up: no history is needed for them.

use crate::stream::over::function::{Function, Value, What, result, value_of};
use crate::stream::over::history::{History, Kind, Layout};
use crate::stream::over::summary::Acc;

/// What an unbounded frame has added up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    acc: Acc,
    /// The first value, the least, the greatest: where they are bytes or must stay.
    value: Option<Box<[u8]>>,
}

impl Held {
    /// Adds a row.
    pub(crate) fn add(&mut self, function: &Function, of: (&History, &Layout), number: u64) {
        let row = of.0.row(of.1, number);
        let Some(column) = function.column else {
            self.acc.count += 1;
            return;
        };
        match &function.what {
            What::Nth(nth) => {
                if self.acc.count == *nth && !row.is_null(column) {
                    self.value = Some(row.raw(column).into());
                }
                self.acc.count += 1;
            }
            What::Last => self.value = (!row.is_null(column)).then(|| row.raw(column).into()),
            What::ExtremeBytes { greatest } => {
                if row.is_null(column) {
                    return;
                }
                let found = row.bytes(column);
                if self.value.as_deref().is_none_or(|held| (found > held) == *greatest && found != held) {
                    self.value = Some(found.into());
                }
            }
            what => self.acc.add(what, column, row, number, of),
        }
    }

    /// The result so far.
    pub(crate) fn value<'h>(&'h self, function: &Function, of: (&'h History, &'h Layout)) -> Value<'h> {
        match &function.what {
            What::Nth(_) | What::Last | What::ExtremeBytes { .. } => {
                let column = function.column.unwrap_or(0);
                let kind = of.1.kinds.get(column).copied().unwrap_or(Kind::Mark);
                self.value.as_deref().map_or(Value::Null, |raw| value_of(kind, raw))
            }
            _ => result(of, function, &self.acc),
        }
    }

    /// As bytes for the changelog.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        self.acc.write(out);
        match &self.value {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                out.extend_from_slice(&(value.len() as u32).to_le_bytes());
                out.extend_from_slice(value);
            }
        }
    }

    /// From bytes, and what stands behind them.
    pub(crate) fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (acc, rest) = Acc::read(bytes)?;
        let (has, rest) = rest.split_first()?;
        if *has == 0 {
            return Some((Self { acc, value: None }, rest));
        }
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        Some((Self { acc, value: Some(value.into()) }, rest))
    }
}

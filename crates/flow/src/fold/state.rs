//! The state of the keys: as bytes by key while they rest, as values while a batch touches them.

use std::borrow::Cow;

use arrow_schema::DataType;
use millstream_event::Column;

use crate::expr::value::{Kind, Val};

/// The version of the bytes of a state row, which they begin with.
const VERSION: u8 = 1;

/// The state columns.
#[derive(Debug)]
pub(crate) struct StatePlan {
    pub(crate) columns: Vec<Column>,
    kinds: Vec<Kind>,
    pub(crate) initial: Vec<Val<'static>>,
    /// The initial values as bytes.
    pub(crate) fresh: Vec<u8>,
}

impl StatePlan {
    /// Columns with their initial values; all of types that [`Kind`] knows.
    pub(crate) fn new(columns: Vec<(Column, Val<'static>)>) -> Self {
        let (columns, initial): (Vec<Column>, Vec<Val<'static>>) = columns.into_iter().unzip();
        let kinds = columns.iter().map(|c| Kind::of(&c.kind.to_arrow()).unwrap_or(Kind::Bytes)).collect();
        let mut plan = Self { columns, kinds, initial, fresh: Vec::new() };
        let mut fresh = Vec::new();
        plan.encode(&plan.initial, &mut fresh);
        plan.fresh = fresh;
        plan
    }

    /// The columns and their types.
    pub(crate) fn describe(&self) -> String {
        self.columns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    /// The type of a column.
    pub(crate) fn kind(&self, column: usize) -> Option<DataType> {
        self.columns.get(column).map(|c| c.kind.to_arrow())
    }

    /// The bytes of a row: a version, then for each column 0 for NULL, or 1 and the value: numbers in little endian, text
    /// and bytes behind their length.
    pub(crate) fn encode(&self, row: &[Val<'static>], to: &mut Vec<u8>) {
        to.clear();
        to.push(VERSION);
        for (value, kind) in row.iter().zip(&self.kinds) {
            to.push(u8::from(!value.is_null()));
            match value {
                Val::Null | Val::Other(_) => {}
                Val::Bool(v) => to.push(u8::from(*v)),
                Val::Int(v) if matches!(kind, Kind::Int32 | Kind::Date) => {
                    to.extend_from_slice(&(*v as i32).to_le_bytes());
                }
                Val::Int(v) => to.extend_from_slice(&v.to_le_bytes()),
                Val::Decimal(v) => to.extend_from_slice(&v.to_le_bytes()),
                Val::Double(v) => to.extend_from_slice(&v.to_bits().to_le_bytes()),
                Val::Text(v) => bytes_to(to, v.as_bytes()),
                Val::Bytes(v) => bytes_to(to, v),
            }
        }
    }

    /// Appends the values of a row; whether the bytes had this form. If not, what was appended means nothing.
    pub(crate) fn decode(&self, bytes: &[u8], to: &mut Vec<Val<'static>>) -> bool {
        let Some((&VERSION, mut rest)) = bytes.split_first() else { return false };
        for kind in &self.kinds {
            match value(*kind, &mut rest) {
                Some(value) => to.push(value),
                None => return false,
            }
        }
        rest.is_empty()
    }
}

fn bytes_to(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    to.extend_from_slice(bytes);
}

fn number<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (number, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*number)
}

fn value(kind: Kind, from: &mut &[u8]) -> Option<Val<'static>> {
    match number::<1>(from)? {
        [0] => return Some(Val::Null),
        [1] => {}
        _ => return None,
    }
    Some(match kind {
        Kind::Bool => Val::Bool(number::<1>(from)? == [1]),
        Kind::Int32 | Kind::Date => Val::Int(i64::from(i32::from_le_bytes(number(from)?))),
        Kind::Int64 | Kind::Timestamp => Val::Int(i64::from_le_bytes(number(from)?)),
        Kind::Decimal(..) => Val::Decimal(i128::from_le_bytes(number(from)?)),
        Kind::Double => Val::Double(f64::from_bits(u64::from_le_bytes(number(from)?))),
        Kind::Text | Kind::Bytes => {
            let length = u32::from_le_bytes(number(from)?) as usize;
            let (bytes, rest) = from.split_at_checked(length)?;
            *from = rest;
            match kind {
                Kind::Text => Val::Text(Cow::Owned(String::from_utf8(bytes.to_vec()).ok()?)),
                _ => Val::Bytes(Cow::Owned(bytes.to_vec())),
            }
        }
    })
}

/// The state rows of the keys of a batch, numbered as the keys are.
pub(crate) struct Slots {
    values: Vec<Val<'static>>,
    width: usize,
    touched: Vec<bool>,
}

impl Slots {
    pub(crate) fn new(width: usize, keys: usize) -> Self {
        Self { values: Vec::with_capacity(width * keys), width, touched: vec![false; keys] }
    }

    /// Where the values of the next key are put.
    pub(crate) fn values(&mut self) -> &mut Vec<Val<'static>> {
        &mut self.values
    }

    /// The row of a key.
    pub(crate) fn row(&self, key: usize) -> &[Val<'static>] {
        self.values.get(key * self.width..(key + 1) * self.width).unwrap_or_default()
    }

    /// The row of a key, to be changed.
    pub(crate) fn change(&mut self, key: usize) -> &mut [Val<'static>] {
        if let Some(touched) = self.touched.get_mut(key) {
            *touched = true;
        }
        self.values.get_mut(key * self.width..(key + 1) * self.width).unwrap_or_default()
    }

    /// Whether a row may have changed.
    pub(crate) fn is_touched(&self, key: usize) -> bool {
        self.touched.get(key) == Some(&true)
    }

    /// The time in a column of a key's row.
    pub(crate) fn time(&self, key: usize, column: usize) -> Option<i64> {
        match self.row(key).get(column) {
            Some(Val::Int(time)) => Some(*time),
            _ => None,
        }
    }
}

//! The types a column can have, their text form in YAML and their Arrow form in memory.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, TimeUnit};

use crate::schema::Column;

/// The metadata key on an Arrow field that tells a `json` column from a `string` column: both are `Utf8` in memory.
pub(crate) const TYPE_KEY: &str = "millstream.type";

/// How deep `array` and `struct` may be nested in a declared type.
const DEPTH_MAX: usize = 16;

/// The type of a column.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// UTF-8 text.
    String,
    /// True or false.
    Bool,
    /// A 32-bit signed integer.
    Int,
    /// A 64-bit signed integer.
    BigInt,
    /// A 64-bit binary floating point number.
    Double,
    /// An exact number of `precision` digits (1 to 38), `scale` of them (0 to precision) behind the point.
    Decimal {
        /// Digits in all.
        precision: u8,
        /// Digits behind the point.
        scale: u8,
    },
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp,
    /// Days since 1970-01-01.
    Date,
    /// Bytes; base64 in JSON.
    Bytes,
    /// Any JSON value, kept as its text.
    Json,
    /// A list of values of one type (elements may be null).
    Array(Box<ColumnType>),
    /// Named values.
    Struct(Vec<Column>),
}

/// A text that is no column type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseColumnTypeError {
    /// What is wrong and what would be right.
    pub message: String,
    /// The unknown word, for a suggestion; empty where the fault is not a word.
    pub word: String,
}

/// The names of all types, for suggestions.
pub(crate) const TYPE_NAMES: [&str; 12] =
    ["string", "bool", "int", "bigint", "double", "decimal", "timestamp", "date", "bytes", "json", "array", "struct"];

impl ColumnType {
    /// The names of all column types, for error messages and suggestions.
    pub fn names() -> &'static [&'static str] {
        &TYPE_NAMES
    }

    /// The Arrow type that holds this column in memory.
    pub fn to_arrow(&self) -> DataType {
        match self {
            Self::String | Self::Json => DataType::Utf8,
            Self::Bool => DataType::Boolean,
            Self::Int => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Decimal { precision, scale } => DataType::Decimal128(*precision, *scale as i8),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
            Self::Date => DataType::Date32,
            Self::Bytes => DataType::Binary,
            Self::Array(item) => DataType::List(Arc::new(item.field("item", true))),
            Self::Struct(columns) => DataType::Struct(columns.iter().map(Column::to_arrow).collect::<Fields>()),
        }
    }

    /// An Arrow field of this type; `json` is marked in the field's metadata.
    pub fn field(&self, name: &str, nullable: bool) -> Field {
        let field = Field::new(name, self.to_arrow(), nullable);
        match self {
            Self::Json => field.with_metadata([(TYPE_KEY.to_owned(), "json".to_owned())].into()),
            _ => field,
        }
    }

    /// The column type of an Arrow field, or the nearest that holds all its values; `None` where there is none (an
    /// interval, a union). Values of another Arrow type must be cast to [`ColumnType::to_arrow`].
    pub fn from_arrow(field: &Field) -> Option<Self> {
        Some(match field.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                if field.metadata().get(TYPE_KEY).is_some_and(|t| t == "json") { Self::Json } else { Self::String }
            }
            DataType::Null => Self::String,
            DataType::Boolean => Self::Bool,
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => Self::Int,
            DataType::UInt32 | DataType::Int64 => Self::BigInt,
            DataType::UInt64 => Self::Decimal { precision: 20, scale: 0 },
            DataType::Float16 | DataType::Float32 | DataType::Float64 => Self::Double,
            DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) => {
                Self::Decimal { precision: *p, scale: u8::try_from(*s).ok()? }
            }
            DataType::Timestamp(_, _) => Self::Timestamp,
            DataType::Date32 | DataType::Date64 => Self::Date,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Self::Bytes
            }
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::FixedSizeList(item, _)
            | DataType::ListView(item)
            | DataType::LargeListView(item) => Self::Array(Box::new(Self::from_arrow(item)?)),
            DataType::Struct(fields) => {
                let columns = fields.iter().map(|f| Column::from_arrow(f));
                Self::Struct(columns.collect::<Option<Vec<_>>>()?)
            }
            DataType::Dictionary(_, values) => {
                Self::from_arrow(&Field::new(field.name(), values.as_ref().clone(), true))?
            }
            _ => return None,
        })
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String => f.write_str("string"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::BigInt => f.write_str("bigint"),
            Self::Double => f.write_str("double"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Date => f.write_str("date"),
            Self::Bytes => f.write_str("bytes"),
            Self::Json => f.write_str("json"),
            Self::Array(item) => write!(f, "array<{item}>"),
            Self::Struct(columns) => {
                f.write_str("struct<")?;
                for (i, column) in columns.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    write!(f, "{comma}{column}")?;
                }
                f.write_str(">")
            }
        }
    }
}

impl FromStr for ColumnType {
    type Err = ParseColumnTypeError;

    fn from_str(text: &str) -> Result<Self, ParseColumnTypeError> {
        let mut parser = Parser { text, at: 0 };
        let kind = parser.kind(0)?;
        parser.space();
        match parser.rest() {
            "" => Ok(kind),
            rest => Err(fault(format!("`{rest}` stands behind the type"), "")),
        }
    }
}

/// Reads `bigint!` as (bigint, not null) and `bigint` as (bigint, nullable).
pub(crate) fn parse_with_null_mark(text: &str) -> Result<(ColumnType, bool), ParseColumnTypeError> {
    let text = text.trim();
    match text.strip_suffix('!') {
        Some(kind) => Ok((kind.parse()?, false)),
        None => Ok((text.parse()?, true)),
    }
}

fn fault(message: String, word: &str) -> ParseColumnTypeError {
    ParseColumnTypeError { message, word: word.to_owned() }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn word(&mut self) -> &'a str {
        self.space();
        let rest = self.rest();
        let len = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).unwrap_or(rest.len());
        self.at += len;
        rest.get(..len).unwrap_or("")
    }

    fn take(&mut self, mark: char) -> bool {
        self.space();
        let found = self.rest().starts_with(mark);
        if found {
            self.at += mark.len_utf8();
        }
        found
    }

    fn need(&mut self, mark: char, within: &str) -> Result<(), ParseColumnTypeError> {
        if self.take(mark) {
            return Ok(());
        }
        let hint = if within == "decimal" && self.rest().is_empty() {
            "; inside a YAML {flow map} a comma ends the value, so quote it: \"decimal(12,2)\""
        } else {
            ""
        };
        Err(fault(format!("`{}` needs `{mark}` after `{}`{hint}", within, self.text.get(..self.at).unwrap_or("")), ""))
    }

    fn kind(&mut self, depth: usize) -> Result<ColumnType, ParseColumnTypeError> {
        if depth > DEPTH_MAX {
            return Err(fault(format!("a type is nested at most {DEPTH_MAX} deep"), ""));
        }
        let word = self.word();
        Ok(match word.to_ascii_lowercase().as_str() {
            "string" => ColumnType::String,
            "bool" => ColumnType::Bool,
            "int" => ColumnType::Int,
            "bigint" => ColumnType::BigInt,
            "double" => ColumnType::Double,
            "timestamp" => ColumnType::Timestamp,
            "date" => ColumnType::Date,
            "bytes" => ColumnType::Bytes,
            "json" => ColumnType::Json,
            "decimal" => self.decimal()?,
            "array" => {
                self.need('<', "array")?;
                let item = self.kind(depth + 1)?;
                self.need('>', "array")?;
                ColumnType::Array(Box::new(item))
            }
            "struct" => self.fields(depth)?,
            "" => return Err(fault("a column type is missing".to_owned(), "")),
            _ => return Err(fault(format!("`{word}` is no column type"), word)),
        })
    }

    fn decimal(&mut self) -> Result<ColumnType, ParseColumnTypeError> {
        self.need('(', "decimal")?;
        let precision = self.word().parse::<u8>().ok().filter(|p| (1..=38).contains(p));
        let precision =
            precision.ok_or_else(|| fault("a decimal has 1 to 38 digits, as in decimal(12,2)".into(), ""))?;
        let scale = if self.take(',') { self.word().parse::<u8>().ok() } else { Some(0) };
        let scale = scale.filter(|s| *s <= precision);
        let scale = match scale {
            Some(scale) => scale,
            None if self.rest().is_empty() => {
                self.need(')', "decimal")?;
                0
            }
            None => return Err(fault(format!("the scale of a decimal({precision},s) is 0 to {precision}"), "")),
        };
        self.need(')', "decimal")?;
        Ok(ColumnType::Decimal { precision, scale })
    }

    fn fields(&mut self, depth: usize) -> Result<ColumnType, ParseColumnTypeError> {
        self.need('<', "struct")?;
        let mut columns: Vec<Column> = Vec::new();
        loop {
            let name = self.word();
            if name.is_empty() {
                return Err(fault("a struct lists its columns, as in struct<name: string, age: int>".into(), ""));
            }
            if columns.iter().any(|c| c.name == name) {
                return Err(fault(format!("the struct names `{name}` twice"), ""));
            }
            self.need(':', "struct")?;
            let kind = self.kind(depth + 1)?;
            let nullable = !self.take('!');
            columns.push(Column { name: name.to_owned(), kind, nullable });
            if self.take('>') {
                return Ok(ColumnType::Struct(columns));
            }
            self.need(',', "struct")?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_reads_back_from_its_text_and_from_arrow() {
        for text in [
            "string",
            "bool",
            "int",
            "bigint",
            "double",
            "decimal(12,2)",
            "decimal(38,38)",
            "timestamp",
            "date",
            "bytes",
            "json",
            "array<string>",
            "array<array<decimal(5,1)>>",
            "struct<a: int!, b: array<struct<c: json>>>",
        ] {
            let kind: ColumnType = text.parse().unwrap();
            assert_eq!(kind.to_string(), text);
            assert_eq!(ColumnType::from_arrow(&kind.field("x", true)).unwrap(), kind, "{text}");
        }
    }

    #[test]
    fn a_bad_type_says_what_would_be_right() {
        for (text, part) in [
            ("strin", "`strin` is no column type"),
            ("decimal", "needs `(`"),
            ("decimal(12", "quote it"),
            ("decimal(39,2)", "1 to 38"),
            ("decimal(5,6)", "0 to 5"),
            ("array<int", "needs `>`"),
            ("struct<a: int, a: int>", "twice"),
            ("int int", "behind the type"),
            ("", "missing"),
        ] {
            let error = text.parse::<ColumnType>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let deep = format!("{}int{}", "array<".repeat(20), ">".repeat(20));
        assert!(deep.parse::<ColumnType>().is_err());
    }
}

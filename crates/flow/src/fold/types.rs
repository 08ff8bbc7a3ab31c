//! Which types fit into a state column, and which type has the values of several.

use arrow_schema::{DataType, Field};
use millstream_event::ColumnType;

/// The digits before the point that a type's values have, where it is exact, and those behind.
fn digits(kind: &ColumnType) -> Option<(u8, u8)> {
    match kind {
        ColumnType::Int => Some((10, 0)),
        ColumnType::BigInt => Some((19, 0)),
        ColumnType::Decimal { precision, scale } => Some((precision - scale, *scale)),
        _ => None,
    }
}

/// The type of an expression; `None` for a bare NULL, an error where no column can have it.
pub(crate) fn type_of(field: &Field) -> Result<Option<ColumnType>, String> {
    if field.data_type() == &DataType::Null {
        return Ok(None);
    }
    ColumnType::from_arrow(field).map(Some).ok_or_else(|| field.data_type().to_string())
}

/// Whether values of `from` become values of `to` without losing digits; those too large fail their event.
pub(crate) fn fits(from: &ColumnType, to: &ColumnType) -> bool {
    match (from, to) {
        (a, b) if a == b => true,
        (ColumnType::Date, ColumnType::Timestamp) => true,
        (ColumnType::String, ColumnType::Json) | (ColumnType::Json, ColumnType::String) => true,
        (a, ColumnType::Double) => digits(a).is_some(),
        (a, b) => matches!((digits(a), digits(b)), (Some((_, less)), Some((_, more))) if less <= more),
    }
}

/// The type that has the values of both.
pub(crate) fn common(a: &ColumnType, b: &ColumnType) -> Option<ColumnType> {
    Some(match (a, b) {
        (a, b) if a == b => a.clone(),
        (ColumnType::Int, ColumnType::BigInt) | (ColumnType::BigInt, ColumnType::Int) => ColumnType::BigInt,
        (ColumnType::Date, ColumnType::Timestamp) | (ColumnType::Timestamp, ColumnType::Date) => ColumnType::Timestamp,
        (ColumnType::Double, b) => digits(b).map(|_| ColumnType::Double)?,
        (a, ColumnType::Double) => digits(a).map(|_| ColumnType::Double)?,
        (a, b) => {
            let ((whole, part), (other, more)) = (digits(a)?, digits(b)?);
            let scale = part.max(more);
            ColumnType::Decimal { precision: (whole.max(other) + scale).min(38), scale }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> ColumnType {
        text.parse().unwrap()
    }

    #[test]
    fn exact_types_meet_in_an_exact_type_and_doubles_stay_doubles() {
        for (a, b, both) in [
            ("int", "bigint", Some("bigint")),
            ("int", "decimal(5,2)", Some("decimal(12,2)")),
            ("decimal(12,2)", "decimal(6,4)", Some("decimal(14,4)")),
            ("double", "decimal(6,4)", Some("double")),
            ("date", "timestamp", Some("timestamp")),
            ("string", "json", None),
            ("string", "int", None),
        ] {
            assert_eq!(common(&kind(a), &kind(b)), both.map(kind), "{a}, {b}");
            assert_eq!(common(&kind(b), &kind(a)), both.map(kind), "{b}, {a}");
        }
        assert!(fits(&kind("bigint"), &kind("int")) && fits(&kind("bigint"), &kind("decimal(5,2)")));
        assert!(!fits(&kind("decimal(5,2)"), &kind("bigint")) && !fits(&kind("double"), &kind("decimal(5,2)")));
    }
}

//! Whether some row can make an expression fail. Unknown means yes.

use std::sync::Arc;

use arrow_schema::{DataType, Schema};
use datafusion_expr::Operator;
use datafusion_physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NotExpr,
    TryCastExpr,
};
use datafusion_physical_expr::{PhysicalExpr, ScalarFunctionExpr};

/// Functions that give a value, maybe NULL, for every value of their types.
const INFALLIBLE: &[&str] = &[
    "array_has",
    "array_length",
    "ascii",
    "bit_length",
    "btrim",
    "cardinality",
    "character_length",
    "coalesce",
    "contains",
    "date_part",
    "ends_with",
    "get_field",
    "json_as_text",
    "json_contains",
    "json_get",
    "json_get_bool",
    "json_get_float",
    "json_get_int",
    "json_get_json",
    "json_get_str",
    "json_length",
    "lower",
    "ltrim",
    "named_struct",
    "nullif",
    "nvl",
    "octet_length",
    "reverse",
    "rtrim",
    "starts_with",
    "strpos",
    "struct",
    "upper",
];

/// Whether `expr` can fail on some row of `schema`.
pub(crate) fn fallible(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> bool {
    itself(expr, schema) || expr.children().iter().any(|child| fallible(child, schema))
}

/// Whether `expr` is more than a column, so that its values may not fit its declared digits.
pub(crate) fn computes(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.downcast_ref::<Column>().is_none() && expr.downcast_ref::<Literal>().is_none()
}

fn itself(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> bool {
    if expr.is::<Column>()
        || expr.is::<Literal>()
        || expr.is::<IsNullExpr>()
        || expr.is::<IsNotNullExpr>()
        || expr.is::<NotExpr>()
        || expr.is::<InListExpr>()
        || expr.is::<CaseExpr>()
        || expr.is::<TryCastExpr>()
    {
        return false;
    }
    if let Some(like) = expr.downcast_ref::<LikeExpr>() {
        return !like.pattern().is::<Literal>();
    }
    if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() {
        return !INFALLIBLE.contains(&call.name());
    }
    if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        let from = cast.expr().data_type(schema);
        return from.map_or(true, |from| !widens(&from, cast.target_field().data_type()));
    }
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        return match binary.op() {
            Operator::And | Operator::Or | Operator::StringConcat => false,
            Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom => false,
            Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide => {
                !binary.left().data_type(schema).is_ok_and(|t| t.is_floating())
            }
            _ => true,
        };
    }
    !expr.is::<crate::expr::guard::Guard>()
}

/// Whether every value of `from` has one in `to`.
fn widens(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Boolean, Float32, Float64, Int8, Int16, Int32, Int64, LargeUtf8, Null, UInt8, UInt16, UInt32, Utf8,
    };
    match (from, to) {
        (Null, _) => true,
        (a, b) if a == b => true,
        (_, Utf8 | LargeUtf8 | DataType::Utf8View) => !from.is_nested() && !from.is_binary(),
        (Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | Float32 | Boolean, Float64) => true,
        (Int8, Int16 | Int32 | Int64) | (Int16, Int32 | Int64) | (Int32, Int64) => true,
        (UInt8, Int16 | Int32 | Int64) | (UInt16, Int32 | Int64) | (UInt32, Int64) => true,
        (Int8 | Int16 | Int32 | UInt8 | UInt16, DataType::Decimal128(p, s)) => digits(*p, *s) >= 10,
        (Int64 | UInt32, DataType::Decimal128(p, s)) => digits(*p, *s) >= 19,
        (DataType::Decimal128(p, s), DataType::Decimal128(q, t)) => t >= s && digits(*q, *t) >= digits(*p, *s),
        _ => false,
    }
}

/// Digits before the point.
fn digits(precision: u8, scale: i8) -> i16 {
    i16::from(precision) - i16::from(scale)
}

//! Expressions on one row, without a batch around it.
//!
//! A compiled expression costs microseconds for a batch of one row. Where events of one key follow each other and each
//! needs what the one before left behind, there is no larger batch. So the common forms (comparisons, arithmetic, AND, OR,
//! CASE, IN, casts between numbers) are computed here, value by value.
//!
//! DataFusion's result is the definition: a form that is not known here, and a value on which an expression fails, are
//! [`Unsure`], and the caller asks the compiled expression, on a batch of that row. A property test holds both to agree.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use arrow_schema::{DataType, Schema};
use datafusion_common::ScalarValue;
use datafusion_expr::Operator;
use datafusion_physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, Literal, NotExpr,
};
use datafusion_physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use crate::expr::guard::Guard;
use crate::expr::value::{Kind, Val, first};

/// This path cannot tell; the compiled expression can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unsure;

/// What the columns of a row mean to an expression.
pub(crate) trait Row<'r> {
    /// The value of a column of the batch.
    fn column(&self, place: usize) -> Result<Val<'r>, Unsure>;

    /// The value of a part of the expression that depends on no moving column.
    fn hoisted(&self, place: usize) -> Result<Val<'r>, Unsure>;
}

/// An expression, or a part of one, that can be computed on one row.
#[derive(Debug)]
pub(crate) enum Node {
    Column(usize),
    Literal(Val<'static>),
    Hoisted(usize),
    Compare(Operator, Box<(Node, Node)>),
    Distinct {
        negated: bool,
        sides: Box<(Node, Node)>,
    },
    Both {
        and: bool,
        sides: Box<(Node, Node)>,
    },
    Not(Box<Node>),
    IsNull {
        negated: bool,
        of: Box<Node>,
    },
    Whole {
        op: Operator,
        narrow: bool,
        sides: Box<(Node, Node)>,
    },
    Double {
        op: Operator,
        sides: Box<(Node, Node)>,
    },
    Decimal {
        op: Operator,
        by: (i128, i128),
        sides: Box<(Node, Node)>,
    },
    /// A timestamp moved by so many microseconds.
    Moved {
        by: i64,
        of: Box<Node>,
    },
    Concat(Box<(Node, Node)>),
    Case {
        of: Option<Box<Node>>,
        cases: Vec<(Node, Node)>,
        otherwise: Option<Box<Node>>,
    },
    OneOf {
        of: Box<Node>,
        list: Vec<Node>,
        negated: bool,
    },
    FirstOf(Vec<Node>),
    Cast {
        to: Conversion,
        of: Box<Node>,
    },
}

/// A cast whose rule is known.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Conversion {
    /// The value stays.
    Same,
    /// It must be in the range of 32 bits.
    Narrow,
    WholeToDouble,
    /// Multiplied by the factor, with at most so many digits then.
    WholeToDecimal(i128, u8),
    DecimalToDecimal(i128, u8),
}

/// Decides which parts of an expression are computed for the whole batch before; their places.
pub(crate) trait Hoist {
    /// Whether the column may change within the batch, so that it is only known row by row.
    fn moving(&self, column: usize) -> bool;

    /// The place of a part that depends on no moving column.
    fn hoist(&mut self, part: &Arc<dyn PhysicalExpr>, node: Option<Node>) -> usize;
}

/// The row's form of an expression over batches of `schema`, where there is one.
pub(crate) fn node(expr: &Arc<dyn PhysicalExpr>, schema: &Schema, hoist: &mut dyn Hoist) -> Option<Node> {
    if let Some(column) = expr.downcast_ref::<Column>() {
        return Some(Node::Column(column.index()));
    }
    if let Some(literal) = expr.downcast_ref::<Literal>() {
        return constant(literal.value());
    }
    if !moves(expr, hoist) {
        let inner = form(expr, schema, &mut Plain);
        return Some(Node::Hoisted(hoist.hoist(expr, inner)));
    }
    form(expr, schema, hoist)
}

/// Nothing is hoisted out of what is hoisted itself.
struct Plain;

impl Hoist for Plain {
    fn moving(&self, _: usize) -> bool {
        true
    }

    fn hoist(&mut self, _: &Arc<dyn PhysicalExpr>, _: Option<Node>) -> usize {
        usize::MAX
    }
}

/// Whether an expression reads a moving column, or no column at all and is computed in place.
fn moves(expr: &Arc<dyn PhysicalExpr>, hoist: &dyn Hoist) -> bool {
    match expr.downcast_ref::<Column>() {
        Some(column) => hoist.moving(column.index()),
        None => expr.children().iter().any(|child| moves(child, hoist)),
    }
}

fn constant(value: &ScalarValue) -> Option<Node> {
    if value.is_null() {
        return Some(Node::Literal(Val::Null));
    }
    Kind::of(&value.data_type())?;
    Some(Node::Literal(first(&value.to_array_of_size(1).ok()?)))
}

fn boxed(node: Node) -> Box<Node> {
    Box::new(node)
}

fn form(expr: &Arc<dyn PhysicalExpr>, schema: &Schema, hoist: &mut dyn Hoist) -> Option<Node> {
    if let Some(column) = expr.downcast_ref::<Column>() {
        return Some(Node::Column(column.index()));
    }
    if let Some(literal) = expr.downcast_ref::<Literal>() {
        return constant(literal.value());
    }
    let mut of = |expr: &Arc<dyn PhysicalExpr>| node(expr, schema, hoist);
    if let Some(guard) = expr.downcast_ref::<Guard>() {
        let (left, and, right) = guard.parts();
        return Some(Node::Both { and, sides: Box::new((of(left)?, of(right)?)) });
    }
    if let Some(not) = expr.downcast_ref::<NotExpr>() {
        return Some(Node::Not(boxed(of(not.arg())?)));
    }
    if let Some(null) = expr.downcast_ref::<IsNullExpr>() {
        return Some(Node::IsNull { negated: false, of: boxed(of(null.arg())?) });
    }
    if let Some(null) = expr.downcast_ref::<IsNotNullExpr>() {
        return Some(Node::IsNull { negated: true, of: boxed(of(null.arg())?) });
    }
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        return operation(expr, binary, schema, hoist);
    }
    if let Some(case) = expr.downcast_ref::<CaseExpr>() {
        // Branches of one type: DataFusion gives NULLs and literals the type of the whole.
        let kind = Kind::of(&expr.data_type(schema).ok()?)?;
        let same = |e: &Arc<dyn PhysicalExpr>| {
            e.data_type(schema).is_ok_and(|t| t == DataType::Null || Kind::of(&t) == Some(kind))
        };
        let branches = case.when_then_expr().iter().map(|(_, then)| then).chain(case.else_expr());
        if !branches.clone().all(same) {
            return None;
        }
        let cases = case.when_then_expr().iter().map(|(when, then)| Some((of(when)?, of(then)?)));
        let cases = cases.collect::<Option<Vec<_>>>()?;
        let base = match case.expr() {
            Some(base) => Some(boxed(of(base)?)),
            None => None,
        };
        let otherwise = match case.else_expr() {
            Some(otherwise) => Some(boxed(of(otherwise)?)),
            None => None,
        };
        return Some(Node::Case { of: base, cases, otherwise });
    }
    if let Some(list) = expr.downcast_ref::<InListExpr>() {
        let value = boxed(of(list.expr())?);
        let items = list.list().iter().map(of).collect::<Option<Vec<_>>>()?;
        return Some(Node::OneOf { of: value, list: items, negated: list.negated() });
    }
    if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        let to = conversion(&cast.expr().data_type(schema).ok()?, cast.target_field().data_type())?;
        return Some(Node::Cast { to, of: boxed(of(cast.expr())?) });
    }
    if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>()
        && call.name() == "coalesce"
    {
        let kind = Kind::of(call.return_type())?;
        let same = |e: &Arc<dyn PhysicalExpr>| e.data_type(schema).is_ok_and(|t| Kind::of(&t) == Some(kind));
        return call
            .args()
            .iter()
            .all(same)
            .then(|| call.args().iter().map(of).collect::<Option<_>>())?
            .map(Node::FirstOf);
    }
    None
}

fn operation(
    expr: &Arc<dyn PhysicalExpr>,
    binary: &BinaryExpr,
    schema: &Schema,
    hoist: &mut dyn Hoist,
) -> Option<Node> {
    let (left, right) = (binary.left().data_type(schema).ok()?, binary.right().data_type(schema).ok()?);
    let op = *binary.op();
    if matches!(op, Operator::Plus | Operator::Minus)
        && Kind::of(&left) == Some(Kind::Timestamp)
        && let Some(literal) = binary.right().downcast_ref::<Literal>()
    {
        let by = micros_of(literal.value())?;
        let by = if op == Operator::Minus { by.checked_neg()? } else { by };
        return Some(Node::Moved { by, of: boxed(node(binary.left(), schema, hoist)?) });
    }
    let sides = Box::new((node(binary.left(), schema, hoist)?, node(binary.right(), schema, hoist)?));
    let comparable = left == right && Kind::of(&left).is_some();
    match op {
        Operator::And | Operator::Or => Some(Node::Both { and: op == Operator::And, sides }),
        Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => {
            comparable.then_some(Node::Compare(op, sides))
        }
        Operator::IsDistinctFrom => comparable.then_some(Node::Distinct { negated: false, sides }),
        Operator::IsNotDistinctFrom => comparable.then_some(Node::Distinct { negated: true, sides }),
        Operator::StringConcat => (comparable && Kind::of(&left) == Some(Kind::Text)).then_some(Node::Concat(sides)),
        Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo => {
            match (Kind::of(&left)?, Kind::of(&right)?) {
                (Kind::Int32, Kind::Int32) => Some(Node::Whole { op, narrow: true, sides }),
                (Kind::Int64, Kind::Int64) => Some(Node::Whole { op, narrow: false, sides }),
                (Kind::Double, Kind::Double) => Some(Node::Double { op, sides }),
                (Kind::Decimal(_, a), Kind::Decimal(_, b)) => {
                    let Kind::Decimal(_, scale) = Kind::of(&expr.data_type(schema).ok()?)? else { return None };
                    let by = match op {
                        Operator::Plus | Operator::Minus if scale == a.max(b) => (power(scale - a)?, power(scale - b)?),
                        Operator::Multiply if scale == a + b => (1, 1),
                        _ => return None,
                    };
                    Some(Node::Decimal { op, by, sides })
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn power(digits: i8) -> Option<i128> {
    10_i128.checked_pow(u32::try_from(digits).ok()?)
}

/// An interval's microseconds, where it is the same for every time.
fn micros_of(value: &ScalarValue) -> Option<i64> {
    let ScalarValue::IntervalMonthDayNano(Some(interval)) = value else { return None };
    if interval.months != 0 || interval.nanoseconds % 1000 != 0 {
        return None;
    }
    i64::from(interval.days).checked_mul(86_400_000_000)?.checked_add(interval.nanoseconds / 1000)
}

fn conversion(from: &DataType, to: &DataType) -> Option<Conversion> {
    Some(match (Kind::of(from)?, Kind::of(to)?) {
        (a, b) if a == b => Conversion::Same,
        (Kind::Int32, Kind::Int64) => Conversion::Same,
        (Kind::Int64, Kind::Int32) => Conversion::Narrow,
        (Kind::Int32 | Kind::Int64, Kind::Double) => Conversion::WholeToDouble,
        (Kind::Int32 | Kind::Int64, Kind::Decimal(digits, scale)) => Conversion::WholeToDecimal(power(scale)?, digits),
        (Kind::Decimal(_, a), Kind::Decimal(digits, b)) if b >= a => {
            Conversion::DecimalToDecimal(power(b - a)?, digits)
        }
        _ => return None,
    })
}

/// Times that the calendar functions reach, in microseconds; beyond them a moved time is an error.
const TIMES: std::ops::RangeInclusive<i64> = -8_334_601_228_800_000_000..=8_210_266_876_799_999_999;

impl Node {
    /// The value in a row.
    pub(crate) fn value<'r>(&'r self, row: &impl Row<'r>) -> Result<Val<'r>, Unsure> {
        Ok(match self {
            Self::Column(place) => row.column(*place)?,
            Self::Literal(value) => match value {
                Val::Text(text) => Val::Text(Cow::Borrowed(text)),
                Val::Bytes(bytes) => Val::Bytes(Cow::Borrowed(bytes)),
                other => other.clone(),
            },
            Self::Hoisted(place) => row.hoisted(*place)?,
            Self::Compare(op, sides) => match order(&sides.0.value(row)?, &sides.1.value(row)?)? {
                Some(order) => Val::Bool(holds(*op, order)),
                None => Val::Null,
            },
            Self::Distinct { negated, sides } => {
                let (left, right) = (sides.0.value(row)?, sides.1.value(row)?);
                let same = match order(&left, &right)? {
                    Some(order) => order.is_eq(),
                    None => left.is_null() && right.is_null(),
                };
                Val::Bool(same == *negated)
            }
            Self::Both { and, sides } => {
                let left = truth(&sides.0.value(row)?)?;
                if left == Some(!and) {
                    return Ok(Val::Bool(!and));
                }
                match (left, truth(&sides.1.value(row)?)?) {
                    (_, Some(right)) if right != *and => Val::Bool(right),
                    (Some(_), Some(right)) => Val::Bool(right),
                    _ => Val::Null,
                }
            }
            Self::Not(of) => truth(&of.value(row)?)?.map_or(Val::Null, |t| Val::Bool(!t)),
            Self::IsNull { negated, of } => Val::Bool(of.value(row)?.is_null() != *negated),
            Self::Whole { op, narrow, sides } => match (sides.0.value(row)?, sides.1.value(row)?) {
                (Val::Int(a), Val::Int(b)) => {
                    let result = whole(*op, a, b).ok_or(Unsure)?;
                    if *narrow && i32::try_from(result).is_err() {
                        return Err(Unsure);
                    }
                    Val::Int(result)
                }
                (a, b) => null_of(&a, &b)?,
            },
            Self::Double { op, sides } => match (sides.0.value(row)?, sides.1.value(row)?) {
                (Val::Double(a), Val::Double(b)) => Val::Double(double(*op, a, b).ok_or(Unsure)?),
                (a, b) => null_of(&a, &b)?,
            },
            Self::Decimal { op, by, sides } => match (sides.0.value(row)?, sides.1.value(row)?) {
                (Val::Decimal(a), Val::Decimal(b)) => Val::Decimal(decimal(*op, *by, a, b).ok_or(Unsure)?),
                (a, b) => null_of(&a, &b)?,
            },
            Self::Moved { by, of } => match of.value(row)? {
                Val::Null => Val::Null,
                Val::Int(time) => {
                    let moved = time.checked_add(*by).filter(|t| TIMES.contains(t) && TIMES.contains(&time));
                    Val::Int(moved.ok_or(Unsure)?)
                }
                _ => return Err(Unsure),
            },
            Self::Concat(sides) => match (sides.0.value(row)?, sides.1.value(row)?) {
                (Val::Text(a), Val::Text(b)) => Val::Text(Cow::Owned(a.into_owned() + &b)),
                (a, b) => null_of(&a, &b)?,
            },
            Self::Case { of, cases, otherwise } => {
                let of = match of {
                    Some(of) => Some(of.value(row)?),
                    None => None,
                };
                for (when, then) in cases {
                    let when = when.value(row)?;
                    let hit = match &of {
                        Some(of) => order(of, &when)?.is_some_and(Ordering::is_eq),
                        None => truth(&when)? == Some(true),
                    };
                    if hit {
                        return then.value(row);
                    }
                }
                match otherwise {
                    Some(otherwise) => otherwise.value(row)?,
                    None => Val::Null,
                }
            }
            Self::OneOf { of, list, negated } => {
                let of = of.value(row)?;
                let mut unknown = of.is_null();
                for item in list {
                    match order(&of, &item.value(row)?)? {
                        Some(Ordering::Equal) => return Ok(Val::Bool(!negated)),
                        Some(_) => {}
                        None => unknown = true,
                    }
                }
                if unknown { Val::Null } else { Val::Bool(*negated) }
            }
            Self::FirstOf(all) => {
                for one in all {
                    let value = one.value(row)?;
                    if !value.is_null() {
                        return Ok(value);
                    }
                }
                Val::Null
            }
            Self::Cast { to, of } => cast(*to, of.value(row)?)?,
        })
    }

    /// Whether it is true.
    pub(crate) fn is_true<'r>(&'r self, row: &impl Row<'r>) -> Result<bool, Unsure> {
        Ok(truth(&self.value(row)?)? == Some(true))
    }
}

/// NULL, where one of two is.
fn null_of(a: &Val<'_>, b: &Val<'_>) -> Result<Val<'static>, Unsure> {
    if a.is_null() || b.is_null() { Ok(Val::Null) } else { Err(Unsure) }
}

fn truth(value: &Val<'_>) -> Result<Option<bool>, Unsure> {
    match value {
        Val::Bool(truth) => Ok(Some(*truth)),
        Val::Null => Ok(None),
        _ => Err(Unsure),
    }
}

/// How two values of one type compare; `None` where one is NULL. Of zeros with different signs and of NaN the compiled
/// expression says it.
fn order(a: &Val<'_>, b: &Val<'_>) -> Result<Option<Ordering>, Unsure> {
    Ok(Some(match (a, b) {
        (Val::Null, _) | (_, Val::Null) => return Ok(None),
        (Val::Int(a), Val::Int(b)) => a.cmp(b),
        (Val::Text(a), Val::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Val::Decimal(a), Val::Decimal(b)) => a.cmp(b),
        (Val::Double(a), Val::Double(b)) => {
            let alike = |order: &Ordering| order.is_ne() || a.to_bits() == b.to_bits();
            a.partial_cmp(b).filter(alike).ok_or(Unsure)?
        }
        (Val::Bool(a), Val::Bool(b)) => a.cmp(b),
        (Val::Bytes(a), Val::Bytes(b)) => a.cmp(b),
        _ => return Err(Unsure),
    }))
}

fn holds(op: Operator, order: Ordering) -> bool {
    match op {
        Operator::Eq => order.is_eq(),
        Operator::NotEq => order.is_ne(),
        Operator::Lt => order.is_lt(),
        Operator::LtEq => order.is_le(),
        Operator::Gt => order.is_gt(),
        _ => order.is_ge(),
    }
}

fn whole(op: Operator, a: i64, b: i64) -> Option<i64> {
    match op {
        Operator::Plus => a.checked_add(b),
        Operator::Minus => a.checked_sub(b),
        Operator::Multiply => a.checked_mul(b),
        Operator::Divide => a.checked_div(b),
        Operator::Modulo => a.checked_rem(b),
        _ => None,
    }
}

fn double(op: Operator, a: f64, b: f64) -> Option<f64> {
    Some(match op {
        Operator::Plus => a + b,
        Operator::Minus => a - b,
        Operator::Multiply => a * b,
        // What division by zero is, the compiled expression says.
        Operator::Divide if b != 0.0 => a / b,
        Operator::Modulo if b != 0.0 => a % b,
        _ => return None,
    })
}

fn decimal(op: Operator, by: (i128, i128), a: i128, b: i128) -> Option<i128> {
    let (a, b) = (a.checked_mul(by.0)?, b.checked_mul(by.1)?);
    match op {
        Operator::Plus => a.checked_add(b),
        Operator::Minus => a.checked_sub(b),
        _ => a.checked_mul(b),
    }
}

fn cast(to: Conversion, value: Val<'_>) -> Result<Val<'_>, Unsure> {
    let digits = |value: i128, factor: i128, digits: u8| {
        let value = value.checked_mul(factor).filter(|v| fits(*v, digits));
        value.map(Val::Decimal).ok_or(Unsure)
    };
    match (to, value) {
        (_, Val::Null) => Ok(Val::Null),
        (Conversion::Same, value) => Ok(value),
        (Conversion::Narrow, Val::Int(v)) if i32::try_from(v).is_ok() => Ok(Val::Int(v)),
        (Conversion::WholeToDouble, Val::Int(v)) => Ok(Val::Double(v as f64)),
        (Conversion::WholeToDecimal(factor, max), Val::Int(v)) => digits(i128::from(v), factor, max),
        (Conversion::DecimalToDecimal(factor, max), Val::Decimal(v)) => digits(v, factor, max),
        _ => Err(Unsure),
    }
}

/// Whether a decimal has at most so many digits.
pub(crate) fn fits(value: i128, digits: u8) -> bool {
    10_i128.checked_pow(u32::from(digits)).is_none_or(|limit| value.unsigned_abs() < limit.unsigned_abs())
}

//! Conditions that bound one time by another: `b.at BETWEEN a.at AND a.at + INTERVAL '10 minutes'`, in any form that says
//! the same.

use arrow_schema::{DataType, IntervalUnit, TimeUnit};
use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::{BinaryExpr, Expr, Operator};

/// Columns with signs, and microseconds: `a.at + INTERVAL '1 minute'` is `+a.at` and 60,000,000.
#[derive(Debug, Default)]
struct Sum {
    /// The side and the place of each column, and whether it is subtracted.
    columns: Vec<(usize, usize, bool)>,
    micros: i64,
}

/// What a condition says about two times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bound {
    /// The place of the time on the left side and on the right one.
    pub(super) places: (usize, usize),
    /// The least of the right time minus the left one, in microseconds, if it says so.
    pub(super) least: Option<i64>,
    /// The most.
    pub(super) most: Option<i64>,
}

/// What `condition` says about a time of each side, if it is such a condition.
pub(super) fn bound(condition: &Expr, left: &DFSchema, right: &DFSchema) -> Option<Bound> {
    let Expr::BinaryExpr(BinaryExpr { left: one, op, right: another }) = condition else { return None };
    let difference = sum(one, left, right)?.minus(sum(another, left, right)?)?;
    // Now it is `columns + micros op 0`.
    let (places, op, micros) = match difference.columns.as_slice() {
        [(0, l, true), (1, r, false)] | [(1, r, false), (0, l, true)] => ((*l, *r), *op, difference.micros),
        [(0, l, false), (1, r, true)] | [(1, r, true), (0, l, false)] => {
            ((*l, *r), op.swap()?, difference.micros.checked_neg()?)
        }
        _ => return None,
    };
    // `right - left op -micros`.
    let limit = micros.checked_neg()?;
    let (least, most) = match op {
        Operator::Eq => (Some(limit), Some(limit)),
        Operator::GtEq => (Some(limit), None),
        Operator::Gt => (Some(limit.checked_add(1)?), None),
        Operator::LtEq => (None, Some(limit)),
        Operator::Lt => (None, Some(limit.checked_sub(1)?)),
        _ => return None,
    };
    Some(Bound { places, least, most })
}

/// Whether `condition` compares times of one side.
pub(super) fn is_bound(condition: &Expr, schema: &DFSchema) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return false };
    op.supports_propagation() && sum(left, schema, schema).is_some() && sum(right, schema, schema).is_some()
}

impl Sum {
    fn minus(mut self, other: Self) -> Option<Self> {
        self.columns.extend(other.columns.into_iter().map(|(side, place, less)| (side, place, !less)));
        self.micros = self.micros.checked_sub(other.micros)?;
        Some(self)
    }

    fn plus(mut self, other: Self) -> Option<Self> {
        self.columns.extend(other.columns);
        self.micros = self.micros.checked_add(other.micros)?;
        Some(self)
    }

    /// Whether it is the same behind a cast to `kind`: a time as a time, a distance as a distance. What is rounded (a time
    /// as a date, or in seconds) is another number.
    fn survives(&self, kind: &DataType) -> bool {
        let signs = self.columns.iter().map(|(.., less)| if *less { -1 } else { 1 });
        match signs.sum::<i64>() {
            1 => is_time(kind),
            0 => matches!(
                kind,
                DataType::Duration(TimeUnit::Microsecond) | DataType::Interval(IntervalUnit::MonthDayNano)
            ),
            _ => false,
        }
    }
}

fn is_time(kind: &DataType) -> bool {
    matches!(kind, DataType::Timestamp(TimeUnit::Microsecond, _))
}

fn sum(expr: &Expr, left: &DFSchema, right: &DFSchema) -> Option<Sum> {
    match expr {
        Expr::Alias(alias) => sum(&alias.expr, left, right),
        Expr::Cast(cast) => sum(&cast.expr, left, right).filter(|sum| sum.survives(cast.field.data_type())),
        Expr::Column(column) => {
            let place = |side, schema: &DFSchema| {
                let place = schema.maybe_index_of_column(column)?;
                is_time(schema.field(place).data_type()).then_some((side, place, false))
            };
            let found = place(0, left).or_else(|| place(1, right))?;
            Some(Sum { columns: vec![found], micros: 0 })
        }
        Expr::BinaryExpr(BinaryExpr { left: one, op, right: another }) => {
            let (one, another) = (sum(one, left, right)?, sum(another, left, right)?);
            match op {
                Operator::Plus => one.plus(another),
                Operator::Minus => one.minus(another),
                _ => None,
            }
        }
        Expr::Literal(value, _) => Some(Sum { columns: Vec::new(), micros: micros(value)? }),
        _ => None,
    }
}

/// An interval or a duration in microseconds, if it is as long always.
fn micros(value: &ScalarValue) -> Option<i64> {
    const DAY_MICROS: i64 = 86_400_000_000;
    match value {
        ScalarValue::IntervalMonthDayNano(Some(i)) if i.months == 0 => {
            i64::from(i.days).checked_mul(DAY_MICROS)?.checked_add(i.nanoseconds / 1000)
        }
        ScalarValue::IntervalDayTime(Some(i)) => {
            i64::from(i.days).checked_mul(DAY_MICROS)?.checked_add(i64::from(i.milliseconds) * 1000)
        }
        ScalarValue::DurationSecond(Some(seconds)) => seconds.checked_mul(1_000_000),
        ScalarValue::DurationMillisecond(Some(millis)) => millis.checked_mul(1000),
        ScalarValue::DurationMicrosecond(Some(micros)) => Some(*micros),
        ScalarValue::DurationNanosecond(Some(nanos)) => Some(nanos / 1000),
        _ => None,
    }
}

//! Values that aggregates keep, one row for each, and what of a group's state follows from them.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_schema::{Field, FieldRef};

use crate::stream::kept::Value;
use crate::stream::legend::{StateCell, cell, cells, number, plain, word};

/// The results that a state has in itself, and a note on the others.
pub(super) fn following(known: &[Option<ArrayRef>], results: &[FieldRef]) -> (Vec<StateCell>, Option<String>) {
    let shown = known.iter().zip(results).filter_map(|(column, field)| Some(cell(field, column.as_ref()?)));
    let hidden = known.iter().zip(results).filter(|(column, _)| column.is_none());
    let hidden: Vec<String> = hidden.map(|(_, field)| plain(field.name())).collect();
    let note = format!("{} follow from the group's value rows", hidden.join(", "));
    (shown.collect(), (!hidden.is_empty()).then_some(note))
}

/// A value of an aggregate with these results.
pub(super) fn value_cells(value: &Value<'_>, results: &[FieldRef]) -> Vec<StateCell> {
    let of = results.get(value.aggregate).map(|field| plain(field.name())).unwrap_or_default();
    let name = |at: usize| if at == 0 { "value".to_owned() } else { format!("order{at}") };
    let field = |(at, column): (usize, &ArrayRef)| Arc::new(Field::new(name(at), column.data_type().clone(), true));
    let fields: Vec<FieldRef> = value.columns.iter().enumerate().map(field).collect();
    let mut shown = vec![word("of", &of)];
    shown.extend(cells(&fields, &value.columns));
    shown.extend(value.number.map(|place| number("number", i64::try_from(place).unwrap_or(i64::MAX))));
    shown
}

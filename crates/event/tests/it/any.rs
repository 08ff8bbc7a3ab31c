//! Any schema and any rows of it, for property tests.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, ListArray,
    RecordBatch, RecordBatchOptions, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use millstream_event::{Column, ColumnType, Schema};
use proptest::prelude::*;
use proptest::strategy::Union;

/// A schema and rows of it.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) schema: Schema,
    pub(crate) rows: RecordBatch,
}

fn kind(depth: u32) -> BoxedStrategy<ColumnType> {
    let leaf = prop_oneof![
        Just(ColumnType::String),
        Just(ColumnType::Bool),
        Just(ColumnType::Int),
        Just(ColumnType::BigInt),
        Just(ColumnType::Double),
        (1u8..=38).prop_flat_map(|precision| {
            (Just(precision), 0..=precision).prop_map(|(precision, scale)| ColumnType::Decimal { precision, scale })
        }),
        Just(ColumnType::Timestamp),
        Just(ColumnType::Date),
        Just(ColumnType::Bytes),
        Just(ColumnType::Json),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    let list = kind(depth - 1).prop_map(|item| ColumnType::Array(Box::new(item)));
    let object = prop::collection::vec((kind(depth - 1), any::<bool>()), 1..4).prop_map(|members| {
        let member = |(i, (kind, nullable))| Column { name: format!("m{i}"), kind, nullable };
        ColumnType::Struct(members.into_iter().enumerate().map(member).collect())
    });
    Union::new_weighted(vec![(6, leaf.boxed()), (1, list.boxed()), (1, object.boxed())]).boxed()
}

/// Any column names, some of which need escapes in JSON and quotes in CSV.
fn name(i: usize) -> String {
    match i % 5 {
        3 => format!("na\"me,\n{i}"),
        4 => format!("ñame {i}"),
        _ => format!("c{i}"),
    }
}

/// Any table with nested types (`depth` > 0) or without.
pub(crate) fn table(depth: u32) -> impl Strategy<Value = Table> {
    (prop::collection::vec((kind(depth), any::<bool>()), 1..7), 0usize..9).prop_flat_map(|(kinds, rows)| {
        let column = |(i, (kind, nullable))| Column { name: name(i), kind, nullable };
        let columns: Vec<Column> = kinds.into_iter().enumerate().map(column).collect();
        let schema = Schema::new(columns.clone()).unwrap();
        let arrays: Vec<_> = columns.iter().map(|c| array(&c.kind, c.nullable, rows)).collect();
        arrays.prop_map(move |arrays| {
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            let rows = RecordBatch::try_new_with_options(Arc::clone(schema.arrow()), arrays, &options).unwrap();
            Table { schema: schema.clone(), rows }
        })
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-z ,\"\\\\\n\r\t]{0,12}",
        1 => any::<String>(),
        1 => prop::collection::vec(any::<char>(), 0..20).prop_map(|chars| chars.into_iter().collect()),
        1 => Just(String::new()),
        1 => Just("\u{0}\u{1f}\u{7f}\u{feff}\u{10ffff}null".to_owned()),
    ]
}

fn json() -> impl Strategy<Value = String> {
    let value = text().prop_map(serde_json::Value::from);
    let value = prop_oneof![value, any::<i64>().prop_map(serde_json::Value::from), Just(serde_json::json!(true))];
    prop::collection::vec(value, 0..3).prop_map(|values| {
        let mut object = serde_json::Map::new();
        object.extend(values.into_iter().enumerate().map(|(i, v)| (format!("k{i}"), v)));
        serde_json::Value::Object(object).to_string()
    })
}

fn column<T: std::fmt::Debug + 'static, A: arrow_array::Array + 'static>(
    value: impl Strategy<Value = T> + 'static,
    nullable: bool,
    rows: usize,
    build: impl Fn(Vec<Option<T>>) -> A + 'static,
) -> BoxedStrategy<ArrayRef> {
    let value = (value, 0u8..10).prop_map(move |(value, dice)| (!nullable || dice < 7).then_some(value));
    prop::collection::vec(value, rows).prop_map(move |values| Arc::new(build(values)) as ArrayRef).boxed()
}

fn array(kind: &ColumnType, nullable: bool, rows: usize) -> BoxedStrategy<ArrayRef> {
    match kind {
        ColumnType::String => column(text(), nullable, rows, StringArray::from),
        ColumnType::Json => column(json(), nullable, rows, StringArray::from),
        ColumnType::Bytes => column(prop::collection::vec(any::<u8>(), 0..9), nullable, rows, |values| {
            values.iter().map(Option::as_deref).collect::<BinaryArray>()
        }),
        ColumnType::Bool => column(any::<bool>(), nullable, rows, BooleanArray::from),
        ColumnType::Int => column(any::<i32>(), nullable, rows, Int32Array::from),
        ColumnType::BigInt => column(any::<i64>(), nullable, rows, Int64Array::from),
        ColumnType::Double => {
            let finite = any::<f64>().prop_filter("JSON holds finite numbers only", |v| v.is_finite());
            column(finite, nullable, rows, Float64Array::from)
        }
        ColumnType::Decimal { precision, scale } => {
            let (precision, scale, max) = (*precision, *scale as i8, 10i128.pow(u32::from(*precision)) - 1);
            let value = prop_oneof![-max..=max, -999i128.min(max)..=999i128.min(max), Just(max), Just(-max)];
            column(value, nullable, rows, move |values| {
                Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap()
            })
        }
        ColumnType::Timestamp => column(any::<i64>(), nullable, rows, |values| {
            TimestampMicrosecondArray::from(values).with_timezone("+00:00")
        }),
        ColumnType::Date => column(any::<i32>(), nullable, rows, Date32Array::from),
        ColumnType::Array(item) => {
            let field = Arc::new(item.field("item", true));
            let lengths = prop::collection::vec((0usize..4, any::<bool>()), rows);
            let item = item.as_ref().clone();
            lengths
                .prop_flat_map(move |lengths| {
                    let live = |(len, valid): &(usize, bool)| if *valid || !nullable { *len } else { 0 };
                    let items = lengths.iter().map(live).sum();
                    (Just(lengths), array(&item, true, items))
                })
                .prop_map(move |(lengths, items)| {
                    let valid: Vec<bool> = lengths.iter().map(|(_, valid)| *valid || !nullable).collect();
                    let lengths = lengths.iter().zip(&valid).map(|((len, _), valid)| if *valid { *len } else { 0 });
                    let ends = OffsetBuffer::from_lengths(lengths);
                    let nulls = valid.contains(&false).then(|| NullBuffer::from(valid));
                    Arc::new(ListArray::new(Arc::clone(&field), ends, items, nulls)) as ArrayRef
                })
                .boxed()
        }
        ColumnType::Struct(columns) => {
            let fields: arrow_schema::Fields = columns.iter().map(Column::to_arrow).collect();
            let members: Vec<_> = columns.iter().map(|c| array(&c.kind, c.nullable, rows)).collect();
            (members, prop::collection::vec(any::<bool>(), rows))
                .prop_map(move |(members, valid)| {
                    let nulls = (nullable && valid.contains(&false)).then(|| NullBuffer::from(valid));
                    Arc::new(StructArray::try_new_with_length(fields.clone(), members, nulls, rows).unwrap())
                        as ArrayRef
                })
                .boxed()
        }
    }
}

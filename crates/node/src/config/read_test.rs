//! Reads `tests:`. Rows become JSON text with every number as it was written, so that `1.10` stays exact.

use super::decode::{Decoder, first_line};
use super::settings::{TestRows, TestSettings};
use super::source_text::Spanned;
use super::yaml::{Node, Scalar, Style, Value};
use crate::diagnostic::Diagnostic;

pub(crate) fn read_test(decoder: &mut Decoder<'_>, node: &Node) -> Option<TestSettings> {
    let f = decoder.fields(node, first_line(node.span), "a test", &["name", "given", "expect"], &[])?;
    let name = f.need(decoder, "name").and_then(|n| decoder.text(n, "`name`"));
    let given = f.need(decoder, "given").and_then(|n| read_rows(decoder, n, "`given`"));
    let expect = f.need(decoder, "expect").and_then(|n| read_rows(decoder, n, "`expect`"));
    Some(TestSettings { name: name?, given: given?, expect: expect? })
}

fn read_rows(decoder: &mut Decoder<'_>, node: &Node, what: &str) -> Option<Vec<TestRows>> {
    let mut out = Vec::new();
    for (topic, value, span) in decoder.entries(node, what)? {
        let topic = decoder.name_text(topic, span, "a topic");
        let Value::List(items) = &value.value else {
            let diagnostic = Diagnostic::error("wrong-type", format!("the rows of {what} must be a list"));
            decoder.report(first_line(value.span), diagnostic.label("write `[{...}]`, or `[]` for none"));
            continue;
        };
        let mut rows = Vec::with_capacity(items.len());
        for item in items {
            if !matches!(item.value, Value::Map(_)) {
                let diagnostic = Diagnostic::error("wrong-type", "a row must be a mapping of columns to values");
                decoder.report(first_line(item.span), diagnostic);
                continue;
            }
            let mut text = String::new();
            write_json(item, &mut text);
            rows.push(Spanned { value: text, span: first_line(item.span) });
        }
        out.extend(topic.map(|topic| TestRows { topic, rows }));
    }
    Some(out)
}

fn write_json(node: &Node, out: &mut String) {
    match &node.value {
        Value::Scalar(scalar) => write_scalar(scalar, out),
        Value::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_json(item, out);
            }
            out.push(']');
        }
        Value::Map(entries) => {
            out.push('{');
            for (i, (key, value)) in entries.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                match &key.value {
                    Value::Scalar(s) => write_text(&s.text, out),
                    _ => out.push_str("\"\""),
                }
                out.push(':');
                write_json(value, out);
            }
            out.push('}');
        }
    }
}

fn write_scalar(scalar: &Scalar, out: &mut String) {
    if scalar.is_null() {
        out.push_str("null");
    } else if let Some(value) = scalar.bool() {
        out.push_str(if value { "true" } else { "false" });
    } else if scalar.style == Style::Plain && serde_json::from_str::<serde_json::Number>(&scalar.text).is_ok() {
        out.push_str(&scalar.text);
    } else {
        write_text(&scalar.text, out);
    }
}

fn write_text(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

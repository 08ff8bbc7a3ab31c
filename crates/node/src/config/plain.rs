//! A pipeline file as plain data, for programs that change a copy of one.

use serde_json::{Map, Number, Value as Json};

use super::yaml::{self, Node, Scalar, Style, Value};
use crate::diagnostic::{Diagnostic, Diagnostics};

/// The text of a pipeline file as JSON, its keys in their order. Nothing is resolved: `${env:X}` stays what it is, and
/// JSON being YAML, what is written from it can be read as a pipeline file again.
pub fn plain(text: &str) -> Result<Json, Diagnostics> {
    let root = yaml::parse(text, 0).map_err(|problem| Diagnostics::from(problem.1))?;
    of(&root)
}

fn of(node: &Node) -> Result<Json, Diagnostics> {
    match &node.value {
        Value::Scalar(scalar) => Ok(of_scalar(scalar)),
        Value::List(items) => items.iter().map(of).collect::<Result<Vec<_>, _>>().map(Json::Array),
        Value::Map(entries) => {
            let mut map = Map::new();
            for (key, value) in entries {
                let Value::Scalar(key) = &key.value else {
                    return Err(Diagnostic::error("yaml-key", "a key must be a text").into());
                };
                map.insert(key.text.clone(), of(value)?);
            }
            Ok(Json::Object(map))
        }
    }
}

/// A number or boolean only where it was written without quotes, and a number only where JSON can say it.
fn of_scalar(scalar: &Scalar) -> Json {
    if scalar.is_null() {
        return Json::Null;
    }
    if let Some(bool) = scalar.bool() {
        return Json::Bool(bool);
    }
    let number = (scalar.style == Style::Plain).then(|| number(&scalar.text)).flatten();
    number.map_or_else(|| Json::String(scalar.text.clone()), Json::Number)
}

fn number(text: &str) -> Option<Number> {
    let integer = text.parse::<i64>().ok().map(Number::from);
    integer.or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_keeps_its_values_and_their_order() {
        let text = "b: 2\na: {x: 1.5, y: '3', z: yes}\nc: [2026-01-01, null, true, \"${env:X}\"]\n";
        let json = plain(text).unwrap().to_string();
        assert_eq!(json, r#"{"b":2,"a":{"x":1.5,"y":"3","z":"yes"},"c":["2026-01-01",null,true,"${env:X}"]}"#);
        assert!(plain("a: [").is_err());
    }
}

//! `${env:X}` and `${file:X}`: values from outside, put in after parsing, so that a value can never change the YAML.
//!
//! `$${env:X}` stands for the text `${env:X}` itself.

use std::path::Path;

use super::decode::Decoder;
use super::source_text::Span;
use super::yaml::{Node, Scalar, Value};
use crate::diagnostic::Diagnostic;

/// Shorter values than this are not masked: they would blot out words that have nothing to do with them.
const SECRET_BYTES_MIN: usize = 4;

/// What stands for a reference that is not defined: a value that most readers accept, so that it is one error.
pub(crate) const UNDEFINED: &str = "1";

/// The values that came from outside, and passwords that stand in the file, which no message may repeat.
#[derive(Debug, Clone, Default)]
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    /// One more.
    pub(crate) fn add(&mut self, secret: &str) {
        if secret.len() >= SECRET_BYTES_MIN {
            self.0.push(secret.to_owned());
        }
    }

    /// The diagnostic without any of the values in its words and in the line that it shows.
    #[must_use]
    pub(crate) fn mask(&self, mut diagnostic: Diagnostic) -> Diagnostic {
        for secret in &self.0 {
            if let Some(place) = diagnostic.place.as_mut().filter(|place| place.text.contains(secret.as_str())) {
                // As many characters as before: the caret stays where it was.
                place.text = place.text.replace(secret.as_str(), &"*".repeat(secret.chars().count()));
            }
            let words =
                std::iter::once(&mut diagnostic.message).chain(&mut diagnostic.label).chain(&mut diagnostic.notes);
            for word in words.filter(|w| w.contains(secret.as_str())) {
                *word = word.replace(secret.as_str(), "***");
            }
        }
        diagnostic
    }
}

/// Replaces every reference in the tree's scalars (keys stay as they are).
pub(crate) fn resolve(node: &mut Node, decoder: &mut Decoder<'_>) {
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|n| resolve(n, decoder)),
        Value::Map(entries) => entries.iter_mut().for_each(|(_, n)| resolve(n, decoder)),
        Value::Scalar(scalar) => resolve_scalar(scalar, node.span, decoder),
    }
}

fn resolve_scalar(scalar: &mut Scalar, span: Span, decoder: &mut Decoder<'_>) {
    if !scalar.text.contains("${") {
        return;
    }
    let text = std::mem::take(&mut scalar.text);
    let mut rest = text.as_str();
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        let inner = reference.strip_prefix("${").unwrap_or_default();
        let kind = inner.split_once(':').map(|(kind, _)| kind);
        let end = inner.find('}');
        let (Some(kind @ ("env" | "file")), Some(end)) = (kind, end) else {
            scalar.text.push_str(before);
            scalar.text.push_str("${");
            rest = inner;
            continue;
        };
        let (whole, tail) = inner.split_at(end);
        let tail = tail.strip_prefix('}').unwrap_or(tail);
        if let Some(before) = before.strip_suffix('$') {
            scalar.text.push_str(before);
            scalar.text.push_str("${");
            scalar.text.push_str(whole);
            scalar.text.push('}');
        } else {
            let what = whole.split_once(':').map_or("", |(_, what)| what);
            scalar.text.push_str(before);
            let value = value(kind, what, span, decoder);
            scalar.text.push_str(&value);
            decoder.secrets.add(&value);
            scalar.secret = true;
        }
        rest = tail;
    }
    scalar.text.push_str(rest);
}

fn value(kind: &str, what: &str, span: Span, decoder: &mut Decoder<'_>) -> String {
    let found = if kind == "env" {
        decoder.files.env(what).ok_or_else(|| format!("environment variable `{what}` is not set"))
    } else {
        // A secret in a file usually ends with a newline that is not part of it.
        let read = decoder.files.read(Path::new(what));
        read.map(|t| t.trim_end_matches(['\n', '\r']).to_owned()).map_err(|why| format!("file `{what}`: {why}"))
    };
    found.unwrap_or_else(|why| {
        decoder.report(span, Diagnostic::error("reference-undefined", why));
        UNDEFINED.to_owned()
    })
}

//! Reads `fold:` of a service.

use super::decode::{Decoder, Fields, first_line};
use super::read_flow::sql_scalar;
use super::settings::{FoldActionSettings, FoldCaseSettings, FoldOtherwiseSettings, FoldSettings, FoldTimerSettings};
use super::source_text::Spanned;
use super::sql_text::Sql;
use super::yaml::{Node, Value};
use crate::diagnostic::Diagnostic;

/// The most entries of a mapping of a fold, and items of a list.
const ENTRIES_MAX: usize = 1000;

pub(crate) fn read_fold(decoder: &mut Decoder<'_>, node: &Node, what: &str) -> Option<FoldSettings> {
    let what = format!("the fold of {what}");
    let head = first_line(node.span);
    let f = decoder.fields(node, head, what.as_str(), &["key", "state", "cases", "otherwise", "timer"], &[])?;
    let key = f.need(decoder, "key").and_then(|n| decoder.texts(n, "`key`"));
    let state = f.need(decoder, "state").and_then(|n| read_expressions(decoder, n, "`state`"));
    let cases = f.need(decoder, "cases").and_then(|n| read_cases(decoder, n));
    let otherwise = f.need(decoder, "otherwise").and_then(|n| read_otherwise(decoder, n));
    let timer = f.get("timer").map(|n| read_timer(decoder, n));
    let timer = match timer {
        Some(timer) => Some(timer?),
        None => None,
    };
    Some(FoldSettings { key: key?, state: state?, cases: cases?, otherwise: otherwise?, timer, span: head })
}

/// A mapping of names to SQL.
fn read_expressions(decoder: &mut Decoder<'_>, node: &Node, what: &str) -> Option<Vec<(Spanned<String>, Sql)>> {
    let entries = decoder.entries(node, what)?;
    if entries.len() > ENTRIES_MAX {
        let message = format!("{what} has at most {ENTRIES_MAX} entries");
        decoder.report(first_line(node.span), Diagnostic::error("too-many", message));
        return None;
    }
    let count = entries.len();
    let mut read = Vec::with_capacity(count);
    for (name, value, span) in entries {
        if value.is_null() && name.contains(')') {
            let message = format!("YAML ends an expression of {what} at the comma inside a {{flow mapping}}");
            let label = "write the expression before it in quotes, or each on a line of its own";
            decoder.report(span, Diagnostic::error("fold-cut", message).label(label));
            continue;
        }
        if let Some(sql) = sql_scalar(decoder, value, &format!("`{name}`")) {
            read.push((Spanned { value: name.to_owned(), span }, sql));
        }
    }
    (read.len() == count).then_some(read)
}

fn read_cases(decoder: &mut Decoder<'_>, node: &Node) -> Option<Vec<FoldCaseSettings>> {
    let Value::List(items) = &node.value else {
        decoder.items(node, "the cases")?;
        let diagnostic = Diagnostic::error("wrong-type", "the cases must be a list");
        decoder.report(first_line(node.span), diagnostic.label("write `- {when: ..., set: {...}, emit: {...}}`"));
        return None;
    };
    if items.len() > ENTRIES_MAX {
        let message = format!("a fold has at most {ENTRIES_MAX} cases");
        decoder.report(first_line(node.span), Diagnostic::error("too-many", message));
        return None;
    }
    let cases: Vec<FoldCaseSettings> = items.iter().filter_map(|n| read_case(decoder, n)).collect();
    (cases.len() == items.len()).then_some(cases)
}

fn read_case(decoder: &mut Decoder<'_>, node: &Node) -> Option<FoldCaseSettings> {
    let f = decoder.fields(node, first_line(node.span), "a case", &["when", "set", "emit", "forget"], &[])?;
    let when = f.get("when").map(|n| sql_scalar(decoder, n, "`when`"));
    let when = match when {
        Some(when) => Some(when?),
        None => None,
    };
    Some(FoldCaseSettings { when, action: read_action(decoder, node, &f)? })
}

fn read_action(decoder: &mut Decoder<'_>, node: &Node, entries: &Fields<'_>) -> Option<FoldActionSettings> {
    let set = match entries.get("set") {
        Some(n) => read_expressions(decoder, n, "`set`")?,
        None => Vec::new(),
    };
    let emit = match entries.get("emit") {
        None => Vec::new(),
        Some(n) => {
            let rows = match &n.value {
                Value::List(rows) => rows.as_slice(),
                _ => std::slice::from_ref(n),
            };
            let read = rows.iter().map(|row| {
                let span = first_line(row.span);
                read_expressions(decoder, row, "`emit`").map(|value| Spanned { value, span })
            });
            read.collect::<Option<Vec<_>>>()?
        }
    };
    let forget = entries.get("forget").and_then(|n| decoder.choice(n, "`forget`", &[("true", true), ("false", false)]));
    Some(FoldActionSettings { set, emit, forget: forget.unwrap_or(false), span: first_line(node.span) })
}

fn read_otherwise(decoder: &mut Decoder<'_>, node: &Node) -> Option<FoldOtherwiseSettings> {
    if matches!(node.value, Value::Map(_)) {
        let f = decoder.fields(node, first_line(node.span), "`otherwise`", &["set", "emit", "forget"], &[])?;
        return read_action(decoder, node, &f).map(FoldOtherwiseSettings::Do);
    }
    let choices = [("drop", FoldOtherwiseSettings::Drop), ("dead_letter", FoldOtherwiseSettings::DeadLetter)];
    let words = choices.each_ref().map(|(word, _)| (*word, *word));
    let word = decoder.choice(node, "`otherwise`", &words)?;
    choices.into_iter().find(|(name, _)| *name == word).map(|(_, otherwise)| otherwise)
}

fn read_timer(decoder: &mut Decoder<'_>, node: &Node) -> Option<FoldTimerSettings> {
    let f = decoder.fields(node, first_line(node.span), "`timer`", &["at", "cases"], &[])?;
    let at = f.need(decoder, "at").and_then(|n| decoder.text(n, "`at`"));
    let cases = f.need(decoder, "cases").and_then(|n| read_cases(decoder, n));
    Some(FoldTimerSettings { at: at?, cases: cases? })
}

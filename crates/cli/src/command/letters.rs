//! How dead letters look.

use millstream_node::api::{Letter, LetterState};

use crate::failure::Failure;
use crate::terminal::{Align, Out, Table, count};

/// The most characters of a reason or an event in a list.
const CHARS_MAX: usize = 60;

/// Many letters, one line each.
pub(crate) fn print_list(letters: &[Letter], limit: u64, out: &mut Out) -> Result<(), Failure> {
    if out.json {
        return letters.iter().try_for_each(|letter| out.value_line(letter));
    }
    if letters.is_empty() {
        eprintln!("no dead letters");
        return Ok(());
    }
    let mut table = Table::new(&[
        ("ID", Align::Left),
        ("STATE", Align::Left),
        ("AT", Align::Left),
        ("CODE", Align::Left),
        ("WHY", Align::Left),
        ("FROM", Align::Left),
        ("TRIES", Align::Right),
        ("EVENT", Align::Left),
    ]);
    for letter in letters {
        table.row(vec![
            letter.id.to_string(),
            state(letter.state).to_owned(),
            letter.at.get(..19).unwrap_or(&letter.at).replace('T', " "),
            letter.code.clone(),
            short(&why(letter)),
            from(letter),
            letter.attempts.to_string(),
            short(&content(letter)),
        ]);
    }
    out.table(&table)?;
    if letters.len() as u64 == limit {
        eprintln!("the first {}; --limit N shows more", count(limit));
    }
    Ok(())
}

/// One letter, whole.
pub(crate) fn print_one(letter: &Letter, out: &mut Out) -> Result<(), Failure> {
    if out.json {
        return out.value(letter);
    }
    let style = out.style;
    out.line(&style.bold(&format!("{} {}", letter.service, letter.id)))?;
    for (name, value) in [
        ("state", state(letter.state).to_owned()),
        ("written", letter.at.clone()),
        ("code", letter.code.clone()),
        ("reason", letter.reason.clone()),
        ("rules", letter.rules.join(", ")),
        ("from", from(letter)),
        ("tries", letter.attempts.to_string()),
        ("version", letter.service_version.clone()),
    ] {
        if !value.is_empty() {
            out.line(&format!("  {}{value}", style.dim(&format!("{name:<9}"))))?;
        }
    }
    if let Some(event) = &letter.event {
        out.line(&format!("  {}{}", style.dim("event    "), printable(event.get())))?;
    }
    if let Some(raw) = &letter.raw {
        out.line(&format!("  {}{}", style.dim("as it came"), ""))?;
        out.line(&format!("  {}", printable(raw)))?;
    }
    Ok(())
}

fn state(state: LetterState) -> &'static str {
    match state {
        LetterState::Open => "open",
        LetterState::Replayed => "replayed",
        LetterState::Discarded => "discarded",
    }
}

fn why(letter: &Letter) -> String {
    if letter.rules.is_empty() { letter.reason.clone() } else { letter.rules.join(", ") }
}

fn from(letter: &Letter) -> String {
    match (&letter.origin, letter.partition, letter.offset) {
        (Some(origin), ..) => origin.clone(),
        (None, Some(partition), Some(offset)) => format!("{} {partition}:{offset}", letter.topic),
        _ => letter.topic.clone(),
    }
}

fn content(letter: &Letter) -> String {
    match (&letter.event, &letter.raw) {
        (Some(event), _) => event.get().to_owned(),
        (None, Some(raw)) => raw.clone(),
        (None, None) => String::new(),
    }
}

/// Input from outside may hold anything, also what moves a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

fn short(text: &str) -> String {
    let text = printable(text).replace('\n', " ");
    if text.chars().count() <= CHARS_MAX {
        return text;
    }
    text.chars().take(CHARS_MAX - 1).chain(['…']).collect()
}

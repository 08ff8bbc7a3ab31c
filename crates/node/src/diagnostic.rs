//! What is wrong with a configuration, said so that a person can mend it.
//!
//! A diagnostic carries the source line it speaks of, so it can be rendered, sent as JSON and kept without the file.
//! Source lines are shown as written: a `${env:X}` stays `${env:X}`, its value never appears.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The most characters of a source line that are shown; longer lines are cut around the caret.
const LINE_CHARS_MAX: usize = 140;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The pipeline cannot run.
    Error,
    /// The pipeline runs, but probably not as meant.
    Warning,
}

/// A place in a file, with the line as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file, relative to the pipeline file's directory where it lies below it.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// How many characters are meant, at least 1.
    pub width: u32,
    /// The whole line.
    pub text: String,
}

/// Another place that has to do with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Related {
    /// Where.
    pub place: Place,
    /// What is there.
    pub label: String,
}

/// One error or warning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// The stable code, e.g. `topic-unknown`.
    pub code: Cow<'static, str>,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// Where.
    pub place: Option<Place>,
    /// What stands beside the caret: a suggestion or a reason.
    pub label: Option<String>,
    /// Longer explanations, one line each.
    pub notes: Vec<String>,
    /// Other places.
    pub related: Vec<Related>,
}

impl Diagnostic {
    /// An error without a place.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code: Cow::Borrowed(code),
            severity: Severity::Error,
            message: message.into(),
            place: None,
            label: None,
            notes: Vec::new(),
            related: Vec::new(),
        }
    }

    /// A warning without a place.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    /// The same at a place.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// The same with words beside the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// The same with words beside the caret where there are some.
    #[must_use]
    pub fn label_if(mut self, label: Option<String>) -> Self {
        self.label = label.or(self.label);
        self
    }

    /// The same with one more explanation.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// The same with another place.
    #[must_use]
    pub fn related(mut self, place: Place, label: impl Into<String>) -> Self {
        self.related.push(Related { place, label: label.into() });
        self
    }

    /// Whether the pipeline cannot run.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{severity}[{}]: {}", self.code, self.message)?;
        let places = self.place.iter().chain(self.related.iter().map(|r| &r.place));
        let gutter = places.map(|p| p.line.to_string().len()).max().unwrap_or(1);
        if let Some(place) = &self.place {
            write_place(f, "-->", place, self.label.as_deref(), gutter)?;
        } else if let Some(label) = &self.label {
            writeln!(f, "{:gutter$} = {label}", "")?;
        }
        for related in &self.related {
            write_place(f, ":::", &related.place, Some(&related.label), gutter)?;
        }
        for note in &self.notes {
            let mut lines = note.lines();
            writeln!(f, "{:gutter$} = {}", "", lines.next().unwrap_or_default())?;
            for line in lines {
                writeln!(f, "{:gutter$}   {line}", "")?;
            }
        }
        Ok(())
    }
}

fn write_place(
    f: &mut fmt::Formatter<'_>,
    arrow: &str,
    place: &Place,
    label: Option<&str>,
    gutter: usize,
) -> fmt::Result {
    let (text, column) = window(place);
    let width = (place.width.max(1) as usize).min(text.chars().count().saturating_sub(column - 1).max(1));
    writeln!(f, "{:gutter$}{arrow} {}:{}:{}", "", place.file, place.line, place.column)?;
    writeln!(f, "{:gutter$} |", "")?;
    writeln!(f, "{}", format!("{:>gutter$} | {text}", place.line).trim_end())?;
    write!(f, "{:gutter$} | {:pad$}{}", "", "", "^".repeat(width), pad = column - 1)?;
    match label {
        Some(label) => writeln!(f, " {label}"),
        None => writeln!(f),
    }
}

/// The part of the line around the caret, without control characters, and the caret's column in it (from 1).
fn window(place: &Place) -> (String, usize) {
    let chars: Vec<char> = place.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let column = (place.column.max(1) as usize).min(chars.len() + 1);
    if chars.len() <= LINE_CHARS_MAX {
        return (chars.into_iter().collect::<String>().trim_end().to_owned(), column);
    }
    let start = column.saturating_sub(LINE_CHARS_MAX / 2);
    let shown: String = chars.iter().skip(start).take(LINE_CHARS_MAX).collect();
    if start == 0 { (shown, column) } else { (format!("…{shown}"), column - start + 1) }
}

/// Everything found in one pass, errors and warnings, in the order of the files' lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.0.iter().filter(|d| d.is_error()).count()
    }

    /// Sorts by file and line; what has no place comes first.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        let rank = |file: &str| usize::from(!(file.ends_with(".yaml") || file.ends_with(".yml")));
        self.0.sort_by_cached_key(|d| d.place.as_ref().map(|p| (rank(&p.file), p.file.clone(), p.line, p.column)));
        self
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(one: Diagnostic) -> Self {
        Self(vec![one])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// The candidate that a person most likely meant, if any is near.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(&lower, &c.to_lowercase()), c))
        .filter(|(distance, c)| *distance <= (word.len().max(c.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}

/// `did you mean ...?` where something is near.
pub(crate) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, candidates).map(|c| format!("did you mean `{c}`?"))
}

/// The nearest of the known names where something is near, and all of them.
pub(crate) fn names_known<'a>(word: &str, what: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let near = did_you_mean(word, known.iter().copied()).map(|near| near + "\n").unwrap_or_default();
    match known.is_empty() {
        true => format!("{near}there are no {what} yet"),
        false => format!("{near}the {what} are: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place { file: "pipeline.yaml".into(), line: 41, column: 11, width: 6, text: "    from: validd".into() }
    }

    #[test]
    fn it_looks_like_the_design_says() {
        let d = Diagnostic::error("topic-unknown", "service `enrich` reads topic `validd`, which no line defines")
            .at(place())
            .label("did you mean `valid`?");
        let expect = "error[topic-unknown]: service `enrich` reads topic `validd`, which no line defines
  --> pipeline.yaml:41:11
   |
41 |     from: validd
   |           ^^^^^^ did you mean `valid`?
";
        assert_eq!(d.to_string(), expect);
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let mut at = place();
        at.text = format!("{}oops{}", "a".repeat(1000), "b".repeat(1000));
        at.column = 1001;
        at.width = 4;
        let text = Diagnostic::error("x", "y").at(at).to_string();
        let lines: Vec<&str> = text.lines().collect();
        let column = lines[4].find('^').unwrap();
        let chars: Vec<char> = lines[3].chars().collect();
        assert_eq!(chars[column..column + 4].iter().collect::<String>(), "oops");
        assert!(chars.len() < LINE_CHARS_MAX + 10);
    }

    #[test]
    fn only_near_words_are_suggested() {
        assert_eq!(nearest("validd", ["valid", "x"]), Some("valid"));
        assert_eq!(nearest("completely", ["valid", "x"]), None);
        assert_eq!(nearest("form", ["from", "to"]), Some("from"));
    }
}

//! Why a command did not do what it was asked, and how that is said.

use std::io::{self, Write};

use millstream_node::Diagnostics;
use millstream_node::api::ApiError;

use crate::exit::Exit;
use crate::terminal::Style;

/// Why a command ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The pipeline is wrong; everything that is wrong with it.
    Pipeline(Diagnostics),
    /// The node, or the log of a stopped one, refuses.
    Refused(ApiError),
    /// The command line is wrong in a way that its grammar does not catch.
    Usage(String),
    /// Anything else.
    Failed(anyhow::Error),
    /// Whoever read our output has gone. Nobody is left to be told, and nothing is wrong.
    ReaderGone,
}

impl Failure {
    /// Something that went wrong, with what to do about it.
    pub(crate) fn refused(code: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Refused(ApiError::new(code, message).help(help))
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Pipeline(_) => Exit::Config,
            Self::Usage(_) => Exit::Usage,
            Self::Refused(_) | Self::Failed(_) => Exit::Failed,
            Self::ReaderGone => Exit::Done,
        }
    }

    /// Says it on standard error. That nobody listens there is no further failure.
    pub(crate) fn report(&self, style: Style) {
        let mut err = io::stderr().lock();
        let said = match self {
            Self::Pipeline(diagnostics) => write!(err, "{}", render(diagnostics, style)),
            Self::Refused(error) => write!(err, "{}", render_refusal(error, style)),
            Self::Usage(message) => writeln!(err, "{}: {message}", style.bad("error")),
            Self::Failed(error) => writeln!(err, "{}: {error:#}", style.bad("error")),
            Self::ReaderGone => Ok(()),
        };
        drop(said);
    }
}

/// All diagnostics and how many there are.
pub(crate) fn render(diagnostics: &Diagnostics, style: Style) -> String {
    let mut text: String = diagnostics.to_string().lines().map(|line| coloured(line, style) + "\n").collect();
    let errors = diagnostics.errors();
    if errors > 1 {
        text.push_str(&format!("\n{errors} errors\n"));
    }
    text
}

/// The node renders without colours; what stands out is known by its shape.
fn coloured(line: &str, style: Style) -> String {
    let head = |rest: &str, paint: &dyn Fn(&str) -> String| match rest.split_once("]: ") {
        Some((code, message)) => format!("{}: {}", paint(&format!("{code}]")), style.bold(message)),
        None => line.to_owned(),
    };
    if line.starts_with("error[") {
        return head(line, &|t| style.bad(t));
    }
    if line.starts_with("warning[") {
        return head(line, &|t| style.warn(t));
    }
    match line.split_once('|') {
        Some((gutter, rest)) if gutter.trim().is_empty() && rest.trim_start().starts_with('^') => {
            format!("{gutter}|{}", style.bad(rest))
        }
        _ => line.to_owned(),
    }
}

fn render_refusal(error: &ApiError, style: Style) -> String {
    let mut text = String::new();
    for diagnostic in &error.diagnostics {
        text.push_str(&render(&diagnostic.clone().into(), style));
        text.push('\n');
    }
    text.push_str(&format!("{}: {}\n", style.bad(&format!("error[{}]", error.code)), error.message));
    for line in error.help.iter().flat_map(|h| h.lines()) {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Pipeline(diagnostics)
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::Failed(error.into()),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        match error.io_error_kind() {
            Some(io::ErrorKind::BrokenPipe) => Self::ReaderGone,
            _ => Self::Failed(error.into()),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_change_nothing_but_colours() {
        let text = "error[x]: y is wrong\n --> p.yaml:1:2\n  |\n1 | a: b\n  |  ^ what\n";
        let strip = |line: &str| {
            let mut out = String::new();
            let mut inside = false;
            for c in coloured(line, Style::coloured()).chars() {
                match c {
                    '\u{1b}' => inside = true,
                    'm' if inside => inside = false,
                    _ if inside => {}
                    c => out.push(c),
                }
            }
            out
        };
        for line in text.lines() {
            assert_eq!(strip(line), line);
            assert_eq!(coloured(line, Style::plain()), line);
        }
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let gone: Failure = io::Error::from(io::ErrorKind::BrokenPipe).into();
        assert_eq!(gone.exit(), Exit::Done);
    }
}

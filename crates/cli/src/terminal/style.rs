//! Colours: only on a terminal, and never where `NO_COLOR` is set.

use std::io::IsTerminal;

/// Whether to use colours on one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    colours: bool,
}

impl Style {
    /// For standard output.
    pub(crate) fn stdout() -> Self {
        Self { colours: std::io::stdout().is_terminal() && wanted() }
    }

    /// For standard error.
    pub(crate) fn stderr() -> Self {
        Self { colours: std::io::stderr().is_terminal() && wanted() }
    }

    /// Whether colours are used.
    pub(crate) fn colours(self) -> bool {
        self.colours
    }

    /// For files.
    pub(crate) fn plain() -> Self {
        Self { colours: false }
    }

    #[cfg(test)]
    pub(crate) fn coloured() -> Self {
        Self { colours: true }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(crate) fn warn(self, text: &str) -> String {
        self.paint("33", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.paint("1;31", text)
    }
}

/// What the environment says (<https://no-color.org>).
fn wanted() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

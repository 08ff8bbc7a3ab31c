//! Standard output: data for people or for programs.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use serde::Serialize;

use super::{Style, Table};
use crate::failure::Failure;

/// Where data goes. Everything else goes to standard error.
pub(crate) struct Out {
    to: BufWriter<Stdout>,
    /// Whether `--json` was asked for.
    pub(crate) json: bool,
    /// Whether a person reads along: standard output is a terminal.
    pub(crate) people: bool,
    /// The colours of standard output.
    pub(crate) style: Style,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        let people = io::stdout().is_terminal();
        Self { to: BufWriter::new(io::stdout()), json, people, style: Style::stdout() }
    }

    /// One line.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(self.to, "{text}")?)
    }

    /// A text as it is.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        Ok(self.to.write_all(text.as_bytes())?)
    }

    /// A value, indented: the whole answer of a command with `--json`.
    pub(crate) fn value(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer_pretty(&mut self.to, value)?;
        Ok(writeln!(self.to)?)
    }

    /// A value on one line: one of many.
    pub(crate) fn value_line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.to, value)?;
        Ok(writeln!(self.to)?)
    }

    /// A table.
    pub(crate) fn table(&mut self, table: &Table) -> Result<(), Failure> {
        for line in table.lines(self.style) {
            self.line(&line)?;
        }
        Ok(())
    }

    /// Hands on what was written so far.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.to.flush()?)
    }
}

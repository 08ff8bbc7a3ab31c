//! Where a run says how it is doing: a live screen, or plain lines.
//!
//! Shared with the program's own log lines, which would otherwise be written across the live screen.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use millstream_node::api::Status;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::live;
use super::plain::{Plain, line};
use super::screen::{Screen, size};
use crate::terminal::Style;

/// Which log lines are shown unless the environment says otherwise.
const LOG_DEFAULT: &str = "warn";
/// The environment variable that says otherwise, as in `millstream_service=debug`.
const LOG_ENV: &str = "MILLSTREAM_LOG";

/// Says how the run is doing. Cheap to clone; all clones write to one place.
#[derive(Clone)]
pub(crate) struct Report {
    screen: Arc<Mutex<Option<Screen>>>,
    style: Style,
}

/// What the report remembers between two ticks.
#[derive(Default)]
pub(crate) struct Memory {
    plain: Plain,
    before: Option<Status>,
    ticks: u64,
}

impl Report {
    /// Live where `live`, else plain.
    pub(crate) fn new(live: bool) -> Self {
        Self { screen: Arc::new(Mutex::new(live.then(Screen::new))), style: Style::stderr() }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.lock().is_some()
    }

    /// Sends the program's log lines here.
    pub(crate) fn take_log_lines(&self) {
        let filter = EnvFilter::try_from_env(LOG_ENV).unwrap_or_else(|_| EnvFilter::new(LOG_DEFAULT));
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(self.style.colours())
            .with_writer(self.clone())
            .finish();
        // Only a test that starts two runs in one process could have set one before.
        drop(tracing::subscriber::set_global_default(subscriber));
    }

    /// A line that stays.
    pub(crate) fn say(&self, text: &str) -> io::Result<()> {
        match &mut *self.lock() {
            Some(screen) => screen.above(text),
            None => writeln!(io::stderr().lock(), "{text}"),
        }
    }

    /// Shows the status; called a few times a second. `every` is how many ticks lie between two plain lines.
    pub(crate) fn tick(&self, now: Status, memory: &mut Memory, every: u64) -> io::Result<()> {
        memory.ticks += 1;
        if let Some(screen) = &mut *self.lock() {
            let (columns, rows) = size();
            screen.draw(live::frame(&now, memory.before.as_ref(), columns, rows, self.style))?;
            // The CPU share is taken over two seconds, so that it can be read.
            if memory.ticks % 8 == 1 {
                memory.before = Some(now);
            }
            return Ok(());
        }
        for change in memory.plain.changes(&now, self.style) {
            self.say(&change)?;
        }
        if memory.ticks.is_multiple_of(every) {
            self.say(&line(&now))?;
        }
        Ok(())
    }

    /// Gives the terminal back; later lines are plain.
    pub(crate) fn close(&self) {
        if let Some(screen) = self.lock().take() {
            screen.close();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Screen>> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> MakeWriter<'a> for Report {
    type Writer = LogLine;

    fn make_writer(&'a self) -> Self::Writer {
        LogLine { to: self.clone(), text: Vec::new() }
    }
}

/// One log line on its way.
pub(crate) struct LogLine {
    to: Report,
    text: Vec<u8>,
}

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.text);
        if !text.is_empty() {
            // A log line that cannot be written has nowhere else to go.
            drop(self.to.say(text.trim_end()));
        }
    }
}

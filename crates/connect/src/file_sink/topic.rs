//! The files of one topic and partition: the one that grows, and those closed since the last commit.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::lock::lock;
use super::state::TopicState;
use super::{Roll, Settings};
use crate::decode::Format;
use crate::event::ipc::STREAM_END;
use crate::event::{Name, PartitionId};
use crate::file::io_error;
use crate::service::ConnectError;

/// The most files closed in one commit; a file then grows past its size instead.
const CLOSED_MAX: usize = 8;

pub(crate) struct Topic {
    name: Name,
    directory: PathBuf,
    partition: PartitionId,
    suffix: &'static str,
    /// What stands at the end of a file.
    footer: &'static [u8],
    roll: Roll,
    sequence: u64,
    length: u64,
    open: Option<Open>,
    /// Closed and not yet part of a prepared state.
    closed: Vec<Closed>,
    /// Closed in a state that is prepared: named when it is committed. Sequence and length.
    naming: Vec<(u64, u64)>,
    /// Whether a file was made since the directory was synced.
    made: bool,
    /// Held as long as the task lives: a second writer of these files waits.
    _lock: File,
}

struct Open {
    file: File,
    since: Instant,
    dirty: bool,
}

struct Closed {
    sequence: u64,
    length: u64,
    /// The handle while it is not synced.
    unsynced: Option<File>,
}

impl Topic {
    /// Brings the directory into line with the committed state (`None`: nothing of this topic was committed)
    /// and goes on from there.
    pub(crate) fn open(
        settings: &Settings,
        name: Name,
        partition: PartitionId,
        state: Option<TopicState>,
    ) -> Result<Self, ConnectError> {
        let directory = settings.path.join(name.as_str());
        make_directory(&directory)?;
        let suffix = settings.format.suffix();
        let lock = lock(&settings.path, &name, partition, suffix)?;
        let found = find(&directory, partition, suffix)?;
        let state = match state {
            Some(state) => state,
            None => {
                let sequence = found.complete.iter().max().map_or(0, |last| last + 1);
                TopicState { topic: name.clone(), sequence, length: 0, closed: Vec::new() }
            }
        };
        let (sequence, length) = (state.sequence, state.length);
        let mut topic = Self {
            name,
            directory,
            partition,
            suffix,
            footer: if settings.format == Format::Arrow { STREAM_END } else { &[] },
            roll: settings.roll,
            sequence,
            length,
            open: None,
            closed: Vec::new(),
            naming: Vec::new(),
            made: false,
            _lock: lock,
        };
        topic.restore(&state, &found)?;
        if settings.format == Format::Arrow {
            // The columns may have changed meanwhile, and a stream has one set of them.
            topic.close()?;
        }
        Ok(topic)
    }

    fn restore(&mut self, state: &TopicState, found: &Found) -> Result<(), ConnectError> {
        if let Some(sequence) = found.complete.iter().find(|s| **s >= state.sequence) {
            return Err(ConnectError::permanent(format!(
                "{} is complete, but the log does not know it: the log is older than the directory. Move the files from \
                 this one on away, or use another directory",
                self.complete(*sequence).display()
            )));
        }
        for (sequence, length) in &state.closed {
            // Neither name there: it was completed and taken away.
            if found.parts.contains(sequence) {
                self.cut(*sequence, *length)?;
                self.complete_file(*sequence)?;
            }
        }
        let known = |sequence: &u64| state.closed.iter().any(|(s, _)| s == sequence);
        for sequence in found.parts.iter().filter(|s| !known(s)) {
            if *sequence != state.sequence || state.length == 0 {
                let part = self.part(*sequence);
                fs::remove_file(&part).map_err(|e| io_error("removing", &part, &e))?;
            }
        }
        if state.length > 0 {
            let file = self.cut(state.sequence, state.length)?;
            self.open = Some(Open { file, since: Instant::now(), dirty: false });
        }
        sync_directory(&self.directory)
    }

    /// Cuts a growing file to its committed length and answers it, ready to append.
    fn cut(&self, sequence: u64, length: u64) -> Result<File, ConnectError> {
        let path = self.part(sequence);
        let fault = |e: &io::Error| io_error("opening", &path, e);
        let file = OpenOptions::new().append(true).open(&path).map_err(|e| fault(&e))?;
        let have = file.metadata().map_err(|e| fault(&e))?.len();
        if have < length {
            return Err(ConnectError::permanent(format!(
                "{} has {have} bytes, but {length} were committed: it was changed from outside. Put the missing bytes \
                 back, or let the sink write them again by rewinding it",
                path.display()
            )));
        }
        if have > length {
            file.set_len(length).and_then(|()| file.sync_all()).map_err(|e| fault(&e))?;
        }
        Ok(file)
    }

    /// Appends bytes to the growing file; `header` where that begins with them.
    pub(crate) fn append(&mut self, header: &[u8], bytes: &[u8]) -> Result<(), ConnectError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let path = self.part(self.sequence);
        let mut open = match self.open.take() {
            Some(open) => open,
            None => {
                let mut file = OpenOptions::new()
                    .append(true)
                    .create_new(true)
                    .open(&path)
                    .map_err(|e| io_error("making", &path, &e))?;
                self.made = true;
                file.write_all(header).map_err(|e| io_error("writing", &path, &e))?;
                self.length = header.len() as u64;
                Open { file, since: Instant::now(), dirty: true }
            }
        };
        open.file.write_all(bytes).map_err(|e| io_error("writing", &path, &e))?;
        open.dirty = true;
        self.length += bytes.len() as u64;
        self.open = Some(open);
        if self.length >= self.roll.bytes && self.may_close() {
            self.close()?;
        }
        Ok(())
    }

    fn may_close(&self) -> bool {
        self.closed.len() + self.naming.len() < CLOSED_MAX
    }

    /// Ends the growing file; it gets its name when that is committed.
    pub(crate) fn close(&mut self) -> Result<(), ConnectError> {
        if let Some(mut open) = self.open.take() {
            if !self.footer.is_empty() {
                let path = self.part(self.sequence);
                open.file.write_all(self.footer).map_err(|e| io_error("writing", &path, &e))?;
                open.dirty = true;
                self.length += self.footer.len() as u64;
            }
            let unsynced = open.dirty.then_some(open.file);
            self.closed.push(Closed { sequence: self.sequence, length: self.length, unsynced });
            self.sequence += 1;
            self.length = 0;
        }
        Ok(())
    }

    /// Makes everything durable and says what to commit.
    pub(crate) fn prepare(&mut self) -> Result<TopicState, ConnectError> {
        let old = |open: &Open| self.roll.every.is_some_and(|every| open.since.elapsed() >= every);
        if self.open.as_ref().is_some_and(old) && self.may_close() {
            self.close()?;
        }
        for mut closed in std::mem::take(&mut self.closed) {
            if let Some(file) = closed.unsynced.take() {
                let path = self.part(closed.sequence);
                file.sync_data().map_err(|e| io_error("syncing", &path, &e))?;
            }
            self.naming.push((closed.sequence, closed.length));
        }
        let path = self.part(self.sequence);
        if let Some(open) = self.open.as_mut().filter(|open| open.dirty) {
            open.file.sync_data().map_err(|e| io_error("syncing", &path, &e))?;
            open.dirty = false;
        }
        if self.made {
            sync_directory(&self.directory)?;
            self.made = false;
        }
        Ok(TopicState {
            topic: self.name.clone(),
            sequence: self.sequence,
            length: self.length,
            closed: self.naming.clone(),
        })
    }

    /// The state that `prepare` said is committed: closed files get their names.
    pub(crate) fn committed(&mut self) -> Result<(), ConnectError> {
        if self.naming.is_empty() {
            return Ok(());
        }
        for (sequence, _) in std::mem::take(&mut self.naming) {
            self.complete_file(sequence)?;
        }
        sync_directory(&self.directory)
    }

    fn complete_file(&self, sequence: u64) -> Result<(), ConnectError> {
        let path = self.part(sequence);
        fs::rename(&path, self.complete(sequence)).map_err(|e| io_error("renaming", &path, &e))
    }

    fn part(&self, sequence: u64) -> PathBuf {
        self.directory.join(format!("{}-{sequence:06}.{}.part", self.partition, self.suffix))
    }

    fn complete(&self, sequence: u64) -> PathBuf {
        self.directory.join(format!("{}-{sequence:06}.{}", self.partition, self.suffix))
    }
}

/// The sequences of a partition's files in a directory.
struct Found {
    complete: Vec<u64>,
    parts: Vec<u64>,
}

fn find(directory: &Path, partition: PartitionId, suffix: &str) -> Result<Found, ConnectError> {
    let mut found = Found { complete: Vec::new(), parts: Vec::new() };
    let fault = |e: &io::Error| io_error("looking into", directory, e);
    for entry in fs::read_dir(directory).map_err(|e| fault(&e))? {
        let name = entry.map_err(|e| fault(&e))?.file_name();
        let Some(rest) = name.to_str().and_then(|n| n.strip_prefix(&format!("{partition}-"))) else { continue };
        let (rest, list) = match rest.strip_suffix(".part") {
            Some(rest) => (rest, &mut found.parts),
            None => (rest, &mut found.complete),
        };
        let sequence = rest.strip_suffix(suffix).and_then(|r| r.strip_suffix('.'));
        list.extend(sequence.and_then(|s| s.parse::<u64>().ok()));
    }
    found.parts.sort_unstable();
    found.complete.sort_unstable();
    Ok(found)
}

/// Makes the directory of a sink, and tries whether files can be made in it.
pub(crate) fn check_directory(directory: &Path) -> Result<(), ConnectError> {
    make_directory(directory)?;
    let path = directory.join(format!(".{}.check", std::process::id()));
    let fault = |e: &io::Error| io_error("making files in", directory, e);
    File::create(&path).map_err(|e| fault(&e))?;
    fs::remove_file(&path).map_err(|e| fault(&e))
}

/// Makes a directory and those above it, durably.
pub(crate) fn make_directory(directory: &Path) -> Result<(), ConnectError> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent().filter(|p| !p.as_os_str().is_empty()) {
        make_directory(parent)?;
    }
    match fs::create_dir(directory) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(io_error("making", directory, &e)),
        _ => {}
    }
    let parent = directory.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_directory(parent)
}

fn sync_directory(directory: &Path) -> Result<(), ConnectError> {
    File::open(directory).and_then(|d| d.sync_all()).map_err(|e| io_error("syncing", directory, &e))
}

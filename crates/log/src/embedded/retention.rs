//! How long events are kept: until they are older than the topic says **and**, where it says so, every consumer has
//! read them. Whole files go, and entries of the journal.

use std::sync::Arc;
use std::time::Duration;

use super::index::{Contents, Partition, Topic};
use super::settler::{Failure, Settler};
use super::shared::Shared;
use crate::{Position, TaskId, TopicKind};

/// The least and the most time that one settled file covers, so that a slow topic's files can go as well.
const FILE_SPAN_MIN: Duration = Duration::from_secs(60);
const FILE_SPAN_MAX: Duration = Duration::from_secs(24 * 3600);
/// A file covers at most one part in this many of the age at which its events may go.
const FILES_PER_AGE: u32 = 8;

/// What may go in one partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Events appended before this; `None`: none are old enough, ever.
    older_than_us: Option<i64>,
    /// Events before this offset.
    unread: u64,
    /// Whether the newest row of a key stays whatever its age.
    table: bool,
    /// The time that one settled file covers.
    pub(super) file_span_us: i64,
}

impl Limits {
    /// Whether events appended at `time`, the last of them before `next`, may go.
    pub(super) fn is_past(&self, time: i64, next: u64) -> bool {
        !self.table && self.is_old(time, next)
    }

    /// Whether they are read and old, so that a tombstone may go.
    pub(super) fn is_old(&self, time: i64, next: u64) -> bool {
        self.is_older(time) && next <= self.unread
    }

    /// Whether what was appended at `time` has reached its age.
    pub(super) fn is_older(&self, time: i64) -> bool {
        self.older_than_us.is_some_and(|limit| time < limit)
    }
}

/// What may go now in a partition of a topic.
pub(super) fn limits(shared: &Shared, topic: &Topic, partition: u32) -> Limits {
    let (retention, table) = topic.with_info(|info| (info.spec.retention.clone(), info.spec.kind == TopicKind::Table));
    let us = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    let older_than_us = retention.age.map(|age| shared.options.clock.now_us().saturating_sub(us(age)));
    // What a table no longer has must be told to whoever has seen it, however old that is.
    let unread = if retention.until_read || table { read_by_all(shared, topic, partition) } else { u64::MAX };
    let span = retention.age.map_or(FILE_SPAN_MAX, |age| (age / FILES_PER_AGE).clamp(FILE_SPAN_MIN, FILE_SPAN_MAX));
    Limits { older_than_us, unread, table, file_span_us: us(span) }
}

/// The offset before which every consumer of a topic has read a partition; without consumers nothing is left to read.
pub(super) fn read_by_all(shared: &Shared, topic: &Topic, partition: u32) -> u64 {
    let (name, consumers) = topic.with_info(|info| (info.spec.name.clone(), info.spec.consumers.clone()));
    let stage = shared.stage.lock();
    let position = |service: millstream_event::Name| {
        let task = stage.tasks.get(&TaskId::new(service, partition));
        task.and_then(|task| task.durable.get(&name)).and_then(Position::offset).map_or(0, |o| o.0)
    };
    consumers.into_iter().map(position).min().unwrap_or(u64::MAX)
}

/// The bytes of a topic that some consumer has not read.
pub(super) fn unread_bytes(shared: &Shared, topic: &Topic) -> u64 {
    let unread = |partition: &Arc<Partition>| {
        let from = read_by_all(shared, topic, partition.at.partition.0);
        partition.contents.lock().bytes_from(from)
    };
    topic.partitions.iter().map(unread).sum()
}

/// Where a partition may begin now, and how many settled files are before that.
fn expired(contents: &Contents, limits: &Limits) -> (u64, usize) {
    let gone = |file: &&Arc<super::settled_file::SettledFile>| {
        file.next() <= contents.start || limits.is_past(file.meta.newest, file.next())
    };
    let files = contents.files.iter().take_while(gone).count();
    let mut start = files.checked_sub(1).and_then(|last| contents.files.get(last)).map_or(0, |file| file.next());
    if files == contents.files.len() {
        let old = contents.entries.iter().take_while(|entry| limits.is_past(entry.time, entry.next()));
        start = start.max(old.last().map_or(0, |entry| entry.next()));
    }
    (start.max(contents.start), files)
}

impl Settler {
    /// Lets go of what is past its retention, or was trimmed.
    pub(super) fn tidy(&mut self) -> Result<(), Failure> {
        let topics: Vec<Arc<Topic>> = self.shared.topics.read().by_id.values().cloned().collect();
        let mut next = None;
        let mut removed = Vec::new();
        for topic in &topics {
            for partition in topic.partitions.iter().filter(|partition| !self.compaction.merges(partition)) {
                let number = partition.at.partition.0;
                let limits = limits(&self.shared, topic, number);
                let mut contents = partition.contents.lock();
                let (start, files) = expired(&contents, &limits);
                contents.advance_start(start);
                if files == 0 {
                    continue;
                }
                let start = contents.start;
                drop(contents);
                removed.push((partition.clone(), files));
                let next = next.get_or_insert_with(|| self.checkpoint.clone());
                if let Some(list) = next.files.get_mut(&topic.id).and_then(|p| p.get_mut(&number)) {
                    list.drain(..files.min(list.len()));
                }
                let kept = next.state.topics.get_mut(&topic.id).and_then(|t| t.starts.get_mut(number as usize));
                if let Some(kept) = kept {
                    *kept = (*kept).max(start);
                }
            }
        }
        let Some(next) = next else { return Ok(()) };
        self.save(next)?;
        let gone = |(partition, files): (Arc<Partition>, usize)| -> Vec<_> {
            partition.contents.lock().files.drain(..files).collect()
        };
        let gone: Vec<_> = removed.into_iter().flat_map(gone).collect();
        self.remove_all(gone.iter().map(|file| file.path.as_path()));
        Ok(())
    }
}

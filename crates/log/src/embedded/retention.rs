//! How long events are kept.

use super::index::Topic;
use super::shared::Shared;
use crate::{Position, TaskId};

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
    let unread = |partition: &std::sync::Arc<super::index::Partition>| {
        let from = read_by_all(shared, topic, partition.at.partition.0);
        partition.contents.lock().bytes_from(from)
    };
    topic.partitions.iter().map(unread).sum()
}

//! Everything a memory log holds, and how a commit changes it: checked first, then carried out whole.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_event::{Name, Offset, Schema, TopicPartition};

use super::partition::Partition;
use crate::evolution::{SpecChange, check_rows, spec_change};
use crate::positions::positions_after;
use crate::{
    AbortReason, Append, Class, Commit, Committed, Consumed, Epoch, Error, Position, TaskId, TopicInfo, TopicKind,
    TopicSpec,
};

#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) topics: BTreeMap<Name, Topic>,
    pub(super) positions: BTreeMap<(TaskId, Name), Position>,
    /// Tasks whose last commit did not succeed, with the epoch that may not go on.
    pub(super) failed: BTreeMap<TaskId, Epoch>,
    pub(super) stopped: Option<String>,
}

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) info: TopicInfo,
    /// Version 1 first.
    schemas: Vec<Schema>,
    partitions: Vec<Partition>,
}

impl Store {
    pub(super) fn create_topic(&mut self, spec: TopicSpec) -> Result<TopicInfo, Error> {
        if let Some(why) = &self.stopped {
            return Err(Error::Stopped { reason: why.clone() });
        }
        if spec.partitions == 0 {
            return Err(Error::Refused(format!("topic `{}` needs at least one partition", spec.name)));
        }
        if let Some(topic) = self.topics.get_mut(&spec.name) {
            if spec_change(&topic.info.spec, &spec)? == SpecChange::Columns {
                topic.schemas.push(spec.schema.clone());
                topic.info.schema_version += 1;
            }
            topic.info.spec = spec;
            return Ok(topic.info.clone());
        }
        let name = spec.name.clone();
        let partitions = (0..spec.partitions).map(|_| Partition::new()).collect();
        let schemas = vec![spec.schema.clone()];
        let info = TopicInfo { spec, schema_version: 1 };
        self.topics.insert(name, Topic { info: info.clone(), schemas, partitions });
        Ok(info)
    }

    pub(super) fn topic(&self, name: &Name) -> Result<&Topic, Error> {
        self.topics.get(name).ok_or_else(|| Error::UnknownTopic(name.clone()))
    }

    pub(super) fn partition(&self, at: &TopicPartition) -> Result<&Partition, Error> {
        let partition = self.topic(&at.topic)?.partitions.get(at.partition.0 as usize);
        partition.ok_or_else(|| Error::UnknownPartition(at.clone()))
    }

    pub(super) fn partition_mut(&mut self, at: &TopicPartition) -> Result<&mut Partition, Error> {
        let topic = self.topics.get_mut(&at.topic).ok_or_else(|| Error::UnknownTopic(at.topic.clone()))?;
        topic.partitions.get_mut(at.partition.0 as usize).ok_or_else(|| Error::UnknownPartition(at.clone()))
    }

    /// Carries out a commit whose epoch was checked, or says why nothing happened.
    pub(super) fn commit(&mut self, commit: Commit, now_us: i64) -> Result<Committed, AbortReason> {
        let consumed = commit.consumed.iter().map(|Consumed { input, from, to }| (input, from.as_ref(), to));
        let stored = |input: &Name| self.positions.get(&(commit.task.clone(), input.clone()));
        let positions = positions_after(&commit.task, consumed, stored)?;
        let positions: BTreeMap<Name, Position> =
            positions.into_iter().map(|(input, to)| (input.clone(), to.clone())).collect();
        for append in &commit.appends {
            self.check_append(append)?;
        }
        if commit.class == Class::Intake {
            commit.appends.iter().try_for_each(|append| self.check_room(&append.topic))?;
        }
        let inputs: Vec<Name> = positions.keys().cloned().collect();
        for (input, position) in positions {
            self.positions.insert((commit.task.clone(), input), position);
        }
        let mut offsets = Vec::with_capacity(commit.appends.len());
        let mut grown = Vec::with_capacity(commit.appends.len());
        for append in commit.appends {
            let at = TopicPartition { topic: append.topic.clone(), partition: append.partition };
            let partition = self.partition_mut(&at).map_err(|e| AbortReason::Refused(e.to_string()))?;
            offsets.push(Some(partition.append(&commit.task, append, now_us)));
            grown.push(at);
        }
        for at in &grown {
            if let Ok(partition) = self.partition(at) {
                partition.grown.send_replace(partition.end);
            }
        }
        grown.iter().map(|at| &at.topic).chain(&inputs).for_each(|topic| self.expire(topic, now_us));
        Ok(Committed { offsets })
    }

    fn check_append(&self, append: &Append) -> Result<(), AbortReason> {
        let refuse = |why: String| Err(AbortReason::Refused(format!("append to `{}`: {why}", append.topic)));
        let at = TopicPartition { topic: append.topic.clone(), partition: append.partition };
        if let Err(error) = self.partition(&at) {
            return refuse(error.to_string());
        }
        let version = append.schema_version;
        let schemas = self.topics.get(&append.topic).map(|topic| topic.schemas.as_slice()).unwrap_or_default();
        let Some(schema) = (version as usize).checked_sub(1).and_then(|i| schemas.get(i)) else {
            return refuse(format!("there is no schema version {version}"));
        };
        if append.rows.num_rows() == 0 && append.watermark.is_none() {
            return refuse("it has neither events nor a watermark".to_owned());
        }
        check_rows(&append.rows, schema).or_else(refuse)
    }

    fn check_room(&self, name: &Name) -> Result<(), AbortReason> {
        let Some(topic) = self.topics.get(name) else { return Ok(()) };
        let Some(max) = topic.info.spec.retention.max_bytes else { return Ok(()) };
        let unread = |(number, partition): (u32, &Partition)| partition.bytes_from(self.read_by_all(topic, number));
        let bytes: u64 = (0..).zip(&topic.partitions).map(unread).sum();
        if bytes >= max { Err(AbortReason::BacklogFull(name.clone())) } else { Ok(()) }
    }

    /// The offset before which every consumer has read; without consumers, none has anything left to read.
    fn read_by_all(&self, topic: &Topic, partition: u32) -> Offset {
        let position = |service: &Name| {
            let key = (TaskId::new(service.clone(), partition), topic.info.spec.name.clone());
            self.positions.get(&key).and_then(Position::offset).unwrap_or_default()
        };
        topic.info.spec.consumers.iter().map(position).min().unwrap_or(Offset(u64::MAX))
    }

    fn expire(&mut self, name: &Name, now_us: i64) {
        let Some(topic) = self.topics.get(name) else { return };
        let retention = &topic.info.spec.retention;
        let table = (topic.info.spec.kind == TopicKind::Table).then(|| topic.info.spec.clone());
        if retention.age.is_none() && table.is_none() {
            return;
        }
        let older = |age: Duration| now_us.saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
        let older_than_us = retention.age.map_or(i64::MIN, older);
        let waits = retention.until_read || table.is_some();
        let unread = |number| if waits { self.read_by_all(topic, number) } else { Offset(u64::MAX) };
        let unread: Vec<Offset> = (0..topic.info.spec.partitions).map(unread).collect();
        let Some(topic) = self.topics.get_mut(name) else { return };
        for (partition, unread) in topic.partitions.iter_mut().zip(unread) {
            let Some(spec) = &table else {
                partition.expire(older_than_us, unread);
                continue;
            };
            if partition.is_due()
                && let Err(error) = partition.compact(spec, older_than_us, unread)
            {
                tracing::error!(%error, table = %spec.name, "a table cannot be compacted");
            }
        }
    }
}

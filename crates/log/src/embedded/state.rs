//! What the frames say when taken together: topics, partitions' ends, positions. A pure function of the frames, so
//! that opening, the settler and a repair cannot disagree.

use std::collections::BTreeMap;

use millstream_event::{Mark, Name, Schema};
use serde::{Deserialize, Serialize};

use super::frame::Content;
use super::walk::FrameAt;
use crate::promises::Promises;
use crate::{Position, TaskId, TopicSpec};

/// A topic as the frames tell it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TopicState {
    pub(super) spec: TopicSpec,
    /// The columns of each version of the schema, the first being version 1.
    pub(super) versions: Vec<Schema>,
    /// The first offset kept, by partition.
    pub(super) starts: Vec<u64>,
    /// The offset behind the last event, by partition.
    pub(super) ends: Vec<u64>,
    /// What producers have promised last, by partition; partitions at the end may be missing.
    #[serde(default)]
    pub(super) promises: Vec<Promises>,
}

impl TopicState {
    /// Takes a promise in that came with an append that ends before offset `at`.
    pub(super) fn promise(&mut self, partition: u32, mark: &Mark, at: u64) {
        let partition = partition as usize;
        if self.promises.len() <= partition && partition < self.ends.len() {
            self.promises.resize(self.ends.len(), Promises::default());
        }
        if let Some(promises) = self.promises.get_mut(partition) {
            promises.note(mark, at);
        }
    }
}

/// Everything that the frames tell but the events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// By number.
    pub(super) topics: BTreeMap<u32, TopicState>,
    /// Where each task goes on in each of its inputs.
    #[serde(with = "positions_as_list")]
    pub(super) positions: BTreeMap<TaskId, BTreeMap<Name, Position>>,
}

impl State {
    /// Takes one more frame into account; `Err` where it cannot follow what was before.
    pub(super) fn apply(&mut self, frame: &FrameAt) -> Result<(), String> {
        match &frame.content {
            Content::Commit(commit) => {
                for (append, base) in commit.appends.iter().zip(&frame.offsets) {
                    let topic = self.topics.get_mut(&append.topic).ok_or("events of an unknown topic")?;
                    let end = topic.ends.get_mut(append.partition as usize).ok_or("events of an unknown partition")?;
                    let next = base + append.span();
                    *end = (*end).max(next);
                    if let Some(mark) = commit.mark(append) {
                        topic.promise(append.partition, &mark, next);
                    }
                }
                if !commit.consumed.is_empty() {
                    let positions = self.positions.entry(commit.task.clone()).or_default();
                    for (input, _, to) in &commit.consumed {
                        positions.insert(input.clone(), to.clone());
                    }
                }
            }
            Content::Topic { id, schema_version, spec } => self.define(*id, *schema_version, spec),
            Content::Trim { topic, partition, before } => {
                let start = self.topics.get_mut(topic).and_then(|t| t.starts.get_mut(*partition as usize));
                let start = start.ok_or("a trim of an unknown partition")?;
                *start = (*start).max(before.0);
            }
            Content::Other => {}
        }
        Ok(())
    }

    /// Takes the definition of a topic into account.
    pub(super) fn define(&mut self, id: u32, schema_version: u32, spec: &TopicSpec) {
        let zeros = vec![0; spec.partitions as usize];
        let topic = self.topics.entry(id).or_insert_with(|| TopicState {
            spec: spec.clone(),
            versions: Vec::new(),
            starts: zeros.clone(),
            ends: zeros,
            promises: Vec::new(),
        });
        topic.spec = spec.clone();
        if schema_version as usize > topic.versions.len() {
            topic.versions.push(spec.schema.clone());
        } else if let Some(newest) = topic.versions.last() {
            // Told again, by what came before it.
            topic.spec.schema = newest.clone();
        }
    }
}

mod positions_as_list {
    use super::{BTreeMap, Deserialize, Name, Position, TaskId};

    type Positions = BTreeMap<TaskId, BTreeMap<Name, Position>>;

    pub(super) fn serialize<S: serde::Serializer>(positions: &Positions, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(positions)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Positions, D::Error> {
        Ok(Vec::<(TaskId, BTreeMap<Name, Position>)>::deserialize(from)?.into_iter().collect())
    }
}

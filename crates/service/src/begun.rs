//! Where the topics ended when this run of the pipeline began.
//!
//! That a producer has closed, or is idle, is its word for one run: in the next one it opens again, and says so before it
//! hands over anything. So such a word counts only if it stands behind these places. It does not matter when a task opens,
//! or how often it starts again, because both the places and the words stay where they are.

use std::collections::BTreeMap;

use millstream_event::{Offset, PartitionId, TopicPartition};
use millstream_log::Log;

use crate::Error;

/// The ends of all partitions at the beginning of a run.
#[derive(Debug, Default)]
pub(crate) struct Begun(BTreeMap<TopicPartition, Offset>);

impl Begun {
    /// The ends as they are now, before anybody writes.
    pub(crate) async fn now(log: &dyn Log) -> Result<Self, Error> {
        let mut ends = BTreeMap::new();
        for topic in log.topics() {
            for partition in 0..topic.spec.partitions {
                let at = TopicPartition { topic: topic.spec.name.clone(), partition: PartitionId(partition) };
                let end = log.end(&at).await?;
                ends.insert(at, end);
            }
        }
        Ok(Self(ends))
    }

    /// Where a partition ended; one that came later was empty.
    pub(crate) fn end(&self, at: &TopicPartition) -> Offset {
        self.0.get(at).copied().unwrap_or(Offset(0))
    }
}

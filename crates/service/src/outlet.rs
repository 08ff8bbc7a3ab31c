//! The loop of a sink's task (lands next).
use crate::task::Job;
use millstream_log::TopicInfo;
use std::sync::Arc;
pub(crate) fn job(_def: crate::SinkDef, _inputs: Vec<TopicInfo>) -> Arc<dyn Job> {
    Arc::new(crate::service::Later)
}

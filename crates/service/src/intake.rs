//! The loop of a source's task (lands next).
use crate::task::Job;
use millstream_log::TopicInfo;
use std::sync::Arc;
pub(crate) fn job(_def: crate::SourceDef, _to: Vec<TopicInfo>) -> Result<Arc<dyn Job>, crate::Error> {
    Ok(Arc::new(crate::service::Later))
}

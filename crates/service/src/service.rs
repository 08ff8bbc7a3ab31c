//! The loop of a service's task (lands next).
use crate::task::{Context, End, Fault, Job};
use futures::future::BoxFuture;
use millstream_log::TopicInfo;
use std::sync::Arc;

pub(crate) fn job(_def: crate::ServiceDef, _inputs: Vec<TopicInfo>) -> Result<Arc<dyn Job>, crate::Error> {
    Ok(Arc::new(Later))
}

pub(crate) struct Later;
impl Job for Later {
    fn run(self: Arc<Self>, context: Context) -> BoxFuture<'static, Result<End, Fault>> {
        Box::pin(async move {
            context.meet_injected_fault();
            let _unused = (&context.log, &context.clock, context.commits_in_flight, &context.shared.deaths);
            Err(Fault::Failed("this kind of task lands next".into()))
        })
    }
}

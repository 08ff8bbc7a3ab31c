//! A log at rest: all is settled and compacted, so that what the next commits bring about follows from them alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_log::conformance::kit::DEADLINE;
use millstream_log::vfs::sim::SimVfs;
use millstream_log::{EmbeddedLog, Log};

use super::{Plan, Witness, work};

/// Waits until the log rests; then there is no file that is not finished, and none that nothing names.
pub(crate) async fn nothing_stays_behind(vfs: &SimVfs, log: &EmbeddedLog) -> Result<(), String> {
    if !rest(log, DEADLINE).await {
        return Err(format!("it never rests; stopped: {:?}", log.stopped()));
    }
    let files: Vec<_> = vfs.files().into_iter().map(|(path, _)| path).collect();
    let settled = files.iter().filter(|path| path.starts_with("/log/topics")).count() as u64;
    let counted = log.stat().topics.iter().map(|topic| topic.files).sum::<u64>();
    if settled != counted || files.iter().any(|path| path.extension().is_some_and(|e| e == "new")) {
        return Err(format!("{counted} settled files are known, but there are {files:?}"));
    }
    Ok(())
}

/// Waits until nothing goes on in the background, or the log has stopped, or `most` has passed; whether it rests.
pub(crate) async fn rest(log: &EmbeddedLog, most: Duration) -> bool {
    let begun = Instant::now();
    while !log.is_at_rest() {
        if log.stopped().is_some() || begun.elapsed() > most {
            return false;
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    true
}

/// The workload, with a rest after every few steps, so that what one of them brought is settled and compacted before the
/// next.
pub(crate) async fn work_resting(
    log: &Arc<EmbeddedLog>,
    plan: Plan,
    every: u64,
    most: Duration,
    witness: &mut Witness,
) {
    let shared: Arc<dyn Log> = log.clone();
    for steps in (every..plan.steps).step_by(every as usize).chain([plan.steps]) {
        work(&shared, Plan { steps, ..plan }, witness).await;
        rest(log, most).await;
    }
}

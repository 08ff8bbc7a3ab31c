//! Reading a request's body under limits of size, of all bodies together, and of time.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::Limits;
use super::answer::Fault;

/// Bodies are accounted for in steps of this size.
pub(crate) const UNIT_BYTES: usize = 16 * 1024;

/// How many units so many bytes are.
pub(crate) fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS)
}

/// A body and the right to hold it in memory.
pub(crate) struct Held {
    pub(crate) bytes: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

/// Reads a body to its end; memory grows with what has come, not with what was announced.
pub(crate) async fn read(
    body: Body,
    headers: &HeaderMap,
    limits: &Limits,
    room: &Arc<Semaphore>,
) -> Result<Held, Fault> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|l| l.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > limits.body_bytes_max as u64) {
        return Err(too_large(limits));
    }
    let deadline = Instant::now() + limits.body_timeout;
    let (mut body, mut bytes) = (body, Vec::new());
    let mut held: Option<OwnedSemaphorePermit> = None;
    loop {
        let frame = timeout_at(deadline, body.frame()).await.map_err(|_| slow(limits))?;
        let Some(frame) = frame else { break };
        let frame = frame
            .map_err(|e| Fault::new(StatusCode::BAD_REQUEST, "body-broken", format!("the body broke off: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > limits.body_bytes_max {
            return Err(too_large(limits));
        }
        let missing = units(bytes.len() + data.len()) - held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if missing > 0 {
            let more = Arc::clone(room).try_acquire_many_owned(missing as u32).map_err(|_| busy())?;
            match &mut held {
                Some(held) => held.merge(more),
                None => held = Some(more),
            }
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Held { bytes, _room: held })
}

fn too_large(limits: &Limits) -> Fault {
    let most = limits.body_bytes_max;
    Fault::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body-too-large",
        format!("a body has at most {most} bytes; send less at once"),
    )
}

fn slow(limits: &Limits) -> Fault {
    let seconds = limits.body_timeout.as_secs_f64();
    Fault::new(StatusCode::REQUEST_TIMEOUT, "body-too-slow", format!("the body did not come within {seconds} s"))
}

pub(crate) fn busy() -> Fault {
    Fault::new(StatusCode::TOO_MANY_REQUESTS, "busy", "more requests are on their way than may be; try again").retry(1)
}

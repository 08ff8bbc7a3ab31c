//! Open-loop load: requests leave when they are due, whether or not the last ones were answered.
//!
//! A request's time begins when it was due if its connection was still busy then, so that a pause of the server is felt
//! by all requests that fall into it; and when it was sent if it left late only because this program's timer woke late.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::failure::Failure;

/// The longest wait for one answer; the pipeline's own limit is shorter.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What to send.
#[derive(Debug, Clone)]
pub(super) struct Load {
    /// `host:port`.
    pub(super) address: String,
    pub(super) path: String,
    /// Per second, over all connections.
    pub(super) rate: f64,
    pub(super) connections: usize,
    /// Requests sent first and not counted.
    pub(super) warm_up: usize,
    pub(super) bodies: Arc<Vec<Vec<u8>>>,
}

/// What came back.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Microseconds, of requests that were answered with a decision.
    pub(super) took_us: Vec<f64>,
    /// When each of these came, in microseconds since the load began.
    pub(super) came_us: Vec<f64>,
    /// Answers by status.
    pub(super) statuses: BTreeMap<u16, u64>,
    /// Requests that were not answered.
    pub(super) failed: u64,
    /// Requests that left late because their connection was busy.
    pub(super) held_up: u64,
}

impl Load {
    /// Sends everything and gathers the answers.
    pub(super) async fn run(self) -> Result<Answers, Failure> {
        let began = Instant::now() + Duration::from_millis(100);
        let mut tasks = Vec::new();
        for connection in 0..self.connections {
            tasks.push(tokio::spawn(self.clone().connection(connection, began)));
        }
        let mut all = Answers::default();
        for task in tasks {
            all.add(task.await.context("a connection's task ended")??);
        }
        Ok(all)
    }

    /// Sends every n-th request on one connection.
    async fn connection(self, first: usize, began: Instant) -> Result<Answers, Failure> {
        let mut answers = Answers::default();
        let mut sender = self.connect().await?;
        for (i, body) in self.bodies.iter().enumerate().skip(first).step_by(self.connections) {
            let due = began + Duration::from_secs_f64(i as f64 / self.rate);
            let free = Instant::now();
            tokio::time::sleep_until(due.into()).await;
            let since = if free > due { due } else { Instant::now() };
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.send(&mut sender, body)).await;
            let Ok(Ok(status)) = answer else {
                answers.failed += 1;
                sender = self.connect().await?;
                continue;
            };
            if i < self.warm_up {
                continue;
            }
            answers.held_up += u64::from(free > due);
            *answers.statuses.entry(status).or_default() += 1;
            if matches!(status, 200 | 422) {
                answers.took_us.push(since.elapsed().as_secs_f64() * 1e6);
                answers.came_us.push(began.elapsed().as_secs_f64() * 1e6);
            }
        }
        Ok(answers)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let failed = || format!("connecting to {}", self.address);
        let stream = TcpStream::connect(&self.address).await.with_context(failed)?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.with_context(failed)?;
        // A connection that breaks shows in its requests.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    async fn send(&self, sender: &mut SendRequest<Full<Bytes>>, body: &[u8]) -> Result<u16, Failure> {
        sender.ready().await.map_err(anyhow::Error::from)?;
        let request = Request::post(&self.path)
            .header("host", &self.address)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::copy_from_slice(body)))
            .context("making a request")?;
        let response = sender.send_request(request).await.map_err(anyhow::Error::from)?;
        let status = response.status().as_u16();
        response.into_body().collect().await.map_err(anyhow::Error::from)?;
        Ok(status)
    }
}

impl Answers {
    fn add(&mut self, other: Self) {
        self.took_us.extend(other.took_us);
        self.came_us.extend(other.came_us);
        self.failed += other.failed;
        self.held_up += other.held_up;
        for (status, n) in other.statuses {
            *self.statuses.entry(status).or_default() += n;
        }
    }

    /// The longest time without an answer between two of them, in microseconds.
    pub(super) fn longest_gap_us(&self) -> f64 {
        let mut came = self.came_us.clone();
        came.sort_by(f64::total_cmp);
        came.iter().zip(came.iter().skip(1)).map(|(before, after)| after - before).fold(0.0, f64::max)
    }

    /// For each second of the load, how long its answers took, in microseconds.
    pub(super) fn by_second(&self) -> BTreeMap<u64, Vec<f64>> {
        let mut seconds: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for (came, took) in self.came_us.iter().zip(&self.took_us) {
            seconds.entry((came / 1e6) as u64).or_default().push(*took);
        }
        seconds
    }
}

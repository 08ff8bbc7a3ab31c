//! The HTTP client: asks a running node.
//!
//! One connection per request; a command makes one or two. Bodies of answers are bounded, streams are read line by line.

use std::time::Duration;

use anyhow::Context;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use millstream_node::api::{ApiError, EventsQuery, LettersQuery, StateQuery};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use crate::failure::Failure;

/// How long a node may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a node may take to answer; `apply` waits for commits and drains.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// The longest answer that is not a stream.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The longest line of a stream: an event of 16 MiB, escaped.
const LINE_BYTES_MAX: usize = 64 << 20;

/// A node that listens somewhere.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// `host:port`.
    address: String,
}

impl Client {
    /// Takes `host:port`, `http://host:port`, or a port.
    pub(crate) fn new(address: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| Failure::Usage(format!("--address {address}: {why}"));
        if address.starts_with("https://") {
            return Err(wrong("a node answers plain http for now; drop the s"));
        }
        let rest = address.strip_prefix("http://").unwrap_or(address);
        let host_port = rest.split('/').next().unwrap_or_default();
        let address = match host_port.parse::<u16>() {
            Ok(port) => format!("127.0.0.1:{port}"),
            Err(_) => host_port.to_owned(),
        };
        let port = address.rsplit_once(':').map(|(host, port)| (host.is_empty(), port.parse::<u16>()));
        match port {
            Some((false, Ok(_))) => Ok(Self { address }),
            Some((true, Ok(port))) => Ok(Self { address: format!("127.0.0.1:{port}") }),
            _ => Err(wrong("give host:port, such as 127.0.0.1:7070")),
        }
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Whether somebody listens there.
    pub(crate) async fn connects(&self) -> bool {
        matches!(tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.address)).await, Ok(Ok(_)))
    }

    /// Whether a path answers with success.
    pub(crate) async fn answers(&self, path: &str) -> Result<bool, Failure> {
        Ok(self.send(Method::GET, path, Bytes::new()).await?.status().is_success())
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        self.whole(response).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body)?;
        let response = self.send(Method::POST, path, body.into()).await?;
        self.whole(response).await
    }

    /// The lines of an answer, as they come.
    pub(crate) async fn lines(&self, path: &str) -> Result<Lines, Failure> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        Ok(Lines { body: response.into_body(), held: Vec::new(), searched: 0, ended: false })
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Failure> {
        let connect = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.address)).await;
        let stream = match connect {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.silent(&error.to_string())),
            Err(_) => return Err(self.silent("no connection within 3 s")),
        };
        let failed = || format!("talking to {}", self.address);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.with_context(failed)?;
        // A connection that breaks shows in the answer; the task itself has nothing to say.
        tokio::spawn(async move { drop(connection.await) });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.address)
            .header("content-type", "application/json")
            .body(Full::new(body))
            .with_context(failed)?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
        let answer =
            answer.map_err(|_| self.silent("it accepted the connection and has not answered for two minutes"))?;
        Ok(answer.with_context(failed)?)
    }

    async fn whole<T: DeserializeOwned>(&self, response: Response<Incoming>) -> Result<T, Failure> {
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let body = self.bytes(response).await?;
        serde_json::from_slice(&body).map_err(|error| {
            Failure::refused(
                "answer-unknown",
                format!("what {} answered is not understood: {error}", self.address),
                "is it a millstream node of this version?",
            )
        })
    }

    async fn refusal(&self, response: Response<Incoming>) -> Failure {
        let status = response.status();
        let body = match self.bytes(response).await {
            Ok(body) => body,
            Err(failure) => return failure,
        };
        if let Ok(error) = serde_json::from_slice::<ApiError>(&body) {
            return Failure::Refused(error);
        }
        let text: String = String::from_utf8_lossy(&body).chars().take(200).collect();
        let help = match status {
            StatusCode::NOT_FOUND => "is it a millstream node of this version?".to_owned(),
            _ => text,
        };
        Failure::refused("answer-unknown", format!("{} answered {status}", self.address), help)
    }

    async fn bytes(&self, response: Response<Incoming>) -> Result<Bytes, Failure> {
        let body = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        match body.collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) => Err(Failure::Failed(anyhow::anyhow!("the answer of {} broke off: {error}", self.address))),
        }
    }

    fn silent(&self, why: &str) -> Failure {
        Failure::refused(
            "node-unreachable",
            format!("no node answers at {}: {why}", self.address),
            "start it with `millstream run`, or name another with --address",
        )
    }
}

/// The lines of a stream.
pub(crate) struct Lines {
    body: Incoming,
    held: Vec<u8>,
    searched: usize,
    ended: bool,
}

impl Lines {
    /// The next line without its end, or `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            let found = self.held.iter().skip(self.searched).position(|b| *b == b'\n').map(|at| at + self.searched);
            if let Some(at) = found {
                let rest = self.held.split_off(at + 1);
                let mut line = std::mem::replace(&mut self.held, rest);
                line.pop();
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.held.len();
            if self.ended {
                self.searched = 0;
                let last = std::mem::take(&mut self.held);
                return Ok((!last.is_empty()).then_some(last));
            }
            if self.held.len() > LINE_BYTES_MAX {
                return Err(Failure::Failed(anyhow::anyhow!(
                    "the node sent a line of more than {LINE_BYTES_MAX} bytes"
                )));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.held.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => {
                    return Err(Failure::Failed(anyhow::Error::new(error).context("the node went away in the middle")));
                }
                None => self.ended = true,
            }
        }
    }
}

/// A path with the query that shows these events.
pub(crate) fn events_path(path: &str, query: &EventsQuery) -> Result<String, Failure> {
    with_query(path, query)
}

/// A path with the query that shows these letters.
pub(crate) fn letters_path(path: &str, query: &LettersQuery) -> Result<String, Failure> {
    with_query(path, query)
}

/// A path with the query that shows this state.
pub(crate) fn state_path(path: &str, query: &StateQuery) -> Result<String, Failure> {
    with_query(path, query)
}

fn with_query(path: &str, query: &impl Serialize) -> Result<String, Failure> {
    let fields = serde_json::to_value(query)?;
    let mut out = path.to_owned();
    for (i, (name, value)) in fields.as_object().into_iter().flatten().enumerate() {
        out.push(if i == 0 { '?' } else { '&' });
        out.push_str(name);
        out.push('=');
        match value {
            serde_json::Value::String(text) => escape(text, &mut out),
            other => escape(&other.to_string(), &mut out),
        }
    }
    Ok(out)
}

/// Percent-encodes everything that is not unreserved in RFC 3986.
fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_node::api::From;

    #[test]
    fn an_address_is_taken_in_the_ways_people_write_it() {
        for text in ["http://127.0.0.1:7070/", "127.0.0.1:7070", "7070", ":7070", "http://127.0.0.1:7070"] {
            assert_eq!(Client::new(text).unwrap().address(), "127.0.0.1:7070", "{text}");
        }
        for wrong in ["https://x:1", "x", "x:", "x:99999", ""] {
            assert!(Client::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_predicate_survives_the_query_string() {
        let query = EventsQuery { from: From::Last(5), filter: Some("a = 'ü&b' + 1".into()), ..Default::default() };
        let path = events_path("/x", &query).unwrap();
        assert_eq!(path, "/x?from=-5&where=a%20%3D%20%27%C3%BC%26b%27%20%2B%201&follow=false");
    }
}

//! Serving connections under limits: how many there are, and how long one may take to say what it wants.
//!
//! A client that sends its request's head byte by byte, or nothing at all, holds its connection for [`HEAD_TIMEOUT`] and
//! no longer. What happens behind the head has limits of its own: HTTP sources and the API (see `slow.rs`) bound the
//! body's time and size, and an answer that nobody reads ends its connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::slow::{UNREAD_TIMEOUT, Unread};

/// The most connections at a time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 4096;
/// How long the head of a request may take, and how long a connection may be idle.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long to wait when the system has no room for a connection.
const ROOM_PAUSE: Duration = Duration::from_millis(500);

/// Serves until it is dropped; `head_timeout` is [`HEAD_TIMEOUT`] but in tests.
pub(crate) async fn serve(listener: TcpListener, router: Router, head_timeout: Duration) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = accept(&listener).await;
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(head_timeout);
            if let Err(error) =
                builder.serve_connection(TokioIo::new(Unread::new(stream, UNREAD_TIMEOUT)), service).await
            {
                tracing::trace!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
}

/// The next connection; a fault of one that is gone already is none of ours.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        let error = match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::trace!(%error, "answers may wait for the network");
                }
                return stream;
            }
            Err(error) => error,
        };
        let gone = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::ConnectionRefused];
        if !gone.contains(&error.kind()) {
            tracing::error!(%error, "no connection can be accepted; trying again");
            tokio::time::sleep(ROOM_PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_client_that_never_ends_its_head_is_let_go_and_the_others_are_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "here" }));
        let server = tokio::spawn(serve(listener, router, Duration::from_millis(200)));
        let mut slow = Vec::new();
        for _ in 0..50 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ").await.unwrap();
            slow.push(stream);
        }
        let mut good = TcpStream::connect(address).await.unwrap();
        good.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        good.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("here"), "{answer}");
        for mut stream in slow {
            let mut rest = Vec::new();
            let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
            assert!(ended.is_ok(), "the connection was held");
        }
        server.abort();
    }
}

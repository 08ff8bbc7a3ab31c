//! Limits for clients that send or read slowly: each of them holds one of a bounded number of connections.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep, timeout};

use super::Refused;
use crate::api::{ApiError, codes};

/// The largest request of the API: a pipeline with its SQL files.
const BODY_BYTES_MAX: usize = 16 << 20;
/// How long the body of a request of the API may take.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(15);
/// How long an answer may stand still because nobody reads it.
pub(super) const UNREAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Routes whose requests have a body of bounded size that comes in bounded time.
pub(super) fn bounded<S: Clone + Send + Sync + 'static>(routes: Router<S>, within: Duration) -> Router<S> {
    let read = move |request: Request, next: Next| whole(request, next, within);
    routes.layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).layer(from_fn(read))
}

/// Reads the body before anybody works on the request.
async fn whole(request: Request, next: Next, within: Duration) -> Response {
    let (head, body) = request.into_parts();
    let refused =
        |status, what: String| Refused::with(status, ApiError::new(codes::REQUEST_WRONG, what)).into_response();
    match timeout(within, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(head, Body::from(bytes))).await,
        Ok(Err(error)) => refused(StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}")),
        Err(_) => {
            let what = format!("the body did not come within {} s", within.as_secs_f64());
            refused(StatusCode::REQUEST_TIMEOUT, what)
        }
    }
}

/// A connection that ends when nothing of what is written to it is taken for so long.
pub(super) struct Unread<S> {
    stream: S,
    within: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Unread<S> {
    pub(super) fn new(stream: S, within: Duration) -> Self {
        Self { stream, within, stalled: None }
    }

    /// What became of a write, or the end of the patience.
    fn judge<T>(&mut self, context: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.stalled = None;
            return done;
        }
        let within = self.within;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(within)));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "nobody reads the answer"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unread<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, out)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unread<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.judge(context, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::post;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_body_that_never_ends_is_refused_in_time() {
        let routes = Router::new().route("/", post(|body: String| async move { body }));
        let routes = bounded(routes, Duration::from_millis(50));
        let ask = async |body: Body| {
            let answer = routes.clone().oneshot(Request::post("/").body(body).unwrap()).await.unwrap();
            let status = answer.status();
            (status, to_bytes(answer.into_body(), 1 << 10).await.unwrap())
        };
        let good = ask(Body::from("all")).await;
        assert_eq!((good.0, &good.1[..]), (StatusCode::OK, &b"all"[..]));
        let endless = futures::stream::pending::<Result<Vec<u8>, io::Error>>();
        let slow = ask(Body::from_stream(endless)).await;
        assert_eq!(slow.0, StatusCode::REQUEST_TIMEOUT);
        assert!(String::from_utf8_lossy(&slow.1).contains("did not come within 0.05 s"), "{slow:?}");
        let large = ask(Body::from(vec![b'x'; BODY_BYTES_MAX + 1])).await;
        assert_eq!(large.0, StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_ends_the_connection() {
        let (ours, mut theirs) = duplex(16);
        let mut ours = Unread::new(ours, Duration::from_millis(50));
        let reading = tokio::spawn(async move {
            let mut taken = [0; 24];
            theirs.read_exact(&mut taken).await.unwrap();
            theirs
        });
        ours.write_all(&[1; 24]).await.unwrap();
        let theirs = reading.await.unwrap();
        let error = ours.write_all(&[1; 24]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(theirs);
    }
}

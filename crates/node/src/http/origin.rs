//! Keeps web pages out. The node listens on this machine only and asks for no token, so a page in a browser on this
//! machine must not be able to speak to it: neither from another origin nor by a name that its owner has pointed here.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Refused;
use crate::api::ApiError;

/// Refuses requests that name another host than this machine, or that a page from elsewhere makes.
pub(crate) async fn local_only(request: Request, next: Next) -> Response {
    match foreign(request.headers()) {
        None => next.run(request).await,
        Some(message) => Refused::with(StatusCode::FORBIDDEN, ApiError::new("foreign-origin", message)).into_response(),
    }
}

fn foreign(headers: &HeaderMap) -> Option<String> {
    let host = headers.get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    if let Some(host) = host.filter(|host| !is_local(host)) {
        return Some(format!("`Host: {host}` is not this machine; use localhost or 127.0.0.1"));
    }
    let origin = headers.get(header::ORIGIN)?.to_str().unwrap_or_default();
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    if authority.is_some_and(is_local) {
        return None;
    }
    Some(format!("pages from `{origin}` may not speak to this node"))
}

/// Whether an authority (`host` or `host:port`) is this machine's.
fn is_local(authority: &str) -> bool {
    let Some(host) = authority.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)) else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn refused(host: &str, origin: Option<&'static str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
        }
        foreign(&headers).is_some()
    }

    #[test]
    fn this_machine_is_let_in_by_any_of_its_names() {
        for host in ["localhost", "LOCALHOST:7070", "127.0.0.1", "127.0.0.1:7070", "127.1.2.3:1", "[::1]:7070", "[::1]"]
        {
            assert!(!refused(host, None), "{host}");
        }
        assert!(!refused("localhost:7070", Some("http://localhost:3000")));
        assert!(!refused("localhost:7070", Some("http://127.0.0.1")));
    }

    #[test]
    fn pages_and_names_from_elsewhere_are_kept_out() {
        for host in
            ["evil.example", "evil.example:7070", "localhost.evil.example", "10.0.0.1", "127.0.0.1.evil.example", ""]
        {
            assert!(refused(host, None), "{host}");
        }
        for origin in
            ["http://evil.example", "null", "http://localhost.evil.example:7070", "https://127.0.0.1@evil.example"]
        {
            assert!(refused("localhost:7070", Some(origin)), "{origin}");
        }
    }
}

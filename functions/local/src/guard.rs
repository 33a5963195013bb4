//! Who may speak to a server on somebody's own machine: a web page from elsewhere may not.
//!
//! A page can make a browser send requests to `localhost`, directly (its `Origin` says so) or through a name of its own that
//! resolves to 127.0.0.1 (its `Host` says so). Both are refused before any route sees them. Who the caller is, is not decided here.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ACCESS_CONTROL_REQUEST_HEADERS, CONTENT_TYPE, HOST, ORIGIN, VARY};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use axum::middleware::Next;
use tailspan_service::cors::{self, Origins};

/// The names under which this server may be addressed, and whose pages may use it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allowed {
    names: HashSet<String>,
    /// Any address literal will do: bound to more than loopback, and only a name can be made to point here by a stranger.
    any_address: bool,
    /// Of other hosts, as the operator named them.
    origins: Arc<Origins>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoHost,
    Host(String),
    Origin(String),
}

impl Allowed {
    /// Loopback names and addresses, the bound host, and what the user named in addition.
    pub(crate) fn new(bound_host: &str, more: &[String], origins: &Arc<Origins>) -> Self {
        let named = more
            .iter()
            .map(String::as_str)
            .chain([bound_host, "localhost"]);
        Self {
            names: named.map(plain_name).collect(),
            any_address: !is_loopback(bound_host),
            origins: Arc::clone(origins),
        }
    }

    /// Decides over a request by its `Host` and `Origin`.
    pub(crate) fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut hosts = headers.get_all(HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host,
            // Two of them: who reads the first and who the second?
            (Some(_), Some(second)) => return Err(Refusal::Host(lossy(second))),
            (None, _) => return Err(Refusal::NoHost),
        };
        let authority = |text: &HeaderValue| Authority::try_from(text.as_bytes()).ok();
        if !authority(host).is_some_and(|host| self.knows(host.host())) {
            return Err(Refusal::Host(lossy(host)));
        }
        for origin in headers.get_all(ORIGIN) {
            let uri = Uri::try_from(origin.as_bytes()).ok();
            let web = uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
            let is_known = web.is_some_and(|uri| uri.host().is_some_and(|host| self.knows(host)));
            if !is_known && !self.origins.allow(origin) {
                return Err(Refusal::Origin(lossy(origin)));
            }
        }
        Ok(())
    }

    fn knows(&self, host: &str) -> bool {
        let name = plain_name(host);
        match name.parse::<IpAddr>() {
            Ok(address) => self.any_address || address.is_loopback() || self.names.contains(&name),
            Err(_) => self.names.contains(&name),
        }
    }
}

/// Whether a host to bind means this machine alone.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = plain_name(host);
    name == "localhost"
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Lower case, without brackets and without the dot of the root.
fn plain_name(host: &str) -> String {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.trim_end_matches('.').to_ascii_lowercase()
}

fn lossy(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes())
        .chars()
        .take(100)
        .collect()
}

/// The layer around every route of every listener.
///
/// An admitted `Origin` is answered with the headers that let its page read the answer (a dashboard under development on another
/// port).
pub(crate) async fn guard(
    State(allowed): State<Arc<Allowed>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    if let Err(refusal) = allowed.admit(request.headers()) {
        return refused(&refusal);
    }
    let origin = request.headers().get(ORIGIN).cloned();
    let asked = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS);
    let mut response = match cors::is_preflight(&request) {
        true => cors::preflight(asked.cloned()),
        false => next.run(request).await,
    };
    let headers = response.headers_mut();
    if let Some(origin) = origin {
        cors::let_read(headers, origin);
    }
    headers.append(VARY, HeaderValue::from_static("origin"));
    response
}

fn refused(refusal: &Refusal) -> Response<Body> {
    let (status, code, message) = match refusal {
        Refusal::NoHost => (
            StatusCode::BAD_REQUEST,
            "host_missing",
            "the request has no host header".to_owned(),
        ),
        Refusal::Host(host) => (
            StatusCode::FORBIDDEN,
            "host_not_allowed",
            format!(
                "this server is not addressed as \"{host}\"; start it with --allow-host to allow a name"
            ),
        ),
        Refusal::Origin(origin) => (
            StatusCode::FORBIDDEN,
            "origin_not_allowed",
            format!(
                "pages of \"{origin}\" may not use this server; start it with --allow-host to allow their host, or with TAILSPAN_CORS_ORIGINS to allow them"
            ),
        ),
    };
    // Not louder: a stranger decides how often. The answer says it all to whom it concerns.
    tracing::debug!("refused a request: {message}");
    let body = serde_json::json!({ "error": { "code": code, "message": message } });
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    use axum::http::HeaderName;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::try_from(text).unwrap();
        pairs
            .iter()
            .map(|(name, text)| (name.clone(), value(text)))
            .collect()
    }

    #[test]
    fn names_that_a_stranger_can_point_here_are_refused() {
        let local = Allowed::new("127.0.0.1", &["tailspan.test".to_owned()], &Arc::default());
        let open = Allowed::new("0.0.0.0", &[], &Arc::default());
        let check = |allowed: &Allowed, host| allowed.admit(&headers(&[(HOST, host)])).is_ok();
        for host in [
            "localhost:8001",
            "LOCALHOST",
            "localhost.",
            "127.0.0.1:8001",
            "[::1]:8001",
            "127.8.8.8",
            "tailspan.test",
        ] {
            assert!(check(&local, host), "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:8001",
            "10.0.0.5",
            "0.0.0.0",
            "",
            "a b",
        ] {
            assert!(!check(&local, host), "{host}");
        }
        assert!(check(&open, "10.0.0.5:8001"));
        assert!(check(&open, "0.0.0.0:8001"));
        assert!(!check(&open, "evil.example:8001"));
    }

    #[test]
    fn two_hosts_or_none_are_refused() {
        let local = Allowed::new("localhost", &[], &Arc::default());
        assert_eq!(local.admit(&HeaderMap::new()), Err(Refusal::NoHost));
        let mut two = HeaderMap::new();
        two.append(HOST, HeaderValue::from_static("localhost"));
        two.append(HOST, HeaderValue::from_static("evil.example"));
        assert_eq!(local.admit(&two), Err(Refusal::Host("evil.example".into())));
    }

    #[test]
    fn pages_of_this_machine_may_and_others_may_not() {
        let local = Allowed::new("127.0.0.1", &["tailspan.test".to_owned()], &Arc::default());
        let check = |origin| {
            local
                .admit(&headers(&[(HOST, "localhost"), (ORIGIN, origin)]))
                .is_ok()
        };
        for origin in [
            "http://localhost:5173",
            "http://127.0.0.1:8001",
            "https://tailspan.test",
            "http://[::1]:1",
        ] {
            assert!(check(origin), "{origin}");
        }
        for origin in [
            "null",
            "https://evil.example",
            "http://localhost.evil.example",
            "file://",
            "localhost",
            "",
        ] {
            assert!(!check(origin), "{origin}");
        }
    }
}

//! Which pages of other origins may read what is answered here (CORS): none, unless the operator names them.
//!
//! Nothing here knows who anybody is: that is a token's matter, which a page has to send by itself. So no answer allows credentials of the browser, cookies, of which there are none.

use std::{collections::HashSet, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{
        HeaderMap, HeaderValue, Method, StatusCode, Uri,
        header::{
            ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
            ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
            ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
        },
    },
    middleware::{Next, from_fn},
    response::Response,
};

const METHODS: &str = "GET, POST, PUT, DELETE";
/// Headers that routes read.
const SENDABLE: &str = "authorization, content-type, content-encoding, accept, last-event-id, traceparent, tracestate, x-trace-id, x-parent-span, x-trace-level, x-request-id, idempotency-key";
/// Headers of an answer that a page may read: the context of its run, what it may send and when to come back, and which request it was.
const READABLE: &str = "x-trace-id, x-parent-span, traceparent, retry-after, ratelimit, ratelimit-policy, x-request-id, x-tailspan-archived";
const MAX_AGE_SECONDS: u64 = 600;

/// Origins whose pages may use this API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    any: bool,
    named: HashSet<String>,
}

impl Origins {
    /// Reads origins as browsers write them (`https://dash.example`, `http://localhost:5173`), comma separated; or `*`, all of them.
    ///
    /// # Errors
    /// What is none, a sentence for each.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let mut origins = Self::default();
        let mut mistakes = Vec::new();
        let parts = text.split(',').map(str::trim);
        for part in parts.filter(|part| !part.is_empty()) {
            match (part, plain(part)) {
                ("*", _) => origins.any = true,
                (_, Some(origin)) => {
                    origins.named.insert(origin);
                }
                (_, None) => mistakes.push(format!(
                    "\"{part}\" is no origin such as https://dash.example: scheme and host, a port if it is not the usual one, and nothing behind it"
                )),
            }
        }
        if origins.any && !origins.named.is_empty() {
            mistakes.push("* allows every origin: leave it out, or the others".to_owned());
        }
        match mistakes.is_empty() {
            true => Ok(origins),
            false => Err(mistakes),
        }
    }

    /// Nobody's pages may.
    pub fn is_empty(&self) -> bool {
        !self.any && self.named.is_empty()
    }

    /// Whether pages of this `Origin` may.
    pub fn allow(&self, origin: &HeaderValue) -> bool {
        self.any
            || origin
                .to_str()
                .is_ok_and(|origin| self.named.contains(origin))
    }
}

/// An origin as browsers write it: lower case, without the port that is usual. `None`: it is none.
fn plain(text: &str) -> Option<String> {
    let uri: Uri = text.parse().ok()?;
    let scheme = uri.scheme_str()?;
    let usual_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let authority = uri.authority()?;
    let is_bare = uri.path() == "/" && uri.query().is_none() && !text.contains('#');
    if !is_bare || authority.as_str().contains('@') || authority.host().is_empty() {
        return None;
    }
    let host = authority.host().to_ascii_lowercase();
    Some(match authority.port_u16() {
        Some(port) if port != usual_port => format!("{scheme}://{host}:{port}"),
        _ => format!("{scheme}://{host}"),
    })
}

/// A router whose answers pages of these origins may read. Around everything else, so that errors are read too; without origins it is as it was.
pub fn shared_with(router: Router, origins: &Arc<Origins>) -> Router {
    if origins.is_empty() {
        return router;
    }
    let origins = Arc::clone(origins);
    router.layer(from_fn(move |request: Request, next: Next| {
        let origins = Arc::clone(&origins);
        async move {
            let origin = request.headers().get(ORIGIN);
            let allowed = origin.filter(|origin| origins.allow(origin)).cloned();
            let mut response = match allowed.is_some() && is_preflight(&request) {
                true => preflight(None),
                false => next.run(request).await,
            };
            let headers = response.headers_mut();
            if let Some(origin) = allowed {
                let_read(headers, origin);
            }
            // What is answered to one page is not for another, whoever keeps it in between.
            headers.append(VARY, HeaderValue::from_static("origin"));
            response
        }
    }))
}

/// A browser asks whether its page may send a request.
pub fn is_preflight(request: &Request) -> bool {
    let headers = request.headers();
    request.method() == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// What it is told; `sendable`: other headers than those that routes read.
pub fn preflight(sendable: Option<HeaderValue>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let sendable = sendable.unwrap_or(HeaderValue::from_static(SENDABLE));
    let headers = response.headers_mut();
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(METHODS),
    );
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, sendable);
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(MAX_AGE_SECONDS));
    response
}

/// Lets a page of an origin read an answer.
pub fn let_read(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(READABLE),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_exact() {
        let origins =
            Origins::parse("https://Dash.example:443, http://localhost:5173,http://[::1]:80")
                .unwrap();
        let allow = |origin| origins.allow(&HeaderValue::from_static(origin));
        for origin in [
            "https://dash.example",
            "http://localhost:5173",
            "http://[::1]",
        ] {
            assert!(allow(origin), "{origin}");
        }
        for other in [
            "http://dash.example",
            "https://dash.example:8443",
            "https://dash.example.evil.example",
            "https://evil.dash.example",
            "http://localhost",
            "null",
            "*",
            "",
        ] {
            assert!(!allow(other), "{other}");
        }
        assert!(Origins::parse("").unwrap().is_empty());
        assert!(
            Origins::parse("*")
                .unwrap()
                .allow(&HeaderValue::from_static("https://any.example"))
        );
        let told = Origins::parse("null, dash.example, https://a.example/page, https://u@a.example, ftp://a.example, https://*.example?, *, https://b.example").unwrap_err();
        assert_eq!(told.len(), 7, "{told:?}");
    }
}

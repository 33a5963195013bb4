//! One request: the id by which its log lines, its answer and its sender's own lines are found together.
//!
//! The id is what the sender says (`x-request-id`, else that of AWS's front, else the trace of `traceparent`), else one of ours. Every answer has it in `x-request-id`, errors that are
//! our fault also in their JSON. A request that fails for our sake is one line in the log; one that goes well is none.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use axum::{
    Router,
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue},
    middleware::{Next, from_fn},
    response::Response,
};
use tracing::{Instrument as _, Span, error, error_span, field::Empty, warn};

use crate::error::Told;

/// The answer's header, and that of a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const AMAZON_TRACE: HeaderName = HeaderName::from_static("x-amzn-trace-id");
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
/// `true` on what was read from the archive.
pub const ARCHIVED: HeaderName = HeaderName::from_static("x-tailspan-archived");
/// What the tenant may send, and what of it is left (draft-ietf-httpapi-ratelimit-headers-11).
pub const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const LONGEST_ID: usize = 128;

tokio::task_local! {
    static CURRENT: Arc<Current>;
}

struct Current {
    id: String,
    archived: AtomicBool,
    /// The values of the two headers of limits.
    quota: Mutex<Option<[String; 2]>>,
}

/// The id of the request that is being answered.
pub fn id() -> Option<String> {
    CURRENT.try_with(|current| current.id.clone()).ok()
}

/// What is being answered comes from the archive: the answer says so, whichever route it is of.
pub(crate) fn mark_archived() {
    let _ = CURRENT.try_with(|current| current.archived.store(true, Ordering::Relaxed));
}

/// The answer says how its tenant's limit stands: the policy, and what is left of it.
pub(crate) fn mark_quota(policy: String, state: String) {
    let _ = CURRENT.try_with(|current| {
        let quota = current.quota.lock();
        *quota.unwrap_or_else(PoisonError::into_inner) = Some([policy, state]);
    });
}

/// Whose request it is and of which trace, for its log lines.
pub fn is_of(field: &'static str, value: &str) {
    Span::current().record(field, value);
}

/// A router whose requests have ids.
pub(crate) fn numbered(router: Router) -> Router {
    router.layer(from_fn(around))
}

async fn around(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let current = Arc::new(Current {
        id: id_of(request.headers()).unwrap_or_else(|| format!("{:032x}", rand::random::<u128>())),
        archived: AtomicBool::new(false),
        quota: Mutex::default(),
    });
    let route = request.extensions().get::<MatchedPath>();
    // At the level of errors, so that it is there from whichever level on lines are written.
    let span = error_span!(
        "request",
        request_id = current.id,
        method = %request.method(),
        // Not the path, in which a stranger may write what they like.
        route = route.map_or("-", MatchedPath::as_str),
        tenant = Empty,
        trace_id = Empty,
    );
    let answering = CURRENT.scope(Arc::clone(&current), next.run(request));
    let mut answer = answering.instrument(span.clone()).await;
    if answer.status().is_server_error() {
        let _in = span.entered();
        let (status, ms) = (answer.status().as_u16(), began.elapsed().as_millis());
        let told = answer.extensions().get::<Told>();
        let code = told.map_or("-", |told| told.code);
        let cause = told.and_then(|told| told.cause.as_deref()).unwrap_or("-");
        // Passing: the sender is asked to come again.
        match status {
            503 => warn!(status, code, cause, ms, "a request failed"),
            _ => error!(status, code, cause, ms, "a request failed"),
        }
    }
    let headers = answer.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&current.id) {
        headers.insert(REQUEST_ID, id);
    }
    let quota = current.quota.lock();
    let quota = quota.unwrap_or_else(PoisonError::into_inner).take();
    let quota = quota.into_iter().flatten();
    for (name, value) in [RATE_LIMIT_POLICY, RATE_LIMIT].into_iter().zip(quota) {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    if current.archived.load(Ordering::Relaxed) {
        headers.insert(ARCHIVED, HeaderValue::from_static("true"));
    }
    answer
}

/// What the sender calls the request, if that can stand in a log line and a header.
fn id_of(headers: &HeaderMap) -> Option<String> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok();
    let is_id = |id: &&str| {
        let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:=;/+".contains(&byte);
        (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(is_safe)
    };
    let parent = || {
        let mut parts = text(TRACE_PARENT)?.split('-');
        let (version, trace) = (parts.next()?, parts.next()?);
        let is_trace = trace.len() == 32
            && trace.bytes().all(|byte| byte.is_ascii_hexdigit())
            && trace.bytes().any(|byte| byte != b'0');
        (version.len() == 2 && is_trace).then_some(trace)
    };
    text(REQUEST_ID)
        .filter(is_id)
        .or_else(|| text(AMAZON_TRACE).filter(is_id))
        .or_else(parent)
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(HeaderName, &'static str)], expected: Option<&str>) {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        assert_eq!(id_of(&headers.collect()).as_deref(), expected);
    }

    #[test]
    fn the_senders_id_is_taken_when_it_is_one() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = (
            TRACE_PARENT,
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        );
        let root = (
            AMAZON_TRACE,
            "Root=1-67891233-abcdef012345678912345678;Sampled=0",
        );
        check(&[], None);
        check(
            &[(REQUEST_ID, "r-1"), root.clone(), parent.clone()],
            Some("r-1"),
        );
        check(&[root.clone(), parent.clone()], Some(root.1));
        check(std::slice::from_ref(&parent), Some(TRACE));
        check(&[(REQUEST_ID, "a b"), parent], Some(TRACE));
        for wrong in ["", "a\"b", "{}"] {
            check(&[(REQUEST_ID, wrong)], None);
        }
        for wrong in [
            "00",
            "00-xyz-1-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        ] {
            check(&[(TRACE_PARENT, wrong)], None);
        }
    }
}

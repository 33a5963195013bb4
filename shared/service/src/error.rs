//! What a client is told when something cannot be done: a code for programs, a sentence for people.
//!
//! Absent (404), invalid (400), unauthorised (401), too much (413, 429) and unavailable (503) are told apart, as JSON, on every route.

use axum::{
    Json, Router,
    extract::Request,
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, REFERRER_POLICY, RETRY_AFTER},
    },
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use serde_json::json;
use tailspan_core::{
    id::{InvalidId, TraceId},
    otlp::Refused,
};

use crate::{log::LogError, requests};

/// Seconds after which trying again makes sense.
const RETRY_AFTER_SECONDS: u32 = 1;

/// An error on its way to a client, as `{"error": {"code", "message"}}`.
#[derive(Debug)]
pub struct ApiError {
    pub status: StatusCode,
    /// Stable, for programs.
    pub code: &'static str,
    /// What failed, for which thing, and what to do.
    pub message: String,
    /// Seconds after which trying again makes sense.
    retry_after: Option<u32>,
    /// For our own log, where it is said once ([`crate::requests`]): it may name hosts, so the client does not get it.
    cause: Option<String>,
}

/// What an answer's error is, for who writes it in another form than ours.
#[derive(Clone, Debug)]
pub struct Told {
    pub code: &'static str,
    pub message: String,
    pub(crate) cause: Option<String>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            retry_after: None,
            cause: None,
        }
    }

    fn because(mut self, cause: String) -> Self {
        self.cause = Some(cause);
        self
    }

    fn retry(mut self) -> Self {
        self.retry_after = Some(RETRY_AFTER_SECONDS);
        self
    }

    /// 400: the request cannot be understood.
    pub fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 404: the tenant has no such trace.
    pub fn trace_not_found(trace: &TraceId) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "trace_not_found",
            format!("there is no trace {trace}"),
        )
    }

    /// 404: nothing in the trace names such a span.
    pub fn span_not_found(trace: &TraceId, span_id: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "span_not_found",
            format!("there is no span {span_id:?} in trace {trace}"),
        )
    }

    /// 404: the tenant may use no such agent.
    pub fn agent_not_found(agent: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "agent_not_found",
            format!("there is no agent {agent:?}"),
        )
    }

    /// 502: the agent was called, and failed.
    pub fn agent_failed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "agent_failed", message)
    }

    /// 504: the agent was called, and did not answer in its time.
    pub fn agent_timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "agent_timeout", message)
    }

    /// 404: no route has this path.
    pub fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "route_not_found",
            "there is nothing at this path",
        )
    }

    /// 405: a route has this path, for other methods.
    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this path does not take this method",
        )
    }

    /// 409: it cannot be done to a thing in this state.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 404: no trace of the tenant names such a session.
    pub fn session_not_found(session: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "session_not_found",
            format!("there is no session {session:?}"),
        )
    }

    /// 404: the tenant has no such API key.
    pub fn key_not_found(id: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "key_not_found",
            format!("there is no key {id:?}"),
        )
    }

    /// 404: the tenant has lent nothing of this id.
    pub fn token_not_found(id: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "token_not_found",
            format!("there is no viewer token {id:?}"),
        )
    }

    /// 404: the tenant has no such delivery.
    pub fn delivery_not_found(id: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "delivery_not_found",
            format!("there is no delivery {id:?}"),
        )
    }

    /// 410: the name stays taken, so that late events cannot bring the trace back.
    pub fn trace_deleted(trace: &TraceId) -> Self {
        Self::new(
            StatusCode::GONE,
            "trace_deleted",
            format!("trace {trace} was deleted; begin it again with ?replace=true"),
        )
    }

    /// 401: no token, or one that is not known.
    pub fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "a token is needed: send it as \"Authorization: Bearer TOKEN\" or as ?token=TOKEN",
        )
    }

    /// 503: whether the token is good cannot be found out.
    pub fn issuer_unavailable(cause: String) -> Self {
        Self::unavailable("the issuer of tokens does not answer; try again").because(cause)
    }

    /// 403: the token is known and does not reach this far.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// 406: the client takes none of what the route answers.
    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", message)
    }

    /// 415: a content type or encoding that is not read here.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            message,
        )
    }

    /// 413: smaller requests would be taken.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// 429, with `Retry-After`: this process has all it can hold.
    pub fn too_many(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many", message).retry()
    }

    /// 429, with `Retry-After`: it is more than this tenant may ([`crate::limits`]).
    pub(crate) fn over_limit(
        code: &'static str,
        message: impl Into<String>,
        retry_after_seconds: u32,
    ) -> Self {
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, code, message);
        error.retry_after = Some(retry_after_seconds);
        error
    }

    /// 503, with `Retry-After`: what is needed does not answer.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message).retry()
    }

    /// A fault of ours.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "tailspan failed to answer this request; its log says why",
        )
    }

    /// Seconds for a `Retry-After`, where trying again makes sense.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        self.retry_after
    }
}

/// A router whose unknown paths (404) and methods (405) are answered like every other error, and whose requests have ids. Once, around all of a process's routes.
pub fn with_told_misses(router: Router) -> Router {
    let router = router
        .fallback(async || ApiError::not_found())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(from_fn(keep_private));
    requests::numbered(router)
}

/// What was asked for by a URL that holds a credential is kept nowhere, and a page from there does not say where it was.
async fn keep_private(request: Request, next: Next) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let is_private = query.split('&').any(|pair| pair.starts_with("token="));
    let mut response = next.run(request).await;
    if is_private {
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
    response
}

impl From<InvalidId> for ApiError {
    fn from(error: InvalidId) -> Self {
        let code = match error.what {
            "trace_id" => "invalid_trace_id",
            _ => "invalid_parameter",
        };
        Self::invalid(code, error.to_string())
    }
}

/// What core refused of a body, in the product's words.
impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let mut error = match refused.status {
            413 => Self::too_large(refused.message),
            415 => Self::unsupported_media_type(refused.message),
            _ => Self::invalid(refused.code, refused.message),
        };
        error.code = refused.code;
        error
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable(cause) => {
                Self::unavailable(
                    "the store does not answer; send it again: what has an identity is not stored twice",
                )
                .because(cause)
            }
            LogError::Full(cause) => {
                let mut full = Self::unavailable(
                    "the store is full; reading and deleting go on, storing does when there is room",
                );
                full.code = "store_full";
                full.because(cause)
            }
            LogError::Internal(cause) => Self::internal().because(cause),
            LogError::TooLargeToRead => Self::conflict(
                "archived_too_large",
                "the trace lies in the archive and is too large to be read there; bring it back with `tailspan import`",
            ),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let retry_after = self.retry_after_seconds();
        let mut said = json!({"code": self.code, "message": self.message});
        // Only of what is our fault: what is the client's is told in the same bytes each time, and so is what another tenant has.
        if self.status.is_server_error()
            && let Some(id) = requests::id()
        {
            said["request_id"] = id.into();
        }
        let body = Json(json!({ "error": said }));
        let mut response = (self.status, body).into_response();
        response.extensions_mut().insert(Told {
            code: self.code,
            message: self.message,
            cause: self.cause,
        });
        if let Some(seconds) = retry_after {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

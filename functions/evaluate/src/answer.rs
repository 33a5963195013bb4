//! How the dev server words its answers: `{"data": ..., "error": null}`, and `{"detail": ...}` where something cannot be done.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Value, json};
use tailspan_service::{
    error::{ApiError, Told},
    log::LogError,
};

/// An answer in the envelope.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Answer<T> {
    data: T,
    /// null: an error is told by its status and `detail`.
    error: Option<String>,
}

impl<T> Answer<T> {
    pub(crate) fn of(data: T) -> Json<Self> {
        Json(Self { data, error: None })
    }
}

/// What cannot be done, as `{"detail": ...}`.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// A sentence; of a body that is not as it has to be, a list of what is wrong where.
    pub(crate) detail: Value,
    retry_after_seconds: Option<u32>,
}

impl Refusal {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: Value::String(detail.into()),
            retry_after_seconds: None,
        }
    }

    /// 400: what was sent cannot be used.
    pub(crate) fn unusable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 404.
    pub(crate) fn absent(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 413.
    pub(crate) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// 422: fields are missing or of another kind.
    pub(crate) fn misshapen(problems: Vec<Value>) -> Self {
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            detail: Value::Array(problems),
            retry_after_seconds: None,
        }
    }

    /// The sentence, for who tells of it within a stream.
    pub(crate) fn sentence(&self) -> String {
        match &self.detail {
            Value::String(sentence) => sentence.clone(),
            problems => problems.to_string(),
        }
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        let retry_after_seconds = error.retry_after_seconds();
        Self {
            retry_after_seconds,
            ..Self::new(error.status, error.message)
        }
    }
}

impl From<LogError> for Refusal {
    fn from(error: LogError) -> Self {
        ApiError::from(error).into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = Json(json!({ "detail": self.detail }));
        let mut response = (self.status, body).into_response();
        if let Some(seconds) = self.retry_after_seconds {
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Rewords an error that a handler did not word itself: who asks (401) is decided before it.
pub(crate) async fn reword(mut response: Response) -> Response {
    let Some(told) = response.extensions_mut().remove::<Told>() else {
        return response;
    };
    let mut reworded = Refusal::new(response.status(), told.message).into_response();
    let retry_after = response.headers_mut().remove(RETRY_AFTER);
    if let Some(retry_after) = retry_after {
        reworded.headers_mut().insert(RETRY_AFTER, retry_after);
    }
    reworded
}

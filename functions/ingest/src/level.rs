//! How much of what a request brings its sender wants recorded.

use axum::http::{HeaderMap, HeaderName};
use tailspan_core::verbosity::Verbosity;
use tailspan_service::error::ApiError;

const X_TRACE_LEVEL: HeaderName = HeaderName::from_static("x-trace-level");

/// The level that a request asks for; without one everything is recorded.
///
/// # Errors
/// 400 for a level that is none.
pub(crate) fn trace_level(headers: &HeaderMap) -> Result<Verbosity, ApiError> {
    let Some(level) = headers.get(X_TRACE_LEVEL) else {
        return Ok(Verbosity::Debug);
    };
    String::from_utf8_lossy(level.as_bytes())
        .trim()
        .parse()
        .map_err(|unknown| ApiError::invalid("invalid_trace_level", format!("x-trace-{unknown}")))
}

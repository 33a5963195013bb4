//! Is the process alive, can it work, what did it do.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde_json::json;
use tailspan_service::{App, extract::Operator};

/// Whether the process answers.
///
/// It says nothing of Redis, so that a platform does not restart us for Redis's sake.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/health", tag = "process", security(()),
    responses((status = 200, description = "it answers", body = crate::openapi::Health)),
))]
pub(crate) async fn health() -> Response {
    Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")})).into_response()
}

/// Whether the process can work.
///
/// Redis answers, may not throw away what was acknowledged, and lets us do what we must. 503 while it does not answer.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/ready", tag = "process", security(()),
    responses(
        (status = 200, description = "it can work; `degraded` says that something should be seen to", body = crate::openapi::Ready),
        (status = 503, description = "Redis does not answer, or this process has as many connections as it may have", body = crate::openapi::NotReady),
    ),
))]
pub(crate) async fn ready(State(app): State<App>) -> Response {
    match app.store_memory().await {
        Ok(memory) => {
            let warnings: Vec<_> = memory.warning().into_iter().chain(app.refusals()).collect();
            let status = if warnings.is_empty() {
                "ready"
            } else {
                "degraded"
            };
            let body =
                json!({"status": status, "redis_policy": memory.policy, "warnings": warnings});
            Json(body).into_response()
        }
        Err(error) => {
            tracing::warn!(%error, "not ready");
            let body = json!({"status": "unavailable", "warnings": ["redis does not answer"]});
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

/// What the process did, counted.
///
/// OpenMetrics text. What only Redis knows is asked for now; when it does not answer, `tailspan_redis_up` is 0.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/metrics", tag = "process",
    responses((
        status = 200, description = "OpenMetrics 1.0", body = String,
        content_type = "application/openmetrics-text",
    )),
))]
pub(crate) async fn metrics(State(app): State<App>, _: Operator) -> Response {
    app.count().await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], app.metrics.render()).into_response()
}

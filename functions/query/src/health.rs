//! Is the process alive, can it work, what did it do.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde_json::json;
use tailspan_service::{App, extract::Operator};

/// The process answers; it says nothing of Redis, so that a platform does not restart us for Redis's sake.
pub(crate) async fn health() -> Response {
    Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")})).into_response()
}

/// Redis answers, may not throw away what was acknowledged, and lets us do what we must. 503 while it does not answer.
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

/// OpenMetrics text. What only Redis knows is asked for now; when it does not answer, `tailspan_redis_up` is 0.
pub(crate) async fn metrics(State(app): State<App>, _: Operator) -> Response {
    app.count().await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], app.metrics.render()).into_response()
}

//! OTLP and native events in: a request is answered 2xx when everything good in it is stored, and then any viewer can see it.
//!
//! | route | body | answer |
//! | --- | --- | --- |
//! | `POST /v1/traces`, `POST /v1/logs` | OTLP, protobuf or JSON | `Export*ServiceResponse` in the request's encoding, errors as `google.rpc.Status` |
//! | `POST /v1/metrics` | OTLP | checked and answered, so that exporters stay quiet; nothing is kept |
//! | `POST /traces/{trace_id}/events` | one JSON event, an array, or one a line | what became of them, as JSON |
//! | `POST /traces/events` | the same | the trace is that of `X-Trace-ID` or `traceparent`, else a new one |
//! | `POST /traces/import` | a trace file | which traces it holds, and what became of them |

mod files;
mod level;
mod native;
#[cfg(feature = "openapi")]
pub mod openapi;
mod otlp;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::FromRef,
    http::HeaderMap,
    routing::{MethodRouter, post},
};
use tailspan_core::{id::TenantId, limits::Limits};
use tailspan_service::{App, body::Intake, error::ApiError, log::LogError};
use tokio::time::timeout;

/// How long storing may take before the producer is told to come again. OTel's exporters give up on an answer after 10 s, and
/// then do not know that coming again would help.
const STORING_TIME: Duration = Duration::from_secs(8);

/// What the handlers share.
#[derive(Clone)]
struct Ingest {
    app: App,
    intake: Arc<Intake>,
    limits: Limits,
}

impl FromRef<Ingest> for App {
    fn from_ref(ingest: &Ingest) -> Self {
        ingest.app.clone()
    }
}

/// Everything of this function.
pub fn router(app: App) -> Router {
    let ingest = Ingest::new(app);
    otlp_routes()
        .route("/traces/{trace_id}/events", post(native::to_trace))
        .route("/traces/import", post(files::import))
        // A trace may be called "events", so this is the place of every trace, taken for POST alone.
        .route(
            "/traces/{trace_id}",
            MethodRouter::new().post(native::to_own_trace),
        )
        .with_state(ingest)
}

/// Only what an OTLP exporter needs: for a port of its own (4318).
pub fn otlp_router(app: App) -> Router {
    otlp_routes().with_state(Ingest::new(app))
}

fn otlp_routes() -> Router<Ingest> {
    Router::new()
        .route("/v1/traces", post(otlp::traces))
        .route("/v1/logs", post(otlp::logs))
        .route("/v1/metrics", post(otlp::metrics))
}

impl Ingest {
    fn new(app: App) -> Self {
        let limits = Limits {
            body_bytes: app.config.max_body_bytes,
            ..Limits::default()
        };
        Self {
            intake: Arc::new(Intake::new(app.config.max_in_flight_bytes)),
            limits,
            app,
        }
    }
}

/// Refuses a tenant that has sent all that it may, before anything is read of what it sends.
///
/// # Errors
/// 429.
async fn admitted(
    app: &App,
    tenant: &TenantId,
    headers: &HeaderMap,
    body: Body,
) -> Result<Body, ApiError> {
    let admitted = match app.limits.admit(tenant) {
        Ok(()) => app.log.has_room(tenant).await,
        refused => refused,
    };
    match admitted {
        Ok(()) => Ok(body),
        Err(refused) => {
            Intake::pass_over(headers, body).await;
            Err(refused)
        }
    }
}

/// Waits for the log within [`STORING_TIME`]. What was stored until then is known when the request is repeated.
///
/// # Errors
/// 503 when there was no answer in time or the store is not there.
async fn stored<T>(append: impl Future<Output = Result<T, LogError>>) -> Result<T, ApiError> {
    match timeout(STORING_TIME, append).await {
        Ok(appended) => Ok(appended?),
        Err(_) => {
            tracing::warn!("the store did not answer within {STORING_TIME:?}");
            Err(ApiError::unavailable(
                "the store does not answer; send it again: what has an identity is not stored twice",
            ))
        }
    }
}

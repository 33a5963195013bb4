//! What is known of traces: lists, one trace, its events, its summary, its invocations; and of the process itself.

mod document;
mod events;
mod health;
mod list;
#[cfg(feature = "openapi")]
pub mod openapi;
mod session;
mod trace;
mod v1;
mod why;

use axum::{Router, routing::get};
use tailspan_service::App;

/// Everything of this function.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/traces", get(list::list_traces))
        .route(
            "/traces/{trace_id}",
            get(trace::get_trace).delete(trace::delete_trace),
        )
        .route("/traces/{trace_id}/events", get(events::get_events))
        .route("/traces/{trace_id}/summary", get(trace::get_summary))
        .route(
            "/traces/{trace_id}/invocations",
            get(trace::get_invocations),
        )
        .route("/traces/{trace_id}/spans/{span_id}/why", get(why::get_why))
        .merge(v1::router())
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(document::document))
        .route("/docs", get(document::page))
        .with_state(app)
}

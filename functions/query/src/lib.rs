//! What is known of traces: lists, one trace, its events, its summary, its invocations; and of the process itself.

mod analysis;
mod credentials;
mod digest;
mod document;
mod events;
mod export;
mod health;
mod list;
#[cfg(feature = "openapi")]
pub mod openapi;
mod session;
mod sessions;
mod stats;
mod status;
mod trace;
mod v1;
mod webhooks;
mod why;

use axum::{
    Router,
    middleware::map_response,
    routing::{delete, get, post},
};
use tailspan_service::{App, envelope::put_errors_in};

/// Everything of this function.
pub fn router(app: App) -> Router {
    // Seed 001's routes: the same reads in its envelope.
    let seed = Router::new()
        .route("/v1/trace/traces", get(v1::list_traces))
        .route(
            "/v1/trace/agents/{agent_id}/traces",
            get(v1::list_traces_of_agent),
        )
        .route(
            "/v1/trace/traces/{trace_id}",
            get(v1::get_trace).delete(v1::delete_trace),
        )
        .route("/v1/trace/traces/{trace_id}/events", get(v1::get_events))
        .route("/v1/trace/traces/{trace_id}/summary", get(v1::get_summary))
        .route(
            "/v1/trace/traces/{trace_id}/analysis",
            get(analysis::get_seed_analysis),
        )
        .layer(map_response(put_errors_in));
    Router::new()
        .route("/traces", get(list::list_traces))
        .route("/agents/{agent_id}/traces", get(list::list_traces_of_agent))
        .route("/sessions", get(sessions::list_sessions))
        .route("/sessions/{session_id}", get(sessions::get_session))
        .route(
            "/traces/{trace_id}",
            get(trace::get_trace).delete(trace::delete_trace),
        )
        .route("/traces/{trace_id}/events", get(events::get_events))
        .route("/traces/{trace_id}/digest", get(digest::get_digest))
        .route("/traces/{trace_id}/summary", get(trace::get_summary))
        .route("/traces/{trace_id}/analysis", get(analysis::get_analysis))
        .route(
            "/traces/{trace_id}/invocations",
            get(trace::get_invocations),
        )
        .route("/traces/{trace_id}/export", get(export::get_export))
        .route("/traces/{trace_id}/spans/{span_id}/why", get(why::get_why))
        .merge(seed)
        .route("/stats", get(stats::get_stats))
        .route(
            "/tokens",
            get(credentials::list_tokens).post(credentials::create_token),
        )
        .route("/tokens/{token_id}", delete(credentials::delete_token))
        .route(
            "/admin/keys",
            get(credentials::list_keys).post(credentials::create_key),
        )
        .route("/admin/keys/{key_id}", delete(credentials::revoke_key))
        .route("/admin/keys/{key_id}/rotate", post(credentials::rotate_key))
        .route("/admin/webhooks", get(webhooks::list_webhooks))
        .route("/admin/webhooks/deliveries", get(webhooks::list_deliveries))
        .route(
            "/admin/webhooks/deliveries/{delivery_id}/replay",
            post(webhooks::replay_delivery),
        )
        .route("/admin/webhooks/replay", post(webhooks::replay_dead))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/status", get(status::get_status))
        .route("/status/limits", get(status::get_limits))
        .route("/openapi.json", get(document::document))
        .route("/docs", get(document::page))
        .with_state(app)
}

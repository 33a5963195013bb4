//! Server-sent events of one trace: history, then live, each event once and in order, to its end.
//!
//! `GET /traces/{trace_id}/stream`. Everything that can go wrong is told as JSON before the stream starts; after that a stream tells by its control
//! frames (`gap`, `end`) what it cannot show, and a client that lost its connection goes on at its cursor.

mod completion;
mod feed;
#[cfg(feature = "openapi")]
pub mod openapi;
mod request;
mod updates;
mod viewer;

use axum::{
    Router,
    middleware::map_response,
    routing::{get, post},
};
use tailspan_service::{App, envelope::put_errors_in};

use crate::completion::Completions;

/// Everything of this function.
pub fn router(app: App) -> Router {
    let seed = Router::new()
        .route(
            "/v1/trace/traces/{trace_id}/stream",
            get(viewer::stream_seed),
        )
        .layer(map_response(put_errors_in));
    let completions = Router::new()
        .route(
            "/v1/trace/agents/{agent_id}/completions/trace",
            post(completion::complete_seed),
        )
        .layer(map_response(put_errors_in))
        .route(
            "/agents/{agent_id}/completions/trace",
            post(completion::complete),
        )
        .with_state(Completions::new(app.clone()));
    Router::new()
        .route("/traces/{trace_id}/stream", get(viewer::stream_trace))
        .route("/sessions/{session_id}/stream", get(feed::stream_session))
        .route("/stream", get(feed::stream_tenant))
        .route("/stream/ui-updates", get(updates::stream_updates))
        .merge(seed)
        .with_state(app)
        .merge(completions)
}

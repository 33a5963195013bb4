//! Server-sent events of one trace: history, then live, each event once and in order, to its end.
//!
//! `GET /traces/{trace_id}/stream`. Everything that can go wrong is told as JSON before the stream starts; after that a stream tells by its control
//! frames (`gap`, `end`) what it cannot show, and a client that lost its connection goes on at its cursor.

#[cfg(feature = "openapi")]
pub mod openapi;
mod request;
mod viewer;

use axum::{Router, middleware::map_response, routing::get};
use tailspan_service::{App, envelope::put_errors_in};

/// Everything of this function.
pub fn router(app: App) -> Router {
    let seed = Router::new()
        .route(
            "/v1/trace/traces/{trace_id}/stream",
            get(viewer::stream_seed),
        )
        .layer(map_response(put_errors_in));
    Router::new()
        .route("/traces/{trace_id}/stream", get(viewer::stream_trace))
        .merge(seed)
        .with_state(app)
}

//! The dev server's REST routes, for its web interface and its programs: sessions, conversion of trace files, evaluation.
//!
//! Their requests, answers and errors are in the dialect of that server (docs/protocol.md); who asks, for which tenant and from where is decided as
//! on every other route.

mod about;
mod answer;
#[cfg(feature = "openapi")]
pub mod openapi;

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRef},
    middleware::map_response,
    routing::get,
};
use tailspan_service::App;

/// What the handlers share.
#[derive(Clone)]
struct Evaluate {
    app: App,
}

impl FromRef<Evaluate> for App {
    fn from_ref(evaluate: &Evaluate) -> Self {
        evaluate.app.clone()
    }
}

/// Everything of this function.
pub fn router(app: App) -> Router {
    let evaluate = Evaluate { app };
    Router::new()
        .route("/api/health", get(about::health))
        .route("/api/config", get(about::config))
        // Bodies are read by `request`, within limits of their routes.
        .layer(DefaultBodyLimit::disable())
        .layer(map_response(answer::reword))
        .with_state(evaluate)
}

//! The dev server's REST routes, for its web interface and its programs: sessions, conversion of trace files, evaluation.
//!
//! Their requests, answers and errors are in the dialect of that server (docs/protocol.md); who asks, for which tenant and from where is decided as
//! on every other route.

mod about;
mod answer;
mod convert;
mod debug;
mod lines;
#[cfg(feature = "openapi")]
pub mod openapi;
mod request;
mod sessions;
mod sets;
mod shape;
mod uploads;
mod zipped;

use std::{num::NonZero, sync::Arc, thread};

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRef},
    middleware::map_response,
    routing::{get, post},
};
use tailspan_service::{App, body::Intake};
use tokio::sync::Semaphore;

/// What the handlers share.
#[derive(Clone)]
struct Evaluate {
    app: App,
    intake: Arc<Intake>,
    /// Turns at reading trace files: each may need many times its size.
    readings: Arc<Semaphore>,
    /// Turns at making a bug report.
    reports: Arc<Semaphore>,
}

impl FromRef<Evaluate> for App {
    fn from_ref(evaluate: &Evaluate) -> Self {
        evaluate.app.clone()
    }
}

/// Everything of this function.
pub fn router(app: App) -> Router {
    let evaluate = Evaluate {
        intake: Arc::new(Intake::new(app.config.max_in_flight_bytes)),
        readings: Arc::new(Semaphore::new(
            thread::available_parallelism().map_or(1, NonZero::get),
        )),
        reports: Arc::new(Semaphore::new(1)),
        app,
    };
    Router::new()
        .route("/api/health", get(about::health))
        .route("/api/config", get(about::config))
        .route("/api/metrics", get(about::metrics))
        .route("/api/validate/eval-set", post(sets::validate))
        .route("/api/convert", post(convert::convert))
        .route("/api/streaming/sessions", get(sessions::list))
        .route(
            "/api/streaming/create-eval-set",
            post(sessions::create_eval_set),
        )
        .route(
            "/api/streaming/prepare-evaluation",
            post(sessions::prepare_evaluation),
        )
        .route(
            "/api/streaming/download/{filename}",
            get(sessions::download),
        )
        .route("/api/streaming/get-trace", post(sessions::get_trace))
        .route("/api/debug/bundle", post(debug::bundle))
        // Bodies are read by `request`, within limits of their routes.
        .layer(DefaultBodyLimit::disable())
        .layer(map_response(answer::reword))
        .with_state(evaluate)
}

//! The dev server's REST routes, for its web interface and its programs: sessions, conversion of trace files, evaluation.
//!
//! Their requests, answers and errors are in the dialect of that server (docs/protocol.md); who asks, for which tenant and from where is decided as
//! on every other route.

mod about;
mod answer;
mod convert;
mod debug;
mod golden;
mod lines;
#[cfg(feature = "openapi")]
pub mod openapi;
mod request;
mod run;
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
use tailspan_service::{App, body::Intake, error::ApiError, evaluation::Operator};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::answer::Refusal;

/// Evaluations under way at the same time; each may hold traces for as long as its judges take.
const EVALUATIONS: usize = 16;

/// What the handlers share.
#[derive(Clone)]
struct Evaluate {
    app: App,
    intake: Arc<Intake>,
    /// Turns at reading trace files: each may need many times its size.
    readings: Arc<Semaphore>,
    /// Evaluations that may be under way.
    places: Arc<Semaphore>,
    /// Turns at making or reading a bug report.
    reports: Arc<Semaphore>,
}

impl FromRef<Evaluate> for App {
    fn from_ref(evaluate: &Evaluate) -> Self {
        evaluate.app.clone()
    }
}

impl Evaluate {
    /// What the operator attached: its programs may be named.
    fn operator(&self) -> Option<&Operator> {
        self.app.config.evaluators.as_deref()
    }

    /// A place among the evaluations that are under way.
    ///
    /// # Errors
    /// 429 when all are taken.
    fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            ApiError::too_many(format!(
                "{EVALUATIONS} evaluations are under way: send this again a little later"
            ))
            .into()
        })
    }
}

/// Everything of this function.
pub fn router(app: App) -> Router {
    let evaluate = Evaluate {
        intake: Arc::new(Intake::new(app.config.max_in_flight_bytes)),
        readings: Arc::new(Semaphore::new(
            thread::available_parallelism().map_or(1, NonZero::get),
        )),
        places: Arc::new(Semaphore::new(EVALUATIONS)),
        reports: Arc::new(Semaphore::new(1)),
        app,
    };
    Router::new()
        .route("/api/health", get(about::health))
        .route("/api/config", get(about::config))
        .route("/api/metrics", get(about::metrics))
        .route("/api/validate/eval-set", post(sets::validate))
        .route("/api/convert", post(convert::convert))
        .route("/api/evaluate", post(run::of_files))
        .route("/api/evaluate/stream", post(run::of_files_streamed))
        .route("/api/evaluate/json", post(run::of_json))
        .route("/api/evaluate/json/stream", post(run::of_json_streamed))
        .route("/api/streaming/sessions", get(sessions::list))
        .route(
            "/api/streaming/create-eval-set",
            post(sessions::create_eval_set),
        )
        .route(
            "/api/streaming/evaluate-sessions",
            post(golden::evaluate_sessions),
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
        .route("/api/debug/load", post(debug::load))
        // Bodies are read by `request`, within limits of their routes.
        .layer(DefaultBodyLimit::disable())
        .layer(map_response(answer::reword))
        .with_state(evaluate)
}

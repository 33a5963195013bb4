//! The function `query` on AWS Lambda: traces, summaries and lists out. Answers are buffered: streaming adds delay to what is short.

use std::convert::Infallible;

use lambda_http::tower::ServiceExt;
use lambda_http::{Error, IntoResponse, Response, run_concurrent};
use tailspan_service::{
    App,
    config::Config,
    error::with_told_misses,
    telemetry::{self, Lines},
};

#[tokio::main]
async fn main() -> Result<(), Error> {
    telemetry::start(Lines::Json);
    let app = App::start(Config::from_env()?).await?;
    let router = with_told_misses(tailspan_query::router(app)).into_service::<lambda_http::Body>();
    // The platform's loop wants answers that threads may share, which axum's bodies are not: they are read whole here.
    let whole = |answer: Response<axum::body::Body>| async {
        Ok::<_, Infallible>(answer.into_response().await)
    };
    run_concurrent(router.and_then(whole)).await
}

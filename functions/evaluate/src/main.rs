//! The function `evaluate` on AWS Lambda: the dev server's REST routes. Answers are streamed, for evaluations tell of their progress.

use lambda_http::{Error, run_with_streaming_response_concurrent};
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
    run_with_streaming_response_concurrent(with_told_misses(tailspan_evaluate::router(app))).await
}

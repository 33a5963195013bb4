//! The function `stream` on AWS Lambda: one trace to one viewer, in response-streaming mode.

use lambda_http::{Error, run_with_streaming_response_concurrent};
use tailspan_service::{
    App,
    config::Config,
    error::with_told_misses,
    telemetry::{self, Lines},
};

/// A streamed answer is billed to its end even when the viewer has left, so streams are short here; resuming makes that free.
const STREAM_SECONDS: &str = "90";

#[tokio::main]
async fn main() -> Result<(), Error> {
    telemetry::start(Lines::Json);
    let config = Config::from_vars(|name| match std::env::var(name) {
        Err(_) if name == "TAILSPAN_STREAM_SECONDS" => Some(STREAM_SECONDS.to_owned()),
        value => value.ok(),
    })?;
    let app = App::start(config).await?;
    // One stream per environment on classic Lambda, many where the platform allows it: the same entry serves both.
    run_with_streaming_response_concurrent(with_told_misses(tailspan_stream::router(app))).await
}

//! The function `stream` on AWS Lambda: one trace to one viewer, in response-streaming mode.

use lambda_http::{Error, RequestExt, run_with_streaming_response_concurrent};
use tailspan_service::function::{self, Invocation};

/// A streamed answer is billed to its end even when the viewer has left, so streams are short here; resuming makes that free.
const STREAM_SECONDS: &str = "90";

#[tokio::main]
async fn main() -> Result<(), Error> {
    let function = function::start(&[("TAILSPAN_STREAM_SECONDS", STREAM_SECONDS)]).await?;
    let router = function.serves(tailspan_stream::router(function.app.clone()), |request| {
        let of = request.lambda_context_ref()?;
        Some(Invocation::new(
            &of.request_id,
            of.xray_trace_id.as_deref(),
            of.deadline,
        ))
    });
    // One stream per environment on classic Lambda, many where the platform allows it: the same entry serves both.
    run_with_streaming_response_concurrent(router).await
}

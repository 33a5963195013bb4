//! The function `evaluate` on AWS Lambda: the dev server's REST routes. Answers are streamed, for evaluations tell of their progress.

use lambda_http::{Error, RequestExt, run_with_streaming_response_concurrent};
use tailspan_service::function::{self, Invocation};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let function = function::start(&[]).await?;
    let router = function.serves(tailspan_evaluate::router(function.app.clone()), |request| {
        let of = request.lambda_context_ref()?;
        Some(Invocation::new(
            &of.request_id,
            of.xray_trace_id.as_deref(),
            of.deadline,
        ))
    });
    run_with_streaming_response_concurrent(router).await
}

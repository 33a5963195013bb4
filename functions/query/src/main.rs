//! The function `query` on AWS Lambda: traces, summaries and lists out. Answers are buffered: streaming adds delay to what is short.

use std::convert::Infallible;

use lambda_http::tower::ServiceExt;
use lambda_http::{Error, IntoResponse, RequestExt, Response, run_concurrent};
use tailspan_service::function::{self, Invocation};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let function = function::start(&[]).await?;
    let router = function.serves(tailspan_query::router(function.app.clone()), |request| {
        let of = request.lambda_context_ref()?;
        Some(Invocation::new(
            &of.request_id,
            of.xray_trace_id.as_deref(),
            of.deadline,
        ))
    });
    // The platform's loop wants answers that threads may share, which axum's bodies are not: they are read whole here.
    let whole = |answer: Response<axum::body::Body>| async {
        Ok::<_, Infallible>(answer.into_response().await)
    };
    run_concurrent(router.into_service::<lambda_http::Body>().and_then(whole)).await
}

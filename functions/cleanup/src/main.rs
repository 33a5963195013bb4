//! The function `cleanup` on AWS Lambda: woken by a schedule it sweeps once, and it answers `POST /traces/cleanup`.

use lambda_http::{
    Adapter, Body, Error, LambdaEvent, RequestExt, Service as _,
    lambda_runtime::{run, service_fn},
    request::LambdaRequest,
};
use serde_json::Value;
use tailspan_service::{
    function::{self, Invocation},
    schedule,
};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let function = function::start(&[]).await?;
    let routes = tailspan_cleanup::router(function.app.clone());
    let router = function.serves(routes, |request| {
        let of = request.lambda_context_ref()?;
        Some(Invocation::new(
            &of.request_id,
            of.xray_trace_id.as_deref(),
            of.deadline,
        ))
    });
    let http = Adapter::from(router.into_service::<Body>());
    run(service_fn(async |event: LambdaEvent<Value>| {
        let LambdaEvent { payload, context } = event;
        // What a gateway sends has this; a schedule of any kind, or a person, says nothing that matters.
        if payload.get("requestContext").is_some() {
            let request: LambdaRequest = serde_json::from_value(payload)?;
            let answer = http
                .clone()
                .call(LambdaEvent::new(request, context))
                .await?;
            return Ok::<_, Error>(serde_json::to_value(answer)?);
        }
        let of = context;
        let sweep = tailspan_cleanup::sweep(&function.app, schedule::stop_at(of.deadline));
        let invocation = Invocation::new(&of.request_id, of.xray_trace_id.as_deref(), of.deadline);
        let swept = function.invoked(invocation, sweep).await?;
        Ok(serde_json::to_value(swept)?)
    }))
    .await
}

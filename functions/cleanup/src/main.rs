//! The function `cleanup` on AWS Lambda: woken by a schedule it sweeps once, and it answers `POST /traces/cleanup`.

use lambda_http::{
    Adapter, Body, Error, LambdaEvent, Service as _,
    lambda_runtime::{run, service_fn},
    request::LambdaRequest,
};
use serde_json::Value;
use tailspan_service::{
    App,
    config::Config,
    error::with_told_misses,
    schedule,
    telemetry::{self, Lines},
};

#[tokio::main]
async fn main() -> Result<(), Error> {
    telemetry::start(Lines::Json);
    let app = App::start(Config::from_env()?).await?;
    let router = with_told_misses(tailspan_cleanup::router(app.clone())).into_service::<Body>();
    let http = Adapter::from(router);
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
        let swept = tailspan_cleanup::sweep(&app, schedule::stop_at(context.deadline)).await?;
        Ok(serde_json::to_value(swept)?)
    }))
    .await
}

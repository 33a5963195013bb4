//! The function `cleanup` on AWS Lambda, woken by a schedule: one sweep.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::Value;
use tailspan_service::{
    App,
    config::Config,
    schedule,
    telemetry::{self, Lines},
};

#[tokio::main]
async fn main() -> Result<(), Error> {
    telemetry::start(Lines::Json);
    let app = App::start(Config::from_env()?).await?;
    // What woke it says nothing that matters: a schedule of any kind, or a person.
    run(service_fn(async |event: LambdaEvent<Value>| {
        let swept =
            tailspan_cleanup::sweep(&app, schedule::stop_at(event.context.deadline)).await?;
        Ok::<_, Error>(serde_json::to_value(swept)?)
    }))
    .await
}

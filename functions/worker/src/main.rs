//! The function `worker` on AWS Lambda, woken by a schedule: what is due or pending is worked off.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::Value;
use tailspan_service::{
    App,
    config::Config,
    telemetry::{self, Lines},
};

/// Left to answer in, before the platform ends the invocation.
const RESERVE: Duration = Duration::from_secs(2);
/// Without a deadline, and at most: the next schedule comes soon.
const LONGEST: Duration = Duration::from_secs(50);

#[tokio::main]
async fn main() -> Result<(), Error> {
    telemetry::start(Lines::Json);
    let app = App::start(Config::from_env()?).await?;
    // What woke it says nothing that matters: a schedule of any kind, or a person.
    run(service_fn(async |event: LambdaEvent<Value>| {
        let done =
            tailspan_worker::work_off(&app, until(&event), |run| tracing::info!("{run}")).await?;
        Ok::<_, Error>(serde_json::json!({ "done": done }))
    }))
    .await
}

/// When to stop: before the invocation's deadline. The emulator's lies in 1970 and is none.
fn until(event: &LambdaEvent<Value>) -> Instant {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let deadline = Duration::from_millis(event.context.deadline);
    let left = deadline.checked_sub(now + RESERVE).unwrap_or(LONGEST);
    Instant::now() + left.min(LONGEST)
}

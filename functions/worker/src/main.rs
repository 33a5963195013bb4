//! The function `worker` on AWS Lambda, woken by a schedule: what is due or pending is worked off.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json};
use tailspan_service::{
    function::{self, Invocation},
    schedule,
};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let function = function::start(&[]).await?;
    // What woke it says nothing that matters: a schedule of any kind, or a person.
    run(service_fn(async |event: LambdaEvent<Value>| {
        let of = event.context;
        let until = schedule::stop_at(of.deadline);
        let working =
            tailspan_worker::work_off(&function.app, until, |run| tracing::info!("{run}"));
        let invocation = Invocation::new(&of.request_id, of.xray_trace_id.as_deref(), of.deadline);
        let done = function.invoked(invocation, working).await?;
        Ok::<_, Error>(json!({ "done": done }))
    }))
    .await
}

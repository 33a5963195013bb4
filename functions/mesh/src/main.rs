//! The function `mesh` on AWS Lambda, woken by a schedule: reads the mesh's stream up to the invocation's deadline.

use std::time::Instant;

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json};
use tailspan_service::{
    function::{self, Invocation},
    mesh::{Intake, read},
    schedule,
};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let function = function::start(&[]).await?;
    let app = &function.app;
    let intake = Intake::of(app).ok_or("TAILSPAN_MESH_STREAM is empty: name the mesh's stream")?;
    // What woke it says nothing that matters: a schedule of any kind, or a person.
    run(service_fn(async |event: LambdaEvent<Value>| {
        let of = event.context;
        let deadline = schedule::stop_at(of.deadline);
        let longest = app.config.mesh.longest_read;
        let until = longest.map_or(deadline, |longest| deadline.min(Instant::now() + longest));
        let invocation = Invocation::new(&of.request_id, of.xray_trace_id.as_deref(), of.deadline);
        let reading = read(&intake, Some(until));
        let entries = function.invoked(invocation, reading).await?;
        Ok::<_, Error>(json!({ "entries": entries }))
    }))
    .await
}

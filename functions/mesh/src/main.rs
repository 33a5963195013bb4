//! The function `mesh` on AWS Lambda, woken by a schedule: reads the mesh's stream up to the invocation's deadline.

use std::time::Instant;

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json};
use tailspan_service::{
    App,
    config::Config,
    mesh::{Intake, read},
    schedule,
    telemetry::{self, Lines},
};

#[tokio::main]
async fn main() -> Result<(), Error> {
    telemetry::start(Lines::Json);
    let app = App::start(Config::from_env()?).await?;
    let intake = Intake::of(&app).ok_or("TAILSPAN_MESH_STREAM is empty: name the mesh's stream")?;
    // What woke it says nothing that matters: a schedule of any kind, or a person.
    run(service_fn(async |event: LambdaEvent<Value>| {
        let deadline = schedule::stop_at(event.context.deadline);
        let longest = app.config.mesh.longest_read;
        let until = longest.map_or(deadline, |longest| deadline.min(Instant::now() + longest));
        let entries = read(&intake, Some(until)).await?;
        Ok::<_, Error>(json!({ "entries": entries }))
    }))
    .await
}

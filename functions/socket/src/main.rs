//! The function `socket` on AWS Lambda: what API Gateway makes of the connections and frames of a WebSocket.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::Value;
use tailspan_service::{
    App,
    config::Config,
    telemetry::{self, Lines},
};

#[tokio::main]
async fn main() -> Result<(), Error> {
    telemetry::start(Lines::Json);
    let app = App::start(Config::from_env()?).await?;
    run(service_fn(async |event: LambdaEvent<Value>| {
        Ok::<_, Error>(tailspan_socket::cloud::answer(&app, event.payload).await?)
    }))
    .await
}

//! The function `socket` on AWS Lambda: what API Gateway makes of the connections and frames of a WebSocket.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::Value;
use tailspan_service::function::{self, Invocation};
use tailspan_socket::cloud::Management;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let function = function::start(&[]).await?;
    let management = Management::from_vars(|name| std::env::var(name).ok())?;
    run(service_fn(async |event: LambdaEvent<Value>| {
        let of = event.context;
        let invocation = Invocation::new(&of.request_id, of.xray_trace_id.as_deref(), of.deadline);
        let answering = tailspan_socket::cloud::answer(&function.app, &management, event.payload);
        Ok::<_, Error>(function.invoked(invocation, answering).await?)
    }))
    .await
}

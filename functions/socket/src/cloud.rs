//! The same WebSocket behind API Gateway: it holds the connection, and each frame is an invocation of its own (docs/protocol.md, "Live sessions in the cloud").
//!
//! The answer to a frame is the body of the answer to its event, which API Gateway sends where the route has a route response: at most a frame for a frame, so there is nobody to be told anything else and no need of the management API.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};
use tailspan_core::{
    id::TenantId,
    live::protocol::{self, Reader},
};
use tailspan_service::{App, log::LogError};
use tracing::warn;

use crate::work;

/// Bytes of a frame that API Gateway takes.
const LARGEST_ANSWER: usize = 128 << 10;

/// What API Gateway says of a WebSocket.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    request_context: Context,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
    #[serde(default)]
    headers: Option<serde_json::Map<String, Value>>,
    #[serde(default)]
    query_string_parameters: Option<serde_json::Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Context {
    #[serde(default)]
    event_type: String,
    #[serde(default)]
    connection_id: String,
}

/// Does what an event asks for; the answer is what API Gateway expects.
///
/// # Errors
/// The event is none of a WebSocket API.
pub async fn answer(app: &App, event: Value) -> Result<Value, serde_json::Error> {
    let event: Event = serde_json::from_value(event)?;
    let answered = match event.request_context.event_type.as_str() {
        "CONNECT" => connect(app, &event).await,
        "DISCONNECT" => {
            let id = &event.request_context.connection_id;
            app.log.forget_connection(id).await.map(|()| status(200))
        }
        "MESSAGE" => message(app, event).await,
        // A plain request, where a gateway for those stands before the function.
        _ => Ok(status(426)),
    };
    Ok(answered.unwrap_or_else(|error| {
        warn!(%error, "failed to answer an event of a websocket");
        status(503)
    }))
}

fn status(code: u16) -> Value {
    json!({"statusCode": code})
}

/// Who connects says so once: the events of its frames have no headers.
async fn connect(app: &App, event: &Event) -> Result<Value, LogError> {
    if app.config.tokens.is_empty() {
        return Ok(status(200));
    }
    let given = |from: &Option<serde_json::Map<String, Value>>, name: &str| {
        let pairs = from.iter().flatten();
        let mut named = pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        named.find_map(|(_, value)| value.as_str().map(str::to_owned))
    };
    let bearer = given(&event.headers, "authorization").and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        let token = token.trim().to_owned();
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    });
    let token = bearer.or_else(|| given(&event.query_string_parameters, "token"));
    let Some(tenant) = token.and_then(|token| app.config.tokens.get(&token)) else {
        return Ok(status(401));
    };
    let id = &event.request_context.connection_id;
    app.log.keep_connection(id, tenant).await?;
    Ok(status(200))
}

async fn message(app: &App, event: Event) -> Result<Value, LogError> {
    let tenant = if app.config.tokens.is_empty() {
        TenantId::default()
    } else {
        let id = &event.request_context.connection_id;
        match app.log.connection(id).await? {
            Some(tenant) => tenant,
            None => return Ok(status(401)),
        }
    };
    let body = event.body.unwrap_or_default();
    let frame = match event.is_base64_encoded {
        true => STANDARD.decode(&body).unwrap_or_default(),
        false => body.into_bytes(),
    };
    let read = Reader::new(rand::random()).read(&frame);
    let answers = work::perform(app, &tenant, protocol::plan([read])).await;
    let mut answered = status(200);
    if let Some(answer) = answers.into_iter().next() {
        answered["body"] = Value::String(match answer.len() {
            ..=LARGEST_ANSWER => answer,
            bytes => protocol::error(&format!(
                "the session is complete, and its invocations take {bytes} bytes: more than a frame of this gateway has; read them with GET /api/streaming/sessions"
            )),
        });
    }
    Ok(answered)
}

//! The WebSocket on which agents under development tell of their runs: `GET /ws/traces` (docs/protocol.md, "Live sessions").
//!
//! What frames mean is decided in [`tailspan_core::live::protocol`]; here they are read, done and answered. [`router`] has a real socket, `cloud` the events that API Gateway makes of one.

#[cfg(feature = "cloud")]
pub mod cloud;
mod connection;
#[cfg(feature = "openapi")]
pub mod openapi;
mod work;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::{FromRef, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
    routing::get,
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tailspan_core::live::protocol::LARGEST_FRAME;
use tailspan_service::{
    App,
    access::credential,
    error::ApiError,
    extract::{Tenant, Write},
};
use tokio::sync::Semaphore;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

/// What is read from a socket in one go. So much is filled with zeros before each read, and kept for as long as the connection lives.
const READ_BYTES: usize = 16 << 10;

/// How a connection is seen to be alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Between two pings, and from a ping until something must have come.
    pub every: Duration,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(20),
        }
    }
}

#[derive(Clone)]
struct Socket {
    app: App,
    keepalive: Keepalive,
    /// Connections that may be open.
    places: Arc<Semaphore>,
}

impl FromRef<Socket> for App {
    fn from_ref(socket: &Socket) -> Self {
        socket.app.clone()
    }
}

/// Everything of this function.
pub fn router(app: App) -> Router {
    router_with(app, Keepalive::default())
}

/// As [`router`], with another patience.
pub fn router_with(app: App, keepalive: Keepalive) -> Router {
    let places = Arc::new(Semaphore::new(
        app.config.max_streams.min(Semaphore::MAX_PERMITS),
    ));
    let socket = Socket {
        app,
        keepalive,
        places,
    };
    Router::new()
        .route("/ws/traces", get(upgrade))
        .with_state(socket)
}

/// Tells of agents under development, over a WebSocket.
///
/// A client asks for a WebSocket (RFC 6455, version 13), and tells of its sessions in frames of the dev server's dialect, which docs/protocol.md describes under "Live sessions".
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/ws/traces", tag = "dev", operation_id = "dev_websocket",
    responses(
        (status = 101, description = "a WebSocket from here on"),
        (status = 426, description = "the request asks for no WebSocket", body = tailspan_service::openapi::ErrorBody),
        (status = 429, response = tailspan_service::openapi::TooMany),
    ),
))]
pub(crate) async fn upgrade(
    State(socket): State<Socket>,
    Tenant(tenant, _): Tenant<Write>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let held = credential(request.headers(), request.uri()).map(Cow::into_owned);
    let Some(accept) = accept_key(request.headers()) else {
        return Ok(upgrade_required());
    };
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return Ok(upgrade_required());
    };
    let place = Arc::clone(&socket.places)
        .try_acquire_owned()
        .map_err(|_| ApiError::too_many("this process has as many streams as it may have"))?;
    let Socket { app, keepalive, .. } = socket;
    let of_tenant = app.limits.open_stream(&tenant).await?;
    let tasks = app.tasks.clone();
    tasks.spawn(async move {
        let _places = (place, of_tenant);
        match upgrade.await {
            Ok(upgraded) => {
                let config = WebSocketConfig::default()
                    .read_buffer_size(READ_BYTES)
                    .max_message_size(Some(LARGEST_FRAME))
                    .max_frame_size(Some(LARGEST_FRAME));
                let io = TokioIo::new(upgraded);
                let stream = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
                tokio::select! {
                    () = connection::serve(&app, &tenant, stream, keepalive) => {}
                    () = app.access.ended(held.as_deref()) => {
                        tracing::debug!("closed a websocket: its token is good no more");
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "no websocket came of a request"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// What answers the key of a request for a WebSocket (RFC 6455, section 4.2). `None`: it is none.
fn accept_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let says = |name: HeaderName, word: &str| {
        headers.get_all(name).iter().any(|value| {
            let value = value.to_str().unwrap_or_default();
            value
                .split(',')
                .any(|part| part.trim().eq_ignore_ascii_case(word))
        })
    };
    let is_wanted = says(header::CONNECTION, "upgrade")
        && says(header::UPGRADE, "websocket")
        && says(header::SEC_WEBSOCKET_VERSION, "13");
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .filter(|_| is_wanted)?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()
}

fn upgrade_required() -> Response {
    const BODY: &str = r#"{"error":{"code":"upgrade_required","message":"this is a websocket: connect with a websocket client, version 13"}}"#;
    let mut response = Response::new(Body::from(BODY));
    *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(
        header::SEC_WEBSOCKET_VERSION,
        HeaderValue::from_static("13"),
    );
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

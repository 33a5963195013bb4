//! The same WebSocket behind API Gateway: it holds the connection, and each frame is an invocation of its own (docs/protocol.md, "Live sessions in the cloud").
//!
//! Answers go to the client by the management API of the gateway (`POST /@connections/<id>`), signed with the function's role. Without one (an event that names none, as a person may make) the first is the body of the answer to the event.

use std::{sync::OnceLock, time::Duration};

use axum::http::HeaderValue;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};
use tailspan_core::{
    id::TenantId,
    live::protocol::{self, Reader},
};
use tailspan_service::{
    App,
    access::Scopes,
    aws::{Aws, AwsError, Method, Service, Url},
    log::LogError,
};
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::work::{self, Way};

/// Bytes of a frame that API Gateway takes.
const LONGEST_ANSWER: usize = 128 << 10;
/// One request to the management API, and pauses before further ones. All of it fits into the 29 s that the gateway waits for an integration.
const REPLY_TIME: Duration = Duration::from_secs(3);
const PAUSES_MS: [u64; 2] = [100, 500];
/// As the SDKs encode an id in a path.
const ID: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');
/// Its name in signatures.
const MANAGEMENT: &str = "execute-api";

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
    #[serde(default)]
    domain_name: Option<String>,
    #[serde(default)]
    stage: Option<String>,
    #[serde(default)]
    api_id: Option<String>,
}

/// The gateway's management API, as this process reaches it.
#[derive(Default)]
pub struct Management {
    region: String,
    /// Instead of what events say: for tests, and for an API whose own address is switched off.
    endpoint: Option<Url>,
    /// Where clients reach the routes of `query`, without a slash at its end; empty: URLs are paths.
    public_url: String,
    /// Made for the first answer: most frames have none.
    aws: OnceLock<Result<Aws, AwsError>>,
}

impl Management {
    /// `AWS_REGION`, `AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI`, `TAILSPAN_PUBLIC_URL`.
    ///
    /// # Errors
    /// The endpoint is no URL.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        const ENDPOINT: &str = "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI";
        let said = |name: &str| var(name).filter(|text| !text.is_empty());
        let endpoint = said(ENDPOINT).map(|text| {
            Url::parse(text.trim_end_matches('/')).map_err(|error| format!("{ENDPOINT}: {error}"))
        });
        Ok(Self {
            region: said("AWS_REGION").unwrap_or_default(),
            endpoint: endpoint.transpose()?,
            public_url: said("TAILSPAN_PUBLIC_URL")
                .map(|url| url.trim_end_matches('/').to_owned())
                .unwrap_or_default(),
            aws: OnceLock::new(),
        })
    }

    /// A connection's own URL. `None`: the event names no gateway.
    fn connection(&self, of: &Context) -> Option<Url> {
        let stage = of.stage.as_deref().unwrap_or_default();
        let base = match (&self.endpoint, &of.domain_name, &of.api_id) {
            (Some(endpoint), ..) => endpoint.to_string(),
            (None, Some(domain), _) if domain.contains(".execute-api.") => {
                format!("https://{domain}/{stage}")
            }
            // Behind a domain of one's own the path is another; the API's own address always has the stage.
            (None, _, Some(api)) => {
                format!(
                    "https://{api}.execute-api.{}.amazonaws.com/{stage}",
                    self.region
                )
            }
            _ => return None,
        };
        let base = base.trim_end_matches('/');
        let id = utf8_percent_encode(&of.connection_id, ID);
        Url::parse(&format!("{base}/@connections/{id}")).ok()
    }

    async fn ask(&self, method: Method, url: &Url, body: &str) -> Result<(), AwsError> {
        let aws = self.aws.get_or_init(|| Aws::new(REPLY_TIME));
        let aws = aws.as_ref().map_err(Clone::clone)?;
        let service = Service {
            name: MANAGEMENT,
            region: &self.region,
        };
        let mut pauses = PAUSES_MS.into_iter();
        loop {
            let body = body.as_bytes().to_vec();
            let asked = aws
                .send(service, method.clone(), url.clone(), &[], body)
                .await;
            match asked {
                Err(error) if error.is_passing() => match pauses.next() {
                    Some(pause_ms) => sleep(Duration::from_millis(pause_ms)).await,
                    None => return Err(error),
                },
                asked => return asked.map(|_| ()),
            }
        }
    }

    /// Sends the answers of a frame, in their order. A connection that is gone is forgotten.
    async fn tell(&self, app: &App, of: &Context, url: &Url, answers: &[String]) {
        for answer in answers {
            match self.ask(Method::POST, url, answer).await {
                Ok(()) => {}
                Err(AwsError::Refused { status: 410, .. }) => {
                    debug!("a client left before its answer");
                    if let Err(error) = app.log.forget_connection(&of.connection_id).await {
                        debug!(%error, "failed to forget a connection");
                    }
                    return;
                }
                Err(error) => {
                    let bytes = answer.len();
                    app.metrics.reply_failed();
                    warn!(%error, bytes, "failed to answer a frame");
                }
            }
        }
    }

    /// Ends a connection: its client connects anew, and says who it is.
    async fn disconnect(&self, url: &Url) {
        if let Err(error) = self.ask(Method::DELETE, url, "").await {
            debug!(%error, "failed to end a connection");
        }
    }
}

/// Does what an event asks for; the answer is what API Gateway expects.
///
/// # Errors
/// The event is none of a WebSocket API.
pub async fn answer(
    app: &App,
    management: &Management,
    event: Value,
) -> Result<Value, serde_json::Error> {
    let event: Event = serde_json::from_value(event)?;
    let answered = match event.request_context.event_type.as_str() {
        "CONNECT" => connect(app, &event).await,
        "DISCONNECT" => {
            let id = &event.request_context.connection_id;
            app.log.forget_connection(id).await.map(|()| status(200))
        }
        "MESSAGE" => message(app, management, event).await,
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

/// Who connects says so once: the events of its frames have no headers. Whether it is good still is looked at with each frame.
async fn connect(app: &App, event: &Event) -> Result<Value, LogError> {
    // Browsers name the page that connects, and nobody else does: a page needs the same leave as for any other request.
    let headers = event.headers.iter().flatten();
    let mut origins = headers.filter(|(name, _)| name.eq_ignore_ascii_case("origin"));
    let is_allowed = |origin: &Value| {
        let origin = origin.as_str().map(HeaderValue::from_str);
        origin
            .is_some_and(|origin| origin.is_ok_and(|origin| app.config.cors_origins.allow(&origin)))
    };
    if !origins.all(|(_, origin)| is_allowed(origin)) {
        return Ok(status(403));
    }
    if app.access.is_open() {
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
    let (principal, admitted) = match app.access.admit(token.as_deref()).await {
        Ok(admitted) => admitted,
        Err(refused) => return Ok(status(refused.status.as_u16())),
    };
    if !principal.scopes.has(Scopes::INGEST) {
        return Ok(status(403));
    }
    let id = &event.request_context.connection_id;
    app.log.keep_connection(id, &admitted).await?;
    Ok(status(200))
}

async fn message(app: &App, management: &Management, event: Event) -> Result<Value, LogError> {
    let connection = management.connection(&event.request_context);
    let tenant = if app.access.is_open() {
        TenantId::default()
    } else {
        let id = &event.request_context.connection_id;
        let admitted = app.log.connection(id).await?;
        let tenant = match &admitted {
            Some(admitted) => app.access.still(admitted).await?,
            None => None,
        };
        match tenant {
            Some(tenant) => tenant,
            None => {
                // What it was opened with is good no more, or it is older than what is known of it.
                app.log.forget_connection(id).await?;
                if let Some(url) = &connection {
                    management.disconnect(url).await;
                }
                return Ok(status(401));
            }
        }
    };
    let body = event.body.unwrap_or_default();
    let frame = match event.is_base64_encoded {
        true => STANDARD.decode(&body).unwrap_or_default(),
        false => body.into_bytes(),
    };
    let read = Reader::new(rand::random()).read(&frame);
    let way = Way::Gateway {
        longest_answer: LONGEST_ANSWER,
        public_url: &management.public_url,
    };
    let answers = work::perform(app, &tenant, protocol::plan([read]), way).await;
    let mut answered = status(200);
    match connection {
        Some(url) => {
            let of = &event.request_context;
            management.tell(app, of, &url, &answers).await;
        }
        None => {
            if let Some(answer) = answers.into_iter().next() {
                answered["body"] = Value::String(answer);
            }
        }
    }
    Ok(answered)
}

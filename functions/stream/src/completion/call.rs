//! The call to an agent: connections that are kept, an answer in pieces, and what may go wrong with it told apart.

use std::{
    collections::HashMap,
    error::Error as _,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use axum::{
    body::Bytes,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
};
use reqwest::{Client, Response};
use serde_json::Value;
use tailspan_service::{
    agents::Agent,
    error::ApiError,
    outward::{self, Proxy},
    tls,
};
use tokio::time::{Instant, timeout_at};

use super::reading::{Failure, error_in};

/// Of an answer that is an error, what is looked at for a reason, and for so long.
const ERROR_BYTES: usize = 16 << 10;
const ERROR_TIME: Duration = Duration::from_secs(2);
/// Of a reason, what is told.
const ERROR_CHARACTERS: usize = 500;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CallError {
    pub(super) is_timeout: bool,
    pub(super) failure: Failure,
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        Self {
            is_timeout: false,
            failure,
        }
    }
}

impl CallError {
    pub(super) fn failed(kind: &str, message: impl Into<String>) -> Self {
        Failure::new(kind, message).into()
    }

    fn timeout(message: impl Into<String>) -> Self {
        Self {
            is_timeout: true,
            failure: Failure::new("timeout", message),
        }
    }

    /// As the caller is told.
    pub(super) fn api(&self) -> ApiError {
        let message = self.failure.message.clone();
        match self.is_timeout {
            true => ApiError::agent_timeout(message),
            false => ApiError::agent_failed(message),
        }
    }
}

/// A client per agent, made when it is first called: their times to connect differ, and no one's connections are another's.
#[derive(Default)]
pub(super) struct Clients {
    made: Mutex<HashMap<String, Client>>,
    tls: OnceLock<rustls::ClientConfig>,
}

impl Clients {
    /// # Errors
    /// This machine has no roots of trust, or none that can be used.
    fn of(&self, agent: &Agent) -> Result<Client, CallError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.get(&agent.id) {
            return Ok(client.clone());
        }
        // Reading the system's roots takes milliseconds, so who calls no such agent does not.
        let tls = (agent.url.scheme() == "https").then(|| self.tls.get_or_init(tls::client));
        let client = outward::client(Proxy::Nobodys, tls.cloned());
        let client = client.connect_timeout(agent.connect).build();
        let client = client.map_err(|error| {
            tracing::error!(agent = agent.id, %error, "failed to make a client");
            CallError::failed(
                "internal",
                "tailspan cannot call this agent; its log says why",
            )
        })?;
        made.insert(agent.id.clone(), client.clone());
        Ok(client)
    }
}

/// What an agent answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Server-sent events.
    Frames,
    /// One JSON.
    Whole,
}

/// An answer that has begun.
pub(super) struct Answer {
    pub(super) form: Form,
    response: Response,
    agent: Arc<Agent>,
    read: usize,
    first_byte_by: Instant,
    total_by: Instant,
}

/// Calls an agent, and waits for the head of its answer.
///
/// # Errors
/// It cannot be reached, is too slow, or answers with anything but 2xx and a form that is known.
pub(super) async fn call(
    clients: &Clients,
    agent: &Arc<Agent>,
    body: &Value,
    context: HeaderMap,
    wants_frames: bool,
) -> Result<Answer, CallError> {
    let begun = Instant::now();
    let total_by = begun + agent.total;
    let first_byte_by = (begun + agent.first_byte).min(total_by);
    let accept = match wants_frames {
        true => "text/event-stream, application/json",
        false => "application/json",
    };
    let request = clients
        .of(agent)?
        .post(agent.url.clone())
        .headers(agent.headers.clone())
        .headers(context)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header(ACCEPT, HeaderValue::from_static(accept))
        .body(body.to_string());
    let response = match timeout_at(first_byte_by, request.send()).await {
        Err(_) => return Err(too_late(agent, first_byte_by < total_by)),
        Ok(Err(error)) => return Err(not_reached(agent, error)),
        Ok(Ok(response)) => response,
    };
    let status = response.status();
    if !status.is_success() {
        return Err(refused(agent, status, response).await);
    }
    let kind = response.headers().get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let form = match kind.as_str() {
        "text/event-stream" => Form::Frames,
        kind if kind == "application/json" || kind.ends_with("+json") => Form::Whole,
        "" if wants_frames => Form::Frames,
        "" => Form::Whole,
        _ => {
            let kind: String = kind.chars().take(100).collect();
            return Err(CallError::failed(
                "invalid_answer",
                format!(
                    "the agent answered with {kind:?}, which is neither an event stream nor JSON"
                ),
            ));
        }
    };
    Ok(Answer {
        form,
        response,
        agent: Arc::clone(agent),
        read: 0,
        first_byte_by,
        total_by,
    })
}

impl Answer {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// It is too slow, too long, or broke off.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        let by = match self.read {
            0 => self.first_byte_by,
            _ => self.total_by,
        };
        let piece = timeout_at(by, self.response.chunk()).await;
        let piece = piece.map_err(|_| too_late(&self.agent, by < self.total_by))?;
        let piece = piece.map_err(|error| {
            warn(&self.agent, error, "an agent's answer broke off");
            CallError::failed("broken_off", "the agent's answer broke off before its end")
        })?;
        let Some(piece) = piece else { return Ok(None) };
        self.read += piece.len();
        let most = self.agent.max_answer_bytes;
        if self.read > most {
            return Err(CallError::failed(
                "answer_too_large",
                format!("the agent's answer has more than {most} bytes"),
            ));
        }
        Ok(Some(piece))
    }
}

fn too_late(agent: &Agent, is_first: bool) -> CallError {
    CallError::timeout(match is_first {
        true => format!("the agent sent nothing within {:?}", agent.first_byte),
        false => format!("the agent did not end its answer within {:?}", agent.total),
    })
}

fn not_reached(agent: &Agent, error: reqwest::Error) -> CallError {
    let (is_connect, is_timeout) = (error.is_connect(), error.is_timeout());
    warn(agent, error, "failed to call an agent");
    match (is_connect, is_timeout) {
        (_, true) => CallError::timeout(format!(
            "no connection to the agent within {:?}",
            agent.connect
        )),
        (true, _) => CallError::failed("connection", "the agent cannot be reached"),
        _ => CallError::failed(
            "connection",
            "the agent closed the connection without an answer",
        ),
    }
}

/// An answer that is an error, with the reason that it gives.
async fn refused(agent: &Agent, status: StatusCode, mut response: Response) -> CallError {
    let by = Instant::now() + ERROR_TIME;
    let mut body = Vec::new();
    while let Ok(Ok(Some(piece))) = timeout_at(by, response.chunk()).await {
        body.extend_from_slice(&piece);
        if body.len() > ERROR_BYTES {
            break;
        }
    }
    let told = serde_json::from_slice::<Value>(&body).ok();
    let reason = told
        .as_ref()
        .and_then(error_in)
        .map(|failure| failure.message);
    let reason = reason.or_else(|| Some(told.as_ref()?.get("message")?.as_str()?.to_owned()));
    // A page of a proxy in between says nothing that helps.
    let reason = reason.map(|reason| told_reason(agent, &reason));
    let code = status.as_u16();
    tracing::warn!(agent = agent.id, status = code, "an agent refused");
    CallError::failed(
        &format!("http_{code}"),
        match reason {
            Some(reason) => format!("the agent answered {code}: {reason}"),
            None => format!("the agent answered {code}"),
        },
    )
}

/// A reason as the caller may see it: short, and without what the agent was sent to let us in.
pub(super) fn told_reason(agent: &Agent, reason: &str) -> String {
    let reason = agent.without_secrets(reason);
    match reason.char_indices().nth(ERROR_CHARACTERS) {
        Some((end, _)) => format!("{}...", reason.get(..end).unwrap_or_default()),
        None => reason,
    }
}

/// The cause is for the log; the address, which may hold a secret, for nobody.
fn warn(agent: &Agent, error: reqwest::Error, what: &'static str) {
    let error = error.without_url();
    let mut cause = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        cause.push_str(": ");
        cause.push_str(&error.to_string());
        source = error.source();
    }
    let cause = agent.without_secrets(&cause);
    tracing::warn!(agent = agent.id, cause, "{what}");
}

/// The headers by which the agent's own telemetry lands in the trace: `traceparent` where the id is one of OTel's, and our own two.
pub(super) fn context(trace: &str, span: &str) -> HeaderMap {
    const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
    const X_TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
    const X_PARENT_SPAN: HeaderName = HeaderName::from_static("x-parent-span");
    let is_otel = trace.len() == 32
        && trace
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        && trace.bytes().any(|b| b != b'0');
    let parent = is_otel.then(|| format!("00-{trace}-{span}-01"));
    let pairs = [
        (TRACEPARENT, parent.as_deref()),
        (X_TRACE_ID, Some(trace)),
        (X_PARENT_SPAN, Some(span)),
    ];
    pairs
        .into_iter()
        .filter_map(|(name, value)| Some((name, HeaderValue::from_str(value?).ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_otel_trace_has_a_traceparent() {
        let headers = context("5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174");
        assert_eq!(
            headers["traceparent"],
            "00-5b8efff798038103d269b633813fc60c-eee19b7ec3c1b174-01"
        );
        let headers = context("run-1", "eee19b7ec3c1b174");
        assert_eq!(
            (headers.len(), &headers["x-trace-id"]),
            (2, &HeaderValue::from_static("run-1"))
        );
    }
}
